"""Images packed into one folder: written once, checked, then read row by row.

A packed folder holds `images.npy` (uint8, NHWC), `labels.npy` (int64, where labels are
known) and `meta.json` (what it is, how it was made, its checksums).
"""

import hashlib
import itertools
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_core.datasets.atomic import check_room, current_folder, written_folder
from ddpm_core.datasets.sizes import as_size
from ddpm_core.values import Size, quoted, sides

FORMAT = "ddpm-packed-images"
VERSION = 1
FILES = ("meta.json", "images.npy", "labels.npy")
UNLABELLED = -1
"""The label of an image whose class is not known."""


class StoredArray:
    """An array in a .npy file; rows are read when they are indexed.

    A file that is changed meanwhile raises OSError. (If it were mapped into memory, one
    that became shorter would end the process without a word.)
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._file = open(path, "rb")  # noqa: SIM115, rows are read as long as it lives
        np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0(self._file)
        self.shape, fortran_order, self.dtype = header
        if fortran_order or self.dtype.hasobject or not self.shape:
            raise ValueError(f"got {self.dtype} {self.shape}, not rows of numbers")
        self.ndim, self._start = len(self.shape), self._file.tell()
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        size, expected = self._state()[0], self._start + len(self) * self._row_bytes
        if size != expected:
            raise ValueError(f"it has {size:,} bytes, not {expected:,}")
        self._opened = self._state()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return what a numpy array would."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis or not all(isinstance(i, int | slice) for i in rest):
            return self[:][index]
        first = np.asarray(first) if hasattr(first, "__array__") else first
        rows = np.asarray(np.arange(len(self))[first])
        return self._read(rows)[(slice(None),) * rows.ndim + tuple(rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def sha256(self) -> str:
        """Return the checksum of the file."""
        with self._lock:
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest()

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out, read = np.empty((rows.size, self._row_bytes), np.uint8), 0
        with self._lock:
            for target, row in zip(out, rows.flat, strict=True):
                self._file.seek(self._start + int(row) * self._row_bytes)
                read += self._file.readinto(target)
        if read != out.size or self._state() != self._opened:
            raise OSError(
                f"{self.path} was changed while it was in use; what it holds now is "
                "checked when it is opened again"
            )
        return out.view(self.dtype).reshape(*rows.shape, *self.shape[1:])

    def _state(self) -> tuple[int, int]:
        info = os.fstat(self._file.fileno())
        return info.st_size, info.st_mtime_ns


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images of one size with their labels: `images` is uint8 (n, h, w, 3 or 1).

    `labels` is None or int64 (n,), an index into `classes` or UNLABELLED. `sha256` and
    `labels_sha256` are those of the files of an opened folder. Chapter 14.
    Raises ValueError for another shape or dtype, and for labels without a class.
    """

    images: np.ndarray | StoredArray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    source: str = ""
    sha256: str = ""
    labels_sha256: str = ""

    def __post_init__(self) -> None:
        shape, dtype = self.images.shape, self.images.dtype
        pictures = len(shape) == 4 and shape[3] in (1, 3) and 0 not in shape
        if dtype != np.uint8 or not pictures:
            raise ValueError(
                "images must be uint8 (n, height, width, 3 or 1 channels), got "
                f"{dtype} {shape}"
            )
        if self.labels is not None:
            _check_labels(self.labels, len(self), len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> Size:
        """The side of the images in pixels, or their height and width."""
        return as_size(*self.images.shape[1:3])

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""
        return self.images.shape[3]

    @property
    def captions(self) -> list[str]:
        """A caption for each image, from its class; '' for one without a class.

        Raises ValueError where there are no labels. Chapter 14.
        """
        if self.labels is None:
            raise ValueError(f"{self.source} has no classes to make captions of")
        names = [f"a photo of a {name}" for name in self.classes]
        return ["" if i == UNLABELLED else names[i] for i in self.labels]

    @classmethod
    def open(cls, path: str | Path) -> "PackedImages":
        """Open a packed folder and compare its checksums; images are read when indexed.

        Raises FileNotFoundError where a part is missing, ValueError where the folder is
        of another format or version, or has changed since it was packed.
        """
        while True:
            before = _identity(path)
            try:
                return cls._open(current_folder(path))
            except (FileNotFoundError, ValueError):
                if _identity(path) == before:  # else it was replaced meanwhile
                    raise

    @classmethod
    def _open(cls, path: Path) -> "PackedImages":
        meta = read_meta(path)
        images, labels = _stored(path / "images.npy", meta["sha256"]), None
        if meta["labels_sha256"]:
            labels = _stored(path / "labels.npy", meta["labels_sha256"])[:]
        size = meta["size"]
        described = [meta["n"], *([size, size] if isinstance(size, int) else size)]
        if list(images.shape[:3]) != described:
            raise ValueError(
                f"{path}: meta.json describes {meta['n']} images of side "
                f"{quoted(size)}, but images.npy has the shape {images.shape}"
            )
        record = {"classes": tuple(meta["classes"]), "source": meta["source"]}
        sums = {"sha256": meta["sha256"], "labels_sha256": meta["labels_sha256"] or ""}
        try:
            return cls(images, labels, **record, **sums)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _identity(path: str | Path) -> tuple[int, int, int] | None:
    """Tell apart the folders that lie at `path` one after another.

    Their numbers alone do not: a file system gives that of a removed folder again.
    """
    try:
        found = current_folder(path).stat()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns
    except FileNotFoundError:
        return None


def read_meta(path: str | Path) -> dict[str, Any]:
    """Read how a packed folder describes itself; errors as in `PackedImages.open`."""
    file = Path(path) / "meta.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} is not a folder of packed images: it has no meta.json. "
            "`ddpm prepare` makes one"
        )
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{file} does not describe packed images ({FORMAT})")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{file} is of version {meta.get('version')!r:.20}, and this library reads "
            f"version {VERSION}: prepare the images again"
        )
    if missing := [key for key in META if key not in meta]:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    wrong = [key for key, kind in META.items() if not isinstance(meta[key], kind)]
    if not wrong and not all(isinstance(name, str) for name in meta["classes"]):
        wrong = ["classes"]
    if wrong:
        raise ValueError(f"{file}: {wrong[0]} cannot be {meta[wrong[0]]!r:.60}")
    return meta


