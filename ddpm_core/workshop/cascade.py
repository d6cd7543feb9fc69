"""From small images to large ones: the second stage of a cascade. Chapter 14.

A network that denoises large images is shown a small one beside x_t, enlarged and
slightly noised: Ho et al. 2022. The noise hides from it what real small images have
and sampled ones lack.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.conditioning import beside, clipped
from ddpm_core.diffusion import diffusion_loss, make_denoiser, min_snr
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.samplers import ddim_step, last, sample, spaced_times
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Images, Times
from ddpm_core.workshop.run import Run

Large = Float[Tensor, "b c rows columns"]
"""Images of twice the side."""

NOISE = 0.2
"""Standard deviation of the noise on the small image, which lies in [-1, 1]."""


def shown(small: Images, generator: torch.Generator | None = None) -> Large:
    """The small image as the network sees it: noised, each pixel repeated 2 by 2."""
    noise = torch.randn(small.shape, generator=generator, device=small.device)
    return F.interpolate(small + NOISE * noise, scale_factor=2.0, mode="nearest")


class UpsamplerRun(Run):
    """The run of an upsampler: its preset's network has 6 image channels."""

    stacked = 2

    def _loss(self, schedule: Schedule) -> Callable[..., Tensor]:
        target = self.preset.model.make_target()
        weight = min_snr(target, self.preset.min_snr) if self.preset.min_snr else None

        def loss(net: nn.Module, x0: Images, t: Times, eps: Images) -> Tensor:
            conditioned = beside(net, shown(F.avg_pool2d(x0, 2)))
            return diffusion_loss(
                conditioned, schedule, target, x0, t=t, eps=eps, weight=weight
            )

        return loss


def upsampled(
    model: DiffusionModel, small: Images, calls: int, generator: torch.Generator
) -> Large:
    """Enlarge small images (b, 3, h, w) to (b, 3, 2h, 2w) in that many calls."""
    schedule, condition = model.schedule, shown(small, generator)
    b, c, h, w = small.shape
    denoise: Denoise = clipped(
        make_denoiser(beside(model.net, condition), schedule, model.target)
    )
    x_T = torch.randn(b, c, 2 * h, 2 * w, generator=generator)
    times = spaced_times(schedule.T, calls)
    return last(sample(denoise, partial(ddim_step, schedule), x_T, times))


@torch.no_grad()
def draw_cascade(
    model: DiffusionModel,
    n: int,
    *,
    calls: int,
    base: str | Path = "photos-32",
    seed: int = 0,
    chunk: int = 128,
) -> Images:
    """Sample n small images of the model `base`, and enlarge them; calls of each."""
    first, parts = load_model(base), []
    g = torch.Generator().manual_seed(seed)
    for i in range(0, n, chunk):
        x_T = first.noise(min(chunk, n - i), g)
        small = last(first.sample(x_T, calls))
        parts.append(upsampled(model, small, calls, g))
    return torch.cat(parts)
