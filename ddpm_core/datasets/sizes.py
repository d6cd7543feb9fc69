"""The size of images as people write it: a side, or height x width."""

import re

from ddpm_core.values import Size, quoted, sides


def read_size(text: str) -> Size:
    """Read '64' or '64x96', height x width; raise ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if not found:
        raise ValueError(
            f"size must be a side in pixels, or height x width, such as 64 or 64x96; "
            f"got {quoted(text)}"
        )
    height, width = (int(part or found[1]) for part in found.groups())
    return as_size(height, width)


def as_size(height: int, width: int) -> Size:
    """The size of images of that height and width: one number where they are equal."""
    return height if height == width else (height, width)


def spelled(size: Size) -> str:
    """Write a size as height x width: '64x64', '64x96'."""
    return "x".join(map(str, sides(size)))


def typed(size: Size) -> str:
    """Write a size as the option --size takes it: '64', '64x96'."""
    return spelled(size) if isinstance(size, tuple) else str(size)
