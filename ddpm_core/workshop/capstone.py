"""The run of the capstone: trained, measured on the way, written down. Chapter 14.

    ddpm capstone cars64 --run data/runs/cars64 --out data/results/cars64

It takes the options of `ddpm train` too, and continues a run that is already in its
folder. What it writes is small: `results.json`, which names the command, the commit,
the hardware and the versions, and pictures.
"""

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict, Unpack

import torch
import typer
from PIL import Image

from ddpm_core.checking import quoted
from ddpm_core.config import ModelConfig
from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.images import save_grid
from ddpm_core.models import DiffusionModel, quick
from ddpm_core.samplers import times_by_name
from ddpm_core.types import Images
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.estimate import forward_flop
from ddpm_core.workshop.folder import read_log, write_object
from ddpm_core.workshop.opened import open_model, trained_as
from ddpm_core.workshop.preset_options import changed_fields, preset_options
from ddpm_core.workshop.presets import Preset, preset
from ddpm_core.workshop.run import Run
from ddpm_core.workshop.tables import table_writer

SHOWN = 64  # samples in the picture
AUDITED = 16  # samples above their nearest training image
BINS = 16  # of times, in which the held-out loss is told
CHUNK = 256  # images that are sampled at once
PICTURED = 50  # network calls for these pictures
COMPARED = ("ddim", "dpm-solver++")  # samplers of the table
FEW = 50  # network calls, up to which each sampler is measured

RESULTS = Path(__file__).parents[2] / "data" / "results"


class How(TypedDict, total=False):
    """How samples are drawn: sampler, network calls, and an early end."""

    sampler: str
    calls: int
    t_end: int | None


class Judge(NamedTuple):
    """What samples are measured on and against."""

    measure: evaluation.Extractor
    real: Images
    more_real: Images
    data: str

    def score(self, model: DiffusionModel, **how: Unpack[How]) -> dict:
        """Measure samples drawn as `how` says; `took` is in seconds."""
        start = time.perf_counter()
        samples = drawn(model, self.data, len(self.real), **how)
        took = {"took": round(time.perf_counter() - start, 2)}
        scores = evaluation.score(self.measure, samples, self.real, self.more_real)
        return how | took | asdict(scores)


def drawn(
    model: DiffusionModel,
    data: str,
    n: int,
    *,
    sampler: str,
    calls: int,
    t_end: int | None = None,
) -> Images:
    """n samples of that many network calls, from the same noise and prompts always."""
    prompts = evaluation.sampled_prompts(model, data, n, seed=1, scale=1.0)
    return evaluation.draw_samples(
        model, n, steps=calls, sampler=sampler, t_end=t_end, chunk=CHUNK, **prompts
    )


def judge(run: Run, features: str, n: int) -> Judge:
    """Prepare to measure the samples of a run on n images."""
    data = run.preset.data
    real = evaluation.real_images(data, run.preset, n, run.preset.seed + 1)
    return Judge(evaluation.extractor(features), *real, data)


def train(run: Run, referee: Judge, marks: Sequence[float], calls: int) -> list[dict]:
    """Train to the end; measure at the `marks`, fractions of the run in 0..1.

    Returns a row for each mark, also for those before the run was resumed. Of several
    processes only the first measures.
    """
    path = run.folder / "marks.jsonl"
    known = [row for row in read_rows(path) if row["step"] <= run.step]
    model = quick(run.model)
    left = [mark for mark in sorted(marks) if mark * run.steps > run.step]
    for row in run.rows():
        if run.main and left and row["step"] >= left[0] * run.steps:
            left = [mark for mark in left if mark * run.steps > row["step"]]
            place = {key: row[key] for key in ("step", "epoch", "seconds")}
            known.append(place | referee.score(model, sampler="ddim", calls=calls))
            with written_file(path) as new:
                text = "".join(json.dumps(row) + "\n" for row in known)
                new.write_text(text, encoding="utf-8")
            print(known[-1], flush=True)
    return known


