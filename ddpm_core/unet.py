"""The denoising U-Net: from x_t and t it predicts the loss's target. Chapter 06."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.attention import Attention, CrossAttention, NoCrossAttention, zeroed
from ddpm_core.checking import check_floating, check_integers
from ddpm_core.compiling import GroupNorm
from ddpm_core.options import check, option
from ddpm_core.types import Condition, FeatureMap, Images, Times

Embedding = Float[Tensor, "b e"]
"""The embedding of the timestep, as a residual block gets it."""


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`; the defaults are the 54,563,779-parameter car model.

    The help of each field says what it is. Raises ValueError for sizes that do not fit
    together. Chapter 06.
    """

    kind: ClassVar[str] = "unet"

    channels: tuple[int, ...] = option(
        "width of each level", (64, 128, 256, 512), at_least=4, at_most=65536
    )
    attention: tuple[bool, ...] = option(
        "self-attention at each level", (False, False, True, True)
    )
    blocks: int = option(
        "residual blocks a level on the way down; one more up", 2, at_least=1,
        at_most=64,
    )  # fmt: skip
    heads: int = option("heads of the attention", 1, at_least=1, at_most=256)
    groups: int = option("groups of the normalisation", 32, at_least=1, at_most=65536)
    dropout: float = option(
        "fraction of activations dropped in training", 0.1, at_least=0, below=1
    )
    patch: int = option(
        "side of the square of pixels that becomes one position", 1, at_least=1,
        at_most=64,
    )  # fmt: skip
    image_channels: int = option("channels of the images", 3, at_least=1, at_most=1024)
    pooled: int = option(
        "width of the condition's one vector; 0: no condition", 0, at_least=0,
        at_most=65536,
    )  # fmt: skip
    context: int = option(
        "width of its words, for cross-attention; 0: none", 0, at_least=0, at_most=65536
    )

    def __post_init__(self):
        check(self)
        if self.context and not self.pooled:
            raise ValueError(
                "words come with a pooled vector: got context = "
                f"{self.context} and pooled = {self.pooled}"
            )
        if not self.channels or self.channels[0] % 2:
            raise ValueError(
                "channels must be one width a level, the first even, "
                f"got {self.channels}"
            )
        if len(self.attention) != len(self.channels):
            raise ValueError(
                "attention needs one entry a level, "
                f"got {len(self.attention)} for {len(self.channels)} channels"
            )
        for width in self.channels:
            if width % self.groups or width % self.heads:
                raise ValueError(
                    f"each width must be a multiple of groups = {self.groups} and of "
                    f"heads = {self.heads}, got {width}"
                )

    @property
    def side_multiple(self) -> int:
        """The side of an image must be a multiple of this many pixels."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def build(self) -> "UNet":
        """Build the network with fresh weights."""
        return UNet(self)


class SinusoidalEmbedding(nn.Module):
    """t as sines and cosines of geometrically spaced frequencies, from 1 to 1/10,000.

    (b,) -> (b, dim), Vaswani et al. 2017, section 3.5, as Ho et al. 2020 use it for
    t. Chapter 06.
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"dim must be even and at least 4, got {dim}")
        half = dim // 2
        frequencies = torch.exp(-log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Times) -> Embedding:
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions around a skip; the embedding of t shifts what lies between them.

    (b, in, h, w) -> (b, out, h, w). Ho et al. 2020, appendix B. Chapter 06.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, groups: int, dropout: float
    ):
        super().__init__()
        self.norm1 = GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(embedding, outputs)
        self.norm2 = GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        same = inputs == outputs
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: FeatureMap, embedding: Embedding) -> FeatureMap:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.shift(F.silu(embedding))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.skip(x) + h


class DownBlock(nn.Module):
    """One level on the way down: residual blocks, then half the side. Chapter 06.

    Returns the feature map and what the way up will need of this level.
    """

    def __init__(self, inputs: int, level: "_Level", *, downsample: bool):
        super().__init__()
        widths = [inputs] + [level.channels] * level.blocks
        pairs = pairwise(widths)
        self.residuals = nn.ModuleList(level.residual(i, o) for i, o in pairs)
        self.attentions = nn.ModuleList(level.mixer(o) for o in widths[1:])
        self.readers = nn.ModuleList(level.reader(o) for o in widths[1:])
        c = level.channels
        self.downsample = (
            nn.Conv2d(c, c, 3, stride=2, padding=1) if downsample else None
        )

    def forward(
        self, x: FeatureMap, embedding: Embedding, cond: Condition | None = None
    ) -> tuple[FeatureMap, list[Tensor]]:
        skips = []
        for residual, attention, reader in zip(
            self.residuals, self.attentions, self.readers, strict=True
        ):
            x = reader(attention(residual(x, embedding)), cond)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x, skips


