"""The way into a small latent space, in which diffusion costs less. Chapter 11.

A KL autoencoder is a `VAE` whose z is a picture (`spatial`), trained for sharp
reconstructions above all: `autoencoder_loss`. `LatentScaler` brings its latents to the
size of noise. `ddpm train-autoencoder --out FOLDER` trains one, measures it and writes
its weights and card.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_number,
    check_output,
    check_shape,
)
from ddpm_core.neighbours.vae import VAE, VAEConfig, kl_to_standard_normal
from ddpm_core.types import FeatureMap, Images, PerSample
from ddpm_core.weights import fit_weights, load_weights, read_config

LatentImages = Float[Tensor, "b channels rows columns"]
"""Pictures of few channels and a small side, which diffuse as images do."""

Perceptual = Callable[[Images, Images], PerSample]
"""A distance of images, one number a pair, that follows the eye."""


def perceptual_distance(stages: Iterable[nn.Module], x: Images, y: Images) -> PerSample:
    """How differently the stages of a network see two images, 0 for the same.

    After each stage, the squared difference of the features, scaled to length 1 at each
    position, is averaged over positions; the stages are added up. Zhang et al. 2018,
    eq. (1), with all weights 1. Raises ValueError for unequal shapes. Chapter 11.
    """
    check_floating("x", x, "(b, c, h, w)")
    check_shape("y", y, x.shape, of="x")
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for stage in stages:
        x, y = stage(x), stage(y)
        total = total + feature_distance(x, y)
    return total


def feature_distance(x: FeatureMap, y: FeatureMap) -> PerSample:
    """The mean over positions of |x / |x| - y / |y||^2, 0..4. Chapter 11."""
    off = nn.functional.normalize(x, dim=1) - nn.functional.normalize(y, dim=1)
    return off.square().sum(1).flatten(1).mean(1)


def lpips_distance() -> Perceptual:
    """The learned perceptual distance, LPIPS, for photos; it fetches its weights once.

    Zhang et al. 2018. Raises RuntimeError where the package `lpips` is missing.
    Chapter 11.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise RuntimeError("LPIPS is not installed: pip install lpips") from error
    net = LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)
    return lambda x, y: net(x, y).flatten()


def autoencoder_loss(
    autoencoder: VAE,
    x: Images,
    *,
    kl_weight: float,
    perceptual: Perceptual | None = None,
    perceptual_weight: float = 1.0,
    generator: torch.Generator | None = None,
) -> PerSample:
    """Return the mean |x - x_hat| + perceptual distance + KL, each weighted, a sample.

    The KL, in nats, is counted for each number of z: its small weight keeps latents
    near 0 and a little blurred, and leaves nearly all to the reconstruction. Rombach et
    al. 2022, section 3.1 and appendix G, without the adversarial term. Raises
    ValueError for weights below 0 and distances that are not (b,). Chapter 11.
    """
    check_number("kl_weight", kl_weight, 0)
    check_number("perceptual_weight", perceptual_weight, 0)
    x_hat, encoding = autoencoder(x, generator=generator)
    check_output("the autoencoder", x_hat, x, "x")
    kl = kl_to_standard_normal(*encoding) / encoding.mean[0].numel()
    loss = (x - x_hat).abs().flatten(1).mean(1) + kl_weight * kl
    if perceptual:
        distance = perceptual(x, x_hat)
        check_shape("the perceptual distance", distance, loss.shape)
        loss = loss + perceptual_weight * distance
    return loss


class LatentScaler(nn.Module):
    """Images to latents of mean 0 and variance 1 in each channel, and back.

    Diffusion mixes its data with noise of variance 1: without this, its schedule would
    act at other times. `mean` and `std` (c,) are those of the autoencoder's own
    latents; `fit` measures them. Rombach et al. 2022, appendix G, scale all channels
    alike. `t_end` is the timestep at which sampling stops and the decoder takes over: 0
    unless it has learned to finish what a denoiser makes of noise at that time
    (chapter 14). Raises ValueError for an autoencoder whose latents are no pictures.
    Chapter 11.
    """

    def __init__(self, autoencoder: VAE, *, t_end: int = 0):
        super().__init__()
        if not autoencoder.config.spatial:
            raise ValueError("diffusion needs latents that are pictures: spatial=True")
        check_count("t_end", t_end, 0)
        self.autoencoder, self.t_end = autoencoder, t_end
        self.register_buffer("mean", torch.zeros(autoencoder.config.latent))
        self.register_buffer("std", torch.ones(autoencoder.config.latent))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image's latent, (c, h, w)."""
        return self.autoencoder.config.latent_shape

    @property
    def in_range(self) -> bool:
        """Whether latents are small images, with values in [-1, 1]."""
        return self.autoencoder.config.resized

    def fit(self, images: Images) -> "LatentScaler":
        """Measure the latents of these images; return itself.

        Latents that are small images stay as they are. Raises ValueError for a channel
        that never changes.
        """
        if self.in_range:
            return self
        self.mean.zero_()
        self.std.fill_(1)
        z = self.encode(images).transpose(0, 1).flatten(1)
        std = z.std(1)
        if not (std > 1e-4).all():
            raise ValueError(
                f"channel {int(std.argmin())} of the latents never changes: train the "
                "autoencoder longer, or with a smaller weight of the KL"
            )
        self.mean.copy_(z.mean(1))
        self.std.copy_(std)
        return self

    @torch.no_grad()
    def encode(self, images: Images, *, chunk: int = 256) -> LatentImages:
        """Return the scaled means of q(z | x), (b, *shape); takes `chunk` at a time."""
        check_count("chunk", chunk)
        parts = [self.autoencoder.encode(x).mean for x in images.split(chunk)]
        return (torch.cat(parts) - _channels(self.mean)) / _channels(self.std)

    def unscaled(self, latents: LatentImages) -> LatentImages:
        """Return the autoencoder's own latents."""
        return latents * _channels(self.std) + _channels(self.mean)

    @torch.no_grad()
    def decode(self, latents: LatentImages, *, chunk: int = 256) -> Images:
        """Return images, clipped to [-1, 1]; latents have no range and are not.

        Raises ValueError for latents of other channels.
        """
        check_floating("latents", latents, "(b, c, h, w)")
        check_count("chunk", chunk)
        if latents.shape[1] != len(self.mean):  # one channel would be broadcast
            raise ValueError(
                f"latents must have {len(self.mean)} channels, "
                f"got {tuple(latents.shape)}"
            )
        z = self.unscaled(latents)
        images = torch.cat([self.autoencoder.decode(part) for part in z.split(chunk)])
        return images.clamp(-1, 1)


def _channels(numbers: Tensor) -> Tensor:
    return numbers.view(1, -1, 1, 1)


def load_latent(
    name: str | Path = "toy-cars-autoencoder-32", device: str | torch.device = "cpu"
) -> LatentScaler:
    """Load an autoencoder that ships with the book, or one from a folder, with scales.

    Raises as `load_weights` does, and ValueError for weights that do not fit the card.
    """
    state, card = load_weights(name)

    def build(config: dict) -> LatentScaler:
        autoencoder = VAE(VAEConfig.from_dict(config))
        return LatentScaler(autoencoder, t_end=card.get("t_end", 0))

    latent = read_config(name, card, build)
    fit_weights(latent, state, name)
    return latent.to(device).eval().requires_grad_(False)
