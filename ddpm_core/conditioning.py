"""Conditions, dropped in training and followed by guidance; clipping. Chapter 10."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ddpm_core.types import Condition, Denoise


def guided(cond: Denoise, uncond: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance: x0_hat = uncond + scale (cond - uncond).

    Ho and Salimans 2022, eq. (6), whose w is scale - 1. A scale of 0 is unconditional,
    1 conditional, above 1 stronger than the condition alone; 0 and 1 cost one call,
    others two. Holds for x0_hat as for eps_hat, which is an affine function of it.
    Chapter 10.
    """
    if scale == 1:
        return cond
    if scale == 0:
        return uncond

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return uncond(x_t, t).lerp(cond(x_t, t), scale)

    return denoise


def guided_together(both: Denoise, scale: float) -> Denoise:
    """`guided` by one call on twice the batch: first conditioned, then not.

    `both` denoises a batch whose second half repeats the first without its condition,
    as `join(cond, uncond)` gives it to a network. Chapter 10.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        cond, uncond = both(torch.cat([x_t, x_t]), torch.cat([t, t])).chunk(2)
        return uncond.lerp(cond, scale)

    return denoise


def join(first: Condition, second: Condition) -> Condition:
    """Put the condition of one batch behind that of another."""
    pairs = zip(first, second, strict=True)
    return Condition(*(None if a is None else torch.cat([a, b]) for a, b in pairs))


def dropped(
    conditions: Tensor, empty: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    """Replace a `share` of the conditions, each sample for itself, by the `empty` one.

    `conditions` (b, ...) are what conditions are made of: classes or rows of tokens. So
    one network learns with and without a condition, Ho and Salimans 2022, algorithm 1.
    Raises ValueError for a share outside [0, 1]. Chapter 10.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share that is dropped must lie in [0, 1], got {share}")
    shape = (len(conditions),) + (1,) * (conditions.ndim - 1)
    drop = torch.rand(shape, generator=generator, device=conditions.device) < share
    return torch.where(drop, empty.to(conditions), conditions)


class ClassEmbedding(nn.Module):
    """A learnt vector for each class, and one more, number `empty`, for no class.

    Classes (b,) in 0..classes -> a condition of `width` numbers and no words. Raises
    ValueError for a class outside. Chapter 10.
    """

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.empty = classes
        self.vectors = nn.Embedding(classes + 1, width)

    def forward(self, classes: Int[Tensor, " b"]) -> Condition:
        if len(classes) and not 0 <= classes.min() <= classes.max() <= self.empty:
            raise ValueError(
                f"classes lie in 0..{self.empty - 1}, and {self.empty} is none of "
                f"them; got {classes.min()}..{classes.max()}"
            )
        return Condition(self.vectors(classes))


class LabelEncoder(nn.Module):
    """Names of classes as conditions, as `CLIP` is for captions: '' is no class.

    A name becomes a row of zeros with a single 1, from which the network's first layer
    looks up a vector of its own, as `ClassEmbedding` does. Chapter 10.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = ("", *names)
        self.register_buffer("rows", torch.eye(len(self.names)), persistent=False)

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of what `encode` gives: of the vector, and 0, for no words."""
        return len(self.names), 0

    def encode(self, names: Sequence[str]) -> Condition:
        """Return the condition of these classes; ValueError for an unknown name."""
        number = {name: i for i, name in enumerate(self.names)}
        for name in names:
            if name not in number:
                near = get_close_matches(name, self.names[1:], n=3, cutoff=0.0)
                raise ValueError(
                    f"unknown class {name!r}, of {len(self.names) - 1}; the nearest: "
                    + ", ".join(near)
                )
        return Condition(self.rows[[number[name] for name in names]])


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """Clip x0_hat to the range of images (never of latents). Chapter 08."""

    def clip(x_t: Tensor, t: Tensor) -> Tensor:
        return denoise(x_t, t).clamp(low, high)

    return clip