def read_rows(path: Path) -> list[dict]:
    """Read what was measured at the marks; ValueError names a line that is damaged."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows.append(json.loads(line))
            known = type(rows[-1]["step"]) is int
        except (ValueError, RecursionError, KeyError, TypeError):
            known = False
        if not known:
            raise ValueError(f"{path}, line {number}: no row with a 'step'; remove it")
    return rows


def loss_by_time(run: Run) -> dict[str, list[float]]:
    """The mean held-out loss in each of `BINS` equal spans of the times."""
    t, losses = run.held_out_losses()
    parts = zip(t.chunk(BINS), losses.chunk(BINS), strict=True)
    rows = [(span.double().mean().item(), loss.mean().item()) for span, loss in parts]
    times, means = zip(*rows, strict=True)
    return {"t": list(times), "loss": list(means)}


def loss_by_epoch(run: Run) -> list[dict[str, float]]:
    """The held-out loss after each epoch, and the mean training loss logged in it."""
    rows, logged = [], []
    for row in read_log(run.folder):
        if "held_out" in row:
            found = {"epoch": row["epoch"], "held_out": round(row["held_out"], 5)}
            if logged:
                found["loss"] = round(sum(logged) / len(logged), 5)
            rows, logged = [*rows, found], []
        else:
            logged.append(row["loss"])
    return rows


def describe(run: Run, command: str) -> dict:
    """What was run, where, with what, and how fast it trained."""
    rates = [row["images_per_second"] for row in read_log(run.folder) if "lr" in row]
    return {
        "command": command,
        "commit": commit(),
        "hardware": run.hardware(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "config": run.preset.to_dict(),
        "precision": run.accelerator.mixed_precision,
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "FLOP an image and step": 3 * forward_flop(run),
        "images": len(run.split.train),
        "images seen": run.step * run.preset.batch,
        "images a second": round(torch.tensor(rates).median().item(), 1),
        "seconds": round(run.seconds, 1),
    }


def commit() -> str:
    """The commit of this code; 'unknown' outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.PIPE)[:12]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def save_pictures(run: Run, out: Path, t_end: int | None) -> None:
    """Write samples, some above their nearest training image, and the run's strips."""
    how = {"sampler": "ddim", "calls": PICTURED, "t_end": t_end}
    samples = drawn(quick(run.model), run.preset.data, SHOWN, **how)
    trained_on = torch.from_numpy(run.split.images[run.split.train.numpy()])
    save_grid(out / "samples.webp", samples)
    evaluation.save_beside_nearest(out / "nearest.webp", samples[:AUDITED], trained_on)
    for strip in (run.folder / "strips").glob("*.png"):
        Image.open(strip).save(out / f"{strip.stem}.webp")


def load_results(name: str) -> dict:
    """Read what a run found: `results.json` of data/results/`name`. Chapter 14."""
    return json.loads((RESULTS / name / "results.json").read_text(encoding="utf-8"))


