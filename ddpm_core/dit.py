"""A small diffusion transformer: patches as tokens, and no convolutions. Chapter 13."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.attention import attend, zeroed
from ddpm_core.options import check, option
from ddpm_core.types import Condition, Images, Times
from ddpm_core.unet import SinusoidalEmbedding, check_inputs

Tokens = Float[Tensor, "b n d"]
"""A vector for each patch of an image."""


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a `DiT`; the help of each field says what it is.

    Raises ValueError for sizes that do not fit together. Chapter 13.
    """

    kind: ClassVar[str] = "dit"

    width: int = option("numbers a token", 128, at_least=4, at_most=16384)
    depth: int = option("transformer blocks", 6, at_least=1, at_most=256)
    heads: int = option("heads of the attention", 4, at_least=1, at_most=256)
    patch: int = option(
        "side of the square of pixels that becomes one token", 2, at_least=1, at_most=64
    )
    image_channels: int = option("channels of the images", 3, at_least=1, at_most=1024)
    pooled: int = option(
        "width of the condition's one vector; 0: no condition", 0, at_least=0,
        at_most=65536,
    )  # fmt: skip
    context: int = option("width of its words; 0: none", 0, at_least=0, at_most=65536)

    def __post_init__(self):
        check(self)
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width must be a multiple of 4 and of heads = {self.heads}, got "
                f"{self.width}"
            )
        if self.context and not self.pooled:
            raise ValueError(
                f"words come with a pooled vector, got pooled = {self.pooled}"
            )

    @property
    def side_multiple(self) -> int:
        """The side of an image must be a multiple of this many pixels."""
        return self.patch

    def build(self) -> "DiT":
        """Build the network with fresh weights."""
        return DiT(self)


class Block(nn.Module):
    """Self-attention and a small network for each token, both gated by the timestep.

    (b, n, d) and an embedding (b, d) -> (b, n, d). The embedding gives each of the two
    parts a scale, a shift and a gate, which start at 0, the adaLN-Zero of Peebles
    and Xie 2023, section 3.2. Words (b, l, d), where there are any, are read beside the
    tokens. Chapter 13.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        x: Tokens,
        embedding: Float[Tensor, "b d"],
        words: Float[Tensor, "b l d"] | None = None,
        mask: Tensor | None = None,
    ) -> Tokens:
        parts = self.modulation(F.silu(embedding))[:, None].chunk(6, dim=2)
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = parts
        h = normalised(x) * (1 + scale) + shift
        read = h if words is None else torch.cat([h, words], dim=1)
        k, v = self.key_value(read).chunk(2, dim=2)
        mixed = attend(self.query(h), k, v, heads=self.heads, mask=mask)
        x = x + gate * self.out(mixed)
        return x + gate_mlp * self.mlp(normalised(x) * (1 + scale_mlp) + shift_mlp)


class DiT(nn.Module):
    """A diffusion transformer, with the interface of the `UNet`.

    `forward(x, t, cond=None)`: x (b, c, h, w), t (b,) integer timesteps, result like x.
    A condition's vector is added to the embedding of the timestep; its words are read
    by every block. Raises ValueError for images and conditions that do not fit the
    config. Peebles and Xie 2023, figure 3. Chapter 13.
    """

    def __init__(self, config: DiTConfig | None = None):
        super().__init__()
        self.config = config = config or DiTConfig()
        width, numbers = config.width, config.image_channels * config.patch**2
        self.embed_time = nn.Sequential(
            SinusoidalEmbedding(width),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )
        self.embed_condition = (
            zeroed(nn.Linear(config.pooled, width)) if config.pooled else None
        )
        self.embed_words = nn.Linear(config.context, width) if config.context else None
        self.stem = nn.Linear(numbers, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads) for _ in range(config.depth)
        )
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, numbers))

    def forward(self, x: Images, t: Times, cond: Condition | None = None) -> Images:
        check_inputs(self.config, x, t, cond)
        embedding = self.embed_time(t)
        words = mask = None
        if cond is not None:
            embedding = embedding + self.embed_condition(cond.pooled)
        patches = F.pixel_unshuffle(x, self.config.patch)
        rows, columns = patches.shape[2:]
        tokens = self.stem(patches.flatten(2).transpose(1, 2))
        tokens = tokens + positions(rows, columns, self.config.width).to(tokens)
        if self.embed_words is not None:
            words = self.embed_words(cond.states)
            seen = cond.mask.new_ones(len(x), rows * columns)
            mask = torch.cat([seen, cond.mask], dim=1)
        for block in self.blocks:
            tokens = block(tokens, embedding, words, mask)
        scale, shift = self.modulation(F.silu(embedding))[:, None].chunk(2, dim=2)
        tokens = self.head(normalised(tokens) * (1 + scale) + shift)
        image = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        return F.pixel_shuffle(image, self.config.patch)


def normalised(x: Tokens) -> Tokens:
    """Layer normalisation without a scale and a shift of its own."""
    return F.layer_norm(x, x.shape[-1:])


def positions(rows: int, columns: int, width: int) -> Float[Tensor, "n d"]:
    """Sines and cosines of each patch's row, then of its column: (rows columns, width).

    Frequencies as for timesteps; width is a multiple of 4. Peebles and Xie 2023,
    section 3.2. Chapter 13.
    """
    embed = SinusoidalEmbedding(width // 2)
    row, column = embed(torch.arange(rows)), embed(torch.arange(columns))
    shape = (rows, columns, width // 2)
    grid = [row[:, None].expand(shape), column[None].expand(shape)]
    return torch.cat(grid, dim=2).flatten(0, 1)
