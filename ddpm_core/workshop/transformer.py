"""Trains a transformer and a U-Net of equal FLOP on the latents of cars. Chapter 13.

Both see the same cars and the same noise; of each of them there are several seeds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core import diffusion, samplers, schedules, training
from ddpm_core.datasets.images import save_grid
from ddpm_core.dit import DiTConfig
from ddpm_core.latent import LatentScaler, load_latent
from ddpm_core.samplers import ddim_step
from ddpm_core.types import Images
from ddpm_core.unet import UNetConfig
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.ablations import cars
from ddpm_core.workshop.tables import write_table

CARS = 8_000  # to train on
BATCH = 32
EVERY = 50  # steps between two readings of the held-out loss
CALLS = 20  # of DDIM
SHOWN = 8  # samples of each network in the picture

SCHEDULE = schedules.cosine_schedule(1000)

NETWORKS = {
    "DiT": DiTConfig(width=64, depth=4, heads=4, patch=1, image_channels=4),
    "U-Net": UNetConfig(
        channels=(32, 64), attention=(True, True), blocks=1, groups=8, dropout=0.0,
        patch=1, image_channels=4,
    ),
}  # fmt: skip
"""Networks for latents of 4x8x8, about 30 MFLOP a call each."""

RATES = {"DiT": 2e-3, "U-Net": 2e-3}
"""Peak learning rates: for each network the best of `TRIED` at 300 steps, one seed."""

TRIED = (1e-3, 2e-3, 4e-3)


def mflop(net: nn.Module, shape: tuple[int, ...] = (4, 8, 8)) -> float:
    """Millions of floating-point operations for one latent and call. Chapter 13."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape), torch.ones(1, dtype=torch.long))
    return counter.get_total_flops() / 1e6


@torch.no_grad()
def held_out_loss(net: nn.Module, z: Tensor) -> float:
    """The loss on latents at timesteps spread evenly over 1..T, with fixed noise."""
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(9))
    t = 1 + torch.arange(len(z)) * SCHEDULE.T // len(z)
    losses = diffusion.diffusion_loss(net, SCHEDULE, diffusion.V, z, t=t, eps=eps)
    return losses.mean().item()


def train(
    net: nn.Module, z: Tensor, *, steps: int, rate: float, seed: int
) -> Iterator[tuple[int, nn.Module]]:
    """Train on batches of latents; yield (steps done, averaged network) now and then.

    The seed decides on latents, timesteps and noise.
    """
    g = torch.Generator().manual_seed(seed)

    def loss(net: nn.Module, z: Tensor) -> Tensor:
        return diffusion.diffusion_loss(net, SCHEDULE, diffusion.V, z, generator=g)

    rows = (torch.randint(len(z), (BATCH,), generator=g) for _ in range(steps))
    batches = ((z[i],) for i in rows)
    lr = training.warmup_cosine(rate, warmup=20, total=steps, end=0.02)
    adam = torch.optim.Adam(net.parameters(), rate)
    ema = training.EMA(net, 0.99)
    for done in training.train(net, loss, batches, adam, lr=lr, ema=ema):
        if done.step % EVERY == 0 or done.step == steps:
            yield done.step, ema.net


def draw(net: nn.Module, latent: LatentScaler, n: int, *, seed: int) -> Images:
    """Draw n cars with DDIM, and decode them."""
    g = torch.Generator().manual_seed(seed)
    denoise = diffusion.make_denoiser(net, SCHEDULE, diffusion.V)
    times = samplers.spaced_times(SCHEDULE.T, CALLS)

    def step(*args: object) -> Tensor:
        return ddim_step(SCHEDULE, *args)

    noise = torch.randn(n, *latent.shape, generator=g)
    runs = (samplers.sample(denoise, step, x, times) for x in noise.split(100))
    return torch.cat([latent.decode(samplers.last(run)) for run in runs])


def built(name: str, seed: int) -> nn.Module:
    """A network with the weights of that seed."""
    torch.manual_seed(seed)
    return NETWORKS[name].build()


def measured(
    steps: int, seeds: range, n: int, latent: LatentScaler, real: list[Images]
) -> Iterator[tuple[dict, Images]]:
    """Yield a row for each network and seed, and some of its samples."""
    z = latent.encode(cars(CARS, 32, seed=6))
    held_out = latent.encode(cars(512, 32, seed=7))
    judge = evaluation.classifier_extractor()
    for seed in seeds:
        for name in NETWORKS:
            net = built(name, seed)
            options = {"steps": steps, "rate": RATES[name], "seed": seed}
            losses = {}
            for step, trained in train(net, z, **options):
                losses[step * BATCH] = held_out_loss(trained, held_out)
            drawn = draw(trained, latent, n, seed=seed)
            scores = evaluation.score(judge, drawn, *real)
            yield (
                {
                    "name": name,
                    "seed": seed,
                    "parameters": sum(p.numel() for p in net.parameters()),
                    "MFLOP": mflop(net),
                    "rate": RATES[name],
                    "images": list(losses),
                    "losses": list(losses.values()),
                    "frechet": scores.frechet,
                    "precision": scores.precision,
                    "recall": scores.recall,
                },
                drawn[:SHOWN],
            )


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    steps: Annotated[int, typer.Option(min=1, help="steps of 32 cars")] = 1_500,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each")] = 3,
    n: Annotated[int, typer.Option(min=100, help="samples of each")] = 1_000,
) -> None:
    """Train a transformer and a U-Net on latents; write a table and a picture."""
    torch.set_num_threads(1)
    latent = load_latent()
    real = [cars(n, 32, seed=seed) for seed in (1, 2)]
    decoded = latent.decode(latent.encode(real[1]))
    floor = evaluation.score(evaluation.classifier_extractor(), decoded, *real)
    facts = {"floor": floor.floor, "decoded cars": floor.frechet, "calls": CALLS}
    pictures = []

    def rows() -> Iterator[dict]:
        for row, drawn in measured(steps, range(seeds), n, latent, real):
            if row["seed"] == 0:
                pictures.append(drawn)
            yield row

    options = {"out": out, "steps": steps, "seeds": seeds, "n": n}
    write_table("measure-transformer", options, rows(), facts)
    save_grid(out.with_suffix(".png"), torch.cat(pictures), ncols=SHOWN)
