"""Trained diffusion models, and what they make. Chapters 07 and 08."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ddpm_core.conditioning import clipped
from ddpm_core.diffusion import make_denoiser
from ddpm_core.presets import Preset, one_of
from ddpm_core.samplers import (
    DPMSolverPP2M,
    State,
    Step,
    ancestral_step,
    ddim_step,
    sample,
    spaced_times,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Images
from ddpm_core.unet import UNet
from ddpm_core.weights import fit_weights, load_weights

SAMPLERS: dict[str, Callable[[Schedule], Step]] = {
    "ddim": lambda schedule: partial(ddim_step, schedule),
    "ancestral": lambda schedule: partial(ancestral_step, schedule),
    "dpm-solver++": DPMSolverPP2M,
}
"""The samplers that the command line knows: each makes the step for one run."""


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A trained network with the schedule and the target it was trained for."""

    net: nn.Module
    preset: Preset

    def __post_init__(self):
        object.__setattr__(self, "schedule", self.preset.make_schedule())

    def denoiser(self) -> Denoise:
        """Return (x_t, t) -> x0_hat, clipped to the range of images."""
        return clipped(make_denoiser(self.net, self.schedule, self.preset.make_target))

    def noise(self, n: int, generator: torch.Generator | None = None) -> Images:
        """Draw n starting points x_T ~ N(0, I), on the network's device."""
        device = next(self.net.parameters()).device
        side = self.preset.size
        shape = (n, self.preset.unet.image_channels, side, side)
        x = torch.randn(shape, generator=generator)  # the same noise on every device
        return x.to(device, memory_format=torch.channels_last)

    def sample(
        self,
        x_T: Images,
        steps: int,
        sampler: str = "ddim",
        generator: torch.Generator | None = None,
    ) -> Iterator[State]:
        """Sample from x_T in that many network calls; yields as `samplers.sample`."""
        step = SAMPLERS[one_of("sampler", sampler, SAMPLERS)](self.schedule)
        times = spaced_times(self.schedule.T, steps)
        return sample(self.denoiser(), step, x_T, times, generator=generator)


def step_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the generator of the steps' noise: never that which drew x_T."""
    return torch.Generator(device).manual_seed(seed + 2**31)


def best_device() -> torch.device:
    """The device to sample on: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(name: str | Path, device: str | torch.device = "cpu") -> DiffusionModel:
    """Load a diffusion model that ships with the book, or from a folder of weights.

    Raises as `load_weights` does, and ValueError for weights that do not fit the card.
    """
    state, card = load_weights(name)
    preset = Preset.from_dict(card["config"])
    net = UNet(preset.unet)
    fit_weights(net, state, name)
    net = net.eval().requires_grad_(False)
    return DiffusionModel(net.to(device, memory_format=torch.channels_last), preset)
