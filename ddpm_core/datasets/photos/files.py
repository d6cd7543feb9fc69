"""A source of photos: encoded images by name, below a folder or in a zip.

Nothing is unpacked, and no photo is read before it is needed.
"""

import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ddpm_core.datasets.packed import UNLABELLED

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
})
# fmt: on
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""How the folders and files of a split are named, and our name of the split."""


@dataclass(frozen=True)
class Photo:
    """One encoded image: its name for reports, its bytes, and what is known of it."""

    name: str
    read: Callable[[], bytes]
    label: int = UNLABELLED
    split: str = ""


@dataclass(frozen=True)
class Photos:
    """The photos of a source; `form` is what it was recognised as.

    `notes` tell people what was left out or could not be had.
    """

    form: str
    items: tuple[Photo, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in a zip, by their relative names, sorted."""

    names: tuple[str, ...]
    read: Callable[[str], bytes]

    def with_suffix(self, suffixes: Iterable[str]) -> list[str]:
        """Return the names that end in one of `suffixes`, whatever their case."""
        return [n for n in self.names if PurePosixPath(n).suffix.lower() in suffixes]


def folder_tree(path: Path) -> Tree:
    """List all files below a folder, following links."""
    names = (
        (Path(folder) / file).relative_to(path).as_posix()
        for folder, _, files in os.walk(path, followlinks=True)
        for file in files
    )
    return Tree(_visible(names), lambda name: (path / name).read_bytes())


def zip_tree(path: Path) -> Tree:
    """List all files in a zip, which stays open as long as the tree is in use."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is neither a folder nor a whole zip ({error}): unpack archives "
            "of other kinds, and fetch an incomplete one again"
        ) from error
    names = (info.filename for info in archive.infolist() if not info.is_dir())
    return Tree(_visible(names), archive.read)


def _visible(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names, leaving out hidden files and the shadow files of a Mac's zip."""
    hidden = (".", "__MACOSX/")
    return tuple(sorted(n for n in names if not n.startswith(hidden) and "/." not in n))


def class_folders(tree: Tree, images: list[str]) -> Photos:
    """Read splits and classes off the folders: [train/][<class>/]name.jpg.

    Folders around everything are looked through. There are no classes where all photos
    lie in one folder, or some of them beside the folders.
    """
    paths = _unwrapped({name: PurePosixPath(name).parts for name in images})
    splits = {name: SPLITS.get(path[0].lower(), "") for name, path in paths.items()}
    notes = []
    if any(splits.values()):
        paths = _unwrapped({n: path[1:] for n, path in paths.items() if splits[n]})
        if outside := len(images) - len(paths):
            notes.append(f"left out: {outside:,} images outside of the splits' folders")
    classes = sorted({path[0] for path in paths.values() if len(path) > 1})
    if len(classes) > 1 and any(len(path) == 1 for path in paths.values()):
        notes.append("no classes: some images lie beside the folders")
        classes = []
    if len(classes) < 2:
        classes = []
    number = {name: label for label, name in enumerate(classes)}
    items = tuple(
        Photo(n, partial(tree.read, n), number.get(path[0], UNLABELLED), splits[n])
        for n, path in paths.items()
    )
    form = "class folders" if classes else "a folder of images"
    return Photos(form, items, tuple(classes), tuple(notes))


def _unwrapped(paths: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Take off the folders that all paths share, but not that of a split."""
    while all(len(path) > 1 for path in paths.values()):
        folders = {path[0] for path in paths.values()}
        if len(folders) > 1 or folders.pop().lower() in SPLITS:
            break
        paths = {name: path[1:] for name, path in paths.items()}
    return paths
