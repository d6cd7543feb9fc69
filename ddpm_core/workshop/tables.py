"""Measures models of any kind alike, and writes down what was found."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core.datasets import to_float
from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.options import one_of
from ddpm_core.types import Images
from ddpm_core.weights import command_line, find_weights, hardware
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.contenders import CPU, Contender, load_contender

TIMED = 64  # images in a batch whose drawing is timed

DDIM = ("ddim", (1, 2, 4, 8, 16, 32, 64))
DPM = ("dpm-solver++", (4, 8, 16))
VIEWED = (("ddim", (5, 10, 20, 50)), ("dpm-solver++", (5, 10, 20)))
FEW = (("ddim", (1, 2, 4)),)
BINS = 40  # of brightness

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
    "views": {
        "data/exported/toy-cars-eps-32": VIEWED,
        "data/exported/toy-cars-v-32": VIEWED,
        "data/exported/toy-cars-edm-32": VIEWED,
        "toy-cars-flow-32": VIEWED,
        "data/exported/toy-cars-min-snr-32": VIEWED,
    },
    "distilled": {
        "data/exported/toy-cars-v-32": FEW,
        "toy-cars-student-4-32": (("ddim", (4,)),),
        "toy-cars-student-2-32": (("ddim", (2,)),),
        "toy-cars-student-1-32": (("ddim", (1,)),),
        "toy-cars-flow-32": FEW,
        "data/exported/toy-cars-reflow-32": FEW,
    },
    "latents-again": {
        "toy-cars-text-32": (("ddim", (16, 32)),),
        "toy-cars-text-latent-32": (("ddim", (16, 32)),),
    },
    "flow-again": {
        "toy-cars-flow-32": (("ddim", (5, 10)),),
    },
    "brightness": {
        "data/exported/toy-cars-leaky-32": (("ddim", (50,)),),
        "toy-cars-zero-snr-32": (("ddim", (50,)),),
    },
}
"""For each table, what it compares: models, their samplers, and the steps of each.

`trilemma` is that of chapter 04, `latents` of chapter 11, the others of chapter 13.
`latents-again` and `flow-again` are rows of `latents` and of `views`, to be measured
with other seeds.
"""


def contenders(
    table: str, device: torch.device = CPU
) -> Iterator[tuple[str, Contender]]:
    """Yield (sampler, contender) for each row of a table."""
    for name, rules in TABLES[one_of("table", table, TABLES)].items():
        for sampler, counts in rules:
            for steps in counts:
                options = {"steps": steps, "sampler": sampler, "device": device}
                yield sampler, load_contender(name, **options)


def images_a_second(contender: Contender, repeats: int = 3) -> float:
    """How fast it draws batches of `TIMED`: by processor time, on a GPU by the clock.

    The best of `repeats` after a first that is not counted.
    """
    on_cpu = contender.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = []
    for seed in range(repeats + 1):
        start = clock()
        contender.draw(TIMED, seed)
        seconds.append(clock() - start)
    return TIMED / min(seconds[1:])


@cache
def real_cars(n: int, seed: int) -> Images:
    """Draw the toy cars that samples are measured against, once for all rows."""
    return to_float(draw_toy_cars(n, seed=seed).images)


def brightness_report(images: Images) -> dict:
    """Mean and spread of the images' brightness, and how many lie in each bin.

    The brightness of an image is the mean of its values, in [-1, 1]; the bins are 40
    of equal width. Chapter 13.
    """
    light = images.mean((1, 2, 3))
    counts = light.clamp(-1, 1).histc(BINS, -1, 1) / len(images)
    return {
        "mean": light.mean().item(),
        "std": light.std().item(),
        "histogram": counts.tolist(),
    }


def measure(
    contender: Contender,
    sampler: str,
    *,
    n: int,
    seed: int,
    repeats: int = 3,
    others: Iterable[evaluation.Extractor] = (),
) -> dict:
    """One row of the table: what it is, how fast it draws, how well, how variedly.

    The speed is left out where `repeats` is 0. `others`: features to measure on beside
    the classifier's, for models that the classifier helped to train.
    """
    torch.set_num_threads(1)
    speed = images_a_second(contender, repeats) if repeats else None
    samples = contender.draw(n, seed)
    real, more = (real_cars(n, seed + i) for i in (1, 2))
    scores = evaluation.score(evaluation.classifier_extractor(), samples, real, more)
    return {
        "name": contender.name,
        "kind": contender.kind,
        "sampler": sampler,
        "calls": contender.calls,
        "parameters": contender.parameters,
        "images a second": speed and round(speed, 1),
        "scores": asdict(scores),
        "attributes": evaluation.attribute_report(samples),
        "brightness": brightness_report(samples),
        "other scores": [
            asdict(evaluation.score(other, samples, real, more)) for other in others
        ],
    }


def remembering(extractor: evaluation.Extractor) -> evaluation.Extractor:
    """The same features, computed once for the real images of all rows."""
    return extractor._replace(features=lru_cache(maxsize=3)(extractor.features))


def main(
    table: Annotated[str, typer.Argument(help=", ".join(TABLES))],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="samples of each contender")
    ] = 2_000,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of the samples")
    ] = 0,
    repeats: Annotated[
        int, typer.Option(min=0, max=1_000, help="batches timed; 0: no speed")
    ] = 3,
    device: Annotated[str, typer.Option(help="cpu: one core of it; or cuda")] = "cpu",
    features: Annotated[str, typer.Option(help="measure on these too: imagenet")] = "",
) -> None:
    """Measure the contenders of a table on one device and write it."""
    torch.set_num_threads(1)
    for name in TABLES[one_of("table", table, TABLES)]:
        find_weights(name)  # what is missing is missed before any row is measured
    one_of("device", device, ("cpu", "cuda"))
    options = {"out": out, "n": n, "seed": seed, "repeats": repeats, "device": device}
    options |= {"features": features} if features else {}
    with table_writer(f"measure {table}", options) as write:
        others = [remembering(evaluation.extractor(features))] if features else []
        rows = (
            measure(contender, sampler, n=n, seed=seed, repeats=repeats, others=others)
            for sampler, contender in contenders(table, torch.device(device))
        )
        real = real_cars(n, seed + 1)
        facts = {
            "real": evaluation.attribute_report(real),
            "real brightness": brightness_report(real),
        }
        write(rows, facts)


@contextmanager
def table_writer(
    command: str, options: dict[str, object]
) -> Iterator[Callable[[Iterable[dict], dict], None]]:
    """Give a function of rows and facts that writes a table; enter before measuring.

    `options` are those of the command; `out` is the file, which is checked at once and
    stays as it is until all rows are measured. `facts` hold for all rows. The table
    names the command that repeats it.
    """

    def write(rows: Iterable[dict], facts: dict) -> None:
        found = []
        for row in rows:
            found.append(row)
            print(row, flush=True)
        table = {
            "command": command_line(command, options),
            "hardware": hardware(options.get("device", "cpu")),
            **facts,
            "rows": found,
        }
        new.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")

    with written_file(options["out"]) as new:
        yield write
