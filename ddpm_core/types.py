"""The tensor types of the library's public interfaces, checked at run time in tests."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]
"""A batch of images, in [-1, 1]; latents have the same axes and no range."""

Samples = Float[Tensor, "b ..."]
"""A batch of anything that diffuses: images, latents, points of the plane."""

Times = Int[Tensor, " b"]
"""One diffusion time for each sample: 1..T in training, 0 is clean."""

PerSample = Float[Tensor, " b"]
"""One number for each sample: a loss, a weight."""

Features = Float[Tensor, "n d"]
"""Feature vectors, one a row."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> x0_hat: all that a sampler knows of a model. Chapter 08."""
