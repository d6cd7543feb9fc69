"""`ddpm prepare`: photos packed for training."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ddpm_core import datasets
from ddpm_core.datasets.packed import read_meta
from ddpm_core.datasets.sizes import read_size
from ddpm_core.options import one_of
from ddpm_core.values import Size, sides

MARGIN = 16  # pixels around a box
LARGEST = 4096
FITS = {"squash": "squash", "crop": "centre_crop"}


def prepare(
    source: Annotated[
        str, typer.Argument(help="folder, zip, parquet or hub:owner/name")
    ],
    out: Annotated[Path, typer.Option(help="folder to pack into")],
    size: Annotated[
        str, typer.Option(help="side of the images in pixels, or height x width: 64x96")
    ] = "64",
    grey: Annotated[
        bool, typer.Option("--grey", help="one channel, no colours")
    ] = False,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="crop Stanford Cars to the cars' boxes")
    ] = False,
    margin: Annotated[
        int | None,
        typer.Option(min=0, max=10_000, help="pixels around a box, else 16"),
    ] = None,
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
    if margin is not None and not boxes:
        raise ValueError("--margin is around the boxes of --boxes: give both")
    around = MARGIN if boxes and margin is None else margin
    frame = size_of_photos(size)
    if (out / "meta.json").is_file():
        with suppress(ValueError):  # of an earlier version, say
            there = read_meta(out)
            typer.echo(
                f"{out} holds {there['n']:,} images from {there['source']}: they are "
                "replaced once the new ones are complete"
            )
    report = datasets.prepare(
        source, out, size=frame, channels=1 if grey else 3,
        margin=around, fit=chosen, split=split, min_side=min_side, labels=labels,
        workers=workers,
    )  # fmt: skip
    typer.echo(report)


def size_of_photos(text: str) -> Size:
    """Read a size; ValueError for sides that photos are not packed with."""
    size = read_size(text)
    if not all(8 <= side <= LARGEST for side in sides(size)):
        raise ValueError(f"--size must lie in 8..{LARGEST}, got {text!r}")
    return size
