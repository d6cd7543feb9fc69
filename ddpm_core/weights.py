"""Trained weights on disk, with their card. Chapter 07.

A folder of weights holds `weights.safetensors` (data only, fp16), `card.json` (the
configuration, the hash of the weights, how they were made and what was measured) and
the same card to read, `README.md`.
"""

import hashlib
import json
import os
import platform
import secrets
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ddpm_core.checking import quoted
from ddpm_core.datasets import places

Config = TypeVar("Config")

LARGEST = torch.finfo(torch.float16).max

WEIGHTS = places.REPOSITORY
"""Where the weights are that ship with the book."""


def fit_weights(net: nn.Module, state: dict[str, Tensor], name: object) -> None:
    """Load `state` into `net`; raise ValueError that says what does not fit."""
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in state.items()}
    differing = sorted(k for k in wanted | got if wanted.get(k) != got.get(k))
    if differing:
        first = differing[0]
        raise ValueError(
            f"the weights of {name} do not fit their card: {len(differing)} tensors "
            f"differ; the first, {first}, is {got.get(first, 'missing')}, the card "
            f"needs {wanted.get(first, 'none')}"
        )
    net.load_state_dict({k: v.float() for k, v in state.items()})


def save_weights(folder: Path, state: dict[str, Tensor], card: dict) -> None:
    """Write weights as fp16 safetensors and their card, with the hash, as JSON.

    `card` holds at least 'name' and 'config'; `config` is what builds the network. Each
    file is written beside its place and then renamed. Raises ValueError, before
    anything is written, for a tensor that holds NaN or is too large for fp16, and for a
    card without these two.
    """
    for field in ("name", "config"):
        if field not in card:
            raise ValueError(f"a card needs a {field!r}, got {', '.join(card)}")
    state = {k: v.detach().half().cpu().contiguous() for k, v in state.items()}
    _check_finite(state, "cannot be saved", f"fp16 reaches {LARGEST:,.0f}")
    data = to_bytes(state)
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(card, indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / "weights.safetensors", data)
    _write_whole(folder / "card.json", text.encode())


def load_weights(name: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read the weights and the card of that name (or in that folder).

    Only safetensors are read, never pickles. Raises as `find_weights` does,
    FileNotFoundError for a folder without weights, and ValueError for a card that
    cannot be read, for a file that does not match its card, and for NaN in it.
    """
    folder = find_weights(name)
    card, path = _read_card(folder / "card.json"), folder / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds a card, but no {path.name}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card["sha256"]:
        raise ValueError(
            f"{path} is not the file of its card: "
            f"sha256 {found[:12]}..., not {card['sha256'][:12]}..."
        )
    try:
        state = load_bytes(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} holds no readable safetensors: {error}") from error
    _check_finite(state, f"of {path} cannot be used", "train it again")
    return state, card


def read_config(
    name: str | Path, card: dict, build: Callable[[dict], Config]
) -> Config:
    """Build the configuration that a card holds; `build` is its `from_dict`.

    Raises ValueError that names the card and the field which `build` rejects.
    """
    try:
        return build(card["config"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        path = find_weights(name) / "card.json"
        raise ValueError(f"{path}, 'config': {error}") from error


def read_card(name: str | Path) -> dict:
    """Read the card of the weights of that name; raises as `load_weights` does."""
    return _read_card(find_weights(name) / "card.json")


def find_weights(name: str | Path) -> Path:
    """Return the folder of the weights of that name, or that folder itself.

    A name with a slash, and a `Path`, is always a folder, never the name of weights
    that ship, which `datasets.places` finds or fetches. Raises ValueError for a name
    that is both, and FileNotFoundError that lists the names there are.
    """
    is_path = isinstance(name, Path) or Path(name).name != name
    own, shipped = _weights_in(Path(name)), None
    if not is_path:
        shipped = places.find(str(name))
    if own and shipped and not own.samefile(shipped):
        raise ValueError(
            f"{name!r} names weights that ship with the book and a folder here: write "
            f"./{name} for the folder, {shipped} for those that ship"
        )
    if own or shipped:
        return own or shipped
    raise FileNotFoundError(
        f"no weights {'in the folder' if is_path else 'named'} {quoted(str(name))}; "
        f"there is: {', '.join(places.names()) or 'none'} (or give a folder that holds "
        f"a card.json){places.where_else(str(name))}"
    )


def _weights_in(folder: Path) -> Path | None:
    """Return the folder if it holds a card, else None."""
    try:
        return folder if (folder / "card.json").is_file() else None
    except OSError:  # a name that no file can have
        return None


def _read_card(path: Path) -> dict:
    """Read a card; raise ValueError that names the file and the field."""
    try:
        card = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} must hold an object, got {quoted(card)}")
    for field, kind, words in (("config", dict, "an object"), ("sha256", str, "text")):
        if not isinstance(card.get(field), kind):
            got = quoted(card[field]) if field in card else "none"
            raise ValueError(f"{path} must have a {field!r} ({words}), got {got}")
    return card


def _check_finite(state: dict[str, Tensor], trouble: str, hint: str) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise ValueError(
                f"the tensor {name} {trouble}: it holds NaN or infinity ({hint})"
            )


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place, then renamed."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def hardware(device: str | torch.device = "cpu") -> str:
    """Name what runs on that device, for a card."""
    if torch.device(device).type == "cuda":
        return f"1 x {torch.cuda.get_device_name(device)}"
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
    return f"{cores} ({platform.machine()})"


def command_line(command: str, options: Mapping[str, object]) -> str:
    """Write out the command `ddpm command` that repeats a training, for its card.

    `command`: its name, and after it the words that come before all options.
    `options`: all that it takes, by the name of the parameter; a flag is True or False.
    """
    words = ["ddpm", *shlex.split(command)]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            text = value.as_posix() if isinstance(value, Path) else str(value)
            words += [option, text]
    return shlex.join(words)
