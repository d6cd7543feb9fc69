"""Between stored bytes and the numbers that a network sees; images as files."""

from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm_core.types import Images


def to_float(images: UInt8[Tensor, "b h w c"] | UInt8[np.ndarray, "b h w c"]) -> Images:
    """Turn stored images, uint8 (b, h, w, c) in 0..255, into (b, c, h, w) in [-1, 1].

    The result is in channels-last memory order. Chapter 05.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images))
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_uint8(images: Images) -> UInt8[Tensor, "b h w c"]:
    """Turn images in [-1, 1] into bytes (b, h, w, c); what lies outside is clipped."""
    levels = images.clamp(-1, 1).add(1).mul(127.5).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1)


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


PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".bmp", ".tiff")
"""The endings of a picture that can be written."""


def check_picture(path: Path) -> None:
    """Raise ValueError unless the path has the ending of a picture."""
    if path.suffix.lower() not in PICTURES:
        raise ValueError(
            f"{str(path)!r} must end in one of {', '.join(PICTURES)}, for a picture"
        )


def save_grid(path: Path, images: Images, ncols: int | None = None) -> None:
    """Save images as one picture, nearly square unless `ncols` is given.

    Values outside [-1, 1] are clipped: states on the way from noise have them.
    """
    from torchvision.utils import save_image  # takes seconds: only who saves waits

    ncols = ncols or ceil(sqrt(len(images)))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images, path, nrow=ncols, padding=1, normalize=True, value_range=(-1, 1))


def save_strip(path: Path, states: list[Images], stages: int = 9) -> None:
    """Save evenly spaced states of a sampling run side by side, one row an image."""
    last = len(states) - 1
    chosen = [states[round(i * last / (stages - 1))] for i in range(stages)]
    save_grid(path, torch.stack(chosen, dim=1).flatten(0, 1), ncols=stages)
