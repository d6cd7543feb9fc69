"""Runs broken on purpose, as small as they can be, and healthy models beside them.

    python tests/sick_runs.py

prints what the doctor says of each. The sick runs are of 16x16 toy cars. Most start
from one run whose only fault is that it ended early, so that a few dozen steps with a
slip are enough. Each is built by a function of the ward, in its own folder; its name
says what is wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from typecheck import unchecked

from ddpm_core import diffusion, training
from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.diffusion import EPS, diffusion_loss
from ddpm_core.unet import UNetConfig
from ddpm_core.workshop.doctor import diagnose, examine, patient_of
from ddpm_core.workshop.folder import Stopped
from ddpm_core.workshop.opened import make_optimizer
from ddpm_core.workshop.presets import PLAIN, Preset, preset
from ddpm_core.workshop.run import Run

IMAGES, HELD_OUT = 1300, 300


class Ward:
    """Where the patients lie. `base` is a sound, short run from which others start."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cars = draw_toy_cars(IMAGES, size=16, workers=1)

    @cached_property
    def preset(self) -> Preset:
        unet = UNetConfig(
            (16, 32), (False, False), blocks=1, groups=4, dropout=0.0, patch=2
        )
        return PLAIN.replace(
            data=self.packed("cars", self.cars.images), held_out=HELD_OUT, size=16,
            network=unet, T=200, batch=32, epochs=7, lr=4e-3, lr_end=0.05, ema=0.95,
            warmup=0.5, log_every=5, checkpoint_every=100_000, strips=(),
        )  # fmt: skip

    def packed(self, name: str, images: np.ndarray, **more) -> str:
        write_packed(self.folder / name, images, **more)
        return str(self.folder / name)

    @cached_property
    def base(self) -> Path:
        return self.train("base", self.preset)

    def train(self, name: str, preset: Preset) -> Path:
        where = self.folder / "runs" / name
        with unchecked(), Run.begin(where, preset) as run:  # a quarter less time
            try:
                for _ in run.rows():
                    pass
            except Stopped:
                run._save()
        return run.folder

    def from_base(self, name: str, **changes) -> Path:
        changes = {"epochs": 2, "lr": 2e-3, "seed": 1, "warmup": 0.0} | changes
        preset = self.preset.replace(start_from=str(self.base), **changes)
        return self.train(name, preset)

    def fresh(self, name: str, **changes) -> Path:
        return self.train(name, self.preset.replace(**{"seed": 2} | changes))

    @contextmanager
    def changed(self, name: str) -> Iterator[tuple]:
        """A copy of the base whose weights are changed: raw and averaged alike."""
        run = Run.open(self.base)
        yield run.net, run.ema.net
        other = self.fresh(name, epochs=1, lr=1e-9, warmup=0.0)
        log = (self.base / "log.jsonl").read_text()
        (other / "log.jsonl").write_text(log)
        (path,) = (other / "checkpoints").iterdir()
        optimizer = make_optimizer(run.net, run.preset)
        training.save_checkpoint(path, run.steps, run.net, run.ema, optimizer)


def wrong_noise(mix: Callable) -> object:
    """Replace the formula of x_t while training."""

    def noised(schedule, x0, t, eps):
        shape = (-1, 1, 1, 1)
        ab, alpha = (v[t].view(shape) for v in (schedule.alpha_bar, schedule.alpha))
        a, s = mix(ab, alpha)
        return (a * x0 + s * eps).float()

    return patch.object(diffusion, "add_noise", noised)


def wrong_loss(change: Callable) -> object:
    """Change what the loss is given: (target, x0, eps) -> the same."""

    def loss(net, schedule, target, x0, cond=None, *, t, eps, **more):
        target, x0, eps = change(target, x0, eps)
        return diffusion_loss(net, schedule, target, x0, cond, t=t, eps=eps, **more)

    return patch("ddpm_core.workshop.run.diffusion_loss", loss)


def missing_root(ward: Ward) -> Path:
    with wrong_noise(lambda ab, alpha: (ab.sqrt(), 1 - ab)):
        return ward.from_base("missing root", epochs=3)


def swapped_alpha(ward: Ward) -> Path:
    with wrong_noise(lambda ab, alpha: (alpha.sqrt(), (1 - alpha).sqrt())):
        return ward.fresh("swapped alpha", epochs=15)


def rand_for_randn(ward: Ward) -> Path:
    with wrong_loss(lambda target, x0, eps: (target, x0, torch.special.ndtr(eps))):
        return ward.from_base("rand for randn")


def images_from_0_to_1(ward: Ward) -> Path:
    with wrong_loss(lambda target, x0, eps: (target, (x0 + 1) / 2, eps)):
        return ward.from_base("images in [0, 1]")


def another_target(ward: Ward) -> Path:
    with wrong_loss(lambda target, x0, eps: (EPS, x0, eps)):
        return ward.from_base("target eps", epochs=3)


