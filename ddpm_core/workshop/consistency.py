"""Distils consistency models of toy cars from several seeds, on one core. Chapter 13.

Each begins with its teacher's weights; the seed decides on the order of the cars, the
timesteps and the noise.
"""

import copy
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from ddpm_core import diffusion, distillation, samplers, training
from ddpm_core.conditioning import clipped
from ddpm_core.datasets.images import save_grid
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.samplers import Step
from ddpm_core.types import Denoise, Images
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.ablations import cars
from ddpm_core.workshop.tables import table_writer

TEACHER = "toy-cars-32"
HALVED = "toy-cars-student-1-32"  # the last student of halving, for one call
CARS = 4_000  # to train on
BATCH = 16
RATE = 5e-4  # at its peak
CALLS = (1, 2, 4)
SHOWN = 10  # samples of each row of the picture


def train(
    teacher: DiffusionModel, x0: Images, *, passes: int, steps: int, seed: int
) -> nn.Module:
    """Return the averaged student after so many passes over the cars."""
    schedule, target = teacher.schedule, teacher.target
    net = copy.deepcopy(teacher.net).requires_grad_(True)
    student = clipped(diffusion.make_denoiser(net, schedule, target))
    lesson = distillation.consistency(
        teacher.denoiser(), student, schedule, steps=steps
    )
    g = torch.Generator().manual_seed(seed)

    def loss(net: nn.Module, x0: Images) -> Tensor:
        t = diffusion.draw_times(schedule, len(x0), generator=g)
        x0, t, eps = lesson(x0, t, torch.randn(x0.shape, generator=g))
        return diffusion.diffusion_loss(net, schedule, target, x0, t=t, eps=eps)

    rows = training.shuffled(len(x0), passes=passes, batch=BATCH, seed=seed)
    total = passes * (len(x0) // BATCH)
    lr = training.warmup_cosine(RATE, warmup=total // 20, total=total)
    adam = torch.optim.Adam(net.parameters(), RATE, fused=True)
    ema = training.EMA(net, 0.995)
    for _ in training.train(net, loss, ((x0[i],) for i in rows), adam, lr=lr, ema=ema):
        pass
    return ema.net


def draw(
    model: DiffusionModel, denoise: Denoise, step: Step, calls: int, n: int, seed: int
) -> Images:
    """Draw n cars in that many calls; the noises of a seed are the same for all."""
    g = torch.Generator().manual_seed(seed)
    times = samplers.spaced_times(model.schedule.T, calls)
    parts = []
    for x_T in model.noise(n, g).split(100):
        run = samplers.sample(denoise, step, x_T, times, generator=g)
        parts.append(samplers.last(run))
    return torch.cat(parts)


def measured(
    teacher: DiffusionModel, *, passes: int, steps: int, seeds: range, n: int
) -> Iterator[tuple[dict, Images]]:
    """Yield a row for the teacher and each student at each number of calls, and cars.

    The teacher also in as many calls as its curves have steps for the students, and the
    student of halving, which was trained once, from the noises of each seed.
    """
    x0, schedule = cars(CARS, 32, seed=100), teacher.schedule
    judge, real = evaluation.classifier_extractor(), cars(2 * n, 32, seed=1).split(n)
    ddim = partial(samplers.ddim_step, schedule)
    anew = partial(distillation.consistency_step, schedule)

    def row(
        name: str, denoise: Denoise, step: Step, calls: int, seed: int
    ) -> tuple[dict, Images]:
        drawn = draw(teacher, denoise, step, calls, n, seed)
        scores = evaluation.score(judge, drawn, *real)
        found = {"name": name, "seed": seed, "calls": calls}
        for measure in ("frechet", "precision", "recall"):
            found[measure] = getattr(scores, measure)
        return found, drawn[:SHOWN]

    for calls in (*CALLS, steps):
        yield row("teacher", teacher.denoiser(), ddim, calls, 0)
    halved = load_model(HALVED)
    for seed in seeds:
        yield row("halving", halved.denoiser(), ddim, 1, seed)
        start = time.process_time()
        net = train(teacher, x0, passes=passes, steps=steps, seed=seed)
        seconds = round(time.process_time() - start)
        make = diffusion.make_denoiser(net, schedule, teacher.target)
        for calls in CALLS:
            found, drawn = row("consistency", clipped(make), anew, calls, seed)
            seen = passes * (CARS // BATCH) * BATCH
            yield {**found, "images seen": seen, "seconds": seconds}, drawn


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    passes: Annotated[
        int, typer.Option(min=1, max=1_000, help="passes over 4,000 cars")
    ] = 1,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000, help="steps of the teacher")
    ] = 8,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="trainings")] = 3,
    n: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="samples of each row")
    ] = 500,
) -> None:
    """Distil consistency models, measure them, and write a table and a picture."""
    torch.set_num_threads(1)
    teacher, pictures = load_model(TEACHER), []
    options = {"passes": passes, "steps": steps, "n": n}

    def rows() -> Iterator[dict]:
        for row, drawn in measured(teacher, seeds=range(seeds), **options):
            if row["seed"] == 0:
                pictures.append(drawn)
                save_grid(out.with_suffix(".png"), torch.cat(pictures), ncols=SHOWN)
            yield row

    told = {"out": out, "passes": passes, "steps": steps, "seeds": seeds, "n": n}
    with table_writer("measure-consistency", told) as write:
        more = cars(2 * n, 32, seed=1).split(n)
        floor = evaluation.score(evaluation.classifier_extractor(), more[1], *more)
        write(rows(), {"teacher": TEACHER, "floor": floor.floor})
