"""The variational autoencoder: network, loss, samples. Chapters 02, 04 and 11."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.checking import (
    check_floating,
    check_number,
    check_output,
    check_shape,
)
from ddpm_core.neighbours.levels import Levels, Residual, conv, draw_rows, normalised
from ddpm_core.types import Images, PerSample, Samples

Latents = Float[Tensor, "b d *side"]
"""For each sample z, or the mean or log-variance of q(z | x): a vector or a picture."""


@dataclass(frozen=True)
class VAEConfig(Levels):
    """The shape of a `VAE`: `Levels`, and the kind of its z.

    `spatial`: z is a picture of `latent` channels with the side of the last level, not
    a vector of `latent` numbers. `decoder_blocks`: residual blocks a level on the way
    up; 0: `blocks`, as on the way down. `resized`: z is the image itself, made smaller
    (`Resize`); only the decoder is learned. Raises ValueError as `Levels` does, for
    fewer blocks on the way up, and for a resized image of other channels or in a
    vector. Chapters 02, 11 and 14.
    """

    spatial: bool = False
    decoder_blocks: int = 0
    resized: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.decoder_blocks and self.decoder_blocks < self.blocks:
            raise ValueError(
                f"decoder_blocks must be 0 or at least blocks = {self.blocks}, "
                f"got {self.decoder_blocks}"
            )
        if self.resized and not (self.spatial and self.latent == self.image_channels):
            raise ValueError(
                "a resized image is a picture of the image's channels: resized needs "
                f"spatial and latent = {self.image_channels}, got {self.latent}"
            )

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z: (latent,), or (latent, side, side) where `spatial`."""
        return (self.latent, *self.last[1:]) if self.spatial else (self.latent,)


class Encoding(NamedTuple):
    """The Gaussian q(z | x) of each sample."""

    mean: Latents
    log_var: Latents


class Resize(nn.Module):
    """An encoder with nothing to learn: q(z | x) is a narrow Gaussian at a smaller x.

    (b, c, h, w) -> (b, 2c, *size), mean and log-variance. Its noise, of standard
    deviation 0.05, prepares the decoder for small images that are not quite real.
    Chapter 14.
    """

    LOG_VAR = 2 * log(0.05)

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, x: Images) -> Float[Tensor, "b moments rows columns"]:
        small = F.interpolate(x, size=self.size, mode="bicubic", antialias=True)
        return torch.cat([small, torch.full_like(small, self.LOG_VAR)], dim=1)


class VAE(nn.Module):
    """Encoder and decoder: x -> q(z | x) -> z -> the mean of p(x | z).

    `forward(x, generator=None)` draws one z for each image and returns the decoder's
    mean, (b, c, size, size), and the `Encoding`. Raises ValueError for images of
    another shape. Kingma and Welling 2014, section 3. Chapter 02.
    """

    def __init__(self, config: VAEConfig | None = None):
        super().__init__()
        self.config = config = config or VAEConfig()
        widths, groups = config.channels, config.groups
        pixels = config.image_channels * config.patch**2
        shape = config.last

        def residuals(width: int, blocks: int = config.blocks) -> list[nn.Module]:
            return [Residual(width, normalised(width, groups)) for _ in range(blocks)]

        down = [nn.PixelUnshuffle(config.patch), conv(pixels, widths[0])]
        down += residuals(widths[0])
        for above, below in pairwise(widths):
            down += [nn.Conv2d(above, below, 4, stride=2, padding=1)]
            down += residuals(below)
        down += [normalised(widths[-1], groups)]
        if config.spatial:
            leave = [conv(widths[-1], 2 * config.latent)]
            enter = [conv(config.latent, widths[-1])]
        else:
            numbers = torch.Size(shape).numel()
            leave = [nn.Flatten(), nn.Linear(numbers, 2 * config.latent)]
            enter = [nn.Linear(config.latent, numbers), nn.Unflatten(1, shape)]
        self.encoder = nn.Sequential(*down, *leave)
        if config.resized:
            self.encoder = Resize(tuple(shape[1:]))

        blocks = config.decoder_blocks or config.blocks
        up = enter + residuals(widths[-1], blocks)
        for below, above in pairwise(widths[::-1]):
            up += [nn.ConvTranspose2d(below, above, 4, stride=2, padding=1)]
            up += residuals(above, blocks)
        up += [normalised(widths[0], groups), conv(widths[0], pixels)]
        self.decoder = nn.Sequential(*up, nn.PixelShuffle(config.patch))

    def encode(self, x: Images) -> Encoding:
        """Return mean and log-variance of q(z | x), each (b, *latent_shape)."""
        check_floating("images", x, "(b, c, h, w)")
        config = self.config
        shape = (config.image_channels, config.size, config.size)
        if x.shape[1:] != shape:
            raise ValueError(
                f"this network takes images of shape (b, {shape[0]}, {shape[1]}, "
                f"{shape[2]}), got {tuple(x.shape)}"
            )
        return Encoding(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z: Latents) -> Images:
        """Return the mean of p(x | z), unbounded: clip it where images are needed.

        Raises ValueError for latents of another shape.
        """
        check_floating("z", z)
        shape = self.config.latent_shape
        if z.ndim != 1 + len(shape) or z.shape[1] != shape[0]:
            raise ValueError(
                f"this network decodes z of shape {('b', *shape)}, got {tuple(z.shape)}"
            )
        return self.decoder(z)

    def forward(
        self, x: Samples, generator: torch.Generator | None = None
    ) -> tuple[Samples, Encoding]:
        encoding = self.encode(x)
        return self.decode(draw_latents(*encoding, generator=generator)), encoding


