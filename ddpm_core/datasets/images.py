"""Between stored bytes and the numbers that a network sees; images as files."""

from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm_core.datasets.atomic import written_file
from ddpm_core.types import Images

PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
"""The endings of the pictures that are saved."""


def to_float(images: Tensor | np.ndarray) -> Images:
    """Turn stored images, uint8 (b, h, w, c) in 0..255, into (b, c, h, w) in [-1, 1].

    The result is in channels-last memory order. Raises ValueError for another type or
    shape; c is 1 or 3. Chapter 05.
    """
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.array(images))
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            "images must be bytes, uint8 (batch, height, width, 1 or 3 channels), got "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        )
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> UInt8[Tensor, "b h w c"]:
    """Turn images in [-1, 1] into bytes (b, h, w, c); what lies outside is clipped.

    Raises ValueError for another shape, for integers and where a value is not finite.
    """
    _check_finite(images)
    levels = images.clamp(-1, 1).add(1).mul(127.5).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1)


def _check_finite(images: Tensor) -> None:
    """Raise ValueError unless each of the images can be shown as a picture."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must be floating-point (batch, channels, height, width), got "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        )
    if wrong := int((~images.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(
            f"{wrong} of {len(images)} images hold NaN or infinity, of which there is "
            "no picture"
        )


def check_images(images: Tensor, what: str = "images") -> None:
    """Raise ValueError unless `images` is (b, c, h, w), floating, in [-1, 1]."""
    if images.ndim != 4:
        raise ValueError(
            f"{what} must have the shape (batch, channels, height, width), "
            f"got {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{what} must be floating-point in [-1, 1], got {images.dtype}; "
            "datasets.to_float turns bytes into it"
        )
    low, high = images.aminmax()
    if not (low >= -1.001 and high <= 1.001):  # NaN fails both comparisons
        raise ValueError(
            f"{what} must lie in [-1, 1], got values from {low:.4g} to {high:.4g}"
        )


WIDE = 512  # pixels of a picture that is to be looked at


def zoom_for(width: int, ncols: int) -> int:
    """The zoom at which that many images side by side are at least WIDE pixels wide."""
    return max(1, ceil((WIDE - ncols - 1) / (ncols * width)))


def grid_columns(n: int) -> int:
    """How many of n images go side by side in a picture that is nearly square."""
    return ceil(sqrt(n))


def save_grid(
    path: Path, images: Images, ncols: int | None = None, zoom: int = 1
) -> None:
    """Save images as one picture, nearly square unless `ncols` is given.

    `zoom`: pixels of the picture for each pixel of an image, in either direction.
    Values outside [-1, 1] are clipped: states on the way from noise have them. Raises
    ValueError for an ending that is none of PICTURES and for no or infinite values.
    """
    from torchvision.utils import save_image  # takes seconds: only who saves waits

    check_picture(path)
    _check_finite(images)
    if not len(images):
        raise ValueError("there are no images to save")
    ncols = ncols or grid_columns(len(images))
    images = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    with written_file(path) as new:
        save_image(
            images, new, nrow=ncols, padding=1, normalize=True, value_range=(-1, 1)
        )


def check_picture(path: str | Path) -> None:
    """Raise ValueError unless the name of a picture has one of the endings PICTURES."""
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(
            f"the name of a picture must end in one of {', '.join(PICTURES)}, "
            f"got {str(path)!r}"
        )


def save_strip(
    path: Path, states: list[Images], stages: int = 9, zoom: int = 1
) -> None:
    """Save evenly spaced states of a sampling run side by side, one row an image."""
    last = len(states) - 1
    chosen = [states[round(i * last / (stages - 1))] for i in range(stages)]
    save_grid(path, torch.stack(chosen, dim=1).flatten(0, 1), ncols=stages, zoom=zoom)
