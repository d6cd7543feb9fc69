"""Where weights are: in the repository, in the wheel, in a place of your own.

A wheel holds what the first commands use, and the hashes of all weights that ship. The
others come from `DDPM_WEIGHTS`: a folder, or a web address, from which files are
fetched once, compared with these hashes and kept. Nothing here needs torch.
"""

import hashlib
import json
import os
import shutil
from http.client import HTTPException
from os.path import isfile  # unlike a Path's, it takes names that no file can have
from pathlib import Path
from tempfile import mkdtemp
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

PLACE = "DDPM_WEIGHTS"
REPOSITORY = Path(__file__).parents[2] / "data" / "weights"
WHEEL = Path(__file__).parents[1] / "shipped"  # setup.py fills it
FILES = ("card.json", "weights.safetensors")


def is_address(place: str) -> bool:
    """Whether that is a web address, not a folder."""
    return place.startswith(("http://", "https://"))


def own_place() -> str:
    """The place that the environment names; empty if it names none."""
    return os.environ.get(PLACE, "").rstrip("/")


def cache() -> Path:
    """Where fetched weights are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ddpm-core" / "weights"


def folders() -> list[Path]:
    """The folders of weights, in the order in which they are searched."""
    own = own_place()
    first = [Path(own)] if own and not is_address(own) else []
    return [*first, REPOSITORY, WHEEL]


def names() -> list[str]:
    """The weights that are here, and those that can be fetched."""
    here = {path.parent.name for f in folders() for path in f.glob("*/card.json")}
    return sorted(here | (known().keys() if is_address(own_place()) else set()))


def known() -> dict[str, dict[str, str]]:
    """The hashes of the files of all weights that ship, by name; of a wheel."""
    path = WHEEL / "known.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def find(name: str) -> Path | None:
    """The folder of the weights of that name, fetched if need be; None if unknown.

    Raises OSError where they cannot be fetched, ValueError where what is fetched is not
    what the hashes say.
    """
    here = (folder / name for folder in folders())
    found = next((f for f in here if isfile(f / "card.json")), None)
    if found or name not in known() or not is_address(own_place()):
        return found
    folder = cache() / name
    if not all(_digest(folder / f) == h for f, h in known()[name].items()):
        fetch(name, folder)
    return folder


def where_else(name: str) -> str:
    """What to do about weights that ship, but not with this wheel; empty for others."""
    if name not in known():
        return ""
    return (
        f" ({name} ships with the repository, not with the wheel: set {PLACE} to a "
        "folder or a web address that has it)"
    )


def fetch(name: str, folder: Path) -> None:
    """Fetch the files of some weights, all of them or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        for file, expected in known()[name].items():
            address = f"{own_place()}/{quote(name)}/{file}"
            (partial / file).write_bytes(_read(address))
            got = _digest(partial / file)
            if got != expected:
                raise ValueError(
                    f"{address} is not the file that ships: sha256 {got[:12]}..., not "
                    f"{expected[:12]}..."
                )
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(address: str) -> bytes:
    try:
        with urlopen(address, timeout=60) as answer:
            return answer.read()
    except (URLError, OSError, HTTPException) as error:
        raise OSError(f"{address} cannot be fetched: {error}") from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
