"""Checks of plain values, and how errors quote them. Nothing here needs torch."""

import sys
from math import inf
from numbers import Integral, Real

Size = int | tuple[int, int]
"""Of images, in pixels: the side of square ones, or height and width."""

LONGEST = 80  # characters of a value that an error quotes
LARGEST = sys.float_info.max


def quoted(value: object) -> str:
    """Return the value as an error shows it: on one line, and not too long."""
    try:
        text = repr(value).replace("\n", " ")
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} of {sys.getsizeof(value)} bytes"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def check_number(
    name: str,
    value: object,
    low: float = -inf,
    high: float = inf,
    *,
    above: float | None = None,
) -> None:
    """Raise unless `value` is a finite number in low..high, or above `above`.

    TypeError for anything but a number, ValueError for one out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    if isinstance(value, Integral):
        _check_fits(name, value)
    if not abs(value) <= LARGEST:  # nor NaN
        raise ValueError(f"{name} must be a finite number, got {quoted(value)}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}, got {value}")
    if not low <= value <= high:
        allowed = f"lie in [{low}, {high}]" if inf not in (-low, high) else None
        raise ValueError(f"{name} must {allowed or _bound(low, high)}, got {value}")


def check_count(name: str, value: object, low: float = 1, high: float = inf) -> None:
    """Raise unless `value` is a whole number in low..high, as `check_number` does."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {quoted(value)}")
    _check_fits(name, value)
    if not low <= value <= high:
        allowed = f"lie in {low}..{high}" if inf not in (-low, high) else None
        raise ValueError(
            f"{name} must {allowed or _bound(low, high)}, got {quoted(value)}"
        )


def sides(size: Size) -> tuple[int, int]:
    """Return the height and the width of images of that size."""
    return size if isinstance(size, tuple) else (size, size)


def _check_fits(name: str, value: int) -> None:
    """Raise ValueError for a whole number of more than 64 bits, which tensors have."""
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must lie within 64 bits, got {quoted(value)}")


def _bound(low: float, high: float) -> str:
    return f"be at least {low}" if high == inf else f"be at most {high}"
