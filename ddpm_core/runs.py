"""A training run in a folder: data, log, checkpoints, strips, and what comes out.

- `config.json`: the preset; `data.json`: how many images, on what hardware;
  `commands.txt`: how it was started and resumed
- `log.jsonl`: the losses, one JSON object a line
- `checkpoints/`: the last two; `strips/`: reverse stages from one fixed noise

Chapter 07.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from ddpm_core import training
from ddpm_core.datasets import PackedImages, draw_toy_cars, to_float
from ddpm_core.datasets.images import save_strip
from ddpm_core.diffusion import diffusion_loss, draw_times
from ddpm_core.models import DiffusionModel, step_generator
from ddpm_core.presets import Preset
from ddpm_core.unet import UNet

ROWS = 4  # cars in a strip
KEPT = 2  # checkpoints


class Stopped(RuntimeError):
    """The run cannot go on; the message says why and what is kept."""


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

    def _share(self, step: int, schedule) -> tuple[Tensor, Tensor, Tensor]:
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


class Run:
    """A run in its folder: start it, or resume it, then `train`. Chapter 07.

    `listener` is told each row of the log. Raises ValueError for a folder that holds
    another run, and `Stopped` for a loss that is no longer a number or a full disk.
    """

    def __init__(
        self,
        folder: Path,
        preset: Preset,
        *,
        resume: bool = False,
        listener: Callable[[dict], None] | None = None,
    ):
        self.folder, self.preset, self.listener = folder, preset, listener
        _check_launcher(preset)
        self.accelerator = Accelerator(mixed_precision=preset.precision)
        self.main = self.accelerator.is_main_process
        self._check_folder(resume)
        torch.manual_seed(preset.seed)
        device = self.accelerator.device
        self.net = UNet(preset.unet).to(device, memory_format=torch.channels_last)
        self.ema = training.EMA(self.net, preset.ema)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(),
            lr=preset.lr,
            weight_decay=preset.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.step, self.seconds = 0, 0.0
        if resume:
            self._resume()
        self.split = load_split(preset)
        self._check_data()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.batches = Batches(self.split, preset, device, rank, world)
        self.steps = preset.epochs * self.batches.steps_an_epoch
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if self.main:
            self._claim()

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open the run in `folder` where it stands."""
        config = folder / "config.json"
        if not config.exists():
            raise FileNotFoundError(f"there is no run in {folder}: no {config.name}")
        return cls(
            folder, Preset.from_dict(json.loads(config.read_text())), resume=True
        )

    def note_command(self, command: str) -> None:
        """Keep the command that this run was started or resumed with."""
        if self.main:
            with (self.folder / "commands.txt").open("a") as file:
                file.write(command + "\n")

    def commands(self) -> list[str]:
        """The commands that this run was made with."""
        path = self.folder / "commands.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def model(self) -> DiffusionModel:
        """The model as it stands, with the averaged weights."""
        return DiffusionModel(self.ema.net, self.preset)

    def train(self) -> None:
        """Train to the end of the last epoch, showing progress."""
        bar = tqdm(
            total=self.steps * self.preset.batch,
            initial=self.step * self.preset.batch,
            unit=" images",
            unit_scale=True,
            disable=not self.main,
        )
        with bar:
            for row in self.rows():
                bar.set_postfix(epoch=row["epoch"], loss=f"{row['loss']:.4f}")
                bar.update(row["step"] * self.preset.batch - bar.n)

    def rows(self) -> Iterator[dict]:
        """Train; log, check, and save at the steps where it is due; yield log rows."""
        preset, epoch_steps = self.preset, self.batches.steps_an_epoch
        if self.main:
            self._trim_log()
        since, losses, norms = time.perf_counter(), [], []
        for done in self._steps():
            self.step = done.step
            losses.append(done.loss)
            norms.append(done.grad_norm)
            ends_epoch = done.step % epoch_steps == 0
            ends_run = done.step == self.steps
            if done.step % preset.log_every == 0 or ends_run:
                loss = self.accelerator.reduce(
                    torch.stack(losses).mean(), "mean"
                ).item()
                norm = torch.stack(norms).mean().item()
                self._check_finite(loss, norm)
                now = time.perf_counter()
                self.seconds += now - since
                row = {
                    "step": done.step,
                    "epoch": round(done.step / epoch_steps, 4),
                    "loss": loss,
                    "grad_norm": norm,
                    "lr": done.lr,
                    "images_per_second": len(losses) * preset.batch / (now - since),
                    "seconds": self.seconds,
                }
                self._log(row)
                since, losses, norms = now, [], []
                yield row
            paused = time.perf_counter()
            if self.main and ends_epoch:
                self._end_epoch(done.step // epoch_steps)
            if self.main and (done.step % preset.checkpoint_every == 0 or ends_run):
                self._save()
            since += time.perf_counter() - paused  # only training counts

    def _steps(self) -> Iterator[training.TrainStep]:
        preset, schedule = self.preset, self.preset.make_schedule()
        schedule = schedule.to(self.accelerator.device)
        net = torch.compile(self.net) if preset.compile else self.net
        return training.train(
            net,
            partial(_loss, schedule=schedule, target=preset.make_target),
            self.batches.since(self.step, self.steps),
            self.optimizer,
            lr=training.warmup_cosine(
                preset.lr,
                warmup=round(preset.warmup * self.batches.steps_an_epoch),
                total=self.steps,
                end=preset.lr_end,
            ),
            ema=self.ema,
            clip=preset.clip,
            accumulate=preset.accumulate,
            accelerator=self.accelerator,
            start=self.step,
        )

    def _end_epoch(self, epoch: int) -> None:
        if len(self.split.held_out):
            self._log({"step": self.step, "epoch": epoch, "held_out": self.held_out()})
        if epoch in self.preset.strips:
            self.save_strip(self.folder / "strips" / f"epoch-{epoch:04d}.png")

    @torch.no_grad()
    def held_out(self, chunk: int = 256) -> float:
        """The averaged weights' loss on the held-out images.

        Times and noise never change: what moves it is the network alone.
        """
        preset, device = self.preset, self.accelerator.device
        n = len(self.split.held_out)
        schedule, g = preset.make_schedule(), torch.Generator().manual_seed(preset.seed)
        t = 1 + torch.arange(n) * preset.T // n  # evenly over 1..T
        losses = []
        for i in range(0, n, chunk):
            x0 = to_float(self.split.images[self.split.held_out[i : i + chunk].numpy()])
            eps = torch.randn(x0.shape, generator=g).to(device)
            losses.append(
                _loss(
                    self.ema.net, x0.to(device), t[i : i + chunk].to(device), eps,
                    schedule=schedule, target=preset.make_target,
                )
            )  # fmt: skip
        return torch.cat(losses).mean().item()

    def save_strip(self, path: Path) -> None:
        """Draw 9 stages, from noise to car, for a few cars of one fixed noise."""
        x_T = self.model.noise(ROWS, torch.Generator().manual_seed(self.preset.seed))
        g = step_generator(self.preset.seed, x_T.device)
        states = list(self.model.sample(x_T, self.preset.sample_steps, generator=g))
        save_strip(path, [state.x for state in states])

    def _check_finite(self, loss: float, norm: float) -> None:
        scaled = self.preset.precision == "fp16"  # whose scaler skips such steps
        if not (np.isfinite(loss) and (scaled or np.isfinite(norm))):
            raise Stopped(
                f"the loss is no longer a number at step {self.step} (loss {loss}, "
                f"gradient norm {norm}). {self.kept()} A smaller --lr or --clip "
                "often helps."
            )

    def _check_folder(self, resume: bool) -> None:
        """Refuse another run's folder, and this run's own unless it is resumed."""
        config, there = self.preset.to_dict(), self.folder / "config.json"
        if there.exists():
            old = json.loads(there.read_text())
            differing = sorted(k for k in config | old if config.get(k) != old.get(k))
            if resume and config["epochs"] > old.get("epochs", 0):
                differing = [k for k in differing if k != "epochs"]  # train on, longer
            if differing:
                raise ValueError(
                    f"{self.folder} holds another run; it differs in "
                    + ", ".join(f"{k} ({old.get(k)})" for k in differing)
                    + ": give these values, or another --out"
                )
            if not resume:
                raise ValueError(
                    f"{self.folder} holds this run already: go on with --resume, or "
                    "give another --out"
                )
        elif resume:
            raise ValueError(f"there is no run in {self.folder} to resume")

    def _claim(self) -> None:
        """Take the folder for this run."""
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.folder / "strips").mkdir(exist_ok=True)
        config = json.dumps(self.preset.to_dict(), indent=1) + "\n"
        write_whole(self.folder / "config.json", config)
        facts = {"images": len(self.split.images), "hardware": self.hardware()}
        write_whole(self.folder / "data.json", json.dumps(facts) + "\n")

    def hardware(self) -> str:
        """Name what the run was begun on."""
        path, device = self.folder / "data.json", self.accelerator.device
        if path.exists():
            return json.loads(path.read_text()).get("hardware", "unknown")
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            return f"{self.accelerator.num_processes} x {name}"
        threads, cores = torch.get_num_threads(), os.cpu_count()
        return f"{device.type}, {threads} threads, {cores} cores ({platform.machine()})"

    def _check_data(self) -> None:
        """Refuse to go on with other images than the run was begun with."""
        path, n = self.folder / "data.json", len(self.split.images)
        known = json.loads(path.read_text())["images"] if path.exists() else n
        if known != n:
            raise ValueError(
                f"{self.folder} was begun on {known} images, {self.preset.data} now "
                f"holds {n}: start a new run with another --out"
            )

    def _resume(self) -> None:
        checkpoints = self._checkpoints()
        if checkpoints:
            try:
                self.step = training.load_checkpoint(
                    checkpoints[-1], self.net, self.ema, self.optimizer
                )
            except ValueError as error:
                older = checkpoints[-2].name if len(checkpoints) > 1 else "none"
                raise Stopped(
                    f"{error}. Remove it to go on from the one before: {older}."
                ) from error
        rows = [row for row in read_log(self.folder) if row["step"] <= self.step]
        self.seconds = max((row.get("seconds", 0.0) for row in rows), default=0.0)

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint from which the run goes on."""
        rows = [row for row in read_log(self.folder) if row["step"] <= self.step]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_whole(self.folder / "log.jsonl", lines)

    def _save(self) -> None:
        path = self.folder / "checkpoints" / f"step-{self.step:08d}.safetensors"
        try:
            training.save_checkpoint(
                path, self.step, self.net, self.ema, self.optimizer
            )
        except OSError as error:
            raise Stopped(f"{error}. {self.kept()}") from error
        for old in self._checkpoints()[:-KEPT]:
            old.unlink()

    def _checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"))

    def kept(self) -> str:
        """Say which checkpoint a stopped run can go on from."""
        kept = self._checkpoints()
        return f"Kept: {kept[-1]}." if kept else "No checkpoint had been written yet."

    def _log(self, row: dict) -> None:
        if self.main:
            if self.listener:
                self.listener(row)
            try:
                with (self.folder / "log.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise Stopped(
                    f"the log cannot be written: {error}. {self.kept()}"
                ) from error


def _loss(net, x0: Tensor, t: Tensor, eps: Tensor, *, schedule, target) -> Tensor:
    return diffusion_loss(net, schedule, target, x0, t=t, eps=eps)


def _check_launcher(preset: Preset) -> None:
    """Refuse a precision that `accelerate launch` asks for and the preset does not."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", preset.precision):
        raise ValueError(
            f"accelerate launch asks for {asked}, the preset for {preset.precision}: "
            f"give --precision {asked} to ddpm train"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all; what stands there already is left."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Stopped(f"{path} could not be written: {error}") from error


def read_log(folder: Path) -> list[dict]:
    """Read the rows of a run's log; a last line that was cut short is left out."""
    rows = []
    path = folder / "log.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
