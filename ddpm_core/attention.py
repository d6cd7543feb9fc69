"""Attention: of positions to each other, and to the words of a condition.

Chapters 06 and 10.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.checking import check_floating, check_shape
from ddpm_core.compiling import GroupNorm
from ddpm_core.types import Condition, FeatureMap


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, heads: int, mask: Tensor | None = None
) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v` in each head.

    q (b, n, c), k and v (b, m, c) -> (b, n, c). Vaswani et al. 2017, eq. (1); `mask`
    (b, m) is true for what may be read. Raises ValueError for shapes that do not fit
    together. Chapters 06 and 10.
    """
    check_floating("q", q, "(b, n, c)")
    check_shape("k", k, (q.shape[0], k.shape[1], q.shape[2]))
    check_shape("v", v, k.shape, of="k")
    if q.shape[2] % heads:
        raise ValueError(f"{q.shape[2]} channels cannot be split into {heads} heads")
    if mask is not None:
        check_shape("mask", mask, k.shape[:2], of="k's words")
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = mask if mask is None else mask[:, None, None]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention over all positions of a feature map, added to it. Chapter 06.

    (b, c, h, w) -> the same. Vaswani et al. 2017, eq. (1), on h w positions.
    """

    def __init__(self, channels: int, *, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: FeatureMap) -> FeatureMap:
        positions = self.norm(x).flatten(2).transpose(1, 2)
        mixed = attend(*self.qkv(positions).chunk(3, dim=2), heads=self.heads)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


class CrossAttention(nn.Module):
    """What each position of a feature map reads off the words, added to it. Chapter 10.

    (b, c, h, w) and a condition with words (b, l, d) -> (b, c, h, w): queries from the
    positions, keys and values from the words. Rombach et al. 2022, section 3.3.
    """

    def __init__(self, channels: int, *, context: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(groups, channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context, 2 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: FeatureMap, cond: Condition | None) -> FeatureMap:
        _check_words(cond)
        k, v = self.key_value(cond.states).chunk(2, dim=2)
        mixed = attend(self._queries(x), k, v, heads=self.heads, mask=cond.mask)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)

    def maps(self, x: FeatureMap, cond: Condition) -> Float[Tensor, "b l h w"]:
        """Return how much each position reads of each word, averaged over the heads.

        Over the words these shares sum to 1 at each position.
        """
        _check_words(cond)
        k, _ = self.key_value(cond.states).chunk(2, dim=2)
        q, k = (y.unflatten(2, (self.heads, -1)) for y in (self._queries(x), k))
        logits = torch.einsum("bnhd,blhd->bhln", q, k) / q.shape[-1] ** 0.5
        if cond.mask is not None:
            logits = logits.masked_fill(~cond.mask[:, None, :, None], float("-inf"))
        return logits.softmax(2).mean(1).unflatten(2, x.shape[2:])

    def _queries(self, x: Tensor) -> Tensor:
        return self.query(self.norm(x).flatten(2).transpose(1, 2))


def _check_words(cond: Condition | None) -> None:
    if cond is None or cond.states is None:
        raise ValueError("a condition with words (states) is needed, got none")


class NoCrossAttention(nn.Module):
    """Stands in for `CrossAttention` where there are no words to read."""

    def forward(self, x: FeatureMap, cond: Condition | None) -> FeatureMap:
        return x


def zeroed(layer: nn.Module) -> nn.Module:
    """Start `layer` at zero, so that its block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
