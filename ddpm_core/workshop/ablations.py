"""Trains a tiny U-Net again and again, with one part taken away. Chapter 06.

Each variant is trained from several seeds; the runs of one seed see the same cars and
the same noise.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from ddpm_core import diffusion, schedules, training, unet
from ddpm_core.datasets import to_float
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.types import Images
from ddpm_core.workshop.tables import table_writer

BATCH = 32
RATE = 3e-3
CARS = 4_000  # to train on

TINY = unet.UNetConfig(
    channels=(8, 16), attention=(False, True), blocks=1, groups=4, dropout=0.0
)
"""The network of chapter 06's ablation, for cars of 16x16."""

BANDS = ((1, 10), (11, 30), (31, 100), (101, 300), (301, 600), (601, 1000))
"""Timesteps from 1 to 1000, in parts; a held-out loss is measured in each."""


def cars(n: int, size: int, seed: int) -> Images:
    """Draw n cars, in [-1, 1]."""
    return to_float(draw_toy_cars(n, size=size, seed=seed).images)


def train(
    net: nn.Module, x0: Images, loss: Callable[..., Tensor], *, steps: int, seed: int
) -> None:
    """Train on `steps` batches; the seed decides on cars, timesteps and noise."""
    g = torch.Generator().manual_seed(seed)
    batches = (
        (x0[torch.randint(len(x0), (BATCH,), generator=g)],) for _ in range(steps)
    )
    lr = training.warmup_cosine(RATE, warmup=20, total=steps)
    adam = torch.optim.Adam(net.parameters(), RATE, fused=True)
    for _ in training.train(net, partial(loss, generator=g), batches, adam, lr=lr):
        pass
    net.eval().requires_grad_(False)


def full(net: unet.UNet) -> unet.UNet:
    """Change nothing."""
    return net


def no_time(net: unet.UNet) -> unet.UNet:
    """Set the vector of the timestep to zero."""
    net.embed_time.register_forward_hook(lambda *call: torch.zeros_like(call[-1]))
    return net


def no_attention(net: unet.UNet) -> unet.UNet:
    """Let every attention return its input."""
    return replace(net, unet.Attention, lambda _: nn.Identity())


def replace(net: nn.Module, kind: type, make: Callable) -> nn.Module:
    """Put make(module) in the place of each module of this kind."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return net


PARTS = (full, no_time, no_attention)


def loss_in_band(net: nn.Module, loss: Callable, x0: Images, band: tuple) -> float:
    """The loss on cars at timesteps spread evenly over a band, with fixed noise."""
    g = torch.Generator().manual_seed(9)
    t = torch.linspace(*band, len(x0)).round().long()
    t = t[torch.randperm(len(t), generator=g)]
    eps = torch.randn(x0.shape, generator=g)
    pieces = zip(x0.split(100), t.split(100), eps.split(100), strict=True)
    return torch.cat([loss(net, x, t=t, eps=e) for x, t, e in pieces]).mean().item()


def rows_of_parts(steps: int, seeds: range) -> Iterator[dict]:
    """Yield a row for each seed and part."""
    cosine = schedules.cosine_schedule(1000)
    x0, held_out = cars(CARS, 16, seed=6), cars(500, 16, seed=7)

    def loss(net, x0, **options):
        return diffusion.diffusion_loss(net, cosine, diffusion.EPS, x0, **options)

    for seed in seeds:
        for change in PARTS:
            torch.manual_seed(seed)
            net = change(unet.UNet(TINY))
            train(net, x0, loss, steps=steps, seed=seed)
            yield {
                "name": change.__name__.replace("_", " "),
                "seed": seed,
                "losses": [loss_in_band(net, loss, held_out, b) for b in BANDS],
            }


def parts(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="steps of 32 cars")
    ] = 1_500,
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="trainings of each")] = 3,
) -> None:
    """Train a tiny U-Net without one of its parts on one core and write the table."""
    torch.set_num_threads(1)
    options = {"out": out, "steps": steps, "seeds": seeds}
    with table_writer("measure-parts", options) as write:
        write(rows_of_parts(steps, range(seeds)), {"bands": BANDS})