def only_early_times(ward: Ward) -> Path:
    def early(schedule, n, **more):
        return (diffusion.draw_times(schedule, n, **more) + 1) // 2

    with patch("ddpm_core.workshop.batches.draw_times", early):
        return ward.fresh("early only", epochs=20)


def average_that_stays_behind(ward: Ward) -> Path:
    """No warm-up of the average, which still is the first, random network."""

    def update(self, net, step):
        with torch.no_grad():
            pairs = zip(self.net.parameters(), net.parameters(), strict=True)
            for average, now in pairs:
                average.lerp_(now, 1e-4)

    with patch.object(training.EMA, "update", update):
        return ward.fresh("average", epochs=8)


def leaking_schedule(ward: Ward) -> Path:
    return ward.fresh("leak", schedule="linear", beta_end=0.05, epochs=4)


def half_range(ward: Ward) -> Path:
    data = ward.packed("bright", 128 + ward.cars.images // 2)
    return ward.from_base("range", data=data)


def repeated_images(ward: Ward) -> Path:
    data = ward.packed("twice", np.tile(ward.cars.images[:650], (2, 1, 1, 1)))
    return ward.from_base("twins", data=data)


def fp16_overflow(ward: Ward) -> Path:
    """A block's inner layers, before their normalisation, times a million."""
    with ward.changed("overflow") as nets:
        for net in nets:
            block = next(m for m in net.modules() if hasattr(m, "conv1"))
            for layer in (block.conv1, block.shift):
                for parameter in layer.parameters():
                    parameter.data *= 1e6
    return ward.folder / "runs" / "overflow"


def tinted(ward: Ward) -> Path:
    """The last layer adds to red wherever it answers."""
    with ward.changed("tint") as nets:
        for net in nets:
            last = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)][-1]
            last.bias.data[: len(last.bias) // 3] += 0.3
    return ward.folder / "runs" / "tint"


def rate_too_high(ward: Ward) -> Path:
    return ward.fresh("rate too high", lr=1.0, warmup=0.0, epochs=3)


def rate_too_low(ward: Ward) -> Path:
    return ward.fresh("does not learn", lr=1e-7, epochs=3)


def too_early(ward: Ward) -> Path:
    return ward.base


def few_images(ward: Ward) -> Path:
    """8 images, each seen 600 times; the held-out loss of each epoch is left out."""
    data = ward.packed("few", ward.cars.images[:72])
    few = {"held_out": 64, "batch": 8, "epochs": 600, "log_every": 25}
    with patch.object(Run, "_end_epoch", lambda run, epoch: None):
        return ward.from_base("by heart", data=data, **few)


SICK = {
    "missing root": missing_root,
    "swapped alpha": swapped_alpha,
    "rand for randn": rand_for_randn,
    "images in [0, 1]": images_from_0_to_1,
    "target eps": another_target,
    "early only": only_early_times,
    "average": average_that_stays_behind,
    "leak": leaking_schedule,
    "range": half_range,
    "twins": repeated_images,
    "overflow": fp16_overflow,
    "tint": tinted,
    "rate too high": rate_too_high,
    "does not learn": rate_too_low,
    "by heart": few_images,
    "too early": too_early,
}
"""What is wrong, as the doctor should name it first, and who has it."""


def fine_tuned(ward: Ward) -> Path:
    """All weights of a shipped model, trained for 26 steps more, with mirror images."""
    return shipped_and_more(ward, "fine-tuned", flip=True, lr=1e-4)


def with_lora(ward: Ward) -> Path:
    return shipped_and_more(ward, "LoRA", lora=4, lr=1e-3)


def shipped_and_more(ward: Ward, name: str, **changes) -> Path:
    more = {"drawn": 480, "held_out": 64, "seed": 5, "epochs": 1, "strips": ()}
    more |= {"log_every": 3, "checkpoint_every": 30, "start_from": "toy-cars-32"}
    return ward.train(name, preset("toy-cars-32").replace(**more | changes))


HEALTHY = {
    **dict.fromkeys(
        (
            "toy-cars-32",
            "toy-cars-flow-32",  # another schedule and target
            "toy-cars-zero-snr-32",
            "toy-cars-text-32",
            "toy-cars-text-latent-32",
        )
    ),
    "fine-tuned": fine_tuned,
    "LoRA": with_lora,
}
"""Models that ship, and runs that start from one: what makes them, if it is a run."""


@cache
def patient(ward: Ward, name: str) -> Path | str:
    """The folder of a run, made once, or the name of weights."""
    build = (SICK | HEALTHY)[name]
    return build(ward) if build else name


def print_table() -> None:
    """Print each patient's name, and what the doctor finds, in the doctor's order."""
    with TemporaryDirectory() as folder:
        ward = Ward(Path(folder))
        for name in SICK | HEALTHY:
            findings = diagnose(examine(patient_of(patient(ward, name))))
            kind = "sick" if name in SICK else "healthy"
            said = ", ".join(finding.name for finding in findings) or "nothing"
            print(f"{kind:8} {name:24} {said}", flush=True)


if __name__ == "__main__":
    print_table()
