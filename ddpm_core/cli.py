"""The command line: `ddpm train`, `sample`, `prepare`, `evaluate`, `export`, and more.

What only one command needs is imported by that command.
"""

import inspect
import shlex
import signal
import sys
from dataclasses import MISSING, fields
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, get_origin

import typer

GUIDANCE = 1.5  # chosen by measurement in chapter 10
TEXT_MODEL = "toy-cars-text-latent-32"  # what draws where no weights are named

app = typer.Typer(
    help="Denoising diffusion, from photos to generated cars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; an expected error is one line, not a traceback."""
    try:
        app()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        typer.secho(f"ddpm: {error}", fg="red", err=True)
        raise SystemExit(1) from None


def preset_options(command):
    """Give `command` an option for each field of a preset and of its network."""
    from ddpm_core.presets import Preset
    from ddpm_core.unet import UNetConfig

    signature = inspect.signature(command)
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    for f in (*fields(Preset), *fields(UNetConfig)):
        if f.name == "unet":
            continue
        kind = str if get_origin(f.type) is tuple else f.type
        flag = "--" + f.name.replace("_", "-")
        names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
        text = f.metadata["help"]
        if f.default is not MISSING and kind is str and f.type is not str:
            text += " (values with commas between)"
        panel = "Network" if f in fields(UNetConfig) else "Preset"
        option = typer.Option(
            *names, help=text, rich_help_panel=panel, show_default=False
        )
        parameters.append(
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    command.__signature__ = signature.replace(parameters=parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def changed_fields(options: dict) -> dict:
    """Keep the options that were given; turn 'a,b' into the tuple its field holds."""
    from ddpm_core.presets import Preset
    from ddpm_core.unet import UNetConfig

    kinds = {f.name: f.type for f in (*fields(Preset), *fields(UNetConfig))}
    return {
        name: _to_tuple(name, value, kinds[name]) if get_origin(kinds[name]) else value
        for name, value in options.items()
        if value is not None
    }


def _to_tuple(name: str, text: str, kind) -> tuple:
    read = {"true": True, "false": False} if kind == tuple[bool, ...] else None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind == tuple[str, ...]:
        return tuple(parts)
    try:
        parts = [part.lower() for part in parts]
        return tuple(read[part] if read else int(part) for part in parts)
    except (KeyError, ValueError) as error:
        allowed = "true or false" if read else "whole numbers"
        raise ValueError(
            f"{name} takes {allowed} with commas between, got {text!r}"
        ) from error


@app.command()
@preset_options
def train(
    preset: Annotated[str, typer.Argument(help="name of a preset")],
    out: Annotated[Path | None, typer.Option(help="folder of the run")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in --out")] = False,
    tensorboard: Annotated[bool, typer.Option(help="for TensorBoard too")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="only say what it would take here")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="take a batch in as many parts as fit")
    ] = False,
    **options,
) -> None:
    """Train a model from a preset; every field of it can be changed.

    With several GPUs or machines: `torchrun -m ddpm_core.cli train ...` or
    `accelerate launch -m ddpm_core.cli train ...`.
    """
    from ddpm_core import presets, runs

    chosen = presets.preset(preset).replace(**changed_fields(options))
    if estimate:
        with TemporaryDirectory() as folder:
            run = runs.Run(Path(folder), chosen)
            told = runs.estimate(run)
        if run.main:
            typer.echo(f"{run.hardware()}: {told}")
        return
    out = out or Path("data/runs") / preset
    while not train_once(out, chosen, resume=resume, tensorboard=tensorboard):
        chosen = runs.in_parts_that_fit(chosen)
        said = (
            f"the memory of the GPU is too small for a batch of {chosen.batch} in one "
            f"go: --accumulate {chosen.accumulate} fits"
        )
        if not fit:
            raise RuntimeError(f"{said}; give it, or --fit")
        typer.echo(f"{said}, and so it goes on")
        resume = (out / "config.json").exists()


def train_once(out: Path, chosen, *, resume: bool, tensorboard: bool) -> bool:
    """Train a run to its end; False where the memory of the GPU is too small."""
    import torch

    from ddpm_core import runs

    run = runs.Run(out, chosen, resume=resume)
    if tensorboard and run.main:
        run.listener = tensorboard_writer(out / "tensorboard")
    run.note_command(shlex.join(["ddpm", *sys.argv[1:]]))
    if run.main:
        parameters = sum(p.numel() for p in run.net.parameters())
        typer.echo(
            f"{parameters:,} parameters on {run.accelerator.device}, "
            f"{len(run.split.train):,} images, {run.steps:,} steps, in {out}"
        )
        if run.accelerator.device.type == "cpu":
            typer.echo(
                f"no GPU: on this CPU it takes {runs.spell(runs.at_least(run))} at the "
                "least; --estimate measures it"
            )
    if run.accelerator.num_processes > 1:  # the launcher stops all when one is lost
        signal.signal(signal.SIGTERM, told_to_stop)
    try:
        run.train()
    except torch.OutOfMemoryError:
        return False
    except KeyboardInterrupt:
        raise RuntimeError(
            f"stopped at step {run.step}. {run.files.kept()} Go on with --resume."
        ) from None
    except RuntimeError as error:
        if isinstance(error, runs.Stopped) or run.accelerator.num_processes == 1:
            raise
        raise RuntimeError(
            f"stopped at step {run.step}, another process of the run was lost, or "
            f"failed: {error}. {run.files.kept()} Go on with --resume, with as many "
            "processes as there are."
        ) from error
    if run.main:
        typer.echo(f"done: {out}; next: ddpm export {out} FOLDER")
    return True


def told_to_stop(number: int, frame: object) -> None:
    """What a signal to end does to a process that trains with others."""
    raise RuntimeError(f"told to stop by {signal.Signals(number).name}")


@app.command()
def sample(
    weights: Annotated[
        str, typer.Option(help="name of shipped weights, or a folder")
    ] = TEXT_MODEL,
    n: Annotated[int, typer.Option(min=1, help="images")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 50,
    sampler: Annotated[
        str, typer.Option(help="ddim, ancestral or dpm-solver++")
    ] = "ddim",
    t_end: Annotated[
        int, typer.Option(help="time from which the last step goes to 0 at once")
    ] = 0,
    seed: Annotated[int, typer.Option(help="seed of all noise")] = 0,
    prompt: Annotated[
        list[str] | None, typer.Option(help="what to draw; give several to draw each")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="guidance: 0 ignores the prompt, 1 follows it")
    ] = GUIDANCE,
    negative: Annotated[str, typer.Option(help="what to keep away from")] = "",
    strip: Annotated[
        bool, typer.Option(help="9 stages of each, not the last one")
    ] = False,
    out: Annotated[Path, typer.Option(help="the PNG to write")] = Path("samples.png"),
) -> None:
    """Generate images and save them as one picture.

    A text model draws its `--prompt`s in turn, or what it likes without one.
    """
    import torch
    from tqdm import tqdm

    from ddpm_core.datasets.images import save_grid, save_strip
    from ddpm_core.models import best_device, load_model, step_generator

    device = best_device()
    model = load_model(weights, device)
    x_T = model.noise(n, torch.Generator().manual_seed(seed))
    g = step_generator(seed, device)
    told = {}
    if prompt or model.encoder:
        prompts = list(islice(cycle(prompt or [""]), n))
        told = {"prompts": prompts, "scale": scale, "negative": negative}
    run = model.sample(x_T, steps, sampler, g, t_end=t_end, **told)
    states = [state.x for state in tqdm(run, total=steps + 1, unit="step")]
    if strip:
        save_strip(out, [model.decode(x) for x in states])
    else:
        save_grid(out, model.decode(states[-1]))
    typer.echo(f"{n} images in {out}")


def tensorboard_writer(folder: Path):
    """Return what writes each row of a log for TensorBoard; RuntimeError without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
            "TensorBoard is not installed: pip install 'ddpm-core[tensorboard]'"
        ) from error
    writer = SummaryWriter(folder)

    def write(row: dict) -> None:
        for name in row.keys() - {"step", "epoch"}:
            writer.add_scalar(name, row[name], row["step"])

    return write


FITS = {"squash": "squash", "crop": "centre_crop"}


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="folder, zip, parquet or hub:owner/name")
    ],
    out: Annotated[Path, typer.Option(help="folder to pack into")],
    size: Annotated[int, typer.Option(help="side of the images in pixels")] = 64,
    fit: Annotated[
        str, typer.Option(help="squash, or crop to keep the aspect")
    ] = "squash",
    split: Annotated[str, typer.Option(help="all, train or test")] = "all",
    min_side: Annotated[int | None, typer.Option(help="skip smaller photos")] = None,
    labels: Annotated[bool, typer.Option(help="keep the classes")] = True,
    workers: Annotated[int | None, typer.Option(help="threads that decode")] = None,
) -> None:
    """Pack photos, in any form in which people have them, for training.

    Stanford Cars as torchvision or Kaggle lays it out, class folders, a flat folder, a
    zip of any of these, or the hub's parquet files.
    """
    from ddpm_core import datasets  # and no torch, which takes seconds

    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    chosen = getattr(datasets, FITS[fit])
    report = datasets.prepare(
        source, out, size=size, fit=chosen, split=split, min_side=min_side,
        labels=labels, workers=workers,
    )  # fmt: skip
    typer.echo(report)


@app.command()
def evaluate(
    weights: Annotated[str, typer.Option(help="name of shipped weights, or a folder")],
    n: Annotated[int, typer.Option(min=8, help="samples, and real images")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 50,
    sampler: Annotated[
        str, typer.Option(help="ddim, ancestral or dpm-solver++")
    ] = "ddim",
    t_end: Annotated[
        int, typer.Option(help="time from which the last step goes to 0 at once")
    ] = 0,
    features: Annotated[
        str, typer.Option(help="classifier (toy cars), imagenet or inception")
    ] = "classifier",
    data: Annotated[
        str | None, typer.Option(help="'toy-cars' or a packed folder")
    ] = None,
    scale: Annotated[float, typer.Option(help="guidance of a text model")] = GUIDANCE,
    seed: Annotated[int, typer.Option(help="seed of all noise")] = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the network first")
    ] = False,
) -> None:
    """Measure a model's samples against real images that it need not have seen."""
    from ddpm_core import evaluation
    from ddpm_core.models import best_device, load_model, quick

    measure, model = evaluation.extractor(features), load_model(weights, best_device())
    data = data or model.preset.data
    if features == "classifier" and data != "toy-cars":
        raise ValueError(
            f"the classifier knows toy cars, not {data}: choose --features "
            "imagenet or inception"
        )
    real = evaluation.real_images(data, model.preset, n, seed + 1)
    told = evaluation.told_captions(model, n, seed=seed + 1, scale=scale)
    samples = evaluation.draw_samples(
        quick(model, compiled=compiled),
        n,
        steps=steps,
        sampler=sampler,
        t_end=t_end,
        seed=seed,
        **told,
    )
    typer.echo(f"{weights}, {steps} steps of {sampler}, seed {seed}:")
    typer.echo(evaluation.score(measure, samples, *real))
    if told and data == "toy-cars":
        shares = evaluation.obedience(samples, evaluation.asked(n, seed=seed + 1))
        said = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
        typer.echo(f"as the captions asked, guidance {scale:g}: {said}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    out: Annotated[Path, typer.Argument(help="folder to write the weights to")],
    n: Annotated[int, typer.Option(min=64, help="samples to measure on")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 50,
    scale: Annotated[float, typer.Option(help="guidance of a text model")] = GUIDANCE,
    features: Annotated[
        str, typer.Option(help="measure photos on these: imagenet or inception")
    ] = "",
) -> None:
    """Turn a finished run into weights with a measured card, ready to ship."""
    from ddpm_core.export import export

    export(run, out, n=n, steps=steps, scale=scale, features=features)
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")


@app.command()
def exercises(
    chapter: Annotated[str, typer.Argument(help="'05' for that chapter; or all")] = "",
    chapters: Annotated[
        Path | None, typer.Option(help="folder of the notebooks: chapters, or this one")
    ] = None,
) -> None:
    """Tell how far you have come: run the checks of the exercises in the notebooks.

    It reads the notebooks as they were last saved, and runs their answers.
    """
    from ddpm_core.exercises import FAILED, MARKS, all_exercises, answer

    if chapters is None:
        chapters = Path("chapters") if Path("chapters").is_dir() else Path()
    notebook, count = None, dict.fromkeys(MARKS, 0)
    for exercise in all_exercises(chapters, chapter):
        if exercise.notebook != notebook:
            notebook = exercise.notebook
            typer.echo(notebook.stem)
        got = answer(exercise)
        count[got.status] += 1
        line = f"  [{MARKS[got.status]}] {exercise.number} {exercise.title}"
        typer.echo(f"{line}: {got.message}" if got.status == FAILED else line)
    typer.echo(
        ", ".join(f"{n} {status} [{MARKS[status]}]" for status, n in count.items())
    )


if __name__ == "__main__":
    main()
