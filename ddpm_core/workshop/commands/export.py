"""`ddpm export`, `ddpm remeasure`: weights with a card of what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.samplers import SAMPLERS
from ddpm_core.workshop.commands.common import GUIDANCE, T_END
from ddpm_core.workshop.export import export as export_run
from ddpm_core.workshop.export import remeasure as remeasure_weights
from ddpm_core.workshop.folder import RunFolder
from ddpm_core.workshop.presets import Preset, training_of

STEPS = typer.Option(min=1, help="network calls an image")
SAMPLER = typer.Option(help=", ".join(SAMPLERS))
SCALE = typer.Option(min=0, max=100, help="guidance of a conditional model")
FEATURES = typer.Option(help="measure photos on these: imagenet or inception")


def export(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    out: Annotated[Path, typer.Argument(help="folder to write the weights to")],
    n: Annotated[
        int | None,
        typer.Option(
            min=64, max=1_000_000, help="samples to measure on; left out: by the data"
        ),
    ] = None,
    steps: Annotated[int, STEPS] = 50,
    sampler: Annotated[str, SAMPLER] = "ddim",
    t_end: Annotated[int | None, T_END] = None,
    scale: Annotated[float | None, SCALE] = None,
    features: Annotated[str, FEATURES] = "",
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="draw samples and measure")
    ] = True,
) -> None:
    """Turn a finished run into weights with a measured card, ready to ship."""
    if not measure and (n or features):
        raise ValueError("--no-measure draws no samples: leave out --n and --features")
    check_scale(scale, RunFolder(run).preset())
    guidance = GUIDANCE if scale is None else scale
    export_run(
        run,
        out,
        n=n,
        steps=steps,
        sampler=sampler,
        t_end=t_end,
        scale=guidance,
        features=features,
        measure=measure,
        say=typer.echo,
    )
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")


def check_scale(scale: float | None, trained: Preset) -> None:
    """Raise ValueError for guidance of a model that takes no prompts."""
    if scale is not None and not trained.model.conditional:
        raise ValueError("--scale has no effect: this model takes no prompts")


def remeasure(
    weights: Annotated[str, typer.Argument(help="shipped weights, or a folder")],
    out: Annotated[Path, typer.Argument(help="folder to write them to")],
    n: Annotated[int, typer.Option(min=64, max=1_000_000, help="samples")] = 2000,
    steps: Annotated[int, STEPS] = 50,
    sampler: Annotated[str, SAMPLER] = "ddim",
    t_end: Annotated[int | None, T_END] = None,
    scale: Annotated[float | None, SCALE] = None,
    features: Annotated[str, FEATURES] = "",
) -> None:
    """Measure exported weights again; write them with a new card."""
    trained = training_of(weights)
    if features and trained.data == "toy-cars":
        raise ValueError("--features has no effect: toy cars have their classifier's")
    check_scale(scale, trained)
    guidance = GUIDANCE if scale is None else scale
    how = {"n": n, "steps": steps, "sampler": sampler, "t_end": t_end}
    how |= {"scale": guidance, "features": features}
    remeasure_weights(weights, out, **how, say=typer.echo)
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")
