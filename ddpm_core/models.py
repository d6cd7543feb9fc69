"""Trained diffusion models, and what they make. Chapters 07 and 08."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ddpm_core import compiling
from ddpm_core.checking import check_count
from ddpm_core.clip import CLIP, load_clip
from ddpm_core.clip.published import PREFIX, PublishedCLIP, load_published_clip
from ddpm_core.conditioning import clipped, guided_together, join
from ddpm_core.diffusion import make_denoiser
from ddpm_core.latent import LatentScaler, load_latent
from ddpm_core.presets import Preset, one_of
from ddpm_core.samplers import (
    DPMSolverPP2M,
    Noise,
    State,
    Step,
    ancestral_step,
    ddim_step,
    sample,
    spaced_times,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Condition, Denoise, Images, Samples, Times
from ddpm_core.unet import UNet
from ddpm_core.weights import fit_weights, load_weights, read_config

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The number formats of training, by the names that accelerate gives them."""

TextEncoder = CLIP | PublishedCLIP
"""What turns prompts into conditions: `encode`, and the `widths` of what it gives."""

SAMPLERS: dict[str, Callable[[Schedule], Step]] = {
    "ddim": lambda schedule: partial(ddim_step, schedule),
    "ancestral": lambda schedule: partial(ancestral_step, schedule),
    "dpm-solver++": DPMSolverPP2M,
}
"""The samplers that the command line knows: each makes the step for one run."""


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A trained network with the schedule and the target it was trained for.

    `encoder` turns prompts into what the network is told; None for a model that was
    trained without captions. `latent` leads to the space in which it diffuses; None for
    one that does so in pixels.
    """

    net: nn.Module
    preset: Preset
    encoder: TextEncoder | None = None
    latent: LatentScaler | None = None

    def __post_init__(self):
        schedule = self.preset.make_schedule().to(self.device)  # so no call waits
        object.__setattr__(self, "schedule", schedule)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.net.parameters()).device

    def denoiser(
        self,
        prompts: Sequence[str] | None = None,
        *,
        scale: float = 1.0,
        negative: str = "",
    ) -> Denoise:
        """Return (x_t, t) -> x0_hat, of images clipped to their range.

        A text model needs a prompt for each sample, '' for none; its guidance goes away
        from the `negative` prompt with that `scale`, where 1 is the prompt alone.
        Raises ValueError for a prompt too few or too many, and as `Tokenizer` does.
        Chapter 10.
        """
        told = partial(make_denoiser, self.net, self.schedule, self.preset.make_target)
        if (prompts is None) != (self.encoder is None):
            raise ValueError(
                "this model was trained without captions: it takes no prompts"
                if self.encoder is None
                else "this model draws from prompts: give one a sample, '' for none"
            )
        bounded = (lambda denoise: denoise) if self.latent else clipped
        if self.encoder is None:
            return bounded(told())
        without = [negative] * len(prompts)
        if scale in (0, 1):
            return bounded(told(self.encoder.encode(prompts if scale else without)))
        cond, uncond = self.encoder.encode(prompts), self.encoder.encode(without)
        return bounded(guided_together(told(join(cond, uncond)), scale))

    def noise(self, n: int, generator: torch.Generator | None = None) -> Images:
        """Draw n starting points x_T ~ N(0, I), on the network's device.

        One after the other: the first of them are the same for every n. Raises
        ValueError for n below 1.
        """
        check_count("n", n)
        side = self.preset.size
        pixels = (self.preset.unet.image_channels, side, side)
        shape = self.latent.shape if self.latent else pixels
        rows = [torch.randn(shape, generator=generator) for _ in range(n)]
        x = torch.stack(rows)  # drawn on the CPU: the same on every device
        return x.to(self.device, memory_format=torch.channels_last)

    def sample(
        self,
        x_T: Images,
        steps: int,
        sampler: str = "ddim",
        generator: Noise = None,
        *,
        t_end: int = 0,
        **told: object,
    ) -> Iterator[State]:
        """Sample from x_T in that many network calls; yields as `samplers.sample`.

        The last one is from `t_end`, where that is above 0. `told`: the prompts and
        their guidance, as `denoiser` takes them. What is yielded are images, or latents
        for `decode`.
        """
        step = SAMPLERS[one_of("sampler", sampler, SAMPLERS)](self.schedule)
        times = spaced_times(self.schedule.T, steps, t_end)
        denoise = self.denoiser(**told)
        return sample(denoise, step, x_T, times, generator=generator)

    def decode(self, x: Samples) -> Images:
        """Return the images that states stand for: themselves, but for latents."""
        return self.latent.decode(x) if self.latent else x


def step_generators(
    seed: int, n: int, device: str | torch.device = "cpu", *, first: int = 0
) -> list[torch.Generator]:
    """Return the generators of the steps' noise for images first, first + 1, ...

    Each is seeded by `seed` and the image's number, so that image i of a seed is the
    same for every n, however the images are divided into batches; and none is that
    which drew x_T.
    """
    entropy = [(seed % 2**64, first + i) for i in range(n)]
    seeds = [int(np.random.SeedSequence(pair).generate_state(1)[0]) for pair in entropy]
    return [torch.Generator(device).manual_seed(s) for s in seeds]


def best_device() -> torch.device:
    """The device to sample on: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def best_precision(device: torch.device) -> str:
    """The number format to train in there, as accelerate names it: no is fp32."""
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


