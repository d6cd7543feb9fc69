"""How many photos, and how long? Runs over both, measured alike. The page 'Own photos'.

    ddpm photo-grid --sizes 100,500,2000,14000 --minutes 10,30,90

Each run trains `photos-32` on the first so many photos of one shuffled order. A minute
is one of the core that trained the weights `photos-32`, whose card says how many images
it saw in how many seconds: runs of equal minutes see equally many images, on whatever
machine. Samples of all are measured on the same photos, which no run was trained on.
What is done is not repeated.
"""

import shlex
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core.datasets import PackedImages, to_float
from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.images import save_grid
from ddpm_core.types import Images
from ddpm_core.values import check_count
from ddpm_core.weights import read_card
from ddpm_core.workshop import evaluation, recipes
from ddpm_core.workshop.capstone import check_calls, numbers
from ddpm_core.workshop.evaluation import nearest_images
from ddpm_core.workshop.folder import RunFolder, read_object, write_object
from ddpm_core.workshop.presets import Preset, preset
from ddpm_core.workshop.recipes import MINUTES, SHOWN, Recipe
from ddpm_core.workshop.run import Run

BASE = "photos-32"
WARMUP = 100  # steps of rising learning rate, in every run
COPY = 0.5  # of the distance that held-out photos usually have: nearer is a copy


class GridRun(Run):
    """A run without the held-out loss of each epoch: few photos make short epochs."""

    def _end_epoch(self, epoch: int) -> None:
        pass


def row(size: int, data: str) -> Recipe:
    """The run on so many photos; all others are held out, the same ones first."""
    held_out = len(PackedImages.open(data)) - size
    changes = {"data": data, "held_out": held_out}
    return Recipe(f"{size} photos", changes, kind=GridRun, base=BASE)


