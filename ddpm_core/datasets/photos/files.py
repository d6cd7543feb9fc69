"""A source of photos: encoded images by name, below a folder or in a zip.

Sources are not trusted. Nothing is unpacked, nothing outside the source is read, no
photo is read before it is needed or beyond MAX_BYTES; what is left out has a reason.
"""

import io
import os
import stat
import struct
import unicodedata
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
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
MAX_BYTES = 128 * 2**20  # of an encoded photo
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


Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the last two are outside."""


@dataclass(frozen=True)
class Photo:
    """One encoded image: its name for reports, its bytes, and what is known of it.

    `box`: where its subject is, in the image as it is stored.
    """

    name: str
    read: Callable[[], bytes]
    label: int = UNLABELLED
    split: str = ""
    box: Box | None = None


@dataclass(frozen=True)
class Photos:
    """The photos of a source; `form` is what it was recognised as.

    `skipped` are files that were left out, as (name, reason); `notes` say, for people,
    what else was left out or could not be found.
    """

    form: str
    items: tuple[Photo, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in a zip, by their relative names, sorted.

    `skipped`: (name, reason) of what is left out; `hidden`: how many files are passed
    over, as their names begin with a dot or are a Mac's shadow files.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]
    skipped: tuple[tuple[str, str], ...] = ()
    hidden: int = 0

    def with_suffix(self, suffixes: Iterable[str]) -> list[str]:
        """Return the names that end in one of `suffixes`, whatever their case."""
        return [n for n in self.names if PurePosixPath(n).suffix.lower() in suffixes]


def printable(text: str) -> str:
    """Escape what a terminal would obey or UTF-8 cannot hold: \\x1b, \\xeb, \\u202e."""
    return "".join(
        c if unicodedata.category(c) not in UNPRINTABLE else _escaped(c) for c in text
    )


UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # how a name that is not UTF-8 holds its bytes
    code = f"\\x{byte:02x}" if 128 <= byte < 256 else ascii(character)[1:-1]
    return code


def folder_tree(path: Path) -> Tree:
    """List the regular files below a folder, each once, following links within it."""
    root, seen = path.resolve(), set()
    names, skipped, hidden = [], [], 0
    waiting, links = ["."], deque()  # links come last: the true names count
    while waiting or links:
        name = waiting.pop() if waiting else links.popleft()
        try:
            reason = _reason_against(root / name, root, seen)
            entries = os.listdir(root / name) if (root / name).is_dir() else None
        except OSError as error:  # a link to nothing, no permission, a name too long
            reason = f"cannot be read: {error.strerror}"
        if reason:
            skipped.append((name, reason))
        elif entries is None:
            names.append(name)
        else:
            for entry in sorted(entries):
                path = root / name / entry
                if _is_hidden(entry):
                    hidden += 1
                else:
                    rest = links if path.is_symlink() else waiting
                    rest.append(entry if name == "." else f"{name}/{entry}")
    read = lambda name: read_file(root / name)  # noqa: E731
    return Tree(tuple(sorted(names)), read, tuple(sorted(skipped)), hidden)


def _reason_against(path: Path, root: Path, seen: set[tuple[int, int]]) -> str:
    """Say why a file or folder is left out; '' where it is not."""
    info = path.stat()
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "a link that leads out of the source"
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return "neither a regular file nor a folder"
    identity = info.st_dev, info.st_ino
    if info.st_ino and identity in seen:
        return "another name of what is listed already"
    seen.add(identity)
    return ""


def read_file(path: Path) -> bytes:
    """Return what is in a file; ValueError beyond MAX_BYTES."""
    with open(path, "rb") as file:
        _check_size(os.fstat(file.fileno()).st_size)
        data = file.read(MAX_BYTES + 1)
    _check_size(len(data))
    return data


def _check_size(n: int) -> None:
    if n > MAX_BYTES:
        raise ValueError(
            f"larger than a photo: {n / 2**20:,.0f} MiB, and at most "
            f"{MAX_BYTES // 2**20} MiB are read"
        )


def zip_tree(path: Path) -> Tree:
    """List all files in a zip, which stays open as long as the tree is in use.

    Of several entries of one name the last counts, as if they were unpacked.
    """
    try:
        archive = zipfile.ZipFile(_LenientFile(io.FileIO(path)))
    except UNREADABLE_ZIP as error:
        raise ValueError(
            f"{path} is neither a folder nor a whole zip ({error}): unpack archives "
            "of other kinds, and fetch an incomplete one again"
        ) from error
    entries, skipped, hidden = {}, [], 0
    for info in archive.infolist():
        name = _zip_name(info)
        if name.endswith("/"):
            continue
        parts = [part for part in name.split("/") if part not in ("", ".")]
        name, kind = "/".join(parts), stat.S_IFMT(info.external_attr >> 16)
        if _is_hidden(name):
            hidden += 1
        elif ".." in parts:
            skipped.append((name, "a name that leads out of the zip"))
        elif kind not in (0, stat.S_IFREG):
            skipped.append((name, "a link or a device, not a regular file"))
        else:
            if name in entries:
                skipped.append((name, "a later entry has the same name"))
            entries[name] = info
    names = tuple(sorted(entries))
    read = partial(_read_entry, archive, entries)
    return Tree(names, read, tuple(skipped), hidden)


UNREADABLE_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    OverflowError,
    ValueError,
    struct.error,
)


def _read_entry(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str
) -> bytes:
    info = entries[name]
    if info.flag_bits & 1:
        raise ValueError("encrypted: unpack the zip with its password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("compressed in a rare way: unpack the zip")
    _check_size(info.file_size)
    with archive.open(info) as file:  # one byte more, for its checksum
        return file.read(info.file_size + 1)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name with slashes, as UTF-8 where it can be that, else as of DOS."""
    name = info.filename
    with suppress(UnicodeError):
        name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


