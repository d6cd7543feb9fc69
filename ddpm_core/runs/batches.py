"""What a run trains on: its images, split, and the batch of each step. Chapter 07."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_core.datasets import PackedImages, draw_toy_cars, to_float
from ddpm_core.diffusion import draw_times
from ddpm_core.presets import Preset
from ddpm_core.schedules import Schedule


@dataclass(frozen=True, eq=False)
class Split:
    """Packed images, uint8 (n, h, w, 3), and which of them are trained on."""

    images: np.ndarray
    train: Tensor
    held_out: Tensor


def load_split(preset: Preset, workers: int | None = None) -> Split:
    """Draw or open the preset's images and put some of them aside, by its seed.

    Raises ValueError for a data set that is too small or of another size than the
    preset, FileNotFoundError where there is none.
    """
    if preset.data == "toy-cars":
        n = preset.drawn + preset.held_out
        images = draw_toy_cars(n, size=preset.size, seed=preset.seed, workers=workers)
        images = images.images
    else:
        images = PackedImages.open(preset.data).images
    n, side = len(images), images.shape[1]
    if side != preset.size:
        raise ValueError(
            f"the images of {preset.data} are {side} pixels wide, the run's are "
            f"{preset.size}: prepare them with --size {preset.size}, or train with "
            f"--size {side}"
        )
    if n - preset.held_out < preset.batch:
        raise ValueError(
            f"{preset.data} holds {n} images: too few to hold out {preset.held_out} "
            f"and fill a batch of {preset.batch}; choose smaller --held-out and --batch"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(preset.seed))
    return Split(images, order[preset.held_out :], order[: preset.held_out])


@dataclass(frozen=True, eq=False)
class Batches:
    """The batch of each step, a function of the seed and the step alone.

    All that is random in a step is drawn for the whole batch, of which each process
    takes its share: runs resume exactly, and the number of processes changes nothing.
    """

    split: Split
    preset: Preset
    device: torch.device
    rank: int = 0
    world: int = 1

    def __post_init__(self):
        parts = self.world * self.preset.accumulate
        if self.preset.batch % parts:
            raise ValueError(
                f"batch = {self.preset.batch} cannot be shared by {self.world} "
                f"processes in {self.preset.accumulate} parts each: make it a "
                f"multiple of {parts}"
            )
        images = self.split.images
        if self.device.type == "cuda":  # bytes are small: they lie beside the network
            images = torch.from_numpy(np.array(images)).to(self.device)
        object.__setattr__(self, "images", images)

    @property
    def steps_an_epoch(self) -> int:
        return len(self.split.train) // self.preset.batch

    def since(self, step: int, last: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (x0, t, eps) for each step from `step` up to, not including, `last`."""
        schedule = self.preset.make_schedule()
        for k in range(step, last):
            yield self._share(k, schedule)

    def _share(self, step: int, schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
        preset, n = self.preset, self.preset.batch
        epoch, place = divmod(step, self.steps_an_epoch)
        order = torch.randperm(
            len(self.split.train), generator=_seeded(preset, 1, epoch)
        )
        chosen = self.split.train[order[place * n : (place + 1) * n]]
        stored = isinstance(self.images, np.ndarray)
        x0 = to_float(self.images[chosen.numpy() if stored else chosen])
        x0 = x0.to(self.device)
        g = _seeded(preset, 2, step, self.device)
        t = draw_times(schedule, n, device=self.device, generator=g)
        eps = torch.randn(x0.shape, generator=g, device=self.device)
        if preset.flip:
            flipped = torch.rand(n, 1, 1, 1, generator=g, device=self.device) < 0.5
            x0 = torch.where(flipped, x0.flip(-1), x0)
        torch.manual_seed(_seed(preset, 3, step, self.rank))  # dropout's
        mine = slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)
        return x0[mine], t[mine], eps[mine]


def _seed(preset: Preset, *parts: int) -> int:
    return int(np.random.SeedSequence([preset.seed, *parts]).generate_state(1)[0])


def _seeded(preset: Preset, kind: int, number: int, device="cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(preset, kind, number))
