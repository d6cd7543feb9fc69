"""Images packed into one folder: written once, checked, then mapped into memory.

A packed folder holds `images.npy` (uint8, NHWC), `labels.npy` (int64, where labels are
known) and `meta.json` (what it is, how it was made, its checksums).
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_core.datasets.atomic import check_room, current_folder, written_folder

FORMAT = "ddpm-packed-images"
VERSION = 1
FILES = ("meta.json", "images.npy", "labels.npy")
UNLABELLED = -1
"""The label of an image whose class is not known."""


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images of one size with their labels: `images` is uint8 (n, size, size, 3).

    `labels` is None or int64 (n,), an index into `classes` or UNLABELLED. Chapter 14.
    Raises ValueError for another shape or dtype, and for labels without a class.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    source: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        shape, dtype = self.images.shape, self.images.dtype
        square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
        if dtype != np.uint8 or not square or shape[0] == 0:
            raise ValueError(
                f"images must be uint8 (n, size, size, 3), got {dtype} {shape}"
            )
        if self.labels is not None:
            _check_labels(self.labels, len(self), len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return self.images.shape[1]

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
    def open(cls, path: str | Path, *, verify: bool = False) -> "PackedImages":
        """Map a packed folder into memory; `verify` compares the checksums too.

        Raises FileNotFoundError where a part is missing, ValueError where the folder is
        of another format or version, truncated, or (with `verify`) changed.
        """
        path = current_folder(path)
        meta = read_meta(path)
        images = _open_array(path / "images.npy", meta["sha256"], verify)
        labels = None
        if meta["labels_sha256"]:
            labels = _open_array(path / "labels.npy", meta["labels_sha256"], verify)
        if images.shape[:2] != (meta["n"], meta["size"]):
            raise ValueError(
                f"{path}: meta.json tells of {meta['n']} images of side "
                f"{meta['size']}, but images.npy has the shape {images.shape}"
            )
        classes = tuple(meta["classes"])
        return cls(images, labels, classes, meta["source"], meta["sha256"])


def read_meta(path: str | Path) -> dict[str, Any]:
    """Read what a packed folder tells of itself; errors as in `PackedImages.open`."""
    file = Path(path) / "meta.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} is not a folder of packed images: it has no meta.json. "
            "`ddpm prepare` makes one"
        )
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not readable: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{file} does not describe packed images ({FORMAT})")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{file} is of version {meta.get('version')}, and this library reads "
            f"version {VERSION}: prepare the images again"
        )
    expected = ("n", "size", "sha256", "labels_sha256", "classes", "source")
    if missing := [key for key in expected if key not in meta]:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    return meta


class PackedWriter:
    """Appends images to a folder in the making; `packed_writer` makes and ends one.

    `meta` is the caller's to fill, at any time before the end: `classes`, `source`,
    and what else tells how the images were made.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.meta: dict[str, Any] = {"classes": [], "source": ""}
        self.labels: list[int] = []
        self._file = open(folder / "images.npy", "wb")  # noqa: SIM115, see close
        self._header_bytes = self._write_header()

    def expect(self, n: int) -> None:
        """Raise NoRoom, an OSError, where the disk has no room for n images."""
        check_room(self.folder, n * self.size**2 * 3)

    def append(self, image: np.ndarray, label: int = UNLABELLED) -> None:
        """Add one image, uint8 (size, size, 3), and its label."""
        expected = (self.size, self.size, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(
                f"image {len(self.labels)} must be uint8 {expected}, "
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
        shape = (len(self.labels), self.size, self.size, 3)
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
def packed_writer(path: str | Path, *, size: int) -> Iterator[PackedWriter]:
    """Give a writer of the packed folder `path`, which takes its place at the end.

    Errors as in `written_folder`: only a packed folder is replaced. Raises ValueError
    for no images.
    """
    with written_folder(path, names=FILES, is_ours=_is_packed) as folder:
        writer = PackedWriter(folder, size)
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
    """Pack images, each uint8 (size, size, 3), into the folder `path` and open it.

    Further keywords go into meta.json. Raises ValueError for no images, for images
    of differing sizes and for labels that do not fit them.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError("there are no images to pack")
    images = itertools.chain([first], images)
    with packed_writer(path, size=first.shape[0]) as writer:
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


def _open_array(path: Path, sha256: str, verify: bool) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: prepare the images again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(
            f"{path} is truncated or no array: prepare the images again ({error})"
        ) from error
    if verify and _sha256(path) != sha256:
        raise ValueError(f"{path} has changed since it was packed: prepare it again")
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
