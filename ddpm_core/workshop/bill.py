"""What a run costs, counted before its data are there. Chapter 14.

Operations do not depend on a machine, nor on the contents of images: the network is
built on the device `meta`, where tensors have only shapes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.config import ModelConfig
from ddpm_core.datasets.atomic import current_folder
from ddpm_core.datasets.packed import read_meta, write_packed
from ddpm_core.models import load_autoencoder
from ddpm_core.types import Condition
from ddpm_core.workshop.presets import Preset

PHOTOS = 16_185  # of Stanford Cars
SMALLER = 4  # times, that a side of the latents is smaller where nothing is known
WORDS = 77  # that a published text encoder reads
STEPS = 8  # of an epoch of noise
COLOURS = 3  # channels of what autoencoders see


class Bill(NamedTuple):
    """What is counted of a run, and what had to be assumed."""

    parameters: int
    flop: int  # of a training step, an image: three times the forward pass
    images: int  # that the run sees
    assumed: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The FLOP of the whole run."""
        return self.flop * self.images

    def __str__(self) -> str:
        """Say it in one line."""
        assumed = f"; assumed: {', '.join(self.assumed)}" if self.assumed else ""
        return (
            f"{self.parameters:,} parameters, {self.flop / 1e9:,.2f} GFLOP an image "
            f"and step; all {self.images:,} images: {self.total:.2e} FLOP{assumed}"
        )


def bill(preset: Preset) -> Bill:
    """Count what a run of this preset costs; its data need not be there."""
    n, assumed = _images(preset)
    shape, also = _shape(preset.model)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = preset.model.make_network()
        x, t = torch.zeros(1, *shape), torch.ones(1, dtype=torch.int64)
        net(x, t, _condition(preset.model))
    return Bill(
        parameters=sum(p.numel() for p in net.parameters()),
        flop=3 * counter.get_total_flops(),
        images=preset.epochs * (n // preset.batch) * preset.batch,
        assumed=assumed + also,
    )


def has_data(preset: Preset) -> bool:
    """Whether the images of a preset are there, or can be drawn."""
    folder = current_folder(preset.data)
    return preset.data == "toy-cars" or (folder / "meta.json").exists()


def _images(preset: Preset) -> tuple[int, tuple[str, ...]]:
    """How many images are trained on, and what was assumed."""
    if preset.data == "toy-cars":
        return preset.drawn, ()
    if has_data(preset):
        return read_meta(current_folder(preset.data))["n"] - preset.held_out, ()
    assumed = f"{PHOTOS:,} photos, those of Stanford Cars, as there is no {preset.data}"
    return PHOTOS - preset.held_out, (assumed,)


def _shape(config: ModelConfig) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shape of one image, or of its latent, and what was assumed."""
    channels, sides = config.network.image_channels, config.sides
    if not config.latent:
        return (channels, *sides), ()
    if known := latent_shape(config):
        return known, ()
    sides = tuple(side // SMALLER for side in sides)
    size = "x".join(map(str, sides))
    return (channels, *sides), (f"latents of {size}, as there is no {config.latent}",)


def latent_shape(config: ModelConfig) -> tuple[int, ...] | None:
    """The shape of one latent; None where the model's autoencoder is not there."""
    try:
        return load_autoencoder(config, "cpu").shape
    except FileNotFoundError:
        return None


def _condition(config: ModelConfig) -> Condition | None:
    """A condition as wide as the network takes it; None where it takes none."""
    pooled, context = config.network.pooled, config.network.context
    if not pooled:
        return None
    if not context:
        return Condition(torch.zeros(1, pooled))
    seen = torch.ones(1, WORDS, dtype=torch.bool)
    return Condition(torch.zeros(1, pooled), torch.zeros(1, WORDS, context), seen)


@contextmanager
def on_noise(preset: Preset, batch: int) -> Iterator[Preset]:
    """The preset on images of noise, in batches of that many, which cost as much.

    Its autoencoder, if it has one, must be there.
    """
    config, n = preset.model, batch * STEPS
    channels = COLOURS if config.latent else config.network.image_channels
    shape = (n, *config.sides, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with TemporaryDirectory() as folder:
        data = Path(folder) / "noise"
        labels = np.zeros(n, np.int64)
        write_packed(data, images, labels=labels, classes=("noise",), source="noise")
        yield replace(
            preset, data=str(data), held_out=0, absent=(), batch=batch,
            accumulate=preset.accumulate if batch == preset.batch else 1,
        )  # fmt: skip
