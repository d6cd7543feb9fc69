"""`ddpm models`: the weights that ship. Nothing here needs torch."""

import json

import typer

from ddpm_core.datasets import places


def models() -> None:
    """List the weights that ship."""
    names = places.names()
    if not names and not places.known():
        searched = ", ".join(map(str, places.folders()))
        raise FileNotFoundError(f"no weights in {searched}")
    for name in names:
        typer.echo(line_of(name))
    for name in sorted(places.known().keys() - set(names)):
        typer.echo(f"{name:26} not here: {places.PLACE} may name a place that has it")


def line_of(name: str) -> str:
    """What there is to know of some weights at a glance."""
    here = (folder / name / "card.json" for folder in places.folders())
    path = next((path for path in here if path.is_file()), None)
    if path is None:
        return f"{name:26} fetched from {places.own_place()} when it is used"
    card = json.loads(path.read_text(encoding="utf-8"))
    side = card["config"].get("size", 32)
    return (
        f"{name:26} {card['kind']:12} {card['parameters']:>10,} parameters, "
        f"{side}x{side} pixels"
    )
