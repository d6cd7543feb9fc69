"""Images to learn from: drawn toy cars, packed photos, and how they become tensors."""

from typing import TYPE_CHECKING, Any

from ddpm_core.datasets.packed import PackedImages, write_packed
from ddpm_core.datasets.photos.prepare import (
    PrepareReport,
    centre_crop,
    prepare,
    squash,
)
from ddpm_core.datasets.toy_cars import ATTRIBUTES, ToyCars, caption, draw_toy_cars

if TYPE_CHECKING:
    from ddpm_core.datasets.images import check_images, to_float, to_uint8

__all__ = [
    "ATTRIBUTES",
    "PackedImages",
    "PrepareReport",
    "ToyCars",
    "caption",
    "centre_crop",
    "check_images",
    "draw_toy_cars",
    "prepare",
    "squash",
    "to_float",
    "to_uint8",
    "write_packed",
]


def __getattr__(name: str) -> Any:
    """Import torch only for what needs it: it takes seconds, and photos need none."""
    if name not in ("check_images", "to_float", "to_uint8"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddpm_core.datasets import images

    return getattr(images, name)
