"""`ddpm export`, `ddpm remeasure`: weights with a card of what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.workshop.commands.common import GUIDANCE, T_END
from ddpm_core.workshop.export import export as export_run
from ddpm_core.workshop.export import remeasure as remeasure_weights


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
    t_end: Annotated[int | None, T_END] = None,
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


def remeasure(
    weights: Annotated[str, typer.Argument(help="shipped weights, or a folder")],
    out: Annotated[Path, typer.Argument(help="folder to write them to")],
    n: Annotated[int, typer.Option(min=64, max=1_000_000, help="samples")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="network calls an image")] = 50,
    t_end: Annotated[int | None, T_END] = None,
    scale: Annotated[
        float, typer.Option(help="guidance of a conditional model", min=0, max=100)
    ] = GUIDANCE,
    features: Annotated[
        str, typer.Option(help="measure photos on these: imagenet or inception")
    ] = "",
) -> None:
    """Measure exported weights again; write them with a new card."""
    how = {"n": n, "steps": steps, "t_end": t_end, "scale": scale}
    remeasure_weights(weights, out, features=features, **how, say=typer.echo)
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")
