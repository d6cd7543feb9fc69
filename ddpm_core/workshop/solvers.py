"""Measures samplers at equal numbers of calls, from several starts. Chapter 09."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core import metrics, samplers
from ddpm_core.datasets import to_float
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.neighbours.classifier import load_classifier
from ddpm_core.samplers import Step
from ddpm_core.schedules import Schedule
from ddpm_core.types import Features, Samples
from ddpm_core.workshop.tables import table_writer

MODEL = "toy-cars-32"
CALLS = (5, 10, 20)
REFERENCE = 2_000  # drawn cars that all samples are compared with


@dataclass(frozen=True)
class Rule:
    """One way to spend calls: a name, a step, and whether it is even in lambda."""

    name: str
    step: str
    in_lambda: bool = False
    calls: tuple[int, ...] = CALLS


RULES = (
    Rule("ancestral", "ancestral"),
    Rule("DDIM", "ddim"),
    Rule("DDIM, lambda", "ddim", in_lambda=True),
    Rule("2M", "2m"),
    Rule("2M, lambda", "2m", in_lambda=True),
    Rule("Euler in t", "euler", calls=(10,)),
)


def clock_times(schedule: Schedule, steps: int, reach: float = 3.0) -> list[int]:
    """Return steps + 1 timesteps, from T at once to lambda = -reach, there even in it.

    lambda is half the log-SNR, as in Lu et al. 2022; from `reach` on the last step goes
    to 0 at once. Chapter 09.
    """
    clock = (schedule.snr[1:].log() / 2)[None, :]
    wanted = torch.linspace(-reach, reach, steps - 1)[:, None]
    nearest = (clock - wanted).abs().argmin(dim=1) + 1
    return [schedule.T, *nearest.tolist(), 0]


def euler_in_t(
    schedule: Schedule, x: Samples, x0_hat: Samples, t: int, u: int, noise: Samples
) -> Samples:
    """Take Euler's step in t on dx/dt = -beta_t (x + score) / 2. Chapter 09."""
    ab, beta = schedule.alpha_bar_list[t], schedule.beta[t].item()
    score = (ab**0.5 * x0_hat - x) / (1 - ab)
    return x + beta / 2 * (t - u) * (x + score)


def make_step(name: str, schedule: Schedule) -> Step:
    """Return a fresh step, since 2M has a memory."""
    steps = {
        "ancestral": partial(samplers.ancestral_step, schedule),
        "ddim": partial(samplers.ddim_step, schedule),
        "2m": samplers.DPMSolverPP2M(schedule),
        "euler": partial(euler_in_t, schedule),
    }
    return steps[name]


def draw(
    model: DiffusionModel, rule: Rule, calls: int, *, n: int, seed: int
) -> Samples:
    """Draw n cars; all rules of a seed start from the same x_T."""
    times = (
        clock_times(model.schedule, calls)
        if rule.in_lambda
        else samplers.spaced_times(model.schedule.T, calls)
    )
    x_T = model.noise(n, torch.Generator().manual_seed(seed))
    g = torch.Generator().manual_seed(1_000 + seed)
    step = make_step(rule.step, model.schedule)
    run = samplers.sample(model.denoiser(), step, x_T, times, generator=g)
    return samplers.last(run).clamp(-1, 1)


def rows(n: int, seeds: range, real: Features) -> Iterator[dict]:
    """Yield a row for each rule, number of calls and seed."""
    model, judge = load_model(MODEL), load_classifier()
    for seed in seeds:
        for rule in RULES:
            for calls in rule.calls:
                cars = draw(model, rule, calls, n=n, seed=seed)
                seen = judge.features(cars)
                yield {
                    **asdict(rule),
                    "calls": calls,
                    "seed": seed,
                    "frechet": metrics.frechet_distance(real, seen),
                    "kernel": metrics.kernel_distance(real, seen),
                    "texture": metrics.texture(cars),
                }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[int, typer.Option(min=2, max=10_000, help="cars of each row")] = 64,
    starts: Annotated[
        int, typer.Option(min=1, max=1_000, help="sets of n starting points")
    ] = 3,
) -> None:
    """Measure samplers of toy cars at equal calls on one core and write the table."""
    torch.set_num_threads(1)
    options = {"out": out, "n": n, "starts": starts}
    with table_writer("measure-samplers", options) as write:
        cars = to_float(draw_toy_cars(REFERENCE + 12 * n, seed=6).images)
        features = load_classifier().features(cars)
        real, others = features[:REFERENCE], features[REFERENCE:].split(n)
        facts = {
            "floors": [metrics.frechet_distance(real, part) for part in others],
            "kernel floors": [metrics.kernel_distance(real, part) for part in others],
            "texture": metrics.texture(cars[:REFERENCE]),
        }
        write(rows(n, range(starts), real), facts)