def preset_of(recipe: Recipe, size: int, seed: int) -> Preset:
    """All that a run is made of."""
    chosen = recipe.preset(seed)
    return chosen.replace(warmup=WARMUP / max(1, size // chosen.batch))


def steps_of(chosen: Preset, minutes: float) -> int:
    """How many steps the core that trained the weights of BASE took in the minutes."""
    card = read_card(BASE)
    images = 60 * minutes * card["images seen"] / card["seconds"]
    return max(1, round(images / chosen.batch))


def train(recipe: Recipe, chosen: Preset, folder: Path, minutes: float) -> dict:
    """Train for the minutes, or go on with it; a run that is done is left alone."""
    done = folder / "row.json"
    if not done.exists():
        with recipes.open_run(folder, recipe, chosen) as run:
            found = recipes.train_row(run, chosen, steps_of(chosen, minutes))
        write_object(done, found)
    return read_object(done)


def copies(run: Run, samples: Images) -> dict[str, float]:
    """How near samples come to photos trained on, or their mirror images.

    `near`: their median distance over that of held-out photos; `copies`: the share of
    samples that are nearer than COPY times the latter.
    """
    trained_on = torch.from_numpy(run.split.images[run.split.train.numpy()])
    both = torch.cat([trained_on, trained_on.flip(2)])
    held = run.split.held_out[: len(samples)].numpy()
    _, distance = nearest_images(samples, both)
    usual = nearest_images(to_float(run.split.images[held]), both)[1].median()
    return {
        "near": (distance.median() / usual).item(),
        "copies": (distance < COPY * usual).double().mean().item(),
    }


def measure(
    recipe: Recipe, chosen: Preset, folder: Path, out: Path, n: int, calls: int
) -> dict:
    """Draw n samples of a run, save some, and measure all."""
    referee = recipes.judge(chosen.data, n, 0, n, base=BASE)
    with recipes.open_run(folder, recipe, chosen) as run:
        samples = recipes.samples_of(run, recipe, n, calls, 0)
        found = copies(run, samples)
    save_grid(out / f"{folder.name}.webp", samples[:SHOWN], ncols=8)
    scores = evaluation.score(referee.measure, samples, referee.real, referee.more_real)
    found |= asdict(scores)
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


PANELS = {
    "frechet": "Fréchet distance",
    "coverage": "coverage",
    "near": "distance to the nearest\ntraining photo, held-out: 1",
}
"""What the picture shows of each run."""


def draw(out: Path) -> None:
    """Draw all runs of the table over their minutes, a line for each number of photos.

    What was run with several seeds is a mean with a bar from the least to the most.
    """
    from ddpm_core.display import plots  # an extra

    plots.use_style()
    rows = recipes.read(out)
    fig, axes = plots.figure(len(PANELS), height=2.8)
    for (measure, label), ax in zip(PANELS.items(), axes, strict=True):
        for size in sorted({row["photos"] for row in rows}):
            found: dict[float, list[float]] = {}
            for row in rows:
                if row["photos"] == size:
                    found.setdefault(row["minutes"], []).append(row[measure])
            plots.spreads(ax, found, f"{size:,}")
        minutes = sorted({row["minutes"] for row in rows})
        ax.set(xlabel="minutes of a core", ylabel=label, xscale="log")
        ax.set_xticks(minutes, [f"{m:g}" for m in minutes])
        ax.minorticks_off()
    axes[-1].legend(title="photos", loc="lower left")
    with written_file(out / "grid.webp") as new:
        fig.savefig(new, dpi=plots.DPI, format="webp")


def checked(
    minutes: str, sizes: str, data: str, n: int, calls: int, seed: int
) -> tuple[list[float], list[int]]:
    """The minutes and sizes as numbers; ValueError for those that no run can have."""
    lengths = numbers("minutes", minutes, float, *MINUTES)
    photos = numbers("sizes", sizes, int, preset(BASE).batch, 10**9)
    check_count("seed", seed, *recipes.SEEDS)
    check_calls(preset(BASE).model, [calls])
    there = len(PackedImages.open(data))
    check_count("n", n, 8)
    if 2 * n > there:
        raise ValueError(
            f"--n {n} needs twice as many photos to measure on, {data} holds {there}"
        )
    for size in photos:
        if size > there - n:
            raise ValueError(
                f"--sizes must be in 1..{there - n}, as {n} of the photos of {data} "
                f"are for measuring, got {size}"
            )
    return lengths, photos


def main(
    out: Annotated[Path, typer.Option(help="folder to write the table to")] = Path(
        "data/results/photo-grid"
    ),
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path(
        "data/runs/photo-grid"
    ),
    sizes: Annotated[
        str, typer.Option(help="photos trained on")
    ] = "100,500,2000,14000",
    minutes: Annotated[
        str, typer.Option(help="length of a run, by the speed of photos-32's training")
    ] = "10,30,90",
    data: Annotated[str, typer.Option(help="packed folder of the photos")] = (
        "data/stanford-cars-32"
    ),
    n: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="samples, and held-out photos")
    ] = 1024,
    calls: Annotated[int, typer.Option(min=1, help="network calls a sample")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="seed of the runs")] = 0,
) -> None:
    """Train on so many photos for so many minutes; measure and draw each run."""
    grid = product(*checked(minutes, sizes, data, n, calls, seed))
    recipes.read(out)
    out.mkdir(parents=True, exist_ok=True)
    for length, size in grid:
        recipe, folder = row(size, data), runs / f"{size}-{length:g}-{seed}"
        chosen = preset_of(recipe, size, seed)
        RunFolder(folder).check_same(chosen)
        key = {"photos": size, "minutes": length, "seed": seed, "n": n, "calls": calls}
        if recipes.is_measured(out, key, data):
            print(f"{folder.name}: measured already, see {out}", flush=True)
            continue
        recipes.judge(data, n, 0, n, base=BASE)  # what it lacks is missed at once
        trained = train(recipe, chosen, folder, length)
        scores = measure(recipe, chosen, folder, out, n, calls)
        found = key | {"data": data} | scores | trained
        found["command"] = shlex.join(["ddpm", *sys.argv[1:]])
        recipes.add(out, found)
        print(found, flush=True)
    draw(out)
