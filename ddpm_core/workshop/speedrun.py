"""The speedrun: photos of 64x64 at a given distance, in the least time of a CPU core.

    ddpm speedrun small-images --minutes 12

All that is measured is fixed here; what a recipe is free to change is how it trains.
The page book/speedrun.md has the rules and the records. Chapter 14.
"""

import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core.datasets.images import save_grid
from ddpm_core.models import best_device
from ddpm_core.options import one_of
from ddpm_core.values import quoted
from ddpm_core.weights import hardware, read_card
from ddpm_core.workshop import evaluation, recipes
from ddpm_core.workshop.capstone import numbers
from ddpm_core.workshop.cascade import UpsamplerRun
from ddpm_core.workshop.folder import RunFolder, read_numbers, write_object
from ddpm_core.workshop.preset_options import changed_fields, preset_options
from ddpm_core.workshop.presets import Preset
from ddpm_core.workshop.recipes import PIXELS, RECIPES, Recipe

GOAL = 300.0  # Frechet distance on EfficientNet-Lite0
N = 1024  # samples, and held-out photos
CALLS = 20  # of the network a sample, by DDIM
MEASURED = ("core minutes", "reference steps", "frechet", "coverage")
"""What a record tells of the seeds together."""

FIXED = ("size", "held_out", "seed", "drawn", "absent", "epochs")
"""Options of `ddpm train` that a record may not change."""

ARTICLE = PIXELS | {
    "schedule": "linear",
    "T": 512,
    "target": "eps",
    "min_snr": 0.0,
    "batch": 64,
    "lr": 1e-4,
    "lr_end": 0.1,
    "ema": 0.9999,
    "channels": (16, 32, 64, 128),
    "attention": (False, False, True, True),
    "blocks": 2,
    "dropout": 0.1,
}
"""The article's recipe, for a network of a quarter of its width."""

ENTRIES = RECIPES | {
    "article": Recipe("the article's recipe, a quarter as wide", ARTICLE),
    "article-min-snr": Recipe(
        "the same, its loss weighed by min(SNR, 5)", ARTICLE | {"min_snr": 5.0}
    ),
}
"""What can run, by name: the rows of `ddpm recipes`, and the article's recipe."""


def attempt(
    recipe: Recipe, chosen: Preset, folder: Path, minutes: float, picture: Path
) -> dict:
    """Train for the minutes and measure: one seed. What is done is not repeated.

    The first samples go to `picture`.
    """
    RunFolder(folder).check_same(chosen)
    known = folder / "attempt.json"
    if known.exists():
        return read_numbers(known, MEASURED)
    referee = recipes.judge(chosen.data, chosen.held_out, chosen.seed, N)
    before = recipes.reference_step()
    recipes.train(recipe, chosen, folder, minutes)
    step = (before + recipes.reference_step()) / 2
    kept = ("parameters", "steps", "images seen", "core minutes", "held-out loss")
    trained = read_numbers(folder / "row.json", kept)
    with recipes.open_run(folder, recipe, chosen) as run:
        t_end = recipes.own_end(chosen)
        samples = recipes.samples_of(run, recipe, N, CALLS, t_end)
        photos = {"photos": len(run.split.images), "sha256": run.split.sha256[:12]}
    save_grid(picture, samples[: recipes.SHOWN], ncols=8)
    scores = asdict(
        evaluation.score(referee.measure, samples, referee.real, referee.more_real)
    )
    found = {"seed": chosen.seed} | {name: trained[name] for name in kept}
    found |= {"reference step": round(step, 5)}
    found["reference steps"] = round(60 * trained["core minutes"] / step)
    found |= {k: round(v, 4) if isinstance(v, float) else v for k, v in scores.items()}
    found |= photos | {name: trained.get(name) for name in ("commit", "versions")}
    write_object(known, found)
    return found


def record(name: str, says: str, runs: Sequence[dict]) -> dict:
    """What the runs of several seeds make together: reached only if all of them are."""

    def over(key: str) -> dict[str, float]:
        values = [run[key] for run in runs]
        mean = round(statistics.mean(values), 2)
        return {"mean": mean, "least": min(values), "most": max(values)}

    return {
        "recipe": name,
        "says": says,
        "goal": GOAL,
        "reached": all(run["frechet"] <= GOAL for run in runs),
        "core minutes": over("core minutes"),
        "reference steps": over("reference steps"),
        "frechet": over("frechet"),
        "coverage": over("coverage"),
        "runs": list(runs),
    }


def given(chosen: Preset, recipe: Recipe) -> dict[str, float]:
    """The minutes that weights took to train which a recipe does not train itself."""
    parts = (chosen.model.latent, chosen.teacher, chosen.start_from)
    names = [name for name in parts if name]
    names += ["photos-32"] if recipe.kind is UpsamplerRun else []
    return {name: round(read_card(name)["seconds"] / 60, 1) for name in names}


def check(changes: dict) -> None:
    """Raise ValueError for what a record may not change, and where a GPU would run."""
    if fixed := sorted(changes.keys() & set(FIXED)):
        raise ValueError(f"a record may not change {', '.join(fixed)}")
    if best_device().type != "cpu":
        raise ValueError(
            "a record is of a CPU core: hide the GPU (CUDA_VISIBLE_DEVICES='')"
        )


@preset_options
def main(
    name: Annotated[str, typer.Argument(help=", ".join(ENTRIES))],
    minutes: Annotated[
        float,
        typer.Option(min=0.01, max=1e6, help="processor time to train, each seed"),
    ],
    seeds: Annotated[str, typer.Option(help="a record has three")] = "0,1,2",
    title: Annotated[str, typer.Option(help="name of the record, if changed")] = "",
    out: Annotated[Path, typer.Option(help="folder of the records")] = Path(
        "data/results/speedrun"
    ),
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path(
        "data/runs/speedrun"
    ),
    **options,
) -> None:
    """Train a recipe for minutes of one CPU core; measure it, and write its record."""
    recipe, changes = ENTRIES[one_of("recipe", name, ENTRIES)], changed_fields(options)
    check(changes)
    title, found = title or name, []
    if Path(title).name != title:
        raise ValueError(f"--title must be a name without folders, got {quoted(title)}")
    tried = numbers("seeds", seeds, int, *recipes.SEEDS)
    free = given(recipe.preset(0, **changes), recipe)
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for seed in tried:
        chosen = recipe.preset(seed, **changes)
        folder = runs / f"{title}-{minutes:g}-{seed}"
        picture = out / f"{folder.name}.webp"
        found.append(attempt(recipe, chosen, folder, minutes, picture))
        typer.echo(
            f"seed {seed}: {found[-1]['core minutes']} core minutes, "
            f"{found[-1]['reference steps']:,} reference steps, Frechet distance "
            f"{found[-1]['frechet']:.1f} (goal {GOAL:g})"
        )
    whole = record(title, recipe.says, found)
    whole["changes"] = recipe.changes | changes
    whole["given"] = free
    whole["command"] = shlex.join(["ddpm", *sys.argv[1:]])
    whole["commit"] = ", ".join(sorted({str(run["commit"]) for run in found}))
    whole["hardware"] = hardware()
    write_object(out / f"{title}-{minutes:g}.json", whole)
    typer.echo(f"{'reached' if whole['reached'] else 'missed'}: {out}")
