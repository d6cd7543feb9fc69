"""Measures what text models make of prompts in free wording. Chapter 10."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.models import DiffusionModel
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.opened import open_model, trained_as
from ddpm_core.workshop.tables import table_writer

PROMPTS = (
    "a purple sports car by day",
    "a purple sports car at day",
    "a purple sports car at night",
    "a purple sports car by night",
    "a car at day",
    "red truck in snow",
    "blue van in the snow",
    "white sports van",
    "a red sports car",
    "a red car",
    "a car",
    "a van",
)
"""Some as full captions are, some in other words, some that leave things out."""


def described(model: DiffusionModel, prompts: list[str], **how) -> dict:
    """What samples of prompts show: how much of what was asked, and everything else."""
    samples = evaluation.draw_samples(model, len(prompts), prompts=prompts, **how)
    return {
        "heeded": evaluation.heeded(samples, prompts),
        "attributes": evaluation.attribute_report(samples),
    }


def check_models(names: list[str], steps: int, scale: float) -> None:
    """Raise ValueError for models without captions, and as `check_sampling` does."""
    for name in names:
        if not trained_as(name).model.text:
            raise ValueError(f"{name} takes no captions: name text models")
        open_model(name).check_sampling(steps, prompts=[""], scale=scale)


def rows(names: list[str], many: int, n: int, how: dict) -> Iterator[dict]:
    """Yield a row for each model and prompt, and one for the captions of new cars.

    These are loose where the model was trained on loose ones: others lack their words.
    """
    cars = draw_toy_cars(many, size=16, seed=1)
    for name in names:
        model = open_model(name)
        loose = trained_as(name).loose
        captions = cars.loose_captions(1) if loose else cars.captions
        found = described(model, captions, **how)
        yield {"name": name, "prompt": "captions", "n": many, **found}
        for prompt in PROMPTS:
            found = described(model, [prompt] * n, **how)
            yield {"name": name, "prompt": prompt, "n": n, **found}


def main(
    names: Annotated[list[str], typer.Argument(help="text models: weights or runs")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    many: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="captions of new cars")
    ] = 1_000,
    n: Annotated[
        int, typer.Option(min=16, max=100_000, help="samples of each other prompt")
    ] = 48,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 20,
    scale: Annotated[float, typer.Option(min=0, max=100, help="guidance")] = 1.5,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of the samples")
    ] = 0,
) -> None:
    """Measure text models on prompts in free wording, on one core; write the table."""
    torch.set_num_threads(1)
    options = {"out": out, "many": many, "n": n, "steps": steps, "scale": scale}
    options["seed"] = seed
    how = {"steps": steps, "scale": scale, "seed": seed}
    check_models(names, steps, scale)
    with table_writer(shlex.join(["measure-wordings", *names]), options) as write:
        write(rows(names, many, n, how), {})
