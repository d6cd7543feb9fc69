"""A training run: begun or resumed, trained, logged, sampled. Chapter 07."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from ddpm_core import training
from ddpm_core.compiling import compiled
from ddpm_core.datasets.images import save_strip
from ddpm_core.diffusion import diffusion_loss, min_snr
from ddpm_core.models import (
    DiffusionModel,
    best_device,
    best_precision,
    load_autoencoder,
    load_text_encoder,
    step_generator,
)
from ddpm_core.muon import Muon
from ddpm_core.presets import Preset
from ddpm_core.runs.batches import Batches, load_split
from ddpm_core.runs.folder import RunFolder, Stopped, read_log
from ddpm_core.runs.teacher import lesson_of, load_teacher
from ddpm_core.schedules import Schedule
from ddpm_core.unet import UNet

ROWS = 4  # cars in a strip
COMPILING = 3  # first steps, in which a network is compiled
HELD_OUT = 512  # images whose loss is taken after each epoch


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
        self.files = RunFolder(folder)
        _check_launcher(preset)
        self.accelerator = Accelerator(mixed_precision=mixed_precision(preset))
        self.main = self.accelerator.is_main_process
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        self.files.check(preset, resume=resume)
        torch.manual_seed(preset.seed)
        device = self.accelerator.device
        self.net = UNet(preset.unet).to(device, memory_format=torch.channels_last)
        self.teacher = load_teacher(preset, device)
        if self.teacher:
            self.net.load_state_dict(self.teacher.net.state_dict())
        self.ema = training.EMA(self.net, preset.ema)
        self.optimizer = make_optimizer(self.net, preset)
        self.step, self.seconds = 0, 0.0
        if resume:
            self._resume()
        self.split = load_split(preset)
        self.encoder = load_text_encoder(preset, device)
        self.conditions = self.encoder and self.encoder.encode(self.split.captions)
        self.latent = load_autoencoder(preset, device)
        self.files.check_data(preset, len(self.split.images))
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.batches = Batches(self.split, preset, device, rank, world, self.latent)
        self.steps = preset.epochs * self.batches.steps_an_epoch
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if self.main:
            images = len(self.split.images)
            facts = {"images": images, "hardware": self.hardware()}
            self.files.claim(preset, facts)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open the run in `folder` where it stands."""
        return cls(folder, RunFolder(folder).preset(), resume=True)

    def note_command(self, command: str) -> None:
        """Keep the command that this run was started or resumed with."""
        if self.main:
            self.files.note_command(command)

    @property
    def model(self) -> DiffusionModel:
        """The model as it stands, with the averaged weights."""
        return DiffusionModel(self.ema.net, self.preset, self.encoder, self.latent)

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
            self.files.trim_log(self.step)
        unclocked = COMPILING if preset.compile else 0
        since, losses, norms = time.perf_counter(), [], []
        for taken, done in enumerate(self.take_steps()):
            if taken < unclocked:  # the clock starts when all is compiled
                done.loss.item()
                since = time.perf_counter()
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
                spent = time.perf_counter() - since
                timed = min(len(losses), taken + 1 - unclocked)
                self.seconds += spent
                row = {
                    "step": done.step,
                    "epoch": round(done.step / epoch_steps, 4),
                    "loss": loss,
                    "grad_norm": norm,
                    "lr": done.lr,
                    "images_per_second": timed * preset.batch / spent,
                    "seconds": self.seconds,
                }
                self._log(row)
                losses, norms = [], []
                yield row
                since = time.perf_counter()  # the listener's time is not training's
            paused = time.perf_counter()
            if self.main and ends_epoch:
                self._end_epoch(done.step // epoch_steps)
            if self.main and (done.step % preset.checkpoint_every == 0 or ends_run):
                self._save()
            since += time.perf_counter() - paused  # only training counts

    def take_steps(self) -> Iterator[training.TrainStep]:
        """Train and yield after each step; nothing is logged, nothing saved."""
        preset, device = self.preset, self.accelerator.device
        schedule = preset.make_schedule().to(device)
        net = self.net
        if preset.compile:
            net = compiled(net, graphs=preset.graphs)
        return training.train(
            net,
            self._loss(schedule),
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

    def _loss(self, schedule: Schedule) -> Callable[..., Tensor]:
        """The loss of a network on what `Batches` yields."""
        preset, target = self.preset, self.preset.make_target
        weight = min_snr(target, preset.min_snr) if preset.min_snr else None
        lesson = lesson_of(self.teacher, preset) if self.teacher else None

        def loss(net, x0: Tensor, t: Tensor, eps: Tensor, caption=None) -> Tensor:
            cond = None if caption is None else self.conditions.rows(caption)
            if lesson:
                x0, t, eps = lesson(x0, t, eps)
            return diffusion_loss(
                net, schedule, target, x0, cond, t=t, eps=eps, weight=weight
            )

        return loss

    def _end_epoch(self, epoch: int) -> None:
        if len(self.split.held_out):
            self._log({"step": self.step, "epoch": epoch, "held_out": self.held_out()})
        if epoch in self.preset.strips:
            self.save_strip(self.folder / "strips" / f"epoch-{epoch:04d}.png")

    def held_out(self) -> float:
        """The averaged weights' loss on the held-out images, the first 512 of them.

        Times and noise never change: what moves it is the network alone.
        """
        return self.held_out_losses()[1].mean().item()

    @torch.no_grad()
    def held_out_losses(self, chunk: int = 256) -> tuple[Tensor, Tensor]:
        """The times, evenly over 1..T, and the losses that `held_out` averages."""
        preset, device = self.preset, self.accelerator.device
        held_out = self.split.held_out[:HELD_OUT]
        n = len(held_out)
        loss, g = self._loss(preset.make_schedule()), torch.Generator()
        g.manual_seed(preset.seed)
        t = 1 + torch.arange(n) * preset.T // n
        losses = []
        for i in range(0, n, chunk):
            rows = held_out[i : i + chunk]
            x0, _ = self.batches.clean(rows)
            batch = [x0, t[i : i + chunk], torch.randn(x0.shape, generator=g)]
            if self.split.caption is not None:
                batch.append(self.split.caption[rows])
            with self.accelerator.autocast():
                found = loss(self.ema.net, *(part.to(device) for part in batch))
            losses.append(found.float())
        return t, torch.cat(losses).cpu()

    def save_strip(self, path: Path) -> None:
        """Draw 9 stages, from noise to car, for a few cars of one fixed noise."""
        x_T = self.model.noise(ROWS, torch.Generator().manual_seed(self.preset.seed))
        g = step_generator(self.preset.seed, x_T.device)
        steps, prompts = self.preset.sample_steps, None
        if self.split.caption is not None:
            rows = self.split.caption[self.split.held_out[:ROWS]]
            prompts = [self.split.captions[i] for i in rows]
        states = list(self.model.sample(x_T, steps, generator=g, prompts=prompts))
        save_strip(path, [self.model.decode(state.x) for state in states])

    def _check_finite(self, loss: float, norm: float) -> None:
        scaled = (
            self.accelerator.mixed_precision == "fp16"
        )  # whose scaler skips such steps
        if not (np.isfinite(loss) and (scaled or np.isfinite(norm))):
            raise Stopped(
                f"the loss is no longer a number at step {self.step} (loss {loss}, "
                f"gradient norm {norm}). {self.files.kept()} A smaller --lr or --clip "
                "often helps."
            )

    def hardware(self) -> str:
        """Name what the run was begun on."""
        known, device = self.files.read("data.json"), self.accelerator.device
        if known:
            return known.get("hardware", "unknown")
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            return f"{self.accelerator.num_processes} x {name}"
        threads, cores = torch.get_num_threads(), os.cpu_count()
        return f"{device.type}, {threads} threads, {cores} cores ({platform.machine()})"

    def _resume(self) -> None:
        checkpoints = self.files.checkpoints()
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

    def _save(self) -> None:
        path = self.files.checkpoint(self.step)
        try:
            training.save_checkpoint(
                path, self.step, self.net, self.ema, self.optimizer
            )
        except OSError as error:
            raise Stopped(f"{error}. {self.files.kept()}") from error
        self.files.drop_old_checkpoints()

    def _log(self, row: dict) -> None:
        if self.main:
            if self.listener:
                self.listener(row)
            self.files.log(row)


def make_optimizer(net: UNet, preset: Preset) -> torch.optim.Optimizer:
    """The optimiser that the preset names, for the weights of `net`."""
    if preset.optimizer == "muon":
        return Muon(net.parameters(), preset.lr)
    return torch.optim.AdamW(
        net.parameters(),
        lr=preset.lr,
        weight_decay=preset.weight_decay,
        fused=next(net.parameters()).device.type in ("cpu", "cuda"),
    )


def mixed_precision(preset: Preset) -> str:
    """The precision of a run on this machine: 'auto' is what its GPU can do best."""
    if preset.precision != "auto":
        return preset.precision
    return best_precision(best_device())


def _check_launcher(preset: Preset) -> None:
    """Refuse a precision that `accelerate launch` asks for and the preset does not."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", mixed_precision(preset)):
        raise ValueError(
            f"accelerate launch asks for {asked}, the preset for {preset.precision}: "
            f"give --precision {asked} to ddpm train"
        )
