"""Trained diffusion models, and what they make. Chapters 07 and 08."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isfinite
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from ddpm_core import compiling
from ddpm_core.checking import check_count
from ddpm_core.clip import CLIP, load_clip
from ddpm_core.conditioning import (
    LabelEncoder,
    clipped,
    guided,
    guided_together,
    join,
)
from ddpm_core.config import ModelConfig
from ddpm_core.diffusion import Target, make_denoiser
from ddpm_core.latent import LatentScaler, load_latent
from ddpm_core.published_clip import PREFIX, PublishedCLIP, load_published_clip
from ddpm_core.samplers import Noise, State, sample_by_name, times_by_name
from ddpm_core.schedules import Schedule
from ddpm_core.types import Condition, Denoise, Images, Samples, Times
from ddpm_core.weights import fit_weights, load_weights, read_config

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The number formats of training, by the names that accelerate gives them."""

Encoder = CLIP | PublishedCLIP | LabelEncoder
"""What turns prompts into conditions: `encode`, and the `widths` of what it gives."""


class Prompted(TypedDict, total=False):
    """What a model draws: a prompt for each sample, and its guidance.

    `prompts`, of a conditional model: texts, or names of classes, '' for none; `scale`:
    of the guidance, where 1 is the model alone; `negative`: the prompt that it leads
    away from; `guide`: the worse model that it leads away from. Chapter 10.
    """

    prompts: Sequence[str]
    scale: float
    negative: str
    guide: "DiffusionModel"


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A trained network with the schedule and the target it was trained for.

    `encoder` turns prompts into the network's condition; None for a model that was
    trained without. `latent` leads to the space in which it diffuses; None for one that
    does so in pixels.
    """

    net: nn.Module
    config: ModelConfig
    encoder: Encoder | None = None
    latent: LatentScaler | None = None

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule, on the network's device, so that no call waits."""
        return self.config.make_schedule().to(self.device)

    @cached_property
    def target(self) -> Target:
        """What the network predicts."""
        return self.config.make_target()

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
        guide: "DiffusionModel | None" = None,
    ) -> Denoise:
        """Return (x_t, t) -> x0_hat, of images clipped to their range.

        A conditional model needs a prompt for each sample, '' for none; its guidance
        goes away from the `negative` prompt with that `scale`, where 1 is the prompt
        alone. With a `guide`, a worse model of the same images, it goes away from what
        that one makes of x_t and the same prompts (autoguidance, Karras et al. 2024).
        Raises ValueError for a prompt too few or too many, for a scale that is not a
        finite number, for a guide of other samples, prompts or schedule, and as the
        encoder does. Chapter 10.
        """
        if not isfinite(scale):
            raise ValueError(f"scale must be a finite number, got {scale}")
        if (prompts is None) != (self.encoder is None):
            raise ValueError(
                "this model was trained without captions: it takes no prompts"
                if self.encoder is None
                else "this model draws from prompts: give one a sample, '' for none"
            )
        if guide is not None:
            self._check_guide(guide, negative)
            both = (model.denoiser(prompts) for model in (self, guide))
            return self._bounded(guided(*both, scale))
        given = partial(make_denoiser, self.net, self.schedule, self.target)
        if self.encoder is None:
            return self._bounded(given())
        without = [negative] * len(prompts)
        if scale in (0, 1):
            return self._bounded(
                given(self.encoder.encode(prompts if scale else without))
            )
        cond, uncond = self.encoder.encode(prompts), self.encoder.encode(without)
        return self._bounded(guided_together(given(join(cond, uncond)), scale))

    def _bounded(self, denoise: Denoise) -> Denoise:
        """Clip images to their range; latents have none."""
        free = self.latent and not self.latent.in_range
        return denoise if free else clipped(denoise)

    def _check_guide(self, guide: "DiffusionModel", negative: str) -> None:
        if negative:
            raise ValueError("guidance leads away from a guide or a negative prompt")
        if guide.shape != self.shape:
            raise ValueError(
                f"a guide must draw what the model draws, {self.shape}, "
                f"got one that draws {guide.shape}"
            )
        if guide._latent_scales() != self._latent_scales():
            raise ValueError(
                f"a guide must draw latents of the model's autoencoder, "
                f"{self.config.latent or 'none'}, got {guide.config.latent or 'none'}"
            )
        if (guide.encoder is None) != (self.encoder is None):
            raise ValueError(
                "a guide must take prompts as the model does: one of the two was "
                "trained without"
            )
        if guide.schedule.alpha_bar_list != self.schedule.alpha_bar_list:
            raise ValueError(
                f"a guide must have the model's schedule, {self.config.schedule} of "
                f"T = {self.config.T}, got {guide.config.schedule} of "
                f"T = {guide.config.T}"
            )

    def _latent_scales(self) -> list[float]:
        """What tells the latents of autoencoders apart; empty for images."""
        if self.latent is None or self.latent.in_range:
            return []
        return [*self.latent.mean.tolist(), *self.latent.std.tolist()]

    @property
    def t_end(self) -> int:
        """The timestep from which the last step of sampling goes to 0."""
        return self.latent.t_end if self.latent else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one sample, (c, h, w): an image, or its latent."""
        pixels = (self.config.network.image_channels, *self.config.sides)
        return self.latent.shape if self.latent else pixels

    def noise(self, n: int, generator: torch.Generator | None = None) -> Images:
        """Draw n starting points `x_T ~ N(0, I)`, on the network's device.

        One after the other: the first of them are the same for every n. Raises
        ValueError for n below 1.
        """
        check_count("n", n)
        rows = [torch.randn(self.shape, generator=generator) for _ in range(n)]
        x = torch.stack(rows)  # drawn on the CPU: the same on every device
        return x.to(self.device, memory_format=torch.channels_last)

    def sample(
        self,
        x_T: Images,
        steps: int,
        sampler: str = "ddim",
        generator: Noise = None,
        *,
        t_end: int | None = None,
        spacing: str = "time",
        **prompted: Unpack[Prompted],
    ) -> Iterator[State]:
        """Sample from x_T in that many network calls; yields as `samplers.sample`.

        `sampler`, `spacing` and `t_end` are those of `samplers.sample_by_name`, where
        a `t_end` of None is the model's own; `prompted` is what `denoiser` takes. What
        is yielded are images, or latents for `decode`.
        """
        denoise = self.denoiser(**prompted)
        return sample_by_name(
            sampler,
            self.schedule,
            denoise,
            x_T,
            steps,
            spacing=spacing,
            t_end=self.t_end if t_end is None else t_end,
            generator=generator,
        )

    def check_sampling(
        self,
        steps: int,
        sampler: str = "ddim",
        *,
        t_end: int | None = None,
        spacing: str = "time",
        **prompted: Unpack[Prompted],
    ) -> None:
        """Raise as `sample` does for what it cannot do, before anything costs time."""
        self.times(steps, sampler, t_end=t_end, spacing=spacing)
        self.denoiser(**prompted)

    def times(
        self,
        steps: int,
        sampler: str = "ddim",
        *,
        t_end: int | None = None,
        spacing: str = "time",
    ) -> list[int]:
        """Return the timesteps of the states of `sample`; raises as it does."""
        t_end = self.t_end if t_end is None else t_end
        return times_by_name(
            sampler, self.schedule, steps, spacing=spacing, t_end=t_end
        )

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
    config = read_config(name, card, ModelConfig.from_dict)
    net = config.make_network()
    fit_weights(net, state, name)
    net = net.eval().requires_grad_(False)
    net = net.to(device, memory_format=torch.channels_last)
    parts = load_encoder(config, device), load_autoencoder(config, device)
    return DiffusionModel(net, config, *parts)


def load_encoder(config: ModelConfig, device: str | torch.device) -> Encoder | None:
    """Load what turns prompts into conditions for this model; None if it has none.

    Raises as `load_clip` and `load_published_clip` do, and ValueError for an encoder
    that does not fit the network.
    """
    if config.classes:
        return LabelEncoder(config.classes).to(device)
    if not config.text:
        return None
    published = config.text.startswith(PREFIX)
    encoder = (load_published_clip if published else load_clip)(config.text, device)
    wanted = (config.network.pooled, config.network.context)
    if encoder.widths != wanted:
        raise ValueError(
            f"the text encoder {config.text} gives conditions of widths "
            f"{encoder.widths}, the network takes {wanted}: set pooled and context"
        )
    return encoder


def load_autoencoder(
    config: ModelConfig, device: str | torch.device
) -> LatentScaler | None:
    """Load the way into the model's latents and back; None if it works in pixels.

    Raises as `load_latent` does, and ValueError for an autoencoder that does not fit
    the images or the network.
    """
    if not config.latent:
        return None
    latent, network = load_latent(config.latent, device), config.network
    channels, side, _ = latent.shape
    size = latent.autoencoder.config.size
    if size != config.size or channels != network.image_channels:
        raise ValueError(
            f"the autoencoder {config.latent} is for images of {size} pixels and gives "
            f"{channels} channels, the model has size = {config.size} and "
            f"image_channels = {network.image_channels}"
        )
    if side % network.side_multiple:
        raise ValueError(
            f"latents of {side}x{side} do not fit this network, which takes multiples "
            f"of {network.side_multiple}: choose fewer levels, or a smaller patch"
        )
    return latent