def numbers(name: str, text: str, kind: type, low: float, high: float) -> list:
    """Read numbers with commas between; ValueError for others than low..high.

    A number that is repeated is an error, too: runs of one seed are one run.
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(low <= number <= high for number in found):
        raise ValueError(
            f"--{name} takes numbers in {low}..{high} with commas between, got "
            f"{quoted(text)}"
        )
    if len(set(found)) < len(found):
        raise ValueError(f"--{name} takes each number once, got {quoted(text)}")
    return found


def check_calls(
    model: ModelConfig, counts: Sequence[int], t_end: int = 0, sampler: str = ""
) -> None:
    """Raise ValueError for numbers of network calls that the model cannot take."""
    schedule = model.make_schedule()
    for count, name in compared(counts, sampler):
        times_by_name(name, schedule, count, t_end=t_end)


def compared(counts: Sequence[int], sampler: str = "") -> Iterator[tuple[int, str]]:
    """Yield each number of calls with the samplers that are measured at it.

    These are `sampler`, if it is given; otherwise DDIM, and up to `FEW` calls
    DPM-Solver++ too.
    """
    for count in counts:
        several = COMPARED if count <= FEW else COMPARED[:1]
        yield from ((count, name) for name in ([sampler] if sampler else several))


@preset_options
def main(
    name: Annotated[str, typer.Argument(help="name of a preset")],
    run: Annotated[Path, typer.Option(help="folder of the run")],
    out: Annotated[Path, typer.Option(help="folder to write results to")],
    n: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="samples, and held-out images")
    ] = 2048,
    features: Annotated[str, typer.Option(help="imagenet or inception")] = "imagenet",
    marks: Annotated[
        str, typer.Option(help="fractions of the run after which it is measured")
    ] = "0.05,0.1,0.2,0.4,0.7,1",
    mark_calls: Annotated[
        int, typer.Option(min=1, help="network calls for these")
    ] = 20,
    table: Annotated[
        str, typer.Option(help="network calls of the table at the end")
    ] = "5,10,20,50",
    t_end: Annotated[
        int | None,
        typer.Option(
            min=0, help="time from which the last call is; left out: the decoder's"
        ),
    ] = None,
    **options,
) -> None:
    """Train a preset, or go on with its run; measure it; write results and pictures."""
    chosen: Preset = preset(name).replace(**changed_fields(options))
    counts = numbers("table", table, int, 1, chosen.model.T)
    shares = numbers("marks", marks, float, 0, 1)
    check_calls(chosen.model, [mark_calls])
    check_calls(chosen.model, [*counts, PICTURED], t_end or 0)
    evaluation.check_features(features, chosen.data)
    out.mkdir(parents=True, exist_ok=True)
    started = (run / "config.json").exists()
    training = (Run.resume if started else Run.begin)(run, chosen)
    command = shlex.join(["ddpm", *sys.argv[1:]])
    training.note_command(command)
    referee = judge(training, features, n)
    t_end = training.model.t_end if t_end is None else t_end
    found = {"marks": train(training, referee, shares, mark_calls)}
    if not training.main:
        return
    found |= describe(training, command)
    found["loss by time"] = loss_by_time(training)
    found["loss by epoch"] = loss_by_epoch(training)
    found["table"] = []
    save_pictures(training, out, t_end)
    for row in by_calls(training.model, referee, counts, t_end):
        found["table"].append(row)
        print(row, flush=True)
        write_object(out / "results.json", found)


def by_calls(
    model: DiffusionModel,
    referee: Judge,
    counts: Sequence[int],
    t_end: int | None,
    sampler: str = "",
) -> Iterator[dict]:
    """Yield a row for each number of network calls, and each sampler at few calls."""
    for count, name in compared(counts, sampler):
        how = {"sampler": name, "calls": count, "t_end": t_end}
        yield referee.score(quick(model), **how)


def measure_calls(
    name: Annotated[str, typer.Argument(help="shipped weights, a folder, or a run")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    counts: Annotated[str, typer.Option(help="network calls")] = "10,20,50",
    sampler: Annotated[
        str, typer.Option(help="left out: ddim, and dpm-solver++ up to 50 calls")
    ] = "",
    n: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="samples, and photos")
    ] = 1024,
    features: Annotated[str, typer.Option(help="imagenet or inception")] = "imagenet",
) -> None:
    """Measure a model of photos at several numbers of network calls."""
    model, trained = open_model(name), trained_as(name)
    calls = numbers("counts", counts, int, 1, model.schedule.T)
    check_calls(model.config, calls, model.t_end, sampler)
    evaluation.check_features(features, trained.data)
    options = {"out": out, "counts": counts, "n": n, "features": features}
    options |= {"sampler": sampler} if sampler else {}
    with table_writer(shlex.join(["measure-calls", name]), options) as write:
        real = evaluation.real_images(trained.data, trained, n, trained.seed + 1)
        referee = Judge(evaluation.extractor(features), *real, trained.data)
        write(by_calls(model, referee, calls, model.t_end, sampler), {"model": name})
