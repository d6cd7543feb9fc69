"""Images to learn from: drawn toy cars, packed photos, and how they become tensors."""

from ddpm_core.datasets.images import check_images, to_float, to_uint8
from ddpm_core.datasets.packed import PackedImages, write_packed
from ddpm_core.datasets.photos.prepare import (
    PrepareReport,
    centre_crop,
    prepare,
    squash,
)
from ddpm_core.datasets.toy_cars import ATTRIBUTES, ToyCars, caption, draw_toy_cars

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
