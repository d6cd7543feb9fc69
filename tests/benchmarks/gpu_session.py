"""A quarter of an hour of one GPU, spent by a list; what is found is kept as it comes.

    python tests/benchmarks/gpu_session.py --out found --photos stanford_cars.zip
    python tests/benchmarks/gpu_session.py --out found --dry    # tiny, on a CPU

Each step is a process of its own, alone on the card, with a limit; one that fails or is
cut off does not stop the others. `found/session.json` says what became of each, and
`found/NAME.txt` is what it printed. The last step trains the new preset for what is
left of the time, and measures it.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

TOTAL = 780  # seconds, of all steps together
NEW = "cars-64"  # the preset that is trained at the end
TRAINING = 0.6  # of the time that is left: measuring and drawing need theirs
UNHURRIED = 20  # times the limits, of a dry run on a CPU that has other work
PHOTOS = 14_137  # in an epoch, where 2,048 are held out
ON_GPU = ["--compile", "--precision", "auto"]
TINY = {
    "size": 16, "channels": "8,16", "attention": "false,true", "groups": 4,
    "blocks": 1, "patch": 1, "image-channels": 3, "latent": "", "held-out": 32,
    "batch": 8, "epochs": 1, "warmup": 0, "T": 60, "sample-steps": 9, "strips": "",
    "precision": "no", "log-every": 1, "checkpoint-every": 4,
}  # fmt: skip
"""What a dry run changes of each preset, as options of `ddpm train`."""


@dataclass(frozen=True)
class Step:
    """A command, and the seconds after which it is cut off."""

    name: str
    words: list[str]
    limit: float


def python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def ddpm(*words: object) -> list[str]:
    return python("-m", "ddpm_core", *words)


def tiny() -> list[str]:
    """The options of a dry run."""
    words = [word for name, value in TINY.items() for word in (f"--{name}", value)]
    return [*map(str, words), "--no-compile"]


def steps(out: Path, photos: str, *, dry: bool) -> list[Step]:
    """All steps but the last, in their order."""
    data = out / "photos"
    own = Path(__file__)
    compare = python(own.with_name("compare.py"))
    small = [*tiny(), "--data", str(data)]
    options = small if dry else []
    found = []
    if dry:
        found.append(Step("photos", python(own, "draw", "--out", data), 60))
    elif photos:
        made = ["--out", "data/stanford-cars-64", "--size", 64]
        found.append(Step("photos", ddpm("prepare", photos, *made), 60))
    limits = {"cars64-article": (75, 60), "cars64": (60, 50), NEW: (45, 40)}
    for name, (plain, graphs) in limits.items():
        estimate = ddpm("train", name, "--estimate", *(options or ON_GPU))
        found.append(Step(f"estimate-{name}", estimate, plain))
        if not dry:  # graphs are of a GPU
            recorded = Step(f"estimate-{name}-graphs", [*estimate, "--graphs"], graphs)
            found.append(recorded)
    profile = python(own, "profile", "--out", out, *(["--dry"] if dry else []))
    found.append(Step("profile", profile, 50))
    how = ["--dry"] if dry else ["--device", "cuda"]
    found.append(Step("compare", [*compare, *how], 120))
    return found


def training(out: Path, left: float, speed: float, *, dry: bool) -> Step:
    """The last step: the new preset for as many epochs as fit, with distances.

    `speed`: images a second, as the estimate said.
    """
    epochs = max(1, int(TRAINING * left * speed / PHOTOS))
    words = ["capstone", NEW, "--run", out / "run", "--out", out / "results"]
    if dry:
        words += [*tiny(), "--data", out / "photos", "--n", 16, "--table", 2]
        words += ["--marks", "1", "--mark-calls", 2]
    else:
        words += [*ON_GPU, "--epochs", epochs, "--strips", epochs, "--n", 1024]
        words += ["--table", 20, "--marks", "0.25,0.5,1"]
    return Step("train", ddpm(*words), left)


def run(step: Step, out: Path, left: float) -> dict:
    """Run a step to its end or its limit; say what became of it."""
    limit, start, used = min(step.limit, left), time.monotonic(), cpu_seconds()
    with (out / f"{step.name}.txt").open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(
            step.words, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = "cut off"
    return {
        "step": step.name,
        "command": shlex.join(step.words),
        "code": code,
        "seconds": round(time.monotonic() - start, 1),
        "CPU seconds": round(cpu_seconds() - used, 1),
        "limit": round(limit, 1),
    }


def cpu_seconds() -> float:
    """The processor time of the steps that have ended."""
    return os.times().children_user + os.times().children_system


def speed_of(out: Path, name: str) -> float:
    """The images a second that the estimates of a preset found: the most of them."""
    texts = [path.read_text() for path in out.glob(f"estimate-{name}*.txt")]
    found = [s for text in texts for s in re.findall(r"([\d,.]+) images/s", text)]
    return max((float(s.replace(",", "")) for s in found), default=0.0)


def session(out: Path, photos: str, total: float, *, dry: bool) -> list[dict]:
    """Run all steps, the last for the time that is left; keep what is found."""
    out.mkdir(parents=True)
    start, found = time.monotonic(), []

    def left() -> float:
        return max(1.0, total - (time.monotonic() - start))

    def take(step: Step) -> None:
        found.append(run(step, out, left()))
        print(found[-1]["step"], found[-1]["code"], found[-1]["seconds"], flush=True)
        text = json.dumps(found, indent=1) + "\n"
        (out / "session.json").write_text(text, encoding="utf-8")

    for step in steps(out, photos, dry=dry):
        take(replace(step, limit=UNHURRIED * step.limit) if dry else step)
    take(training(out, left(), speed_of(out, NEW), dry=dry))
    return found


def profile(out: Path, *, dry: bool) -> None:
    """Print where the time of a step of the article's network goes, as a table."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from ddpm_core.workshop.preset_options import changed_fields
    from ddpm_core.workshop.presets import preset
    from ddpm_core.workshop.run import Run

    changes = {k.replace("-", "_"): v for k, v in TINY.items()} if dry else {}
    changes = {k: str(v) if k == "size" else v for k, v in changes.items()}
    options = changed_fields(changes) | ({"data": str(out / "photos")} if dry else {})
    chosen = preset("cars64-article").replace(**options)
    chosen = chosen.replace(compile=False) if dry else chosen
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with Run.begin(out / "profiled", chosen) as run:
        taken = run.take_steps()
        list(islice(taken, 5))
        with profiled(activities=kinds) as seen:
            list(islice(taken, 1))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    by = "self_cuda_time_total" if len(kinds) > 1 else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=by, row_limit=25))


def draw(out: Path) -> None:
    """Pack drawn cars for a dry run."""
    from ddpm_core.datasets import draw_toy_cars, write_packed

    write_packed(out, draw_toy_cars(128, size=TINY["size"]).images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="session")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", default="", help="what ddpm prepare takes")
    parser.add_argument("--seconds", type=float, default=TOTAL)
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    if given.what == "draw":
        draw(given.out)
    elif given.what == "profile":
        profile(given.out, dry=given.dry)
    elif given.out.exists():
        parser.error(f"{given.out} is there already: name a new folder")
    else:
        seconds = given.seconds * (UNHURRIED if given.dry else 1)
        session(given.out.resolve(), given.photos, seconds, dry=given.dry)


if __name__ == "__main__":
    main()