class UpBlock(nn.Module):
    """One level on the way up: residual blocks on what came down, then twice the side.

    Takes one skip a residual block off the end of `skips`; the last residual block
    changes to the width of the level above. Chapter 06.
    """

    def __init__(self, outputs: int, level: "_Level", *, upsample: bool):
        super().__init__()
        widths = [level.channels] * (level.blocks + 1) + [outputs]
        pairs = list(pairwise(widths))
        self.residuals = nn.ModuleList(level.residual(i + o, o) for i, o in pairs)
        self.attentions = nn.ModuleList(level.mixer(o) for _, o in pairs)
        self.readers = nn.ModuleList(level.reader(o) for _, o in pairs)
        self.upsample = (
            nn.ConvTranspose2d(outputs, outputs, 4, stride=2, padding=1)
            if upsample
            else None
        )

    def forward(
        self,
        x: FeatureMap,
        embedding: Embedding,
        skips: list[Tensor],
        cond: Condition | None = None,
    ) -> FeatureMap:
        for residual, attention, reader in zip(
            self.residuals, self.attentions, self.readers, strict=True
        ):
            x = residual(torch.cat([x, skips.pop()], dim=1), embedding)
            x = reader(attention(x), cond)
        return x if self.upsample is None else self.upsample(x)


@dataclass(frozen=True)
class _Level:
    """What the blocks of one level have in common."""

    config: UNetConfig
    channels: int
    attends: bool
    embedding: int

    @property
    def blocks(self) -> int:
        return self.config.blocks

    def residual(self, inputs: int, outputs: int) -> ResidualBlock:
        groups, dropout = self.config.groups, self.config.dropout
        return ResidualBlock(
            inputs, outputs, self.embedding, groups=groups, dropout=dropout
        )

    def mixer(self, channels: int) -> nn.Module:
        if not self.attends:
            return nn.Identity()
        return Attention(channels, heads=self.config.heads, groups=self.config.groups)

    def reader(self, channels: int) -> nn.Module:
        if not (self.attends and self.config.context):
            return NoCrossAttention()
        heads, groups = self.config.heads, self.config.groups
        context = self.config.context
        return CrossAttention(channels, context=context, heads=heads, groups=groups)


class UNet(nn.Module):
    """The denoising U-Net of DDPM: down, middle, up, with a skip for each block.

    `forward(x, t, cond=None)`: x (b, c, h, w), t (b,) integer timesteps, result like x.
    A condition's vector is added to the embedding of the timestep, its words are read
    where there is attention. Raises ValueError for images that do not fit the config,
    for a condition that the network was not built for and for one that is missing. Ho
    et al. 2020, appendix B. Chapters 06 and 10.
    """

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        widths, embedding = config.channels, 4 * config.channels[0]
        levels = [
            _Level(config, width, attends, embedding)
            for width, attends in zip(widths, config.attention, strict=True)
        ]
        above = (widths[0],) + widths[:-1]  # the width of the level above each
        pixels = config.image_channels * config.patch**2

        self.embed_time = nn.Sequential(
            SinusoidalEmbedding(widths[0]),
            nn.Linear(widths[0], embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.embed_condition = (
            zeroed(nn.Linear(config.pooled, embedding)) if config.pooled else None
        )
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            DownBlock(inputs, level, downsample=level is not levels[-1])
            for inputs, level in zip(above, levels, strict=True)
        )
        middle = replace(levels[-1], attends=True)
        self.middle_in = middle.residual(widths[-1], widths[-1])
        self.middle_attention = middle.mixer(widths[-1])
        self.middle_reader = middle.reader(widths[-1])
        self.middle_out = middle.residual(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            UpBlock(outputs, level, upsample=level is not levels[0])
            for outputs, level in zip(above[::-1], levels[::-1], strict=True)
        )
        self.norm = GroupNorm(config.groups, widths[0])
        self.head = zeroed(nn.Conv2d(widths[0], pixels, 3, padding=1))

    def forward(self, x: Images, t: Times, cond: Condition | None = None) -> Images:
        check_inputs(self.config, x, t, cond)
        embedding = self.embed_time(t)
        if cond is not None:
            embedding = embedding + self.embed_condition(cond.pooled)
        x = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = [x]
        for block in self.down:
            x, more = block(x, embedding, cond)
            skips += more
        x = self.middle_attention(self.middle_in(x, embedding))
        x = self.middle_out(self.middle_reader(x, cond), embedding)
        for block in self.up:
            x = block(x, embedding, skips, cond)
        x = self.head(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, self.config.patch)


def check_inputs(config, x: Tensor, t: Tensor, cond: Condition | None) -> None:
    """Raise for images, timesteps or conditions that do not fit a network's config.

    TypeError for another dtype, ValueError for another shape.
    """
    check_floating("x", x, "(b, c, h, w)")
    check_integers("t", t)
    if len(t) != len(x):
        raise ValueError(f"{len(x)} samples need as many timesteps, got {len(t)}")
    multiple, channels = config.side_multiple, config.image_channels
    if x.shape[1] != channels or x.shape[2] % multiple or x.shape[3] % multiple:
        raise ValueError(
            f"this network takes (b, {channels}, h, w) with h and w multiples of "
            f"{multiple}, got {tuple(x.shape)}"
        )
    wanted = (config.pooled, config.context)
    parts = (None, None) if cond is None else (cond.pooled, cond.states)
    got = tuple(0 if part is None else part.shape[-1] for part in parts)
    if cond is not None and len(cond.pooled) != len(x):
        raise ValueError(
            f"{len(x)} samples need as many conditions, got {len(cond.pooled)}"
        )
    if got != wanted:
        raise ValueError(f"this network takes {_widths(*wanted)}, got {_widths(*got)}")


def _widths(pooled: int, context: int) -> str:
    """Say in words how wide a condition is."""
    if not pooled:
        return "no condition"
    words = f"words of {context}" if context else "no words"
    return f"a condition of {pooled} numbers and {words}"
