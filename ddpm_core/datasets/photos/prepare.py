"""Turns photos, in the forms in which people have them, into packed images."""

import hashlib
import io
import os
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ddpm_core.datasets.packed import UNLABELLED, PackedWriter, packed_writer
from ddpm_core.datasets.photos.files import MAX_BYTES, Box, Photo, printable
from ddpm_core.datasets.photos.find import find_photos
from ddpm_core.datasets.sizes import spelled
from ddpm_core.values import Size, sides

Fit = Callable[[Image.Image, Size], Image.Image]
"""(image, size) -> an image of that size."""

LISTED = 10  # skipped files that a report prints
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 100e6  # that are decoded of a photo; from LARGE on, one photo at a time
LARGE = 16e6
ONE_LARGE = threading.Semaphore()

MARKS = {
    b"%!PS": "PostScript",
    b"ftyphei": "HEIC, convert it to JPEG",
    b"ftypmif1": "HEIC, convert it to JPEG",
    b"git-lfs": "a pointer of Git LFS, fetch the file itself",
    b"<html": "a web page",
    b"<!doctype": "a web page",
}
"""What may be in a file instead of an image, and how to recognise it."""


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did: counts for each split, `skipped` as (name, reason)."""

    path: Path
    form: str
    n: int
    size: Size
    splits: dict[str, int]
    classes: tuple[str, ...]
    unlabelled: int
    duplicates: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
    channels: int = 3

    def __str__(self) -> str:
        """Say it in a few lines; all skipped files are in meta.json."""
        splits = "".join(f", {n:,} {split}" for split, n in self.splits.items())
        classes = f"{len(self.classes)} classes" if self.classes else "no classes"
        rate = f"{self.seconds:.1f} s, {self.n / self.seconds:,.0f} images/s"
        path = printable(str(self.path))
        frame = spelled(self.size) + (" grey" if self.channels == 1 else "")
        frame += " (height x width)" if isinstance(self.size, tuple) else ""
        lines = [
            f"{path}: {self.n:,} images of {frame}{splits}",
            f"read as: {self.form}, {classes} ({rate})",
        ]
        if self.classes and self.unlabelled:
            lines.append(f"no label: {self.unlabelled:,} images")
        if self.duplicates:
            lines.append(f"kept: {self.duplicates:,} exact copies of earlier images")
        lines += self.notes
        if self.skipped:
            lines.append(f"skipped: {len(self.skipped):,} files")
        lines += [f"  {name}: {reason}" for name, reason in self.skipped[:LISTED]]
        if len(self.skipped) > LISTED:
            lines.append(f"  and {len(self.skipped) - LISTED:,} more, see meta.json")
        return "\n".join(lines)


def squash(image: Image.Image, size: Size) -> Image.Image:
    """Resize to `size` whatever the aspect, as the companion code does."""
    frame = sides(size)[::-1]
    return image.resize(frame, Image.Resampling.LANCZOS, reducing_gap=3.0)


def centre_crop(image: Image.Image, size: Size) -> Image.Image:
    """Resize until `size` is just filled, and cut the excess evenly off both ends."""
    return ImageOps.fit(image, sides(size)[::-1], Image.Resampling.LANCZOS)


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: Size = 64,
    channels: int = 3,
    margin: int | None = None,
    fit: Fit = squash,
    split: str = "all",
    min_side: int | None = None,
    labels: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> PrepareReport:
    """Pack the photos of `source` into the folder `out`, for `PackedImages.open`.

    `channels`: 3, or 1 for grey. With a `margin`, each photo is cropped to the box of
    its car, and that many pixels around it as far as the photo extends. Photos that
    cannot be read, have no box or one that does not lie in them, or whose shorter side
    has under `min_side` pixels (by default size / 4 or 8, the larger), are skipped and
    named. Errors as in `find_photos` and `packed_writer`; ValueError for an unknown
    split, a size under 8 and a source of which no photo can be used. Chapter 14.
    """
    start = time.perf_counter()
    shortest = min(sides(size))
    if shortest < 8:
        raise ValueError(f"size must be at least 8 pixels, got {shortest}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3, or 1 for grey, got {channels}")
    min_side = max(8, shortest // 4) if min_side is None else min_side
    how = Decoding(size, channels, fit, min_side, margin)
    decode = partial(_try_decode, how=how)
    with packed_writer(out, size=size, channels=channels) as writer:
        photos = find_photos(source, labels=labels, boxes=margin is not None)
        items = _in_split(photos.items, split)
        writer.expect(len(items))
        images = _decode_all(decode, items, workers or os.cpu_count() or 1)
        with warnings.catch_warnings():  # of photos without names
            warnings.simplefilter("ignore")
            counts = _write_all(writer, items, images, progress)
        counts["skipped"] = photos.skipped + counts["skipped"]
        if not writer.labels:
            name, reason = counts["skipped"][len(photos.skipped)]
            raise ValueError(
                f"none of the {len(items):,} photos of {source} can be used; "
                f"the first, {name}: {reason}"
            )
        record = {"form": photos.form, "classes": photos.classes, "notes": photos.notes}
        record |= counts | {"channels": channels}
        if margin is not None:
            around = f"cropped: to the boxes of the cars, {margin} pixels around them"
            record["notes"] += (around,)
            writer.meta["margin"] = margin
        fit_name = getattr(fit, "__name__", repr(fit))
        writer.meta |= {"source": printable(str(source)), "fit": fit_name} | record
    seconds = time.perf_counter() - start
    n = len(writer.labels)
    return PrepareReport(path=Path(out), n=n, size=size, seconds=seconds, **record)


def _write_all(
    writer: PackedWriter,
    photos: Sequence[Photo],
    images: Iterator[np.ndarray | str],
    progress: bool,
) -> dict[str, Any]:
    """Write what is an image and not a reason; return what a report says of them."""
    skipped, splits, digests = [], Counter(), set()
    bar = tqdm(photos, unit=" images", disable=not progress)
    for photo, image in zip(bar, images, strict=True):
        if isinstance(image, str):
            skipped.append((photo.name, image))
            continue
        writer.append(image, photo.label)
        splits[photo.split] += 1
        digests.add(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
    return {
        "splits": {split: n for split, n in splits.items() if split},
        "unlabelled": writer.labels.count(UNLABELLED),
        "duplicates": len(writer.labels) - len(digests),
        "skipped": tuple(skipped),
    }


def _in_split(items: tuple[Photo, ...], split: str) -> tuple[Photo, ...]:
    known = sorted({photo.split for photo in items} - {""})
    if split == "all":
        return items
    if split not in known:
        raise ValueError(
            f"split must be one of {', '.join(['all', *known])} for this source, "
            f"got {split!r}"
        )
    return tuple(photo for photo in items if photo.split == split)


def _decode_all(
    decode: Callable[[Photo], np.ndarray | str], photos: Sequence[Photo], workers: int
) -> Iterator[np.ndarray | str]:
    """Decode in threads with few results waiting, so that memory stays flat."""
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:
        for photo in photos:
            waiting.append(pool.submit(decode, photo))
            if len(waiting) > 8 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Decoding(NamedTuple):
    """How photos become images; `margin` around their boxes, None for no crop."""

    size: Size
    channels: int
    fit: Fit
    min_side: int
    margin: int | None


def _try_decode(photo: Photo, *, how: Decoding) -> np.ndarray | str:
    """Return the pixels, uint8 (height, width, channels), or why there are none."""
    try:
        return _decode(photo.read(), photo.box, how)
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # decoders raise of every kind for broken files
        reason = f"{error}" or type(error).__name__
    return printable(reason)[:200]


def _decode(data: bytes, box: Box | None, how: Decoding) -> np.ndarray:
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than a photo: {len(data):,} bytes")
    with _opened(data) as image:
        width, height = image.size
        crop = None
        if how.margin is not None:
            crop = _around(box, how.margin, width, height)
            width, height = crop[2] - crop[0], crop[3] - crop[1]
        if min(width, height) < how.min_side:
            raise ValueError(
                f"too small: {width}x{height}, the shorter side must have "
                f"{how.min_side} pixels"
            )
        width, height = image.size
        if not crop:  # JPEG: decode at 1/2, 1/4 or 1/8
            rows, columns = sides(how.size)
            image.draft(None, (2 * columns, 2 * rows))
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"too large: {width}x{height}, at most {MAX_PIXELS / 1e6:.0f} million "
                "pixels are decoded"
            )
        with ONE_LARGE if pixels > LARGE else nullcontext():
            shown = image.crop(crop) if crop else image
            ImageOps.exif_transpose(shown, in_place=True)
            shown = _to_rgb(shown)
            shown = shown.convert("L") if how.channels == 1 else shown
            fitted = np.asarray(how.fit(shown, how.size))
            return fitted.reshape(*fitted.shape[:2], how.channels)


def _around(box: Box | None, margin: int, width: int, height: int) -> Box:
    """The box with its margin, as far as the photo goes; ValueError for a bad box."""
    if box is None:
        raise ValueError("no box: the .mat file has none for it")
    left, upper, right, lower = box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        raise ValueError(
            f"a bad box: columns {left + 1} to {right}, rows {upper + 1} to {lower}, "
            f"in a photo of {width}x{height}"
        )
    return (
        max(0, left - margin),
        max(0, upper - margin),
        min(width, right + margin),
        min(height, lower + margin),
    )


def _opened(data: bytes) -> Image.Image:
    """Open a file only in an announced format: others run programs (PostScript)."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(io.BytesIO(data), formats=known)
    except UnidentifiedImageError:
        head = data[:100].lower()
        kinds = [kind for mark, kind in MARKS.items() if mark.lower() in head]
        kinds += [] if data else ["an empty file"]
        raise ValueError(": ".join(["not an image", *kinds[:1]])) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparency over white, 16 bits to 8."""
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(
                "its pixels are integers of unknown range: "
                f"{levels.min()}..{levels.max()}, and 0..65535 is read"
            )
        rounded = (levels.astype(np.uint32) + 128) // 257
        image = Image.fromarray(rounded.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
