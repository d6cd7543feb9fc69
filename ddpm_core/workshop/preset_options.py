"""The options that `ddpm train` and `ddpm capstone` share: every field of a preset."""

import inspect
from dataclasses import Field, fields
from types import UnionType
from typing import Annotated, get_args, get_origin

import typer

from ddpm_core.config import NETWORKS, ModelConfig
from ddpm_core.datasets.sizes import read_size
from ddpm_core.workshop.presets import Preset

NO_OPTION = {"model", "classes"}  # made of other options, or read off the data
SHORT = {"start_from": "--from"}  # no name of a field in Python


def option_fields() -> dict[str, tuple[str, Field]]:
    """The fields that options change, by name, with the panel that lists each."""
    parts = {"Training": Preset, "Model": ModelConfig}
    parts |= {f"Network: {kind}": config for kind, config in NETWORKS.items()}
    found = {}
    for panel, config in parts.items():
        for f in fields(config):
            if f.name not in found and f.name not in NO_OPTION:
                found[f.name] = (panel, f)
    return found


def preset_options(command):
    """Give `command` an option for each field of a preset, its model and network."""
    signature = inspect.signature(command)
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    for name, (panel, f) in option_fields().items():
        kind, help_ = _kind_and_help(f)
        flag = "--" + name.replace("_", "-")
        names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
        names = [SHORT[name], *names] if name in SHORT else names
        option = typer.Option(
            *names, help=help_, rich_help_panel=panel, show_default=False
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    command.__signature__ = signature.replace(parameters=parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _kind_and_help(f: Field) -> tuple[type, str]:
    if f.name == "network":
        return str, f"kind of network: {', '.join(NETWORKS)}"
    if get_origin(f.type) is tuple:
        return str, f"{f.metadata['help']} (values with commas between)"
    if isinstance(f.type, UnionType):
        return str, f"{f.metadata['help']}: 64x96"
    return f.type, f.metadata["help"]


def changed_fields(options: dict) -> dict:
    """Keep the options that were given; turn 'a,b' into the tuple its field holds."""
    kinds = {name: f.type for name, (_, f) in option_fields().items()}
    given = {name: value for name, value in options.items() if value is not None}
    return {name: _read(name, value, kinds[name]) for name, value in given.items()}


def _read(name: str, value: object, kind: object) -> object:
    if get_origin(kind) is tuple:
        return _to_tuple(name, value, kind)
    is_size = isinstance(kind, UnionType) and isinstance(value, str)
    return read_size(value) if is_size else value


def _to_tuple(name: str, text: str, kind: object) -> tuple:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    of = get_args(kind)[0]
    if of is str:
        return tuple(parts)
    read = {"true": True, "false": False}.__getitem__ if of is bool else of
    try:
        return tuple(read(part.lower()) for part in parts)
    except (KeyError, ValueError) as error:
        allowed = "true or false" if of is bool else "whole numbers"
        raise ValueError(
            f"{name} takes {allowed} with commas between, got {text!r}"
        ) from error
