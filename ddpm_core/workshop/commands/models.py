"""`ddpm models`: the weights that ship. Nothing here needs torch."""

import json

import typer

from ddpm_core.datasets import places
from ddpm_core.datasets.toy_cars import ATTRIBUTES, BODIES, COLOURS


def models() -> None:
    """List the weights that ship."""
    names = places.names()
    if not names and not places.known():
        searched = ", ".join(map(str, places.folders()))
        raise FileNotFoundError(f"no weights in {searched}")
    for name in names:
        typer.echo(line_of(name))
    for name in sorted(places.known().keys() - set(names)):
        typer.echo(f"{name:26} not here: set {places.PLACE} to a place that has it")


def line_of(name: str) -> str:
    """What to know about some weights, at a glance."""
    here = (folder / name / "card.json" for folder in places.folders())
    path = next((path for path in here if path.is_file()), None)
    if path is None:
        return f"{name:26} fetched from {places.own_place()} when it is used"
    card = json.loads(path.read_text(encoding="utf-8"))
    side = card["config"].get("size", 32)
    return (
        f"{name:26} {card['kind']:12} {card['parameters']:>10,} parameters, "
        f"{side}x{side} pixels{'' if up_to_date(card) else STALE}"
    )


STALE = "; trained on other toy cars: train it again"


def up_to_date(card: dict) -> bool:
    """Whether the toy cars that a card names have the values that are drawn now.

    A classifier's configuration has them, a text model's has their words, and what
    draws them was measured value by value. Nothing is known here of weights that name
    none.
    """
    measured = card.get("measured", {})
    known = card["config"].get("attributes") or measured.get("attributes", {})
    words = {w for value in (*BODIES, *COLOURS) for w in value.lower().split()}
    return words <= set(card["config"].get("words", words)) and all(
        set(values) - {"confidence"} == set(ATTRIBUTES.get(name, ()))
        for name, values in known.items()
    )
