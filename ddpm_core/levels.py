"""The sizes that the convolutional networks of chapters 02 and 03 have in common."""

from dataclasses import dataclass


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
