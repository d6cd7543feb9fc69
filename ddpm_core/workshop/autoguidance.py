"""Measures a model that leads away from a worse version of itself. Chapter 10."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core.workshop import evaluation
from ddpm_core.workshop.opened import open_model, same_weights
from ddpm_core.workshop.presets import training_of
from ddpm_core.workshop.tables import table_writer

SCALES = (1.0, 1.5, 2.0, 3.0)


def rows(name: str, guide: str, seeds: range, *, n: int, steps: int) -> Iterator[dict]:
    """Yield a row for each set of starts and scale; at scale 0 the guide is alone."""
    trained = training_of(name)
    data = trained.data
    ruler = evaluation.extractor("classifier" if data == "toy-cars" else "imagenet")
    model, worse = open_model(name), open_model(guide)
    for seed in seeds:
        real = evaluation.real_images(data, trained, n, seed + 1)
        guided = [(model, {"guide": worse, "scale": scale}) for scale in SCALES]
        for drawing, how in [(worse, {}), *guided]:
            samples = evaluation.draw_samples(drawing, n, steps=steps, seed=seed, **how)
            yield {
                "scale": how.get("scale", 0.0),
                "seed": seed,
                "scores": asdict(evaluation.score(ruler, samples, *real)),
            }


def main(
    name: Annotated[str, typer.Argument(help="shipped weights, a folder, or a run")],
    guide: Annotated[str, typer.Argument(help="a worse model of the same images")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="samples of each row")
    ] = 1_000,
    steps: Annotated[int, typer.Option(min=1, help="steps of DDIM")] = 20,
    starts: Annotated[
        int, typer.Option(min=1, max=1_000, help="sets of n starting points")
    ] = 3,
) -> None:
    """Measure a model over scales of autoguidance on one core and write the table."""
    torch.set_num_threads(1)
    model, worse = open_model(name), open_model(guide)
    if model.config.conditional:
        raise ValueError(f"{name} takes prompts: name models without")
    model.check_sampling(steps, guide=worse)  # one that fits, or an error
    if same_weights(model.net, worse.net):
        raise ValueError(f"{guide} has the weights of {name}: name a worse model")
    options = {"out": out, "n": n, "steps": steps, "starts": starts}
    found = rows(name, guide, range(starts), n=n, steps=steps)
    facts = {"model": name, "guide": guide}
    command = shlex.join(["measure-autoguidance", name, guide])
    with table_writer(command, options) as write:
        write(found, facts)
