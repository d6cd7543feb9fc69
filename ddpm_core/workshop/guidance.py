"""Measures how guidance trades variety for obedience, over its scale. Chapter 10."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core import metrics
from ddpm_core.datasets import to_float
from ddpm_core.datasets.toy_cars import attributes_showing, draw_toy_cars
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.types import Features
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.presets import Preset, training_of
from ddpm_core.workshop.tables import table_writer

MODEL = "toy-cars-text-uniform-32"
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)

ONE_PROMPT = "a red sports car by day"
ITS_CARS = "red+sports car+day"


def cars_of_one_prompt(n: int, seed: int) -> Features:
    """The features of n drawn cars for which `ONE_PROMPT` is a caption."""
    rows = attributes_showing(ITS_CARS, n, seed=seed)
    images = draw_toy_cars(n, seed=seed, attributes=rows).images
    return evaluation.classifier_extractor().features(to_float(images))


def measure(
    model: DiffusionModel,
    trained: Preset,
    scale: float,
    *,
    n: int,
    steps: int,
    seed: int,
) -> dict:
    """One row: what the cars show of n captions, how good, how varied.

    All but `coverage of one prompt` is what `ddpm evaluate` says. That one takes n / 2
    cars drawn for a single prompt, and asks what fraction of as many real ones have one
    of them nearby.
    """
    ruler, half = evaluation.classifier_extractor(), n // 2
    draw = partial(evaluation.draw_samples, model, steps=steps, seed=seed, scale=scale)
    prompts = evaluation.sampled_prompts(
        model, "toy-cars", n, seed=seed + 1, scale=scale
    )
    samples = draw(n, prompts=prompts["prompts"])
    real = evaluation.real_images("toy-cars", trained, n, seed + 1)
    alike = ruler.features(draw(half, prompts=[ONE_PROMPT] * half))
    real_alike = cars_of_one_prompt(half, seed + 1)
    wanted = evaluation.prompted_attributes(n, seed=seed + 1)
    return {
        "scale": scale,
        "obedience": evaluation.obedience(samples, wanted),
        "scores": asdict(evaluation.score(ruler, samples, *real)),
        "coverage of one prompt": metrics.density_coverage(real_alike, alike).coverage,
    }


def rows(n: int, steps: int, seed: int) -> Iterator[dict]:
    """Yield a row for each scale."""
    model, trained = load_model(MODEL), training_of(MODEL)
    for scale in SCALES:
        found = measure(model, trained, scale, n=n, steps=steps, seed=seed)
        yield {"name": MODEL, **found}


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="captions at each scale")
    ] = 1_000,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000, help="network calls an image")
    ] = 20,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of the samples")
    ] = 0,
) -> None:
    """Measure a text model over guidance scales on one core and write the table."""
    torch.set_num_threads(1)
    options = {"out": out, "n": n, "steps": steps, "seed": seed}
    with table_writer("measure-guidance", options) as write:
        real = (cars_of_one_prompt(n // 2, seed + i) for i in (1, 2))
        ceiling = metrics.density_coverage(*real).coverage
        facts = {"prompt": ONE_PROMPT, "coverage by real cars": ceiling}
        write(rows(n, steps, seed), facts)
