"""`ddpm migrate`: cards and runs of an earlier version, rewritten."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.config import ModelConfig
from ddpm_core.datasets.atomic import written_file
from ddpm_core.workshop.cards import card_text
from ddpm_core.workshop.folder import read_object
from ddpm_core.workshop.presets import Preset

OF_THE_MODEL = {f.name for f in fields(ModelConfig)} - {"network", "classes"}

KINDS = {"length": "clip", "attributes": "classifier", "spatial": "autoencoder"}
"""What distinguishes kinds of weights in cards that do not name theirs."""

COMMANDS = {
    "python -m ddpm_core.trilemma train": "ddpm train-contender",
    "python -m ddpm_core.latent": "ddpm train-autoencoder",
    "python -m ddpm_core.clip": "ddpm train-clip",
    "python -m ddpm_core.classifier": "ddpm train-classifier",
    "python -m ddpm_core.capstone": "ddpm capstone",
}
"""The names that commands had before, and what they are called now."""


def migrate(
    paths: Annotated[list[Path], typer.Argument(help="folders of weights, or of runs")],
) -> None:
    """Rewrite the cards and runs of an earlier version of this library."""
    for folder in paths:
        found = [
            name for name in ("card.json", "config.json") if (folder / name).exists()
        ]
        if not found:
            raise FileNotFoundError(f"{folder} holds no card.json and no config.json")
        for name in found:
            values = read_object(folder / name)
            new = new_card(values) if name == "card.json" else new_preset(values)
            if name == "card.json":
                write(folder / "README.md", card_text(new))
            write(folder / name, json.dumps(new, indent=1) + "\n")
            typer.echo(
                f"{folder / name}: {'rewritten' if new != values else 'current'}"
            )


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_file(path) as new:
        new.write_text(text, encoding="utf-8")


def new_preset(values: dict) -> dict:
    """The preset of an earlier run, with its model apart from its training."""
    if "model" in values:
        return values
    if "unet" not in values:
        raise ValueError("not the configuration of a run: it has no network")
    model = {name: values[name] for name in OF_THE_MODEL if name in values}
    model["network"] = {"kind": "unet", **values["unet"]}
    training = {k: v for k, v in values.items() if k not in OF_THE_MODEL | {"unet"}}
    return Preset.from_dict({**training, "model": model}).to_dict()


def new_card(values: dict) -> dict:
    """An earlier card, with its kind, and its training apart from its configuration."""
    card = dict(values)
    if "command" in card:
        card["commands"] = [card.pop("command")]
    card["commands"] = [new_command(command) for command in card["commands"]]
    kind = [kind for field, kind in KINDS.items() if field in card["config"]]
    card["kind"] = card.get("kind", kind[0] if kind else "diffusion")
    if card["kind"] == "diffusion" and "training" not in card:
        training = new_preset(card["config"])
        card["config"] = training.pop("model")
        card["training"] = training
    return card


def new_command(command: str) -> str:
    """The same command by its present name."""
    for old, new in COMMANDS.items():
        if command.startswith(old):
            return new + command.removeprefix(old)
    return command
