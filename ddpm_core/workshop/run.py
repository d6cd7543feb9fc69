"""A training run in its folder: opened, trained, closed. Chapter 07."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_core import training
from ddpm_core.compiling import compiled
from ddpm_core.datasets.atomic import only_writer
from ddpm_core.datasets.images import save_strip
from ddpm_core.diffusion import diffusion_loss, min_snr
from ddpm_core.models import (
    DiffusionModel,
    best_device,
    best_precision,
    load_autoencoder,
    load_encoder,
    step_generators,
)
from ddpm_core.schedules import Schedule
from ddpm_core.workshop.batches import Batches, load_split
from ddpm_core.workshop.folder import RunFolder, Stopped, read_log
from ddpm_core.workshop.meter import Meter
from ddpm_core.workshop.opened import add_lora_if, make_optimizer, start_of
from ddpm_core.workshop.presets import Preset
from ddpm_core.workshop.processes import end_with_the_launcher, launched
from ddpm_core.workshop.teacher import lesson_of, load_teacher

ROWS = 4  # cars in a strip
HELD_OUT = 512  # images whose loss is taken after each epoch
FIRST_LOOK = 60.0  # seconds of training before a first strip, if no epoch has ended
GO_ON = "Go on from it with --resume and a smaller --lr or --clip."


class Run:
    """A training run and its folder, in three phases. Chapter 07.

    `Run.begin` starts a new one, `Run.resume` goes on with one, `Run.open` only looks;
    `train` (or `rows`, row by row) trains to the end; `close`, or leaving a `with`
    block, releases the folder. While it is begun or resumed, no other process may write
    there. `listener` gets each row of the log, `say` each remark for people.
    """

    stacked = 1  # images that the network sees at once

    # Phase 1: open ------------------------------------------------------------------

    @classmethod
    def begin(cls, folder: Path, preset: Preset, **options) -> "Run":
        """Begin a new run; nothing is written before all has been checked.

        Raises ValueError for a folder that holds a run, and for data that do not fit,
        and OSError where another process trains there.
        """
        files = RunFolder(Path(folder))
        files.check_free(preset)
        run = cls(files, preset, locked=True, **options)
        try:
            run.check_data()
            run.files.check_free(preset)  # nobody came first, while data were read
            run.claim()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def resume(cls, folder: Path, preset: Preset | None = None, **options) -> "Run":
        """Go on with the run in `folder`, from its newest checkpoint.

        `preset` may change what `folder.CHANGEABLE` names; what it changes is said.
        Raises ValueError for another run or other images, `Stopped` for a damaged
        checkpoint, and OSError where another process trains there.
        """
        files = RunFolder(Path(folder))
        preset = _with_stored_classes(preset, files.preset()) if preset else None
        changes = files.check_resumable(preset) if preset else {}
        run = cls(files, preset or files.preset(), locked=True, **options)
        try:
            run.restore()
            run.announce(changes)
            run.claim()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Look at the run in `folder` as it stands; nothing is written."""
        files = RunFolder(Path(folder))
        run = cls(files, files.preset())
        run.restore()
        return run

    def __init__(
        self,
        files: RunFolder,
        preset: Preset,
        *,
        locked: bool = False,
        listener: Callable[[dict], None] | None = None,
        say: Callable[[str], None] = print,
    ):
        self.files, self.folder = files, files.path
        self.listener, self.say = listener, say
        self.step, self.seconds, self.held = 0, 0.0, ExitStack()
        _check_launcher(preset)
        end_with_the_launcher()
        self.accelerator = training.make_accelerator(mixed_precision(preset))
        self.main = self.accelerator.is_main_process
        if launched() != self.accelerator.num_processes:
            raise RuntimeError(
                f"{launched()} processes were started, but "
                f"{self.accelerator.num_processes} share the work: use torchrun or "
                "accelerate launch"
            )
        if locked and self.main:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.held.enter_context(only_writer(self.folder))
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        try:
            self._build(preset)
        except BaseException:
            self.close()
            raise

    def _build(self, preset: Preset) -> None:
        """Read the data, and make the network and all that trains it."""
        device = self.accelerator.device
        self.split = load_split(preset)
        if preset.labels and not preset.model.classes:
            preset = preset.with_classes(self.split.classes)
        self.preset = preset
        torch.manual_seed(preset.seed)
        net = preset.model.make_network()
        self.net = net.to(device, memory_format=torch.channels_last)
        self.teacher = load_teacher(preset, device)
        if self.teacher:
            self.net.load_state_dict(self.teacher.net.state_dict())
        if preset.start_from and not self.files.checkpoints():
            self.net.load_state_dict(start_of(preset))
        self.net = add_lora_if(preset, self.net)
        self.ema = training.EMA(self.net, preset.ema)
        self.optimizer = make_optimizer(self.net, preset)
        self.encoder = load_encoder(preset.model, device)
        prompts = self.split.captions
        self.conditions = self.encoder and self.encoder.encode(prompts)
        self.latent = load_autoencoder(preset.model, device)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.batches = Batches(self.split, preset, device, rank, world, self.latent)
        self.steps = preset.epochs * self.batches.steps_an_epoch

    def check_data(self) -> None:
        """Raise ValueError for classes or images that are not those of the folder."""
        classes = self.preset.model.classes
        if self.preset.labels and classes != self.split.classes:
            raise ValueError(
                f"{self.folder} was begun on {len(classes)} other classes than "
                f"{self.preset.data} now has: start a new run with another --out"
            )
        self.check_channels()
        self.files.check_data(self.preset, self.facts())

    def check_channels(self) -> None:
        """Raise ValueError where the network takes images of other channels."""
        channels = self.split.images.shape[3]
        wanted = self.preset.model.network.image_channels // self.stacked
        if wanted != channels and not self.latent:
            raise ValueError(
                f"the images of {self.preset.data} have {channels} channels, the run "
                f"takes {wanted}: choose --image-channels {channels}, or prepare them "
                + ("with --grey" if wanted == 1 else "without --grey")
            )

    def restore(self) -> None:
        """Load the newest checkpoint, and the seconds that training took up to it."""
        self.check_data()
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
        seconds = [row.get("seconds", 0.0) for row in rows]
        self.seconds = max((s for s in seconds if isinstance(s, float)), default=0.0)

    def announce(self, changes: dict[str, tuple]) -> None:
        """Say what a resumed run changes, and where its learning rate goes on."""
        if not self.main:
            return
        for name, (old, new) in changes.items():
            self.say(f"changed: {name} is {new}, it was {old}")
        rates = [row["lr"] for row in read_log(self.folder) if "lr" in row]
        if changes and rates and self.step < self.steps:
            rate = self.rate()(self.step)
            if abs(rate - rates[-1]) > 0.1 * rates[-1]:
                self.say(
                    f"the learning rate goes on at {rate:.2g}, it was {rates[-1]:.2g} "
                    f"(its cosine now ends after {self.preset.epochs} epochs)"
                )
        for number in self.files.damaged_lines():
            self.say(
                f"line {number} of {self.folder / 'log.jsonl'} is damaged: left out"
            )

    def claim(self) -> None:
        """Write down whose folder it is."""
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if self.main:
            self.files.claim(self.preset, self.facts())

    def facts(self) -> dict:
        """What is known of the run beside its preset."""
        images, digest = len(self.split.images), self.split.sha256
        return {"images": images, "sha256": digest, "hardware": self.hardware()}

    def note_command(self, command: str) -> None:
        """Keep the command that this run was started or resumed with."""
        if self.main:
            self.files.note_command(command)

    # Phase 2: train -----------------------------------------------------------------

    def train(self) -> None:
        """Train to the end of the last epoch, showing progress."""
        batch = self.preset.batch
        bar = tqdm(
            total=self.steps * batch,
            initial=self.step * batch,
            unit=" images",
            unit_scale=True,
            disable=not self.main,
        )
        with bar:
            for row in self.rows():
                bar.set_postfix(epoch=row["epoch"], loss=f"{row['loss']:.4f}")
                bar.update(row["step"] * batch - bar.n)

    def rows(self) -> Iterator[dict]:
        """Train to the end; yield each row of the log when it is written."""
        preset, epoch_steps = self.preset, self.batches.steps_an_epoch
        if self.main:
            self.files.trim_log(self.step)
        meter = Meter(preset, epoch_steps, self.accelerator, self.seconds)
        for done in self.take_steps():
            self.step = done.step
            meter.add(done)
            ends_run = done.step == self.steps
            if done.step % preset.log_every == 0 or ends_run:
                row = meter.row()
                self.seconds = row["seconds"]
                self._check_finite(row["loss"], row["grad_norm"])
                self._log(row)
                self._look_first()
                yield row
            if self.main and done.step % epoch_steps == 0:
                self._end_epoch(done.step // epoch_steps)
            if self.main and (done.step % preset.checkpoint_every == 0 or ends_run):
                self._save()
            meter.go_on()  # the time of logging and saving is not training's

    def take_steps(self) -> Iterator[training.TrainStep]:
        """Train and yield after each step; nothing is logged, nothing saved."""
        preset, device = self.preset, self.accelerator.device
        net = self.net
        if preset.compile:
            net = compiled(net, graphs=preset.graphs)
        return training.train(
            net,
            self._loss(preset.model.make_schedule().to(device)),
            self.batches.since(self.step, self.steps),
            self.optimizer,
            lr=self.rate(),
            ema=self.ema,
            clip=preset.clip,
            accumulate=preset.accumulate,
            accelerator=self.accelerator,
            start=self.step,
        )

    def rate(self) -> Callable[[int], float]:
        """The learning rate after a number of steps."""
        preset = self.preset
        return training.warmup_cosine(
            preset.lr,
            warmup=round(preset.warmup * self.batches.steps_an_epoch),
            total=self.steps,
            end=preset.lr_end,
        )

    def _loss(self, schedule: Schedule) -> Callable[..., Tensor]:
        """The loss of a network on what `Batches` yields."""
        preset, target = self.preset, self.preset.model.make_target()
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

    @property
    def model(self) -> DiffusionModel:
        """The model as it stands, with the averaged weights."""
        config = self.preset.model
        return DiffusionModel(self.ema.net, config, self.encoder, self.latent)

    def _end_epoch(self, epoch: int) -> None:
        if len(self.split.held_out):
            self._log({"step": self.step, "epoch": epoch, "held_out": self.held_out()})
        if epoch in self.preset.strips:
            self.save_strip(self.folder / "strips" / f"epoch-{epoch:04d}.png")

    def _look_first(self) -> None:
        """Draw a strip early where an epoch takes long; it changes nothing else."""
        wanted = self.main and self.preset.strips and self.seconds >= FIRST_LOOK
        if wanted and not any((self.folder / "strips").glob("*.png")):
            self.save_strip(self.folder / "strips" / "first.png")

    def held_out(self) -> float:
        """The averaged weights' loss on the held-out images, the first 512 of them.

        Timesteps and noise never change: only the network moves it.
        """
        return self.held_out_losses()[1].mean().item()

    @torch.no_grad()
    def held_out_losses(self, chunk: int = 256) -> tuple[Tensor, Tensor]:
        """The times, evenly over 1..T, and the losses that `held_out` averages."""
        preset, device = self.preset, self.accelerator.device
        held_out = self.split.held_out[:HELD_OUT]
        n = len(held_out)
        loss, g = self._loss(preset.model.make_schedule()), torch.Generator()
        g.manual_seed(preset.seed)
        t = 1 + torch.arange(n) * preset.model.T // n
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
        g = step_generators(self.preset.seed, ROWS, x_T.device)
        steps, prompts = self.preset.sample_steps, None
        if self.split.caption is not None:
            shown = torch.cat([self.split.held_out, self.split.train])[:ROWS]
            prompts = [self.split.captions[i] for i in self.split.caption[shown]]
        states = list(self.model.sample(x_T, steps, generator=g, prompts=prompts))
        save_strip(path, [self.model.decode(state.x) for state in states])

    def _check_finite(self, loss: float, norm: float) -> None:
        scaled = (
            self.accelerator.mixed_precision == "fp16"
        )  # whose scaler skips such steps
        if not (isfinite(loss) and (scaled or isfinite(norm))):
            raise Stopped(
                f"the loss is no longer a number at step {self.step} (loss {loss}, "
                f"gradient norm {norm}). {self.files.kept()} {GO_ON}"
            )

    def hardware(self) -> str:
        """Name what the run was begun on."""
        known, device = self.files.read("data.json"), self.accelerator.device
        processes = self.accelerator.num_processes
        if known:
            return known.get("hardware", "unknown")
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            return f"{processes} x {name}"
        threads, cores = processes * torch.get_num_threads(), os.cpu_count()
        return f"{device.type}, {threads} threads, {cores} cores ({platform.machine()})"

    def _save(self) -> None:
        path = self.files.checkpoint(self.step)
        nets = (self.net, self.ema.net)
        if not all(p.isfinite().all() for net in nets for p in net.parameters()):
            raise Stopped(
                f"the weights are no longer numbers at step {self.step}. "
                f"{self.files.kept()} {GO_ON}"
            )
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

    # Phase 3: close -----------------------------------------------------------------

    def close(self) -> None:
        """Release the folder for other writers."""
        self.held.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _with_stored_classes(preset: Preset, stored: Preset) -> Preset:
    """Take the classes that a run was begun with: only its data name them."""
    if preset.labels and stored.labels and not preset.model.classes:
        return preset.with_classes(stored.model.classes)
    return preset


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
