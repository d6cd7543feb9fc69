"""Checks of what public functions are given; each error names the value it got.

Shapes and types are known without waiting for a device, so these checks are cheap
enough for a training step. Values of tensors are checked on the CPU only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_core.values import check_count, check_number, quoted

__all__ = [
    "check_count", "check_finite", "check_floating", "check_integers", "check_like",
    "check_number", "check_output", "check_shape", "check_tensor", "check_timed",
    "quoted",
]  # fmt: skip


def check_floating(name: str, x: object, shape: str = "(b, ...)") -> None:
    """Raise unless x is a tensor of real numbers with the axes of `shape`.

    `shape` is text for the reader, such as "(b, c, h, w)"; "..." stands for any axes.
    TypeError for integers and for anything but a tensor, ValueError for other axes.
    """
    check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {x.dtype}")
    _check_axes(name, x, shape)


def check_integers(name: str, x: object, shape: str = "(b,)") -> None:
    """Raise unless x is a tensor of integers (no booleans) with the axes of `shape`."""
    check_tensor(name, x)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    _check_axes(name, x, shape)


def check_tensor(name: str, x: object) -> None:
    """Raise TypeError unless x is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")


def _check_axes(name: str, x: Tensor, shape: str) -> None:
    axes = [axis for axis in shape.strip("()").split(",") if axis.strip()]
    some = axes[-1].strip() == "..."
    if x.ndim != len(axes) if not some else x.ndim < len(axes) - 1:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(x.shape)}")


def check_shape(name: str, x: object, shape: Sequence, of: str = "") -> None:
    """Raise unless x is a tensor of exactly this shape, which is that of `of`.

    TypeError for anything but a tensor, ValueError for another shape.
    """
    check_tensor(name, x)
    if x.shape != torch.Size(shape):
        wanted = f"the shape of {of}, {tuple(shape)}" if of else f"shape {tuple(shape)}"
        raise ValueError(f"{name} must have {wanted}, got {tuple(x.shape)}")


def check_like(name: str, x: object, like: Tensor, of: str) -> None:
    """Raise unless x is a tensor of real numbers of the shape of `like`, named `of`."""
    check_floating(name, x)
    check_shape(name, x, like.shape, of=of)


def check_timed(name: str, x: object, t: object) -> None:
    """Raise unless x (b, ...) are real numbers and t (b,) an integer for each."""
    check_floating(name, x)
    check_integers("t", t)
    if len(t) != len(x):
        raise ValueError(
            f"t must have one time for each of {len(x)} samples, got {len(t)}"
        )


def check_output(name: str, output: object, like: Tensor, of: str) -> None:
    """Raise unless a function returned floats of the shape of what it was given.

    Otherwise broadcasting would compare a network's 1 channel with 3.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"{name} must return a floating-point tensor, got {got}")
    if output.shape != like.shape:
        raise ValueError(
            f"{name} must return the shape of {of}, {tuple(like.shape)}, "
            f"got {tuple(output.shape)}"
        )


def check_finite(name: str, x: Tensor) -> None:
    """Raise ValueError for NaN and infinity; it waits for the device."""
    if not x.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
