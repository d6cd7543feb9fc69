"""`ddpm export`: a finished run becomes weights with a card."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.workshop.commands.common import GUIDANCE
from ddpm_core.workshop.export import export as export_run
from ddpm_core.workshop.folder import RunFolder


def export(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    out: Annotated[Path, typer.Argument(help="folder to write the weights to")],
    n: Annotated[
        int | None,
        typer.Option(
            min=64, max=1_000_000, help="samples to measure on; left out: by the data"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 50,
    t_end: Annotated[
        int, typer.Option(min=0, help="timestep from which the last step goes to 0")
    ] = 0,
    scale: Annotated[
        float | None,
        typer.Option(help="guidance of a conditional model", min=0, max=100),
    ] = None,
    features: Annotated[
        str, typer.Option(help="measure photos on these: imagenet or inception")
    ] = "",
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="draw samples and measure")
    ] = True,
) -> None:
    """Turn a finished run into weights with a measured card, ready to ship."""
    if not measure and (n or features):
        raise ValueError("--no-measure draws no samples: leave out --n and --features")
    if scale is not None and not RunFolder(run).preset().model.conditional:
        raise ValueError("--scale has no effect: this model takes no prompts")
    guidance = GUIDANCE if scale is None else scale
    export_run(
        run,
        out,
        n=n,
        steps=steps,
        t_end=t_end,
        scale=guidance,
        features=features,
        measure=measure,
        say=typer.echo,
    )
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")
