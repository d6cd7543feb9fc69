"""The command line `ddpm`: its commands by name, and one handler for their errors.

Only the command that is called is imported, so that help appears at once.
"""

import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from math import isfinite
from typing import Annotated, NamedTuple

import typer


class Command(NamedTuple):
    """Where a command is, as module:function below the workshop, and what it does."""

    place: str
    help: str


COMMANDS = {
    "prepare": Command(
        "commands.prepare:prepare",
        "Pack photos, in any form in which people have them, for training.",
    ),
    "train": Command(
        "commands.train:train",
        "Train a model from a preset; every field of it can be changed.",
    ),
    "sample": Command(
        "commands.sample:sample", "Generate images and save them as one picture."
    ),
    "evaluate": Command(
        "commands.evaluate:evaluate",
        "Measure a model's samples against real images that it need not have seen.",
    ),
    "doctor": Command(
        "commands.doctor:doctor", "Say whether a run is healthy, and what to do."
    ),
    "export": Command(
        "commands.export:export",
        "Turn a finished run into weights with a measured card, ready to ship.",
    ),
    "remeasure": Command(
        "commands.export:remeasure",
        "Measure exported weights again; write them with a new card.",
    ),
    "rescale": Command(
        "gains:rescale",
        "Give layers of exported weights a gain; write them with a new card.",
    ),
    "models": Command("commands.models:models", "List the weights that ship."),
    "presets": Command("commands.presets:presets", "List what `ddpm train` can train."),
    "exercises": Command(
        "commands.exercises:exercises",
        "Run the checks of the exercises in the notebooks; show how far you have come.",
    ),
    "migrate": Command(
        "commands.migrate:migrate",
        "Rewrite the cards and runs of an earlier version of this library.",
    ),
    "capstone": Command(
        "capstone:main",
        "Train a preset, or go on with its run; measure it, write results, pictures.",
    ),
    "recipes": Command(
        "recipes:main",
        "Train rows of the table for equal minutes of a core, and measure them.",
    ),
    "photo-grid": Command(
        "photo_grid:main",
        "Train on so many photos for so many minutes; measure and draw each run.",
    ),
    "speedrun": Command(
        "speedrun:main",
        "Train a recipe for minutes of one CPU core; measure it, write its record.",
    ),
    "measure": Command(
        "tables:main", "Measure the contenders of a table on one device and write it."
    ),
    "measure-guidance": Command(
        "guidance:main",
        "Measure a text model over guidance scales on one core and write the table.",
    ),
    "measure-autoguidance": Command(
        "autoguidance:main",
        "Measure a model that leads away from a worse one; write the table.",
    ),
    "measure-where-lost": Command(
        "where_lost:main",
        "Measure photos that a model denoises from several timesteps.",
    ),
    "measure-calls": Command(
        "capstone:measure_calls",
        "Measure a model of photos at several numbers of network calls.",
    ),
    "measure-gains": Command(
        "gains:main",
        "Measure a model with gains on some of its layers; write the table.",
    ),
    "measure-wordings": Command(
        "free_wording:main",
        "Measure what text models make of prompts in free wording; write the table.",
    ),
    "measure-samplers": Command(
        "solvers:main",
        "Measure samplers of toy cars at equal calls on one core and write the table.",
    ),
    "measure-parts": Command(
        "ablations:parts",
        "Train a tiny U-Net without one of its parts on one core and write the table.",
    ),
    "measure-consistency": Command(
        "consistency:main",
        "Distil consistency models, measure them, and write a table and a picture.",
    ),
    "measure-few-pictures": Command(
        "few_pictures:main",
        "Fine-tune on 5 to 200 pictures in three ways, and measure what came of it.",
    ),
    "measure-inpainting": Command(
        "inpainting:main",
        "Fill holes in several ways, one of them trained for it, and write the table.",
    ),
    "train-contender": Command(
        "side.vae_and_gan:main",
        "Train a VAE or a GAN on toy cars, measure it, write its weights and card.",
    ),
    "train-autoencoder": Command(
        "side.autoencoder:main",
        "Train a KL autoencoder, measure it, write its weights and card.",
    ),
    "train-clip": Command(
        "side.clip:main",
        "Train the CLIP on captioned toy cars, measure it, write weights and card.",
    ),
    "train-classifier": Command(
        "side.classifier:main",
        "Train the classifier on toy cars, measure it, and write weights and card.",
    ),
}
"""The commands, in the order of the help. Chapters name them."""

LONGEST = 500  # characters of a line of an error


def main() -> None:
    """Run the command line; an error is one line, not a traceback."""
    try:
        words = sys.argv[1:] or ["--help"]
        code = app_for(to_complete() or words)(
            words, standalone_mode=False, prog_name="ddpm"
        )
    except Exception as error:
        if os.environ.get("DDPM_TRACEBACK"):
            raise
        fail(in_one_line(error), getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        fail("stopped", 130)
    raise SystemExit(code if isinstance(code, int) else 0)


def app_for(arguments: list[str]) -> typer.Typer:
    """The application: the command that is called, and the names of the others."""
    app = typer.Typer(
        help="Denoising diffusion, from photos to generated cars.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.callback()(options)
    called = next((word for word in arguments if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        function = load(command.place) if name == called else unloaded
        app.command(name, help=None if name == called else command.help)(function)
    return app


def to_complete() -> list[str]:
    """The words of the line that a shell completes, if it is a shell that asks.

    `ddpm --install-completion` teaches a shell to ask, by these variables.
    """
    if "_DDPM_COMPLETE" not in os.environ:
        return []
    names = "_TYPER_COMPLETE_ARGS", "COMP_WORDS"
    return next((os.environ[n] for n in names if n in os.environ), "").split()[1:]


def options(
    version: Annotated[
        bool | None,
        typer.Option(
            "--version",
            help="Print the version.",
            is_eager=True,
            callback=lambda wanted: say_version(wanted),
        ),
    ] = None,
) -> None:
    """Denoising diffusion, from photos to generated cars."""


def say_version(wanted: bool | None) -> None:
    """Print the version and end, where that is wanted."""
    if wanted:
        from ddpm_core import __version__

        typer.echo(__version__)
        raise typer.Exit


def unloaded() -> None:
    """What the help shows for a command that is not called."""


def load(place: str):
    """Import the function of a command."""
    module, function = place.split(":")
    return of_finite_numbers(
        getattr(import_module(f"ddpm_core.workshop.{module}"), function)
    )


def of_finite_numbers(command: Callable) -> Callable:
    """The command, which refuses NaN and infinity: the range of an option takes NaN."""

    @wraps(command)
    def checked(**options):
        for name, value in options.items():
            if isinstance(value, float) and not isfinite(value):
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} must be a finite number, got {value}")
        return command(**options)

    return checked


def in_one_line(error: Exception) -> str:
    """Put an error into words, without the stack of the libraries below."""
    if hasattr(error, "format_message"):  # an option that cannot be read
        text = error.format_message()
    elif isinstance(error, MemoryError):
        text = f"the memory is too small: {error}"
    elif isinstance(error, (ValueError, OSError, RuntimeError, ImportError, TypeError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    text = text.split("\nException raised from")[0].strip() or type(error).__name__
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    lines = text.splitlines()
    return "\n".join(s if len(s) <= LONGEST else f"{s[:LONGEST]}..." for s in lines)


def fail(text: str, code: int) -> None:
    """Say why the command ends, and end it."""
    typer.secho(f"ddpm: {text}", fg="red", err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
