"""Trained weights on disk, with their card. Chapter 07.

A folder of weights holds `weights.safetensors` (data only, fp16), `card.json` (the
configuration, the hash of the weights, how they were made and what was measured) and
the same card to read, `README.md`.
"""

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[1] / "data" / "weights"
"""Where the weights lie that ship with the book."""


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

    `card` holds at least 'name' and 'config'; `config` is what builds the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in state.items()}
    data = to_bytes(state)
    (folder / "weights.safetensors").write_bytes(data)
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def load_weights(name: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read the weights and the card of that name (or in that folder).

    Only safetensors are read, never pickles. Raises FileNotFoundError that lists the
    names there are, and ValueError for a file that is not what its card says.
    """
    folder = find_weights(name)
    card = json.loads((folder / "card.json").read_text())
    data = (folder / "weights.safetensors").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card.get("sha256"):
        raise ValueError(
            f"{folder / 'weights.safetensors'} is not the file of its card: "
            f"sha256 {found[:12]}..., not {str(card.get('sha256'))[:12]}..."
        )
    try:
        return load_bytes(data), card
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no readable safetensors: {error}") from error


def read_card(name: str | Path) -> dict:
    """Read the card of the weights of that name; raises as `load_weights` does."""
    return json.loads((find_weights(name) / "card.json").read_text())


def find_weights(name: str | Path) -> Path:
    """Return the folder of the weights of that name, or that folder itself."""
    for folder in (WEIGHTS / name, Path(name)):
        if (folder / "card.json").is_file():
            return folder
    there = sorted(p.parent.name for p in WEIGHTS.glob("*/card.json"))
    raise FileNotFoundError(
        f"no weights named {str(name)!r}; there is: {', '.join(there) or 'none'} "
        "(or give a folder that holds a card.json)"
    )


def hardware(device: str | torch.device = "cpu") -> str:
    """Name what runs on that device, for a card."""
    if torch.device(device).type == "cuda":
        return f"1 x {torch.cuda.get_device_name(device)}"
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
    return f"{cores} ({platform.machine()})"


def command_line(command: str, options: Mapping[str, object]) -> str:
    """Write out the command `ddpm command` that repeats a training, for its card.

    `command`: its name, and after it the words that come before all options.
    `options`: all that it takes, by the name of the parameter.
    """
    words = ["ddpm", *command.split()]
    for name, value in options.items():
        text = value.as_posix() if isinstance(value, Path) else str(value)
        words += ["--" + name.replace("_", "-"), text]
    return shlex.join(words)
