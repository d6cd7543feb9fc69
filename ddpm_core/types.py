"""The tensor types of the library's public interfaces, checked at run time in tests."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]
"""A batch of images, in [-1, 1]; latents have the same axes and no range."""

Samples = Float[Tensor, "b ..."]
"""A batch of anything that diffuses: images, latents, points of the plane."""

Times = Int[Tensor, " b"]
"""One timestep for each sample: 1..T in training, 0 is clean."""

PerSample = Float[Tensor, " b"]
"""One number for each sample: a loss, a weight."""

Features = Float[Tensor, "n d"]
"""Feature vectors, one a row."""

FeatureMap = Float[Tensor, "b _ _ _"]
"""What flows through a network; its blocks change the channels and the side."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> x0_hat: all that a sampler knows of a model. Chapter 08."""


class Condition(NamedTuple):
    """What a network is given besides x_t and t; row i belongs to sample i. Chapter 10.

    `pooled` is all of it in one vector. `states` are its words, one vector each, of
    which those count where `mask` is true; a class has none.
    """

    pooled: Float[Tensor, "b p"]
    states: Float[Tensor, "b l d"] | None = None
    mask: Bool[Tensor, "b l"] | None = None

    def rows(self, index: Tensor | slice) -> "Condition":
        """Return the condition of some of the samples."""
        return Condition(*(part if part is None else part[index] for part in self))

    def to(self, device: str | torch.device) -> "Condition":
        """Return it on that device."""
        return Condition(*(part if part is None else part.to(device) for part in self))
