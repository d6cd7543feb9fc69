"""What a row of a run's log says: mean losses since the last one, and the speed."""

import time

import torch
from accelerate import Accelerator

from ddpm_core.training import TrainStep
from ddpm_core.workshop.presets import Preset

COMPILING = 3  # first steps, in which a network is compiled


class Meter:
    """Collects steps of training and sums them up in a row of the log.

    Only the time of training counts: not that between `row` and `go_on`, in which a
    run logs, draws and saves, nor the first steps of a compiled network.
    """

    def __init__(
        self,
        preset: Preset,
        epoch_steps: int,
        accelerator: Accelerator,
        seconds: float = 0.0,
    ):
        self.batch, self.epoch_steps = preset.batch, epoch_steps
        self.accelerator, self.seconds = accelerator, seconds
        self.uncounted = COMPILING if preset.compile else 0
        self.steps, self.timed = [], 0
        self.spent, self.since = 0.0, time.perf_counter()

    def add(self, step: TrainStep) -> None:
        """Count a step; the tensors in it are not read yet."""
        self.steps.append(step)
        if self.uncounted:  # the clock starts when all is compiled
            self.uncounted -= 1
            step.loss.item()
            self.since = time.perf_counter()
        else:
            self.timed += 1
        self._stop()

    def row(self) -> dict:
        """Sum up the steps since the last row, over all processes."""
        self.since = time.perf_counter()
        loss = torch.stack([step.loss for step in self.steps]).mean()
        loss = self.accelerator.reduce(loss, "mean").item()
        norm = torch.stack([step.grad_norm for step in self.steps]).mean().item()
        self._stop()
        last = self.steps[-1]
        self.seconds += self.spent
        row = {
            "step": last.step,
            "epoch": round(last.step / self.epoch_steps, 4),
            "loss": loss,
            "grad_norm": norm,
            "lr": last.lr,
            "images_per_second": self.timed * self.batch / self.spent,
            "seconds": self.seconds,
        }
        self.steps, self.timed, self.spent = [], 0, 0.0
        return row

    def go_on(self) -> None:
        """Training begins again after a pause."""
        self.since = time.perf_counter()

    def _stop(self) -> None:
        self.spent += time.perf_counter() - self.since