META = {
    "n": int,
    "size": int | list,
    "sha256": str,
    "labels_sha256": str | None,
    "classes": list,
    "source": str,
}
"""What meta.json must hold."""


class PackedWriter:
    """Appends images to a folder in the making; `packed_writer` makes and ends one.

    The caller fills `meta` at any time before the end: `classes`, `source`, and
    whatever else says how the images were made.
    """

    def __init__(self, folder: Path, size: Size, channels: int = 3) -> None:
        self.folder, self.size = folder, size
        self.shape = (*sides(size), channels)
        self.meta: dict[str, Any] = {"classes": [], "source": ""}
        self.labels: list[int] = []
        self._file = open(folder / "images.npy", "wb")  # noqa: SIM115, see close
        self._header_bytes = self._write_header()

    def expect(self, n: int) -> None:
        """Raise NoRoom, an OSError, where the disk has no room for n images."""
        check_room(self.folder, n * math.prod(self.shape))

    def append(self, image: np.ndarray, label: int = UNLABELLED) -> None:
        """Add one image, uint8 (height, width, channels), and its label."""
        if image.shape != self.shape or image.dtype != np.uint8:
            raise ValueError(
                f"image {len(self.labels)} must be uint8 {self.shape}, "
                f"got {image.dtype} {image.shape}"
            )
        self._file.write(image.tobytes())
        self.labels.append(label)

    def finish(self) -> None:
        """Complete the header, write labels.npy and meta.json."""
        n = len(self.labels)
        if n == 0:
            raise ValueError("there are no images to pack")
        if self._write_header() != self._header_bytes:  # only now is n known
            raise RuntimeError("the header of images.npy has changed its length")
        self._file.close()
        record = {"format": FORMAT, "version": VERSION, "n": n, "size": self.size}
        record["sha256"] = _sha256(self.folder / "images.npy")
        record["labels_sha256"] = self._write_labels()
        # The record goes first to be seen, and last so that nothing overrides it.
        meta = record | self.meta | record
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (self.folder / "meta.json").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Close the file of images, whatever becomes of what is still buffered."""
        with suppress(OSError):
            self._file.close()

    def _write_header(self) -> int:
        shape = (len(self.labels), *self.shape)
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        return self._file.tell()

    def _write_labels(self) -> str | None:
        """Write labels.npy and return its checksum; nothing where no label is known."""
        labels = np.array(self.labels, np.int64)
        if (labels == UNLABELLED).all():
            return None
        _check_labels(labels, len(labels), len(self.meta["classes"]))
        np.save(self.folder / "labels.npy", labels)
        return _sha256(self.folder / "labels.npy")


@contextmanager
def packed_writer(
    path: str | Path, *, size: Size, channels: int = 3
) -> Iterator[PackedWriter]:
    """Yield a writer of the packed folder `path`, which appears there at the end.

    Errors as in `written_folder`: only a packed folder is replaced. Raises ValueError
    for no images.
    """
    with written_folder(path, names=FILES, is_ours=_is_packed) as folder:
        writer = PackedWriter(folder, size, channels)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


def write_packed(
    path: str | Path,
    images: Iterable[np.ndarray],
    *,
    labels: Sequence[int] | np.ndarray | None = None,
    classes: Sequence[str] = (),
    source: str = "",
    **meta: Any,
) -> PackedImages:
    """Pack images, each uint8 (h, w, 3 or 1), into the folder `path` and open it.

    Further keywords go into meta.json. Raises ValueError for no images, for images
    of differing sizes and for labels that do not fit them.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError("there are no images to pack")
    images = itertools.chain([first], images)
    if first.ndim != 3:
        raise ValueError(f"an image must be (h, w, channels), got {first.shape}")
    size, channels = as_size(*first.shape[:2]), first.shape[2]
    with packed_writer(path, size=size, channels=channels) as writer:
        writer.meta |= {"classes": list(classes), "source": source} | meta
        if labels is None:
            for image in images:
                writer.append(image)
        else:
            for image, label in zip(images, labels, strict=True):
                writer.append(image, int(label))
    return PackedImages.open(path)


def _check_labels(labels: np.ndarray, n: int, n_classes: int) -> None:
    if labels.shape != (n,) or labels.dtype != np.int64:
        got = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"labels must be int64 ({n},), got {got}")
    if labels.min() < UNLABELLED or labels.max() >= n_classes:
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1} ({n_classes} classes) or be "
            f"{UNLABELLED} (unknown), got {labels.min()}..{labels.max()}"
        )


def _stored(path: Path, sha256: str) -> StoredArray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: prepare the images again")
    try:
        array = StoredArray(path)
    except (ValueError, TypeError, OverflowError) as error:  # of a damaged header
        raise ValueError(
            f"{path} is truncated or no array: prepare the images again ({error})"
        ) from error
    if (found := array.sha256()) != sha256:
        raise ValueError(
            f"{path} has changed since it was packed (sha256 {found[:12]}..., not "
            f"{sha256[:12]}...): prepare the images again"
        )
    return array


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_packed(folder: Path) -> bool:
    """Tell whether meta.json is that of packed images, of whatever version."""
    with suppress(ValueError, AttributeError):
        text = (folder / "meta.json").read_text(encoding="utf-8")
        return json.loads(text).get("format") == FORMAT
    return False
