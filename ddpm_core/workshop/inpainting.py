"""Measures ways to fill a hole; for one of them it trains a network. Chapter 12.

That network sees the known pixels and the mask beside x_t, as further channels. It is
a trained one whose first convolution is widened by zeros, so that it starts as good as
it was: Rombach et al. 2022, section 4.5, and Saharia et al. 2021 (Palette).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from ddpm_core import editing, metrics, training
from ddpm_core.conditioning import beside, clipped
from ddpm_core.datasets import to_float, to_uint8
from ddpm_core.datasets.toy_cars import ATTRIBUTES, draw_toy_cars
from ddpm_core.diffusion import diffusion_loss, make_denoiser
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.neighbours.classifier import load_classifier
from ddpm_core.samplers import Step, ancestral_step, last, sample, spaced_times
from ddpm_core.types import Denoise, Images
from ddpm_core.unet import UNet
from ddpm_core.workshop.ablations import cars
from ddpm_core.workshop.tables import table_writer

MODEL = "toy-cars-32"
STEPS = 25
ROUNDS = 6
SCALE = 5.0  # of the guidance where the known part is replaced, too
CARS = 8_000  # to train on
BATCH = 32
RATE = 1e-3
EMA = 0.99

Masks = Bool[Tensor, "b 1 h w"]
"""True where a pixel is known."""

Shown = Float[Tensor, "b channels h w"]
"""The known pixels and the mask: the channels of images and one more."""

Fills = Float[Tensor, "b_times_k c h w"]
"""Several images in a row for each of b."""


def widened(net: UNet, channels: int) -> UNet:
    """Copy a U-Net with so many more channels of its images, which it ignores at first.

    What is new in the first and in the last layer is zero: for its former channels the
    copy returns what `net` does.
    """
    config = replace(net.config, image_channels=net.config.image_channels + channels)
    wide, old = UNet(config).to(next(net.parameters())), net.state_dict()
    state = {k: torch.zeros_like(v) for k, v in wide.state_dict().items()}
    for name, tensor in old.items():
        state[name][tuple(map(slice, tensor.shape))] = tensor
    wide.load_state_dict(state)
    return wide.train(net.training)


def shown(x0: Images, keep: Tensor) -> Shown:
    """What the network sees of an image with a hole: 0 in the hole, and the mask.

    (b, c, h, w) and booleans that broadcast over (b, 1, h, w) -> (b, c + 1, h, w); the
    last channel is 1 where a pixel is known, else 0.
    """
    mask = keep.to(x0).expand(len(x0), 1, *x0.shape[2:])
    return torch.cat([torch.where(keep, x0, 0.0), mask], dim=1)


def random_masks(n: int, side: int, generator: torch.Generator) -> Masks:
    """Draw masks whose hole is a rectangle, a band of all rows, or one of all columns.

    The ends of a hole lie as often beyond the border of the image as within it.
    """
    ends = torch.randint(-side // 2, side + side // 2, (n, 2, 2), generator=generator)
    ends, kind = ends.sort(2).values, torch.randint(3, (n,), generator=generator)
    whole = torch.tensor([0, side])
    ends[kind == 0, 0], ends[kind == 1, 1] = whole, whole
    place = torch.arange(side)
    inside = (place >= ends[..., :1]) & (place < ends[..., 1:])
    return ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


def train(model: DiffusionModel, x0: Images, *, steps: int, seed: int) -> UNet:
    """Train a widened copy of the model's network on holes; return averaged weights.

    The seed decides on cars, masks, timesteps and noise.
    """
    net = widened(model.net, 4).requires_grad_(True)
    g = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Images, Shown]]:
        for _ in range(steps):
            images = x0[torch.randint(len(x0), (BATCH,), generator=g)]
            masks = random_masks(BATCH, images.shape[3], g)
            yield images, shown(images, masks)

    def loss(net: nn.Module, images: Images, condition: Shown) -> Tensor:
        return diffusion_loss(
            beside(net, condition), model.schedule, model.target, images, generator=g
        )

    ema = training.EMA(net, EMA)
    adam = torch.optim.Adam(net.parameters(), RATE, fused=True)
    lr = training.warmup_cosine(RATE, warmup=20, total=steps)
    for _ in training.train(net, loss, batches(), adam, lr=lr, ema=ema):
        pass
    return ema.net


def right_half(side: int) -> Masks:
    """The mask of chapter 12: the right half is missing. (1, 1, side, side)."""
    return (torch.arange(side) < side // 2).expand(1, 1, side, side)


def cars_to_fill(n: int, seed: int) -> tuple[Images, Tensor]:
    """Draw n cars that face left, so that the hole holds their rear; and attributes."""
    rows = draw_toy_cars(n, size=16, seed=seed).attributes
    facing = list(ATTRIBUTES).index("facing")
    rows[:, facing] = ATTRIBUTES["facing"].index("left")
    drawn = draw_toy_cars(n, seed=seed, attributes=rows)
    return to_float(drawn.images), torch.as_tensor(drawn.attributes)


class Way(NamedTuple):
    """A way to fill holes: a denoiser and a step for each run, and what they cost."""

    name: str
    calls: int
    backward: int
    make: Callable[[Images, torch.Generator], tuple[Denoise, Step]]
    training: int | None = None  # the seed of its network's training


def ways(model: DiffusionModel, nets: Iterable[UNet], keep: Tensor) -> Iterator[Way]:
    """Yield the ways that are compared, the last of them for each trained network."""
    schedule, free = model.schedule, model.denoiser()
    raw = make_denoiser(model.net, schedule, model.target)
    step = partial(ancestral_step, schedule)

    def replacing(x0: Images) -> Step:
        return editing.replacing(schedule, step, x0, keep)

    def resampling(x0: Images, g: torch.Generator) -> Step:
        inner = replacing(x0)
        return editing.resampling(schedule, inner, free, ROUNDS, generator=g)

    def guided(x0: Images, scale: float) -> Denoise:
        return clipped(
            editing.reconstruction_guided(raw, schedule, x0, keep, scale=scale)
        )

    def told(net: UNet, x0: Images) -> Denoise:
        network = beside(net, shown(x0, keep))
        return clipped(make_denoiser(network, schedule, model.target))

    again = STEPS + (STEPS - 1) * (ROUNDS - 1)
    yield Way("pasted", STEPS, 0, lambda x0, g: (free, step))
    yield Way("replacement", STEPS, 0, lambda x0, g: (free, replacing(x0)))
    yield Way("resampling", again, 0, lambda x0, g: (free, resampling(x0, g)))
    yield Way("guidance", STEPS, STEPS, lambda x0, g: (guided(x0, 1.0), step))
    yield Way(
        "guidance and replacement",
        STEPS,
        STEPS,
        lambda x0, g: (guided(x0, SCALE), replacing(x0)),
    )
    for seed, net in enumerate(nets):
        make = partial(lambda net, x0, g: (told(net, x0), step), net)
        yield Way("mask channels", STEPS, 0, make, seed)


def fill(way: Way, x0: Images, T: int, seed: int) -> Images:
    """Fill the holes of x0; all ways of a seed start from the same noise."""
    g = torch.Generator().manual_seed(seed)
    x_T = torch.randn(x0.shape, generator=g)
    run = sample(*way.make(x0, g), x_T, spaced_times(T, STEPS), generator=g)
    return last(run)


def seam(x: Images) -> float:
    """The mean step of brightness across the middle of the image."""
    middle = x.shape[3] // 2
    return (x[..., middle] - x[..., middle - 1]).abs().mean().item()


def rms(x: Tensor) -> float:
    """The root of the mean square."""
    return x.square().mean().sqrt().item()


def measure(
    filled: Fills,
    x0: Images,
    keep: Tensor,
    wanted: Tensor,
    read: Callable[[Images], Tensor],
) -> dict:
    """What is found of the fills of n originals x0, several of each: (n * k, ...).

    `known` is the rms error on the known part, before the original is pasted over it
    for all that follows: the seam, as a multiple of the originals'; attributes that
    `read` finds as they are in the original; `hole`, the rms error in the hole; the
    `spread` of the fills of one hole, a standard deviation. For exact samples of what
    the hole may hold, `hole` is the root of 2 times `spread`: the original is one more.
    """
    n = len(x0)
    whole = torch.where(keep, x0[:, None], filled.unflatten(0, (n, -1)))
    missing = ~keep.expand_as(x0[:1]).flatten()
    off = (whole - x0[:, None]).flatten(2)[..., missing]
    known = (filled.unflatten(0, (n, -1)) - x0[:, None]).flatten(2)[..., ~missing]
    k = whole.shape[1]
    finished = whole.flatten(0, 1).clamp(-1, 1)
    right = metrics.attribute_accuracy(
        read(finished), wanted.repeat_interleave(k, 0)
    ).tolist()
    kept = dict(zip(ATTRIBUTES, right, strict=True))
    return {
        "known": rms(known),
        "seam": seam(finished) / seam(x0),
        **{name: kept[name] for name in ("body", "colour", "ground")},
        "hole": rms(off),
        "spread": sqrt(off.var(1).mean().item()),
    }


def save_fills(path: Path, images: Images) -> None:
    """Save the images side by side, each pixel once, without loss."""
    row = torch.cat(list(to_uint8(images)), dim=1)
    Image.fromarray(row.numpy()).save(path, optimize=True)


def load_fills(path: str | Path) -> Images:
    """Load what `save_fills` saved, (b, 3, side, side)."""
    row = np.array(Image.open(path))
    return to_float(np.stack(np.split(row, row.shape[1] // len(row), axis=1)))


def rows(
    model: DiffusionModel,
    nets: Iterable[UNet],
    *,
    n: int,
    fills: int,
    seeds: range,
    pictures: Path,
) -> Iterator[dict]:
    """Yield a row for each way, training and seed of the noise.

    `pictures`: where the first trained network's fills of chapter 12's cars are saved.
    """
    judge, keep = load_classifier(), right_half(model.config.size)

    def read(images: Images) -> Tensor:
        return judge.predict(images).attributes

    T, (x0, wanted) = model.schedule.T, cars_to_fill(n, seed=201)
    for way in ways(model, nets, keep):
        if way.training == 0:
            save_fills(pictures, fill(way, cars_to_fill(16, seed=200)[0], T, seed=0))
        for seed in seeds:
            filled = fill(way, x0.repeat_interleave(fills, 0), T, seed)
            yield {
                "name": way.name,
                "training": way.training,
                "seed": seed,
                "calls": way.calls,
                "backward": way.backward,
                **measure(filled, x0, keep, wanted, read),
            }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; pictures beside it")],
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="steps of training")
    ] = 1_000,
    trainings: Annotated[
        int, typer.Option(min=0, max=100, help="networks trained")
    ] = 3,
    n: Annotated[int, typer.Option(min=16, max=100_000, help="cars with a hole")] = 16,
    fills: Annotated[
        int, typer.Option(min=2, max=1_000, help="fills of each hole")
    ] = 2,
    seeds: Annotated[
        int, typer.Option(min=1, max=1_000, help="seeds of the noise")
    ] = 3,
) -> None:
    """Fill holes in several ways, one of them trained for it, and write the table."""
    torch.set_num_threads(1)
    model = load_model(MODEL)

    def nets() -> Iterator[UNet]:
        x0 = cars(CARS, model.config.size, seed=6)
        for seed in range(trainings):
            yield train(model, x0, steps=steps, seed=seed)

    options = {"out": out, "steps": steps, "trainings": trainings}
    options |= {"n": n, "fills": fills, "seeds": seeds}
    facts = {"scale": SCALE, "rounds": ROUNDS, "images seen": steps * BATCH}
    counts = {"n": n, "fills": fills, "seeds": range(seeds)}
    found = rows(model, nets(), pictures=out.with_suffix(".png"), **counts)
    with table_writer("measure-inpainting", options) as write:
        write(found, facts)