@torch.no_grad()
def with_decoder_blocks(vae: VAE, blocks: int) -> VAE:
    """The same function with more blocks in its decoder, which do nothing yet.

    The last convolution of each new block is 0. Raises ValueError for fewer blocks than
    there are. Chapter 11.
    """
    old = vae.config.decoder_blocks or vae.config.blocks
    if blocks < old:
        raise ValueError(f"the decoder has {old} blocks a level, got {blocks}")
    new = VAE(replace(vae.config, decoder_blocks=blocks))
    new.encoder.load_state_dict(vae.encoder.state_dict())
    known, run = iter(vae.decoder), 0
    for layer in new.decoder:
        run = run + 1 if isinstance(layer, Residual) else 0  # in a row of blocks
        if run > old:
            layer.change[-1].weight.zero_()
            layer.change[-1].bias.zero_()
        else:
            layer.load_state_dict(next(known).state_dict())
    return new


def draw_latents(
    mean: Latents, log_var: Latents, *, generator: torch.Generator | None = None
) -> Latents:
    """Draw `z = mean + std eps` with `eps ~ N(0, I)`: gradients reach mean and log_var.

    The reparameterisation of Kingma and Welling 2014, section 2.4. Raises ValueError
    for unequal shapes. Chapter 02.
    """
    _check_gaussian(mean, log_var)
    eps = torch.randn(
        mean.shape, generator=generator, dtype=mean.dtype, device=mean.device
    )
    return mean + (log_var / 2).exp() * eps


def kl_to_standard_normal(mean: Latents, log_var: Latents) -> PerSample:
    """`KL(N(mean, diag exp(log_var)) || N(0, I))` in nats, one a sample.

    `sum (mean^2 + var - 1 - log var) / 2`, Kingma and Welling 2014, appendix B. Raises
    ValueError for unequal shapes. Chapter 02.
    """
    _check_gaussian(mean, log_var)
    return (mean.square() + log_var.exp() - 1 - log_var).flatten(1).sum(1) / 2


def gaussian_nll(
    x: Samples, x_hat: Samples, variance: Float[Tensor, ""] | float | None = None
) -> PerSample:
    """-log N(x; x_hat, variance I) in nats, one a sample.

    `(|x - x_hat|^2 / variance + D log(2 pi variance)) / 2`, D numbers a sample. Without
    a variance, the one that makes the batch likeliest, its mean squared error (the
    optimal sigma-VAE of Rybkin et al. 2021). Raises ValueError for unequal shapes and a
    variance that is not above 0. Chapter 02.
    """
    check_floating("x", x)
    check_output("the decoder", x_hat, x, "x")
    if variance is not None and not isinstance(variance, Tensor):
        check_number("variance", variance, above=0)
    errors = (x - x_hat).square().flatten(1)
    variance = errors.mean() if variance is None else torch.as_tensor(variance)
    dimensions = errors.shape[1]
    return (errors.sum(1) / variance + dimensions * (2 * pi * variance).log()) / 2


def vae_loss(
    vae: Callable[..., tuple[Tensor, Encoding]],
    x: Samples,
    *,
    beta: float = 1.0,
    variance: float | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    """Return `-log p(x | z) + beta KL(q(z | x) || p(z))` in nats, one a sample.

    For `beta = 1` minus the evidence lower bound, Kingma and Welling 2014, eq. (3),
    with one draw of z; else Higgins et al. 2017, eq. (4). `variance`: the decoder's;
    without one, the likeliest for the batch, as `gaussian_nll` says. Raises as it does,
    and ValueError for a beta below 0. Chapter 02.
    """
    check_number("beta", beta, 0)
    x_hat, encoding = vae(x, generator=generator)
    nll = gaussian_nll(x, x_hat, variance)
    return nll + beta * kl_to_standard_normal(*encoding)


def _check_gaussian(mean: Tensor, log_var: Tensor) -> None:
    check_floating("mean", mean)
    check_shape("log_var", log_var, mean.shape, of="mean")


@torch.no_grad()
def sample(vae: VAE, n: int, *, generator: torch.Generator | None = None) -> Images:
    """Decode n draws from the prior N(0, I): means of p(x | z), clipped to [-1, 1].

    The decoder's noise, independent from pixel to pixel, is left out. Chapter 02.
    """
    weight = next(vae.parameters())
    z = draw_rows(n, vae.config.latent_shape, weight, generator)
    return vae.decode(z).clamp(-1, 1)
