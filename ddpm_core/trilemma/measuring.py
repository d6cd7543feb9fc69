"""Measures models of any kind alike, and writes down what was found."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core import evaluation
from ddpm_core.datasets import to_float
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.presets import one_of
from ddpm_core.trilemma import Contender, load_contender
from ddpm_core.weights import command_line, hardware

TIMED = 64  # images in a batch whose drawing is timed

DDIM = ("ddim", (1, 2, 4, 8, 16, 32, 64))
DPM = ("dpm-solver++", (4, 8, 16))

TABLES: dict[str, dict[str, tuple]] = {
    "trilemma": {
        "toy-cars-vae-32": (("", (1,)),),
        "toy-cars-gan-32": (("", (1,)),),
        "toy-cars-short-32": (DDIM, DPM),
        "toy-cars-32": (DPM,),
        "toy-cars-text-latent-32": (DPM,),
    },
    "latents": {
        "toy-cars-text-32": (("ddim", (4, 8, 16, 32)),),
        "toy-cars-text-latent-32": (("ddim", (4, 8, 16, 32)),),
    },
}
"""For each table whom it compares: samplers, and the steps that each of them takes.

`trilemma` is that of chapter 04, `latents` that of chapter 11.
"""


def contenders(table: str) -> Iterator[tuple[str, Contender]]:
    """Yield (sampler, contender) for each row of a table."""
    for name, rules in TABLES[one_of("table", table, TABLES)].items():
        for sampler, counts in rules:
            for steps in counts:
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
    table: Annotated[str, typer.Argument(help=", ".join(TABLES))],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[int, typer.Option(help="samples of each contender")] = 2_000,
    seed: Annotated[int, typer.Option(help="seed of the samples")] = 0,
) -> None:
    """Measure the contenders of a table on one core and write it."""
    torch.set_num_threads(1)
    rows = (
        measure(contender, sampler, n=n, seed=seed)
        for sampler, contender in contenders(table)
    )
    real = to_float(draw_toy_cars(n, seed=seed + 1).images)
    write_table(
        f"measure {table}",
        {"out": out, "n": n, "seed": seed},
        rows,
        {"real": evaluation.attribute_report(real)},
    )


def write_table(
    command: str, options: dict[str, object], rows: Iterable[dict], facts: dict
) -> None:
    """Write rows, as they are measured, with the command that repeats them.

    `options` are those of the command; `out` is the file. `facts` hold for all rows.
    """
    found = []
    for row in rows:
        found.append(row)
        print(row)
    table = {
        "command": command_line(f"ddpm_core.trilemma {command}", options),
        "hardware": hardware(),
        **facts,
        "rows": found,
    }
    options["out"].parent.mkdir(parents=True, exist_ok=True)
    options["out"].write_text(json.dumps(table, indent=1) + "\n")
