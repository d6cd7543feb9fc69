"""`ddpm train`: a run from a preset, begun or resumed."""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from ddpm_core.models import DTYPES, best_device
from ddpm_core.workshop.bill import bill, has_data, latent_shape, on_noise
from ddpm_core.workshop.estimate import at_least, estimate, matrix_rate, spell
from ddpm_core.workshop.fitting import in_parts_that_fit
from ddpm_core.workshop.folder import Stopped
from ddpm_core.workshop.preset_options import changed_fields, preset_options
from ddpm_core.workshop.presets import Preset, preset
from ddpm_core.workshop.processes import launched
from ddpm_core.workshop.run import FIRST_LOOK, Run, mixed_precision

TRIED = 4  # steps of an estimate, at least
USUAL = 3  # times what it would take at the rate of large products
PATIENCE = 20.0  # seconds that these may take


@preset_options
def train(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="name of a preset")],
    out: Annotated[Path | None, typer.Option(help="folder of the run")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in --out")] = False,
    tensorboard: Annotated[bool, typer.Option(help="for TensorBoard too")] = False,
    estimate_only: Annotated[
        bool, typer.Option("--estimate", help="only say what it would take here")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="take a batch in as many parts as fit")
    ] = False,
    **options,
) -> None:
    """Train a model from a preset; every field of it can be changed.

    With several GPUs or machines: `torchrun -m ddpm_core train ...` or `accelerate
    launch -m ddpm_core train ...`.
    """
    chosen = preset(name).replace(**changed_fields(options))
    if estimate_only:
        say_estimate(chosen)
        return
    out = out or Path("data/runs") / name
    while not train_once(out, chosen, resume=resume, tensorboard=tensorboard):
        chosen = in_parts_that_fit(chosen)
        found = (
            f"the memory of the GPU is too small for a batch of {chosen.batch} in one "
            f"go: --accumulate {chosen.accumulate} fits"
        )
        if not fit:
            raise RuntimeError(f"{found}; give it, or --fit")
        typer.echo(f"{found}, and so it goes on")
        resume = (out / "config.json").exists()


def say_estimate(chosen: Preset) -> None:
    """Say what a run would take: what is counted at once, then what steps take here.

    Where they would take too long for a first answer, a small one is timed. Where the
    images are not there yet, noise takes their place.
    """
    counted, world = bill(chosen), launched()
    say = typer.echo if os.environ.get("RANK", "0") == "0" else lambda text: None
    say(counted)
    device, precision = own_device(), DTYPES[mixed_precision(chosen)]
    rate = world * matrix_rate(device, precision, repeats=2)
    least = spell(counted.total / rate)
    say(
        f"at least {least} here, if nothing were done but products of large matrices, "
        f"at {rate / 1e12:,.3g} TFLOP/s: three times that is more usual"
    )
    latent = chosen.model.latent
    if latent and not latent_shape(chosen.model):
        say(f"not timed: the autoencoder {latent} is not there")
        return
    an_image = USUAL * counted.flop / rate
    batch, slow = chosen.batch, TRIED * chosen.batch * an_image > PATIENCE
    if slow:
        batch = min(chosen.batch, world * max(1, int(PATIENCE / 4 / an_image / world)))
        chosen = chosen.replace(compile=False, graphs=False)
        if an_image > PATIENCE:
            say(f"not timed: a step of one image would take about {spell(an_image)}")
            return
    if slow or not has_data(chosen):
        with on_noise(chosen, batch) as tried:
            say(f"timed on noise, {batch:,} of {chosen.batch:,} images a step:")
            say_timed(tried, say, counted.images, quickly=slow)
    else:
        say_timed(chosen, say)


def say_timed(
    chosen: Preset,
    say: Callable[[object], None],
    images: int | None = None,
    *,
    quickly: bool = False,
) -> None:
    """Take some steps of a run and say what all its images would take."""
    with TemporaryDirectory() as folder, Run.begin(Path(folder) / "run", chosen) as run:
        found = estimate(run, enough=0.0, warmup=1) if quickly else estimate(run)
        say(f"{run.hardware()}: {found._replace(images=images or found.images)}")


def own_device() -> torch.device:
    """The device of this process among those that train together."""
    device = best_device()
    if device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def train_once(out: Path, chosen: Preset, *, resume: bool, tensorboard: bool) -> bool:
    """Train a run to its end; False where the memory of the GPU is too small."""
    if tensorboard:
        check_tensorboard()
    with (Run.resume if resume else Run.begin)(out, chosen, say=typer.echo) as run:
        if tensorboard and run.main:
            run.listener = tensorboard_writer(out / "tensorboard")
        run.note_command(shlex.join(["ddpm", *sys.argv[1:]]))
        if run.main:
            say_start(run)
        if run.accelerator.num_processes > 1:  # the launcher stops all when one is lost
            signal.signal(signal.SIGTERM, stop_by_signal)
        try:
            run.train()
        except torch.OutOfMemoryError:
            return False
        except KeyboardInterrupt:
            raise RuntimeError(
                f"stopped at step {run.step}. {run.files.kept()} Go on with --resume."
            ) from None
        except RuntimeError as error:
            if isinstance(error, Stopped) or run.accelerator.num_processes == 1:
                raise
            raise RuntimeError(
                f"stopped at step {run.step}, another process of the run was lost, or "
                f"failed: {error}. {run.files.kept()} Go on with --resume, with as "
                "many processes as there are."
            ) from error
        if run.main:
            typer.echo(
                f"done: {out}; next: ddpm sample --weights {out}, ddpm doctor {out}, "
                f"ddpm export {out} FOLDER"
            )
    return True


def say_start(run: Run) -> None:
    """Say what is trained, where, and the least time that it takes."""
    parameters = sum(p.numel() for p in run.net.parameters())
    typer.echo(
        f"{parameters:,} parameters on {run.accelerator.device}, "
        f"{len(run.split.train):,} images, {run.steps:,} steps, in {run.folder}"
    )
    if run.accelerator.device.type == "cpu":
        typer.echo(
            f"no GPU: on this CPU it takes at least {spell(at_least(run))}; "
            "--estimate measures it"
        )
    typer.echo(what_is_drawn(run))


def what_is_drawn(run: Run) -> str:
    """Say which strips a run will draw, and when."""
    epochs, folder = run.preset.strips, run.folder / "strips"
    if not epochs:
        return "draws no strips: --strips 1,2,5 would, after these epochs"
    listed = ", ".join(f"{e} (step {e * run.batches.steps_an_epoch:,})" for e in epochs)
    return (
        f"draws {folder}/epoch-....png after epoch {listed}, and first.png after "
        f"{spell(FIRST_LOOK)} if none has ended by then; `ddpm sample --weights "
        f"{run.folder}` draws more from its newest checkpoint, of every "
        f"{run.preset.checkpoint_every} steps"
    )


def stop_by_signal(number: int, frame: object) -> None:
    """End a process that trains with others when it gets a signal to end."""
    raise RuntimeError(f"stopped by {signal.Signals(number).name}")


def check_tensorboard() -> type:
    """Return TensorBoard's writer; raise RuntimeError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
            "TensorBoard is not installed: pip install 'ddpm-core[tensorboard]'"
        ) from error
    return SummaryWriter


def tensorboard_writer(folder: Path):
    """Return what writes each row of a log for TensorBoard."""
    writer = check_tensorboard()(folder)

    def write(row: dict) -> None:
        for name in row.keys() - {"step", "epoch"}:
            writer.add_scalar(name, row[name], row["step"])

    return write
