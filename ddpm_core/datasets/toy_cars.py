"""Toy cars: an endless data set, drawn by code, with attributes and captions.

Side views of six kinds of car in eight colours, facing left or right, by day or at
night, on four grounds. Image i depends on the seed and on i alone, so any part of the
data set can be drawn at any time, at any size. Chapter 01.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process, get_context, parent_process
from threading import Thread

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from ddpm_core.datasets.toy_car_drawing import BODY_SHAPES, GROUND, PAINT, draw_car

BODIES = tuple(BODY_SHAPES)
COLOURS = tuple(PAINT)
FACINGS = ("left", "right")
TIMES = ("day", "night")
GROUNDS = tuple(GROUND)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "body": BODIES,
    "colour": COLOURS,
    "facing": FACINGS,
    "time": TIMES,
    "ground": GROUNDS,
}
"""The values of each attribute; an attribute is stored as its place in this list."""

PHRASES: dict[str, dict[str, str]] = {
    "facing": {side: f"facing {side}" for side in FACINGS},
    "time": {"day": "by day", "night": "at night"},
    "ground": {
        floor: {"road": "on the road", "snow": "in snow"}.get(floor, f"on {floor}")
        for floor in GROUNDS
    },
}
"""How a caption says what is no adjective or noun."""

NEVER_TRAINED = (
    "purple+convertible+snow",
    "orange+pickup truck+night",
    "white+van+sand",
)
"""What the text models are trained without, to see whether they compose. Chapter 10."""

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "body": {"pickup truck": ("pickup truck", "pickup", "truck")},
    "facing": {side: (f"facing {side}", f"pointing {side}") for side in FACINGS},
    "time": {
        "day": ("by day", "at day", "in daylight", "in the daytime"),
        "night": ("at night", "by night", "in the dark"),
    },
    "ground": {
        "road": ("on the road", "on a road"),
        "grass": ("on grass", "on the grass"),
        "snow": ("in snow", "in the snow", "on snow"),
        "sand": ("on sand", "on the sand"),
    },
}
"""Ways to say each value in loose captions; what is missing is said by its name."""

NAMED = {"body": 0.85, "colour": 0.8, "facing": 0.3, "time": 0.6, "ground": 0.5}
"""How often a loose caption names each attribute."""

ALONE = 2000  # so few images are drawn by this process alone
CHUNK = 250  # images that another process draws at a time


@dataclass(frozen=True, eq=False)
class ToyCars:
    """Drawn cars: `images` uint8 (n, size, size, 3), `attributes` int64 (n, 5).

    The columns of `attributes` are those of ATTRIBUTES. `mentions` (n, 2) says whether
    a caption names the ground and the facing; body, colour and time it always names.
    """

    images: UInt8[np.ndarray, "n size size 3"]
    attributes: Int64[np.ndarray, "n 5"]
    mentions: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def attribute(self, name: str) -> Int64[np.ndarray, " n"]:
        """Return one attribute of all cars; raise ValueError for an unknown name."""
        if name not in ATTRIBUTES:
            raise ValueError(
                f"unknown attribute {name!r}; there is: {', '.join(ATTRIBUTES)}"
            )
        return self.attributes[:, list(ATTRIBUTES).index(name)]

    @property
    def captions(self) -> list[str]:
        """A sentence for each car: 'a red sports car at night'. Chapter 10."""
        pairs = zip(self.attributes, self.mentions, strict=True)
        return [caption(row, ground=bool(g), facing=bool(f)) for row, (g, f) in pairs]

    def loose_captions(self, seed: int = 0) -> list[str]:
        """A sentence for each car that leaves attributes out and varies its words.

        The sentences depend on the seed and on each car's place and attributes.
        Chapter 10.
        """
        # Other numbers than those that drew the car of this place, whatever the seed.
        rngs = (np.random.default_rng([seed, i, 1]) for i in range(len(self)))
        rows = zip(self.attributes, rngs, strict=True)
        return [loose_caption(row, rng) for row, rng in rows]


def caption(
    attributes: Int64[np.ndarray, " 5"], *, ground: bool = False, facing: bool = False
) -> str:
    """Put a row of attributes into words: 'an orange van in snow facing left by day'.

    Body, colour and time are always named, ground and facing where asked for.
    Chapter 10.
    """
    body, colour, side, time, floor = (
        values[i] for values, i in zip(ATTRIBUTES.values(), attributes, strict=True)
    )
    words = ["an" if colour[0] in "aeiou" else "a", colour, body]
    if ground:
        words.append(PHRASES["ground"][floor])
    if facing:
        words.append(PHRASES["facing"][side])
    return " ".join([*words, PHRASES["time"][time]])


def loose_caption(attributes: Int64[np.ndarray, " 5"], rng: np.random.Generator) -> str:
    """Put some attributes of a row into words, as people do: 'truck on snow by night'.

    Each is named as often as `NAMED` says, in one of its `WORDINGS`; a car without a
    body is a car; what follows the noun comes in any order. Chapter 10.
    """
    chosen = {}
    for (name, values), i in zip(ATTRIBUTES.items(), attributes, strict=True):
        ways = WORDINGS.get(name, {}).get(values[i], (values[i],))
        way = ways[rng.integers(len(ways))]
        if rng.random() < NAMED[name]:
            chosen[name] = way
    noun = [chosen.pop("colour", ""), chosen.pop("body", "car")]
    words = [word for word in noun if word]
    if rng.random() < 0.8:
        words.insert(0, "an" if words[0][0] in "aeiouS" else "a")  # an SUV
    phrases = list(chosen.values())
    return " ".join(words + [phrases[i] for i in rng.permutation(len(phrases))])


def named_in(text: str) -> dict[str, str]:
    """What a caption names, in any wording: 'truck in snow' names body and ground.

    {'body': 'pickup truck', 'ground': 'snow'}; other words are ignored, and so is case.
    Chapter 10.
    """
    meant = {
        way.lower(): (name, value)
        for name, values in ATTRIBUTES.items()
        for value in values
        for way in WORDINGS.get(name, {}).get(value, (value,))
    }
    longest_first = "|".join(sorted(meant, key=len, reverse=True))
    ways = re.findall(rf"\b(?:{longest_first})\b", text.lower())
    return dict(meant[way] for way in ways)


def showing_any(
    attributes: Int64[np.ndarray, "n 5"], combinations: Iterable[str]
) -> Bool[np.ndarray, " n"]:
    """Which cars show all of some combination, such as 'purple+convertible+snow'.

    Raises ValueError for a value that is none of ATTRIBUTES, and for two values of one
    of them. Chapter 10.
    """
    shown = np.zeros(len(attributes), bool)
    for combination in combinations:
        wanted = _columns(combination)
        shown |= (attributes[:, list(wanted)] == list(wanted.values())).all(1)
    return shown


def attributes_showing(
    combination: str, n: int, *, seed: int = 0
) -> Int64[np.ndarray, "n 5"]:
    """Draw n rows of attributes that show a combination, all else at random.

    Raises ValueError for a value that is none of ATTRIBUTES, and for two values of one
    of them. Chapter 10.
    """
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.integers(len(v), size=n) for v in ATTRIBUTES.values()], 1)
    for column, number in _columns(combination).items():
        rows[:, column] = number
    return rows


def _columns(combination: str) -> dict[int, int]:
    """The columns of the attributes that a combination fixes, and their values."""
    places = {
        value: (column, number)
        for column, values in enumerate(ATTRIBUTES.values())
        for number, value in enumerate(values)
    }
    for name in combination.split("+"):
        if name not in places:
            raise ValueError(
                f"no toy car is {name!r}, in {combination!r}; "
                f"there is: {', '.join(places)}"
            )
    fixed = [places[name] for name in combination.split("+")]
    if len(dict(fixed)) < len(fixed):
        raise ValueError(
            f"no toy car is all of {combination!r}: it names two values of one "
            "attribute"
        )
    return dict(fixed)


def draw_toy_cars(
    n: int,
    *,
    size: int = 32,
    seed: int = 0,
    start: int = 0,
    attributes: Int64[np.ndarray, "n 5"] | None = None,
    workers: int | None = None,
) -> ToyCars:
    """Draw the cars start .. start + n - 1 of the data set of that seed.

    `size`: side in pixels, 16 or more. `attributes` forces what is otherwise drawn at
    random, all values equally likely; everything else about a car stays as it is.
    `workers`: processes that draw, by default one a core for many images. Raises
    ValueError for numbers below their least value and for attributes outside
    ATTRIBUTES. Chapter 01.
    """
    limits = {"n": (n, 0), "size": (size, 16), "seed": (seed, 0), "start": (start, 0)}
    limits["workers"] = (1 if workers is None else workers, 1)
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if attributes is not None:
        _check_attributes(attributes, n)
    forced = [None] * n if attributes is None else attributes
    draw = partial(_draw_one, seed=seed, size=size)
    drawn = list(_mapped(draw, enumerate(forced, start), n, workers))
    columns = zip(*drawn, strict=True) if n else ([], [], [])
    images, rows, mentions = (np.array(column) for column in columns)
    return ToyCars(
        images.reshape(n, size, size, 3).astype(np.uint8),
        rows.reshape(n, len(ATTRIBUTES)).astype(np.int64),
        mentions.reshape(n, 2).astype(bool),
    )


def _mapped(draw: Callable, jobs: Iterable, n: int, workers: int | None) -> Iterable:
    """Draw all jobs, in order, in several processes where that pays."""
    forks = sys.platform == "linux"  # elsewhere processes start too slowly to pay
    pays = forks and n > ALONE and not current_process().daemon
    workers = workers or (os.cpu_count() if pays else 1)
    if workers == 1:
        return map(draw, jobs)
    context = get_context("fork" if forks else "spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        return list(pool.map(draw, jobs, chunksize=CHUNK))


def _end_with_parent() -> None:
    """Let this process end when the one that started it was killed."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _draw_one(job: tuple[int, np.ndarray | None], *, seed: int, size: int) -> tuple:
    index, forced = job
    rng = np.random.default_rng([seed, index])
    row = np.array([rng.integers(len(values)) for values in ATTRIBUTES.values()])
    mentions = rng.random(2) < 0.5
    row = row if forced is None else forced
    body, colour, facing, time, ground = (
        values[i] for values, i in zip(ATTRIBUTES.values(), row, strict=True)
    )
    image = draw_car(body, colour, facing == "left", time == "night", ground, size, rng)
    return image, row, mentions


def _check_attributes(rows: np.ndarray, n: int) -> None:
    if rows.shape != (n, len(ATTRIBUTES)):
        raise ValueError(
            f"attributes must have the shape {(n, len(ATTRIBUTES))}, got {rows.shape}"
        )
    for column, (name, values) in zip(rows.T, ATTRIBUTES.items(), strict=True):
        if n and not (column.min() >= 0 and column.max() < len(values)):
            raise ValueError(
                f"{name} must lie in 0..{len(values) - 1} ({', '.join(values)}), "
                f"got {column.min()}..{column.max()}"
            )
