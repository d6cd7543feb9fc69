"""`ddpm prepare`: photos packed for training."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_core import datasets
from ddpm_core.options import one_of

FITS = {"squash": "squash", "crop": "centre_crop"}


def prepare(
    source: Annotated[
        str, typer.Argument(help="folder, zip, parquet or hub:owner/name")
    ],
    out: Annotated[Path, typer.Option(help="folder to pack into")],
    size: Annotated[
        int, typer.Option(min=8, max=4096, help="side of the images in pixels")
    ] = 64,
    fit: Annotated[
        str, typer.Option(help="squash, or crop to keep the aspect")
    ] = "squash",
    split: Annotated[str, typer.Option(help="all, train or test")] = "all",
    min_side: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="skip smaller photos")
    ] = None,
    labels: Annotated[bool, typer.Option(help="keep the classes")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="threads that decode")
    ] = None,
) -> None:
    """Pack photos, in any form in which people have them, for training.

    Stanford Cars as torchvision or Kaggle lays it out, class folders, a flat folder, a
    zip of any of these, or the hub's parquet files.
    """
    chosen = getattr(datasets, FITS[one_of("fit", fit, FITS)])
    report = datasets.prepare(
        source, out, size=size, fit=chosen, split=split, min_side=min_side,
        labels=labels, workers=workers,
    )  # fmt: skip
    typer.echo(report)
