"""Fields of a configuration: their help, their range, and how JSON gives them back.

One description of a field serves the check, the file and the command line.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from math import isfinite
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from ddpm_core.values import quoted

Config = TypeVar("Config")

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
"""The types that a field may have, alone or in a tuple, in words."""

BOUNDS = {
    "at_least": (lambda value, bound: value >= bound, "at least"),
    "above": (lambda value, bound: value > bound, "above"),
    "at_most": (lambda value, bound: value <= bound, "at most"),
    "below": (lambda value, bound: value < bound, "below"),
}


def option(help: str, default: Any = MISSING, **bounds: Any) -> Any:
    """Return a dataclass field with its help and what `check` allows.

    `bounds`: any of `at_least`, `above`, `at_most`, `below`, of a number or of each
    number in a tuple, or `choices`, the names that text may be.
    """
    return field(default=default, metadata={"help": help, **bounds})


def one_of(what: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known; otherwise raise ValueError that lists what is."""
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; there is: {', '.join(known)}")
    return name


def check(config: Any) -> None:
    """Raise ValueError for the first field whose value is not of its type and range."""
    for f in fields(config):
        value = getattr(config, f.name)
        kinds = get_args(f.type) if isinstance(f.type, UnionType) else (f.type,)
        kind = kinds[-1] if isinstance(value, tuple) else kinds[0]
        if get_origin(kind) is tuple:
            _check_tuple(f, kind, value)
        elif kind in KINDS:
            _check_value(f, kind, value, value)


def _check_tuple(f: dataclasses.Field, of: Any, values: Any) -> None:
    kind, *more = get_args(of)
    length = None if more == [...] else 1 + len(more)
    if not isinstance(values, tuple) or len(values) != (length or len(values)):
        words = f"a list of {length}" if length else "a list"
        raise ValueError(f"{f.name} must be {words}, got {quoted(values)}")
    for value in values:
        _check_value(f, kind, value, values)


def _check_value(f: dataclasses.Field, kind: type, value: Any, got: Any) -> None:
    allowed = (int, float) if kind is float else kind
    right = isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
    if kind is str and right and "choices" in f.metadata:
        one_of(f.name, value, f.metadata["choices"])
    bounds = {name: f.metadata[name] for name in BOUNDS if name in f.metadata}
    if right and kind in (int, float):
        right = abs(value) < 2**63 and isfinite(value)
        right = right and all(BOUNDS[name][0](value, b) for name, b in bounds.items())
    if not right:
        rule = " and ".join(f"{BOUNDS[name][1]} {b:g}" for name, b in bounds.items())
        words = f"{KINDS[kind]}, {rule}" if rule else KINDS[kind]
        each = f"{f.name} must be" if value is got else f"{f.name}: each must be"
        raise ValueError(f"{each} {words}; got {quoted(got)}")


def to_json(config: Any) -> dict:
    """Return a configuration as what JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(kind: type[Config], values: Any, what: str) -> Config:
    """Rebuild the dataclass `kind` from what `to_json` gave.

    Raises ValueError that names `what` for values that are no object, for fields that
    are unknown or missing, and as the dataclass does.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{what} must be an object, got {quoted(values)}")
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"{what} has unknown fields: {quoted(', '.join(unknown))}")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}")
    return kind(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )


def replaced(config: Config, changes: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Change the fields that `config` has; return it and the changes that are left."""
    own = {f.name: changes[f.name] for f in fields(config) if f.name in changes}
    left = {name: value for name, value in changes.items() if name not in own}
    return (dataclasses.replace(config, **own) if own else config), left
