"""Wrappers around a denoiser: guidance and clipping. Chapter 10."""

from torch import Tensor

from ddpm_core.types import Denoise


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


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """Clip x0_hat to the range of images (never of latents). Chapter 08."""

    def clip(x_t: Tensor, t: Tensor) -> Tensor:
        return denoise(x_t, t).clamp(low, high)

    return clip
