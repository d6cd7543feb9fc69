"""Which recipe makes the best 64x64 photos in some minutes of a CPU core? Chapter 14.

    ddpm recipes --minutes 10 --out data/results/cars-64-recipes

Each row trains for as many steps as would fit into the minutes on the core that trained
photos-32, by the speed of its fastest step, whatever else the machine does; its samples
are measured on held-out photos. A row that is done is not repeated, and one that was
stopped goes on from its last checkpoint. `--only train` and `--only measure` do half of
it.
"""

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.images import save_grid
from ddpm_core.latent import load_latent
from ddpm_core.options import one_of
from ddpm_core.types import Features, Images
from ddpm_core.values import check_number
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.capstone import Judge, check_calls, commit, drawn, numbers
from ddpm_core.workshop.cascade import UpsamplerRun, draw_cascade
from ddpm_core.workshop.crops import CropRun
from ddpm_core.workshop.folder import RunFolder, read_object, write_object
from ddpm_core.workshop.presets import SMALL_UNET, Preset, preset
from ddpm_core.workshop.run import Run

SHOWN = 32  # samples in a row's picture
SECONDS = 20.0  # of processor time in which the speed is measured
WARMUP = 4  # steps before
REFERENCE_STEP = 0.2
"""Seconds that a reference step took on the core that trained photos-32.

It was not timed there: on another core it took 0.97 times as long as a whole step of
that training, which by its card took 0.207 seconds.
"""
ATTEMPTS = 50  # to add a row, a tenth of a second apart
SEEDS = (0, 2**31)
MINUTES = (0.001, 1e6)
ONLY = ("train", "measure")


@dataclass(frozen=True)
class Recipe:
    """A row of the table: what it changes of a preset, and its kind."""

    says: str
    changes: dict[str, object] = field(default_factory=dict)
    kind: type[Run] = Run
    base: str = "cars-64-latents"

    def preset(self, seed: int, **more: object) -> Preset:
        """All that its run is made of."""
        return preset(self.base).replace(
            **{"epochs": 10_000, "strips": (), "checkpoint_every": 200}
            | {"log_every": 20, "seed": seed}
            | self.changes
            | more
        )


PLAIN_TRAINING = {"optimizer": "adamw", "lr": 1e-3, "min_snr": 0.0, "batch": 32}
"""The training of `small-images`; the preset cars-64 has another."""

PIXELS = {"latent": "", "image_channels": 3, "target": "x0"}


def small(says: str, *, kind: type[Run] = Run, **changes: object) -> Recipe:
    """A row that changes one thing of `small-images`."""
    return Recipe(says, PLAIN_TRAINING | changes, kind=kind, base="cars-64")


SPACES = {
    "small-images": small(
        "diffusion of 32x32 images, which a decoder enlarges: the preset cars-64, with "
        "AdamW and plain weights"
    ),
    "latents": Recipe("diffusion in 16x16x4 latents: the preset cars-64-latents"),
    "latents-patch-2": Recipe(
        "the same with 2x2 positions of the latents as one",
        {"patch": 2, "channels": (80, 160), "attention": (True, True)},
    ),
    "pixels-patch-2": Recipe(
        "pixels, 2x2 of them one position, predicting x0",
        PIXELS
        | {"patch": 2, "channels": (48, 96, 128), "attention": (False, False, True)},
    ),
    "pixels-patch-4": Recipe(
        "pixels, 4x4 of them one position, predicting x0",
        PIXELS | {"patch": 4, "channels": (96, 160)},
    ),
    "cascade": Recipe(
        "photos-32, then a network that enlarges to 64x64, predicting x0",
        PIXELS | {"image_channels": 6, "patch": 4, "channels": (96, 160)},
        kind=UpsamplerRun,
    ),
}
"""The rows that differ in what is diffused."""

CHANGES = {
    "eps": small("predicts the noise", target="eps"),
    "x0": small("predicts the clean image", target="x0"),
    "min-snr": small("weighs the loss by min(SNR, 5)", min_snr=5.0),
    "crops": small("three quarters of a batch are crops of 16x16", kind=CropRun),
    "muon": small("Muon for AdamW", optimizer="muon"),
    "muon-lr-double": small(
        "Muon at twice the learning rate", optimizer="muon", lr=2e-3
    ),
    "lr-half": small("half the learning rate", lr=5e-4),
    "lr-double": small("twice the learning rate", lr=2e-3),
    "ema-short": small("averages over about 100 steps", ema=0.99),
    "batch-16": small("batches of 16", batch=16),
    "batch-64": small("batches of 64", batch=64),
    "shallow": small("one block a level, as photos-32 has", blocks=1),
    "wide": small("four thirds of the width", channels=(64, 128)),
    "attention": small("attention at 16x16, too", attention=(True, True)),
    "dit-patch-2": small(
        "a DiT of as many FLOP an image, 2x2 pixels a token",
        network="dit", width=96, depth=4, heads=4, patch=2,
    ),
    "dit-patch-4": small(
        "a DiT of as many FLOP an image, 4x4 pixels a token",
        network="dit", width=192, depth=6, heads=4, patch=4,
    ),
}  # fmt: skip
"""The rows that change one thing of `small-images`."""

