"""Measures all contenders of chapter 04 alike, and writes down what was found."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core import evaluation
from ddpm_core.datasets import to_float
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.trilemma import Contender, load_contender
from ddpm_core.weights import command_line, hardware

TIMED = 64  # images in a batch whose drawing is timed

RULES = {"ddim": (1, 2, 4, 8, 16, 32, 64), "dpm-solver++": (4, 8, 16)}


def contenders() -> Iterator[tuple[str, Contender]]:
    """Yield (sampler, contender): the three rivals, then what moves diffusion."""
    for name in ("toy-cars-vae-32", "toy-cars-gan-32"):
        yield "", load_contender(name)
    for sampler, counts in RULES.items():
        for steps in counts:
            yield (
                sampler,
                load_contender("toy-cars-short-32", steps=steps, sampler=sampler),
            )
    for name in ("toy-cars-32", "toy-cars-text-latent-32"):
        for steps in RULES["dpm-solver++"]:
            sampler = "dpm-solver++"
            yield sampler, load_contender(name, steps=steps, sampler=sampler)


def images_a_second(contender: Contender, repeats: int = 3) -> float:
    """How fast it draws batches of `TIMED` on this CPU, by processor time.

    The best of `repeats` after a first that is not counted.
    """
    seconds = []
    for seed in range(repeats + 1):
        start = time.process_time()
        contender.draw(TIMED, seed)
        seconds.append(time.process_time() - start)
    return TIMED / min(seconds[1:])


def measure(contender: Contender, sampler: str, *, n: int, seed: int) -> dict:
    """One row of the table: what it is, how fast it draws, how well, how variedly."""
    torch.set_num_threads(1)
    speed = images_a_second(contender)
    samples = contender.draw(n, seed)
    real, more = (to_float(draw_toy_cars(n, seed=seed + i).images) for i in (1, 2))
    scores = evaluation.score(evaluation.classifier_extractor(), samples, real, more)
    return {
        "name": contender.name,
        "kind": contender.kind,
        "sampler": sampler,
        "calls": contender.calls,
        "parameters": contender.parameters,
        "images a second": round(speed, 1),
        "scores": asdict(scores),
        "attributes": evaluation.attribute_report(samples),
    }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[int, typer.Option(help="samples of each contender")] = 2_000,
    seed: Annotated[int, typer.Option(help="seed of the samples")] = 0,
) -> None:
    """Measure all contenders on one core and write a table of them."""
    options = dict(locals())
    torch.set_num_threads(1)
    rows = []
    for sampler, contender in contenders():
        rows.append(measure(contender, sampler, n=n, seed=seed))
        print(rows[-1]["name"], sampler, rows[-1]["calls"], rows[-1]["scores"])
    real = to_float(draw_toy_cars(n, seed=seed + 1).images)
    table = {
        "command": command_line("ddpm_core.trilemma measure", options),
        "hardware": hardware(),
        "real": evaluation.attribute_report(real),
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(table, indent=1) + "\n")
