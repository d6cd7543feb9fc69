"""`ddpm doctor`: is a run healthy, and what is to be done?"""

import json
from contextlib import nullcontext as nothing
from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.images import check_picture
from ddpm_core.workshop.doctor import (
    curves,
    diagnose,
    draw_report,
    examine,
    patient_of,
    report,
)


def doctor(
    run: Annotated[str, typer.Argument(help="a run's folder, or weights")],
    data: Annotated[str, typer.Option(help="packed folder of the data, if moved")] = "",
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path(
        "doctor.png"
    ),
    save: Annotated[
        Path | None, typer.Option("--curves", help="JSON file for the losses, too")
    ] = None,
) -> None:
    """Say whether a run is healthy, and what to do.

    Its loss at each timestep is compared with what the data allow; besides: range of
    the data, signal left at T, averaged weights, copies, tints, overflow.
    """
    check_picture(out)
    with written_file(out) as picture, written_file(save) if save else nothing() as new:
        patient = patient_of(run, data)
        found = examine(patient)
        findings = diagnose(found)
        typer.echo(report(patient, found, findings))
        draw_report(found, picture)
        if new:
            text = json.dumps(curves(found)) + "\n"
            new.write_text(text, encoding="utf-8")
    typer.echo(f"picture: {out}")
    if findings:
        raise typer.Exit(1)