RECIPES = SPACES | CHANGES
"""The rows there are, by name."""


def open_run(folder: Path, recipe: Recipe, chosen: Preset) -> Run:
    """The run of a row in its folder, at its beginning or its end."""
    begun = (folder / "config.json").exists()
    return (recipe.kind.resume if begun else recipe.kind.begin)(folder, chosen)


def seconds_a_step(recipe: Recipe, chosen: Preset) -> float:
    """Measure the processor time of a step, on a run that is thrown away.

    The fastest step counts: what else runs on the machine slows the others down.
    """
    with (
        TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", recipe, chosen) as run,
    ):
        steps = run.take_steps()
        for _ in islice(steps, WARMUP):
            pass
        began = before = time.process_time()
        fastest = float("inf")
        while before - began < SECONDS:
            next(steps)
            now = time.process_time()
            fastest, before = min(fastest, now - before), now
        return fastest


def reference_step(rounds: int = 40) -> float:
    """The processor time, in seconds, of a fixed step of training on this core.

    A step of the network of `photos-32` on 32 images of 32x32, in fp32, with AdamW: the
    fastest of `rounds`.
    """
    torch.manual_seed(0)
    net = SMALL_UNET.build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    x = torch.randn(32, 3, 32, 32).to(memory_format=torch.channels_last)
    t = torch.arange(1, 33)
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        (net(x, t) - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
    return min(seconds)


def steps_of(recipe: Recipe, chosen: Preset, minutes: float) -> int:
    """How many steps the core that trained photos-32 would take in the minutes.

    The reference step compares that core with this one, so that rows of a table can be
    trained on several machines.
    """
    seconds = 60 * minutes / REFERENCE_STEP * reference_step()
    return max(1, round(seconds / seconds_a_step(recipe, chosen)))


def train(recipe: Recipe, chosen: Preset, folder: Path, minutes: float) -> None:
    """Train a row for the minutes; its folder then holds `row.json`.

    Raises ValueError where the folder holds another run: of other photos, say.
    """
    RunFolder(folder).check_same(chosen)
    done = folder / "row.json"
    if done.exists():
        return
    plan = folder / "plan.json"  # written before the first step: a row can go on
    if not plan.exists():
        write_object(plan, {"steps": steps_of(recipe, chosen, minutes)})
    steps = number_in(plan, "steps")
    with open_run(folder, recipe, chosen) as run:
        found = train_row(run, chosen, steps)
    write_object(done, found)


def number_in(path: Path, name: str) -> float:
    """Read a number above 0 of a JSON object; ValueError names the file."""
    value = read_object(path).get(name)
    try:
        check_number(name, value, above=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return value


def train_row(run: Run, chosen: Preset, steps: int) -> dict:
    """Train for so many steps; say what it took."""
    run.steps = steps
    start, before = time.process_time(), run.step
    for row in run.rows():
        step = f"step {row['step']}/{run.steps}"
        print(f"{run.folder.name}: {step}, loss {row['loss']:.4f}")
    each = (time.process_time() - start) / max(1, run.steps - before)
    return {
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "MFLOP an image and step": round(3 * forward_flop(run) / 1e6),
        "steps": run.steps,
        "images seen": run.steps * chosen.batch,
        "core minutes": round(run.steps * each / 60, 2),
        "images a core second": round(chosen.batch / max(each, 1e-9), 1),
        "held-out loss": round(run.held_out(), 5),
        "hardware": run.hardware(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }


def forward_flop(run: Run) -> int:
    """Count the FLOP of one image's way through a row's network."""
    x0, _ = run.batches.clean(run.split.train[:1])
    x = x0.new_zeros(1, run.preset.model.network.image_channels, *x0.shape[-2:])
    with FlopCounterMode(display=False) as counter:
        run.ema.net(x, torch.ones(1, dtype=torch.int64))
    return counter.get_total_flops()


def samples_of(run: Run, recipe: Recipe, n: int, calls: int, t_end: int) -> Images:
    """n samples of a row in that many network calls, of one noise for all rows."""
    if recipe.kind is UpsamplerRun:
        return draw_cascade(run.model, n, calls=calls)
    return drawn(
        run.model, run.preset.data, n, sampler="ddim", calls=calls, t_end=t_end
    )


@cache
def judge(
    data: str, held_out: int, seed: int, n: int, base: str = "cars-64-latents"
) -> Judge:
    """What rows of that seed are measured on; the real photos' features once."""
    photos = {"data": data, "held_out": held_out, "seed": seed, "batch": 1}
    chosen = preset(base).replace(**photos)
    real, more_real = evaluation.real_images(data, chosen, n, seed + 1)
    ruler = evaluation.imagenet_extractor()
    known = {id(x): ruler.features(x) for x in (real, more_real)}

    def features(x: Images) -> Features:
        return known[id(x)] if x is real or x is more_real else ruler.features(x)

    return Judge(evaluation.Extractor(ruler.name, features), real, more_real, data)


def own_end(chosen: Preset) -> int:
    """The time from which the last call of a run's sampler is: that of its decoder."""
    latent = chosen.model.latent
    return load_latent(latent).t_end if latent else 0


def measured(
    name: str, folder: Path, out: Path, n: int, calls: int, t_end: int | None
) -> Iterator[dict]:
    """Measure a row that is trained, unless it was; write and yield what is found.

    A `t_end` of None is that of the row's decoder.
    """
    recipe, minutes = RECIPES[name], float(folder.name.split("-")[-2])
    chosen = RunFolder(folder).preset()
    walk = {"calls": calls, "t_end": own_end(chosen) if t_end is None else t_end}
    key = {"row": name, "minutes": minutes, "seed": chosen.seed, "n": n} | walk
    if is_measured(out, key, chosen.data):
        print(f"{folder.name}: measured already, see {out}", flush=True)
        return
    referee = judge(chosen.data, chosen.held_out, chosen.seed, n)
    with open_run(folder, recipe, chosen) as run:
        samples = samples_of(run, recipe, n, **walk)
    scores = asdict(
        evaluation.score(referee.measure, samples, referee.real, referee.more_real)
    )
    scores = {k: round(v, 4) if isinstance(v, float) else v for k, v in scores.items()}
    about = {"data": chosen.data, "says": recipe.says, "changes": recipe.changes}
    found = key | about | scores
    found |= read_object(folder / "row.json")
    found["command"] = shlex.join(["ddpm", *sys.argv[1:]])
    picture = f"{folder.name}-{walk['calls']}-{walk['t_end']}.webp"
    save_grid(out / picture, samples[:SHOWN], ncols=8)
    add(out, found)
    yield found


def read(out: Path) -> list[dict]:
    """The rows that were measured; ValueError names a file that holds none."""
    path = out / "results.json"
    rows = read_object(path).get("rows") if path.exists() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} must have 'rows', a list of objects")
    return rows


def is_measured(out: Path, key: dict, data: str) -> bool:
    """Whether a row of these values, on these photos, is in the table.

    Rows of earlier versions do not name their photos: they count for all.
    """
    rows = (row for row in read(out) if key.items() <= row.items())
    return any(row.get("data", data) == data for row in rows)


def add(out: Path, row: dict) -> None:
    """Add a row to the table, which other processes may do meanwhile.

    A process that is killed leaves the table as it was, or with the row.
    """
    path = out / "results.json"
    for left in reversed(range(ATTEMPTS)):
        try:
            with written_file(path) as new:
                text = json.dumps({"rows": [*read(out), row]}, indent=1) + "\n"
                new.write_text(text, encoding="utf-8")
            return
        except BlockingIOError:  # another one adds its row: that takes a moment
            if not left:
                raise
            time.sleep(0.1)


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="rows; all of them if none is given")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder to write the table to")] = Path(
        "data/results/cars-64-recipes"
    ),
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path(
        "data/runs/recipes"
    ),
    minutes: Annotated[
        float,
        typer.Option(min=MINUTES[0], max=MINUTES[1], help="length of a row"),
    ] = 10.0,
    seeds: Annotated[str, typer.Option(help="seeds of each row")] = "0",
    n: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="samples, and held-out photos")
    ] = 1024,
    calls: Annotated[int, typer.Option(min=1, help="network calls a sample")] = 20,
    t_ends: Annotated[
        str,
        typer.Option(
            help="times from which the last call is, each of them measured; left out: "
            "the decoder's own"
        ),
    ] = "",
    data: Annotated[
        str, typer.Option(help="folder of the photos, if not the preset's")
    ] = "",
    only: Annotated[str, typer.Option(help="train or measure, if not both")] = "",
) -> None:
    """Train rows of the table for equal minutes of a core, and measure them."""
    for name in names or ():
        one_of("recipe", name, RECIPES)
    if only:
        one_of("half of the work", only, ONLY)
    more = {"data": data} if data else {}
    each = numbers("seeds", seeds, int, *SEEDS)
    ends = numbers("t-ends", t_ends, int, 0, 10**6) if t_ends else [None]
    for name, t_end in product(names or RECIPES, ends):
        check_calls(RECIPES[name].preset(0, **more).model, [calls], t_end or 0)
    read(out)
    out.mkdir(parents=True, exist_ok=True)
    for seed, name in product(each, names or RECIPES):
        recipe, folder = RECIPES[name], runs / f"{name}-{minutes:g}-{seed}"
        chosen = recipe.preset(seed, **more)
        RunFolder(folder).check_same(chosen)
        if only != "train":  # what it lacks is missed before it has trained
            judge(chosen.data, chosen.held_out, chosen.seed, n)
        if only != "measure":
            train(recipe, chosen, folder, minutes)
        if only != "train":
            for t_end in ends:
                for row in measured(name, folder, out, n, calls, t_end):
                    print(row, flush=True)
