"""What a run trains on: its images, split, and the batch of each step. Chapter 07."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm_core.conditioning import dropped
from ddpm_core.datasets import PackedImages, draw_toy_cars, to_float
from ddpm_core.datasets.packed import StoredArray
from ddpm_core.datasets.sizes import as_size, typed
from ddpm_core.datasets.toy_cars import ATTRIBUTES, showing_any
from ddpm_core.diffusion import draw_times
from ddpm_core.latent import LatentScaler
from ddpm_core.schedules import Schedule
from ddpm_core.workshop.latents import cached, encoded
from ddpm_core.workshop.presets import Preset

STANFORD_CARS = "hub:tanganke/stanford_cars"
SPLIT_SEED = 0  # runs of every seed put the same images aside: they can be compared


@dataclass(frozen=True, eq=False)
class Split:
    """Packed images, uint8 (n, h, w, 3 or 1), and which of them are trained on.

    `caption` holds the number of each image's prompt among the `captions`, of which
    number 0 is the empty one; None for a run without prompts. `classes` are the names
    of the data set's classes where the run is for them. `sha256` is that of the images.
    """

    images: np.ndarray | StoredArray
    train: Tensor
    held_out: Tensor
    captions: tuple[str, ...] = ("",)
    caption: Tensor | None = None
    classes: tuple[str, ...] = ()
    sha256: str = ""


class Images(NamedTuple):
    """What a data set holds: its images, with captions and classes, if any."""

    images: np.ndarray | StoredArray
    sha256: str
    captions: Callable[[], Sequence[str]]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    eligible: np.ndarray  # the rows that may be used


def load_split(preset: Preset, workers: int | None = None) -> Split:
    """Draw or open the preset's images and put some of them aside, always the same.

    Raises ValueError for a data set that is too small or of another size than the
    preset or lacks the captions or classes that it needs, FileNotFoundError where there
    is none.
    """
    data = _load(preset, workers)
    n, stored, size = len(data.eligible), data.images.shape[1:3], preset.model.size
    if stored != preset.model.sides:
        side, wanted = typed(as_size(*stored)), typed(size)
        raise ValueError(
            f"the images of {preset.data} are {side} pixels wide, the run's are "
            f"{wanted}: prepare them with --size {wanted}, or train with --size {side}"
        )
    if n - preset.held_out < preset.batch:
        raise ValueError(
            f"{preset.data} holds {n} images: too few to hold out {preset.held_out} "
            f"and fill a batch of {preset.batch}; choose smaller --held-out and --batch"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    order = torch.from_numpy(data.eligible)[order]
    split = Split(
        data.images,
        order[preset.held_out :],
        order[: preset.held_out],
        sha256=data.sha256,
    )
    if preset.labels:
        return _with_classes(split, data, preset.data)
    if not preset.model.text:
        return split
    captions = data.captions()
    known = {text: i for i, text in enumerate(dict.fromkeys(["", *captions]))}
    caption = torch.tensor([known[text] for text in captions])
    return replace(split, captions=tuple(known), caption=caption)


def _with_classes(split: Split, data: Images, source: str) -> Split:
    if data.labels is None or not data.classes:
        raise ValueError(f"{source} has no classes for --labels")
    if len(set(data.classes)) < len(data.classes) or "" in data.classes:
        raise ValueError(f"the classes of {source} need names of their own")
    caption = torch.from_numpy(data.labels + 1)  # UNLABELLED, -1, becomes no class
    names = ("", *data.classes)
    return replace(split, captions=names, caption=caption, classes=data.classes)


def _load(preset: Preset, workers: int | None) -> Images:
    """Draw the toy cars, or open the folder of packed images."""
    if preset.data == "toy-cars":
        n = preset.drawn + preset.held_out
        if isinstance(preset.model.size, tuple):
            raise ValueError(
                f"toy cars are square, got --size {typed(preset.model.size)}"
            )
        cars = draw_toy_cars(
            n, size=preset.model.size, seed=preset.seed, workers=workers
        )
        eligible = np.flatnonzero(~showing_any(cars.attributes, preset.absent))
        digest = hashlib.sha256(np.ascontiguousarray(cars.images)).hexdigest()
        kinds = tuple(ATTRIBUTES["body"])
        bodies = cars.attributes[:, list(ATTRIBUTES).index("body")].astype(np.int64)

        def captions() -> list[str]:
            return cars.loose_captions(preset.seed) if preset.loose else cars.captions

        return Images(cars.images, digest, captions, bodies, kinds, eligible)
    if preset.absent:
        raise ValueError(f"absent is for toy cars, {preset.data} has no attributes")
    if preset.loose:
        raise ValueError(f"loose is for toy cars, {preset.data} has no attributes")
    try:
        packed = PackedImages.open(preset.data)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}: `ddpm prepare SOURCE --out {preset.data} --size "
            f"{typed(preset.model.size)}`, where SOURCE are your photos, or "
            f"{STANFORD_CARS} for a download"
        ) from error
    rows = np.arange(len(packed))
    return Images(
        packed.images,
        packed.sha256,
        lambda: packed.captions,
        packed.labels,
        packed.classes,
        rows,
    )


@dataclass(frozen=True, eq=False)
class Batches:
    """The batch of each step, a function of only the seed and the step.

    All that is random in a step is drawn for the whole batch, of which each process
    takes its share: runs resume exactly, and the number of processes changes nothing.
    With `latent`, x0 are latents: of all images, and of their mirror images where the
    preset flips, they are computed once.
    """

    split: Split
    preset: Preset
    device: torch.device
    rank: int = 0
    world: int = 1
    latent: LatentScaler | None = None

    def __post_init__(self):
        parts = self.world * self.preset.accumulate
        if self.preset.batch % parts:
            raise ValueError(
                f"batch = {self.preset.batch} cannot be shared by {self.world} "
                f"processes in {self.preset.accumulate} parts each: make it a "
                f"multiple of {parts}"
            )

    @cached_property
    def images(self) -> np.ndarray | StoredArray | Tensor:
        """What steps draw from: pixels as bytes, or the latents of all images."""
        if self.latent:
            return self._encoded()
        if self.device.type == "cuda":  # bytes are small: they lie by the network
            return torch.from_numpy(np.array(self.split.images[:])).to(self.device)
        return self.split.images

    @cached_property
    def captions(self) -> Tensor | None:
        """The number of each image's prompt, on the device."""
        caption = self.split.caption
        return None if caption is None else caption.to(self.device)

    @property
    def steps_an_epoch(self) -> int:
        return len(self.split.train) // self.preset.batch

    def since(self, step: int, last: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield (x0, t, eps) for each step from `step` up to, not including, `last`.

        Where there are captions, their numbers are the fourth, some of them dropped.
        """
        schedule, n = self.preset.model.make_schedule(), self.preset.batch
        for k in range(step, last):
            epoch, place = divmod(k, self.steps_an_epoch)
            if k == step or place == 0:
                order = self._order(epoch)
            yield self._share(k, order[place * n : (place + 1) * n], schedule)

    def clean(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return x0 of some images, and of their mirror images, on the device."""
        if self.latent:
            both = self.images[:, rows]
            return both[0], both[-1]
        stored = not isinstance(self.images, Tensor)
        chosen = self.images[rows.cpu().numpy() if stored else rows]
        x0 = to_float(chosen).to(self.device)
        return x0, x0.flip(-1)

    def _encoded(self) -> Tensor:
        """The latents of all images; those of photos are kept beside the photos."""
        preset, images = self.preset, self.split.images
        if preset.data == "toy-cars":
            return encoded(images, self.latent, flip=preset.flip)
        folder = Path(preset.data).parent / "latents"
        return cached(folder, images, self.latent, flip=preset.flip)

    def _order(self, epoch: int) -> Tensor:
        """The rows of the images in the order of that epoch, on the device."""
        g = _seeded(self.preset, 1, epoch)
        order = torch.randperm(len(self.split.train), generator=g)
        return self.split.train[order].to(self.device)

    def _share(self, step: int, chosen: Tensor, schedule: Schedule) -> tuple:
        """This process's part of a batch, made of the images `chosen`.

        What is looked up or drawn here is on the device already: a copy from the
        host's memory would make the host wait for all steps before.
        """
        preset, n = self.preset, self.preset.batch
        x0, mirrored = self.clean(chosen)
        g = _seeded(preset, 2, step, self.device)
        t = draw_times(schedule, n, device=self.device, generator=g)
        eps = torch.randn(x0.shape, generator=g, device=self.device)
        if preset.flip:
            flipped = torch.rand(n, 1, 1, 1, generator=g, device=self.device) < 0.5
            x0 = torch.where(flipped, mirrored, x0)
        torch.manual_seed(_seed(preset, 3, step, self.rank))  # dropout's
        mine = slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)
        if self.captions is None:
            return x0[mine], t[mine], eps[mine]
        g, caption = _seeded(preset, 4, step, self.device), self.captions[chosen]
        caption = dropped(caption, torch.zeros_like(caption[0]), preset.drop, g)
        return x0[mine], t[mine], eps[mine], caption[mine]


def _seed(preset: Preset, *parts: int) -> int:
    return int(np.random.SeedSequence([preset.seed, *parts]).generate_state(1)[0])


def _seeded(preset: Preset, kind: int, number: int, device="cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(preset, kind, number))
