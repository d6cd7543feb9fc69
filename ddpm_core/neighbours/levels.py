"""What the convolutional networks of chapters 02 and 03 have in common."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ddpm_core.checking import check_count
from ddpm_core.options import check


@dataclass(frozen=True)
class Levels:
    """Levels of half the side each: what a `VAEConfig` and a `GANConfig` both hold.

    `size`: side of the images. `channels`: width of each level, which has half the side
    of the one before; at the first, a square of `patch` by `patch` pixels is one
    position. `latent`: the size of z. `blocks`: residual blocks a level. `groups`: of
    the normalisation. Raises ValueError for sizes that do not fit together.
    """

    size: int = 32
    channels: tuple[int, ...] = (64, 128, 128)
    latent: int = 32
    blocks: int = 1
    patch: int = 2
    groups: int = 8
    image_channels: int = 3

    def __post_init__(self):
        check(self)
        for name in ("latent", "blocks", "patch", "groups", "image_channels"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if not self.channels or any(c < 1 or c % self.groups for c in self.channels):
            raise ValueError(
                "channels must be one width a level, each a multiple of groups = "
                f"{self.groups}, got {self.channels}"
            )
        if self.size < 1 or self.size % self.factor:
            raise ValueError(
                f"size must be a multiple of {self.factor} for patch = {self.patch} "
                f"and {len(self.channels)} levels, got {self.size}"
            )

    @property
    def factor(self) -> int:
        """How many times smaller the side of the last level is than the images'."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def last(self) -> tuple[int, int, int]:
        """Channels, height and width of the level with the smallest side."""
        side = self.size // self.factor
        return self.channels[-1], side, side

    def to_dict(self) -> dict:
        """Return it as what JSON can hold."""
        items = asdict(self).items()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in items}

    @classmethod
    def from_dict(cls, values: dict) -> "Levels":
        """Rebuild what `to_dict` gave; ValueError for fields unknown or impossible."""
        try:
            items = values.items()
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in items})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a {cls.__name__}: {error}") from error


def draw_rows(
    n: int, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw n times N(0, I), (n, *shape): the first are the same for every n.

    In the dtype and on the device of `like`. Raises ValueError for n below 1.
    """
    check_count("n", n)
    kind = {"dtype": like.dtype, "device": like.device}
    return torch.stack(
        [torch.randn(shape, generator=generator, **kind) for _ in range(n)]
    )


class Residual(nn.Module):
    """x + conv(activation(x)): (b, width, h, w) keeps its shape."""

    def __init__(self, width: int, activation: nn.Module):
        super().__init__()
        self.change = nn.Sequential(activation, conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def normalised(width: int, groups: int) -> nn.Module:
    """An activation that brings its input to size first: silu(norm(x))."""
    return nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU())


def conv(inputs: int, outputs: int) -> nn.Module:
    """A convolution that sees 3 by 3 positions and keeps the side."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)