class HalfPrecision(nn.Module):
    """A network that computes in half precision; it takes and returns fp32.

    Chapter 14.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, x: Samples, t: Times, cond: Condition | None = None) -> Samples:
        with torch.autocast(x.device.type, self.dtype):
            return self.net(x, t, cond).float()


def quick(model: DiffusionModel, *, compiled: bool = False) -> DiffusionModel:
    """The same model for many images: on a CUDA GPU, in half precision.

    To compile a large network takes minutes: only many calls win them back. Chapter 14.
    """
    net = compiling.compiled(model.net) if compiled else model.net
    precision = best_precision(model.device)
    if precision != "no":
        net = HalfPrecision(net, DTYPES[precision])
    return replace(model, net=net)


def load_model(name: str | Path, device: str | torch.device = "cpu") -> DiffusionModel:
    """Load a diffusion model that ships with the book, or from a folder of weights.

    Raises as `load_weights` does, and ValueError for weights that do not fit the card.
    """
    state, card = load_weights(name)
    preset = read_config(name, card, Preset.from_dict)
    net = UNet(preset.unet)
    fit_weights(net, state, name)
    net = net.eval().requires_grad_(False)
    net = net.to(device, memory_format=torch.channels_last)
    parts = load_text_encoder(preset, device), load_autoencoder(preset, device)
    return DiffusionModel(net, preset, *parts)


def load_text_encoder(preset: Preset, device: str | torch.device) -> TextEncoder | None:
    """Load what turns prompts into conditions for this preset; None if it has none.

    Raises as `load_clip` and `load_published_clip` do, and ValueError for an encoder
    that does not fit the preset's network.
    """
    if not preset.text:
        return None
    published = preset.text.startswith(PREFIX)
    encoder = (load_published_clip if published else load_clip)(preset.text, device)
    wanted = (preset.unet.pooled, preset.unet.context)
    if encoder.widths != wanted:
        raise ValueError(
            f"the text encoder {preset.text} gives conditions of widths "
            f"{encoder.widths}, the network takes {wanted}: set pooled and context"
        )
    return encoder


def load_autoencoder(preset: Preset, device: str | torch.device) -> LatentScaler | None:
    """Load the way into the preset's latents and back; None if it works in pixels.

    Raises as `load_latent` does, and ValueError for an autoencoder that does not fit
    the preset's images or network.
    """
    if not preset.latent:
        return None
    latent, unet = load_latent(preset.latent, device), preset.unet
    channels, side, _ = latent.shape
    size = latent.autoencoder.config.size
    if size != preset.size or channels != unet.image_channels:
        raise ValueError(
            f"the autoencoder {preset.latent} is for images of {size} pixels and gives "
            f"{channels} channels, the preset has size = {preset.size} and "
            f"image_channels = {unet.image_channels}"
        )
    if side % unet.side_multiple:
        raise ValueError(
            f"latents of {side}x{side} do not fit this network, which takes multiples "
            f"of {unet.side_multiple}: fewer levels, or a smaller patch"
        )
    return latent
