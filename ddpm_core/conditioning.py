"""Conditions, dropped in training and followed by guidance; clipping. Chapter 10.

A condition that is an image has another way in: `beside`. Chapters 12 and 14.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_number,
    check_output,
    check_shape,
    check_tensor,
)
from ddpm_core.types import Condition, Denoise, Images, Times


def guided(cond: Denoise, uncond: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance: `x0_hat = uncond + scale (cond - uncond)`.

    Ho and Salimans 2022, eq. (6), whose w is scale - 1. A scale of 0 is unconditional,
    1 conditional, above 1 stronger than the condition alone; 0 and 1 cost one call,
    others two. Holds for x0_hat as for eps_hat, which is an affine function of it.
    Raises ValueError for a scale that is not finite. Chapter 10.
    """
    check_number("scale", scale)
    if scale == 1:
        return cond
    if scale == 0:
        return uncond

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        without, with_it = uncond(x_t, t), cond(x_t, t)
        check_output("uncond", without, x_t, "x_t")
        check_output("cond", with_it, x_t, "x_t")
        return without.lerp(with_it, scale)

    return denoise


def guided_together(both: Denoise, scale: float) -> Denoise:
    """`guided` by one call on twice the batch: first conditioned, then not.

    `both` denoises a batch whose second half repeats the first without its condition,
    as `join(cond, uncond)` gives it to a network. Raises as `guided` does. Chapter 10.
    """
    check_number("scale", scale)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        twice = torch.cat([x_t, x_t])
        x0_hat = both(twice, torch.cat([t, t]))
        check_output("both", x0_hat, twice, "twice x_t")
        cond, uncond = x0_hat.chunk(2)
        return uncond.lerp(cond, scale)

    return denoise


def join(first: Condition, second: Condition) -> Condition:
    """Put the condition of one batch behind that of another.

    Raises ValueError where one has a part, such as words, that the other lacks, or has
    in another width.
    """
    for name, a, b in zip(Condition._fields, first, second, strict=True):
        if (a is None) != (b is None):
            raise ValueError(f"one of the conditions has {name}, the other has none")
        if b is not None:
            check_shape(f"the second {name}", b, (len(b), *a.shape[1:]))
    pairs = zip(first, second, strict=True)
    return Condition(*(None if a is None else torch.cat([a, b]) for a, b in pairs))


def dropped(
    conditions: Tensor, empty: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    """Replace a `share` of the conditions, drawn at random, by the `empty` one.

    `conditions` (b, ...) are what conditions are made of: classes or rows of tokens. So
    one network learns with and without a condition, Ho and Salimans 2022, algorithm 1.
    Raises ValueError for a fraction outside [0, 1], and for an `empty` that is not one
    condition. Chapter 10.
    """
    check_number("the fraction that is dropped", share, 0, 1)
    check_tensor("conditions", conditions)
    check_tensor("empty", empty)
    one = tuple(conditions.shape[1:])
    if tuple(empty.shape) not in ((), one, (1, *one)):
        raise ValueError(
            f"empty must have the shape of one condition, "
            f"{one}, got {tuple(empty.shape)}"
        )
    shape = (len(conditions),) + (1,) * (conditions.ndim - 1)
    drop = torch.rand(shape, generator=generator, device=conditions.device) < share
    return torch.where(drop, empty.to(conditions), conditions)


class ClassEmbedding(nn.Module):
    """A learned vector for each class, and one more, number `empty`, for no class.

    Classes (b,) in 0..classes -> a condition of `width` numbers and no words. Raises
    ValueError for a class outside (on a GPU the look-up does). Chapter 10.
    """

    def __init__(self, classes: int, width: int):
        super().__init__()
        check_count("classes", classes)
        check_count("width", width)
        self.empty = classes
        self.vectors = nn.Embedding(classes + 1, width)

    def forward(self, classes: Int[Tensor, " b"]) -> Condition:
        check_integers("classes", classes)
        known = classes.device.type == "cpu" and len(classes)  # elsewhere it would wait
        if known and not 0 <= classes.min() <= classes.max() <= self.empty:
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
    """Clip x0_hat to the range of images (never of latents). Chapter 08.

    Raises ValueError unless low < high.
    """
    check_number("low", low)
    check_number("high", high, above=low)

    def clip(x_t: Tensor, t: Tensor) -> Tensor:
        x0_hat = denoise(x_t, t)
        check_output("denoise", x0_hat, x_t, "x_t")
        return x0_hat.clamp(low, high)

    return clip


def beside(net: nn.Module, condition: Images) -> Callable[..., Images]:
    """Show a network an image as further channels: (x_t, t) -> what it says of x_t.

    The network takes the channels of x_t and those of `condition`, (b, c, h, w), and
    returns as many; the first of them, like x_t, are kept: Saharia et al. 2021
    (Palette). A small image to be enlarged, chapter 14; an image with a hole and its
    mask, chapter 12. Raises ValueError for images of another number or size than x_t.
    """
    check_floating("condition", condition, "(b, c, h, w)")

    def predict(x_t: Images, t: Times, cond: object = None) -> Images:
        check_floating("x_t", x_t, "(b, c, h, w)")
        rows, _, *sides = x_t.shape
        check_shape("condition", condition, (rows, condition.shape[1], *sides))
        return net(torch.cat([x_t, condition], dim=1), t)[:, : x_t.shape[1]]

    return predict
