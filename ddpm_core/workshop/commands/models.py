"""`ddpm models`: the weights that ship. Nothing here needs torch."""

import json
from pathlib import Path

import typer

WEIGHTS = Path(__file__).parents[3] / "data" / "weights"


def models() -> None:
    """List the weights that ship."""
    cards = sorted(WEIGHTS.glob("*/card.json"))
    if not cards:
        raise FileNotFoundError(f"no weights in {WEIGHTS}")
    for path in cards:
        card = json.loads(path.read_text(encoding="utf-8"))
        side = card["config"].get("size", 32)
        typer.echo(
            f"{path.parent.name:26} {card['kind']:12} {card['parameters']:>10,} "
            f"parameters, {side}x{side} pixels"
        )