class _LenientFile(io.BufferedReader):
    """A zip in which no name claims to be UTF-8, and none is therefore decoded as such.

    (For one that is not, zipfile would give up the whole archive.)
    """

    def read(self, size: int | None = -1) -> bytes:
        data = bytearray(super().read(size))
        if data.startswith(zipfile.stringFileHeader) and len(data) == 30:
            data[7] &= ~UTF_8
        at = 0
        while data[at : at + 4] == zipfile.stringCentralDir and at + 46 <= len(data):
            data[at + 9] &= ~UTF_8
            at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
        return bytes(data)


UTF_8 = 0x08  # in the second byte of an entry's flags


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" in parts or any(p.startswith(".") and p != ".." for p in parts)


def class_folders(tree: Tree, images: list[str]) -> Photos:
    """Read splits and classes off the folders: [train/][<class>/]name.jpg.

    Folders that wrap everything do not count. There are no classes where all photos lie
    in one folder, or some of them beside the folders.
    """
    # A Mac writes 'Š' as two characters, others as one: it is one class.
    composed = {name: unicodedata.normalize("NFC", name) for name in images}
    paths = _unwrapped({n: PurePosixPath(text).parts for n, text in composed.items()})
    split_of = _splits({path[0] for path in paths.values() if len(path) > 1})
    splits = {name: split_of.get(path[0], "") for name, path in paths.items()}
    notes = []
    if split_of:
        paths = _unwrapped({n: path[1:] for n, path in paths.items() if splits[n]})
        if outside := len(images) - len(paths):
            notes.append(f"left out: {outside:,} images outside of the splits' folders")
    classes = sorted({path[0] for path in paths.values() if len(path) > 1})
    if len(classes) > 1 and any(len(path) == 1 for path in paths.values()):
        notes.append("no classes: some images lie beside the folders")
        classes = []
    if len(classes) < 2:
        classes = []
    folded = Counter(name.strip().casefold() for name in classes)
    if alike := [name for name in classes if folded[name.strip().casefold()] > 1]:
        notes.append(f"classes of nearly the same name: {', '.join(alike[:10])}")
    number = {name: label for label, name in enumerate(classes)}
    items = tuple(
        Photo(n, partial(tree.read, n), number.get(path[0], UNLABELLED), splits[n])
        for n, path in paths.items()
    )
    form = "class folders" if classes else "a folder of images"
    return Photos(form, items, tuple(classes), tuple(notes))


def _splits(folders: set[str]) -> dict[str, str]:
    """Return our names of the splits among folders; one beside others is a class.

    (There are classes called 'train': the vehicle.)
    """
    splits = {name: SPLITS[name.lower()] for name in folders if name.lower() in SPLITS}
    alone = len(set(splits.values())) < 2 and len(splits) < len(folders)
    return {} if alone else splits


def _unwrapped(paths: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Take off the folders that all paths share, but not that of a split."""
    while all(len(path) > 1 for path in paths.values()):
        folders = {path[0] for path in paths.values()}
        if len(folders) > 1 or folders.pop().lower() in SPLITS:
            break
        paths = {name: path[1:] for name, path in paths.items()}
    return paths
