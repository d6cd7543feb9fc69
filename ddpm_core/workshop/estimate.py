"""Estimates what a run would cost here, from a few of its steps. Chapter 14."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.models import DTYPES, DiffusionModel, Prompted
from ddpm_core.workshop.run import Run


class Estimate(NamedTuple):
    """What a few steps of a run say about all of it."""

    images_per_second: float  # over all processes
    memory: int  # bytes: the GPU's peak, or what this process holds now
    flop: int  # of a training step, an image: three times the forward pass
    rate: float  # FLOP a second of a large product of matrices, over all processes
    images: int  # that the run sees

    @property
    def utilisation(self) -> float:
        """The fraction of the rate of large products that training reaches."""
        return self.images_per_second * self.flop / self.rate

    @property
    def seconds(self) -> float:
        """What the whole run would take, without its strips."""
        return self.images / self.images_per_second

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.images_per_second:,.1f} images/s, {self.memory / 2**30:.2f} GiB, "
            f"{self.flop / 1e9:,.2f} GFLOP an image and step, "
            f"{self.utilisation:.0%} of the {self.rate / 1e12:,.2f} TFLOP/s that large "
            f"matrices reach here; all {self.images:,} images: {spell(self.seconds)}"
        )


def estimate(run: Run, *, enough: float = 5.0, warmup: int = 3) -> Estimate:
    """Take a few steps of a run and say what all of them would cost.

    The first `warmup` steps, in which memory is claimed and kernels are compiled, do
    not count; after them 1, 2, 4, ... steps are timed, until they take `enough` seconds
    or the run has no more. Leaves no log and no checkpoint, but a run that is further
    on. Raises ValueError for a run that ends with its warm-up. Chapter 14.
    """
    taken, steps = run.take_steps(), 1
    left = run.steps - run.step - warmup
    if left < 1:
        raise ValueError(f"the run's {run.steps} steps are too few for an estimate")
    seconds_of(run, taken, warmup)
    while (seconds := seconds_of(run, taken, steps)) < enough:
        left -= steps
        if left < 2 * steps:
            break
        steps *= 2
    device, world = run.accelerator.device, run.accelerator.num_processes
    return Estimate(
        images_per_second=steps * run.preset.batch / seconds,
        memory=_memory(device),
        flop=3 * forward_flop(run),
        rate=world * matrix_rate(device, DTYPES[run.accelerator.mixed_precision]),
        images=run.steps * run.preset.batch,
    )


def sampling_seconds(
    model: DiffusionModel, n: int, steps: int, prompted: Prompted, some: int = 16
) -> float:
    """What drawing n samples would take here, by one call of the network on a few."""
    some = min(some, n)
    few = dict(prompted)
    if "prompts" in few:
        few["prompts"] = few["prompts"][:some]
    denoise = model.denoiser(**few)
    x_T, t = model.noise(some), torch.full((some,), model.schedule.T)
    with torch.no_grad():
        for _ in range(2):  # the first one warms up
            _wait(model.device)
            start = time.perf_counter()
            denoise(x_T, t.to(model.device))
            _wait(model.device)
    return (time.perf_counter() - start) * steps * n / some


def seconds_of(run: Run, taken: Iterator, steps: int) -> float:
    """How long that many steps take: the mean of all processes, so that they agree."""
    accelerator = run.accelerator
    device = accelerator.device
    _wait(device)
    start = time.perf_counter()
    for _ in islice(taken, steps):
        pass
    _wait(device)
    seconds = torch.tensor(time.perf_counter() - start, device=device)
    return accelerator.reduce(seconds, "mean").item()


@torch.no_grad()
def forward_flop(run: Run) -> int:
    """Count the FLOP of one image's way through the network, its condition included."""
    x0, _ = run.batches.clean(run.split.train[:1])
    t = torch.ones(1, dtype=torch.int64, device=x0.device)
    cond = run.conditions and run.conditions.rows(slice(0, 1))
    with FlopCounterMode(display=False) as counter:
        run.ema.net(x0, t, cond)
    return counter.get_total_flops()


def at_least(run: Run) -> float:
    """The least seconds that a run takes here, computed without taking a step.

    This assumes that it only multiplies large matrices; a third of their rate is more
    usual. Chapter 14.
    """
    rate = matrix_rate(
        run.accelerator.device, DTYPES[run.accelerator.mixed_precision], repeats=2
    )
    return 3 * forward_flop(run) * (run.steps - run.step) * run.preset.batch / rate


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Measure the FLOP a second of a large product of matrices: the best of some."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def spell(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            digits = 1 if unit == "h" else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    from psutil import Process  # comes with accelerate

    return Process().memory_info().rss


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
