import os
import re
import subprocess
import sys
from colorsys import rgb_to_hsv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ddpm_core.datasets import toy_cars
from ddpm_core.datasets.toy_car_drawing import GROUND, NIGHT, PAINT
from ddpm_core.datasets.toy_cars import (
    ATTRIBUTES,
    BODIES,
    COLOURS,
    GROUNDS,
    TIMES,
    attributes_showing,
    caption,
    draw_toy_cars,
    named_in,
    showing_any,
)

CAPTION = re.compile(
    rf"an? ({'|'.join(COLOURS)}) ({'|'.join(BODIES)})"
    r"( on the road| on grass| in snow| on sand)?( facing left| facing right)?"
    r" (by day|at night)"
)


def row(body="sedan", colour="red", facing="right", time="day", ground="road"):
    values = (body, colour, facing, time, ground)
    places = [
        names.index(v) for names, v in zip(ATTRIBUTES.values(), values, strict=True)
    ]
    return np.array(places, dtype=np.int64)


def draw(n, *, size=32, start=0, **named):
    """Draw n cars that differ in nothing that has a name, as signed numbers."""
    rows = np.tile(row(**named), (n, 1))
    cars = draw_toy_cars(n, size=size, seed=7, start=start, attributes=rows)
    return cars.images.astype(np.int64)


def painted(n, **named):
    """Where the paint is, (n, h, w): the pixels that change with its colour."""
    white, black = (draw(n, colour=colour, **named) for colour in ("white", "black"))
    change = np.abs(white - black).sum(-1)
    return change > 0.5 * change.max((1, 2), keepdims=True)


def nearest(colours, palette):
    """The place in the palette of the colour that is nearest to each of `colours`."""
    return ((colours[:, None] - palette) ** 2).sum(-1).argmin(1)


def test_images_and_attributes_are_what_is_promised():
    cars = draw_toy_cars(5, size=24, seed=3)
    assert len(cars) == 5
    assert cars.images.dtype == np.uint8 and cars.images.shape == (5, 24, 24, 3)
    assert cars.attributes.dtype == np.int64 and cars.attributes.shape == (5, 5)
    columns = [cars.attribute(name) for name in ATTRIBUTES]
    np.testing.assert_array_equal(np.stack(columns, axis=1), cars.attributes)


def test_no_cars_are_no_error():
    cars = draw_toy_cars(0, size=16)
    assert cars.images.shape == (0, 16, 16, 3) and cars.attributes.shape == (0, 5)
    assert cars.captions == []


def assert_same(cars, others):
    np.testing.assert_array_equal(cars.images, others.images)
    np.testing.assert_array_equal(cars.attributes, others.attributes)
    assert cars.captions == others.captions


def test_a_car_depends_on_the_seed_and_its_index_alone():
    whole = draw_toy_cars(100, seed=5)
    for start, n in [(0, 50), (50, 50), (99, 1)]:
        part = draw_toy_cars(n, seed=5, start=start)
        np.testing.assert_array_equal(part.images, whole.images[start : start + n])
        rows = whole.attributes[start : start + n]
        np.testing.assert_array_equal(part.attributes, rows)
        assert part.captions == whole.captions[start : start + n]


def test_another_seed_gives_other_cars():
    cars, others = draw_toy_cars(20, seed=0), draw_toy_cars(20, seed=1)
    assert (cars.attributes != others.attributes).any(1).sum() > 15
    assert (cars.images != others.images).any((1, 2, 3)).all()


def test_global_randomness_is_neither_used_nor_changed():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    cars = draw_toy_cars(3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert_same(cars, draw_toy_cars(3))


def test_several_processes_draw_the_same(monkeypatch):
    monkeypatch.setattr(toy_cars, "CHUNK", 2)
    assert_same(draw_toy_cars(7, seed=2, workers=2), draw_toy_cars(7, seed=2))


def test_many_images_are_drawn_by_many_processes_by_default(monkeypatch):
    alone = draw_toy_cars(7, seed=2)
    monkeypatch.setattr(toy_cars, "ALONE", 3)
    monkeypatch.setattr(toy_cars, "CHUNK", 2)
    assert_same(draw_toy_cars(7, seed=2), alone)


@pytest.fixture(scope="module")
def many():
    return draw_toy_cars(800, size=16)


def test_every_value_is_alike_likely(many):
    n = len(many)
    for name, values in ATTRIBUTES.items():
        counts = np.bincount(many.attribute(name), minlength=len(values))
        share = 1 / len(values)
        spread = np.sqrt(n * share * (1 - share))
        assert len(counts) == len(values)
        assert np.abs(counts - n * share).max() < 4.5 * spread, name
    assert np.abs(many.mentions.mean(0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(n)


def test_attributes_and_mentions_are_independent(many):
    columns = np.concatenate([many.attributes, many.mentions], axis=1).T
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(many))


def test_forcing_what_is_drawn_anyway_changes_nothing():
    cars = draw_toy_cars(12, seed=4)
    assert_same(draw_toy_cars(12, seed=4, attributes=cars.attributes), cars)


def test_forced_attributes_are_kept():
    rows = np.stack([row("van", "blue", "left", "night", "snow"), row()])
    np.testing.assert_array_equal(draw_toy_cars(2, attributes=rows).attributes, rows)


def test_another_colour_changes_the_car_alone():
    red, blue = draw(20, colour="red"), draw(20, colour="blue")
    changed = (red != blue).any(-1)
    assert not changed[:, :6].any() and not changed[:, -2:].any()
    assert 0.04 < changed.mean() < 0.5


@pytest.mark.parametrize("time", TIMES)
def test_facing_left_is_the_mirror_image(time):
    left, right = (draw(8, facing=f, time=time) for f in ("left", "right"))
    np.testing.assert_array_equal(left, right[:, :, ::-1])


@pytest.mark.parametrize("body", BODIES)
def test_the_red_lamp_is_at_the_tail(body):
    images = draw(16, body=body, colour="blue", facing="right", time="night")
    redness = (images[..., 0] - images[..., 1:].max(-1)).clip(0).sum(1)
    assert (redness.argmax(1) < 11).all()


@pytest.mark.parametrize("body", BODIES)
def test_the_head_lamp_is_at_the_nose(body):
    images = draw(16, body=body, colour="blue", facing="right", time="night")
    brightness = images[:, 14:].min(-1).max(1)  # below the moon
    assert (brightness.argmax(1) > 20).all()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("time", "light"), [("day", np.ones(3)), ("night", NIGHT)])
def test_paint_is_nearest_to_its_named_colour(body, time, light):
    shade = 0.88  # about the middle of the shading from roof to sill
    palette = np.array(list(PAINT.values())) * light * shade
    masks = painted(8, body=body, time=time)
    for i, colour in enumerate(COLOURS):
        images = draw(8, body=body, time=time, colour=colour)
        pairs = zip(images, masks, strict=True)
        paint = np.stack([np.median(image[mask], axis=0) for image, mask in pairs])
        assert (nearest(paint, palette) == i).all(), colour


def test_named_colours_are_what_their_names_say():
    hues = {"red": 0, "orange": 28, "yellow": 48, "green": 135, "blue": 220}
    for colour, hue in (hues | {"purple": 280}).items():
        measured = 360 * rgb_to_hsv(*PAINT[colour])[0]
        assert abs((measured - hue + 180) % 360 - 180) < 12, colour
    assert min(PAINT["white"]) > 220 and max(PAINT["black"]) < 60


@pytest.mark.parametrize("ground", GROUNDS)
def test_ground_is_nearest_to_its_named_colour(ground):
    corners = draw(20, ground=ground)[:, -1].mean(1)
    palette = np.array(list(GROUND.values()))
    assert (nearest(corners, palette) == GROUNDS.index(ground)).all()


def test_night_is_darker_than_day():
    day, night = (draw(20, time=time)[:, :12].mean((1, 2, 3)) for time in TIMES)
    assert night.max() < 0.5 * day.min()


@pytest.mark.parametrize(("body", "other"), list(combinations(BODIES, 2)))
def test_no_two_bodies_share_a_silhouette(body, other):
    masks, others = painted(12, body=body), painted(12, body=other)
    overlap = (masks & others).sum((1, 2)) / (masks | others).sum((1, 2))
    assert overlap.max() < 0.8


def test_cars_of_the_same_attributes_differ():
    images = draw(60).reshape(60, -1)
    distance = np.abs(images[:, None] - images).mean(-1) + 255 * np.eye(60)
    assert distance.min() > 2


def test_the_picture_does_not_depend_on_its_size():
    small, large = draw(12, size=32), draw(12, size=64)
    reduced = large.reshape(12, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 3


@pytest.mark.parametrize(
    ("named", "options", "words"),
    [
        ({"time": "night"}, {}, "a red sedan at night"),
        ({"body": "SUV", "colour": "orange"}, {}, "an orange SUV by day"),
        (
            {"body": "sports car"},
            {"ground": True},
            "a red sports car on the road by day",
        ),
        (
            {"body": "van", "colour": "orange", "facing": "left", "ground": "snow"},
            {"ground": True, "facing": True},
            "an orange van in snow facing left by day",
        ),
        (
            {"body": "pickup truck", "ground": "sand", "time": "night"},
            {"facing": True},
            "a red pickup truck facing right at night",
        ),
    ],
)
def test_a_caption_says_what_it_is_asked_for(named, options, words):
    assert caption(row(**named), **options) == words


def test_captions_fit_the_attributes(many):
    for words, places in zip(many.captions, many.attributes, strict=True):
        colour, body, ground, facing, time = CAPTION.fullmatch(words).groups()
        named = [
            values[i] for values, i in zip(ATTRIBUTES.values(), places, strict=True)
        ]
        assert [body, colour] == named[:2] and time.endswith(named[3])
        assert words.startswith("an " if colour == "orange" else "a ")
        assert facing is None or facing.endswith(named[2])
        assert ground is None or ground.endswith(named[4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n must be at least 0, got -1"),
        ({"n": 1, "start": -2}, "start must be at least 0, got -2"),
        ({"n": 1, "seed": -2}, "seed must be at least 0, got -2"),
        ({"n": 1, "workers": 0}, "workers must be at least 1, got 0"),
        ({"n": 1, "size": 15}, "size must be at least 16, got 15"),
        ({"n": 2, "attributes": row()[None]}, r"shape \(2, 5\), got \(1, 5\)"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_toy_cars(**options)


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("beyond", [False, True])
def test_an_error_names_the_values_that_an_attribute_has(column, beyond):
    name, values = list(ATTRIBUTES.items())[column]
    rows = np.stack([row(), row()])
    rows[1, column] = len(values) if beyond else -1
    message = re.escape(
        f"{name} must lie in 0..{len(values) - 1} ({', '.join(values)})"
    )
    with pytest.raises(ValueError, match=message):
        draw_toy_cars(2, attributes=rows)


def test_an_unknown_attribute_lists_those_there_are():
    with pytest.raises(ValueError, match="'wheels'; there is: body, colour, facing"):
        draw_toy_cars(1).attribute("wheels")


def test_cars_that_show_a_combination_are_found_and_made():
    rows = attributes_showing("purple+convertible+snow", 50, seed=1)
    assert all("purple convertible in snow" in caption(r, ground=True) for r in rows)
    assert len(np.unique(rows[:, list(ATTRIBUTES).index("facing")])) == 2
    mixed = np.concatenate([rows, draw_toy_cars(500, size=16).attributes])
    shown = showing_any(mixed, ["purple+convertible+snow", "white+van"])
    for r, is_shown in zip(mixed, shown, strict=True):
        words = caption(r, ground=True)
        assert is_shown == (
            "purple convertible in snow" in words or "white van" in words
        )
    assert not showing_any(mixed, []).any()
    with pytest.raises(
        ValueError, match="no toy car is 'pink', in 'pink.van'; there is:"
    ):
        showing_any(mixed, ["pink+van"])
    with pytest.raises(ValueError, match="'red.blue': it names two values of one"):
        showing_any(mixed, ["red+blue"])


PARENT = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from ddpm_core.datasets.toy_cars import _end_with_parent

with ProcessPoolExecutor(2, get_context("fork"), _end_with_parent) as pool:
    jobs = [pool.submit(time.sleep, 600) for _ in range(2)]
    print(*pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_that_draw_end_when_their_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    # They hold the other end of this pipe: it ends when the last of them has ended.
    assert parent.stdout.read() == b""
    parent.wait()


# --- loose captions ---


def test_loose_captions_name_each_attribute_as_often_as_promised(many):
    captions = many.loose_captions(1)
    n = len(captions)
    for name, values in ATTRIBUTES.items():
        named = 0
        for caption_, i in zip(captions, many.attribute(name), strict=True):
            ways = toy_cars.WORDINGS.get(name, {}).get(values[i], (values[i],))
            named += any(re.search(rf"\b{way}\b", caption_) for way in ways)
        share = toy_cars.NAMED[name]
        assert abs(named - n * share) < 4.5 * np.sqrt(n * share * (1 - share)), name


def test_loose_captions_say_nothing_wrong(many):
    ways = {
        (name, value): toy_cars.WORDINGS.get(name, {}).get(value, (value,))
        for name, values in ATTRIBUTES.items()
        for value in values
    }
    rows = zip(many.attributes, many.loose_captions(1), strict=True)
    for attributes, text in rows:
        rest = f" {text} "
        for (name, values), i in zip(ATTRIBUTES.items(), attributes, strict=True):
            for way in sorted(ways[name, values[i]], key=len, reverse=True):
                rest = rest.replace(f" {way} ", "  ")
        assert set(rest.split()) <= {"a", "an", "car"}, text


@pytest.mark.parametrize("seed", [0, 1])  # 0 drew the cars themselves
def test_loose_captions_depend_on_the_seed_alone_and_use_every_wording(many, seed):
    plain = many.captions
    captions = many.loose_captions(seed)
    assert captions == many.loose_captions(seed) != many.loose_captions(seed + 1)
    assert many.captions == plain
    for values in toy_cars.WORDINGS.values():
        for ways in values.values():
            said = ([way for way in ways if way in text] for text in captions)
            assert set(ways) <= {max(found, key=len, default="") for found in said}


def test_what_a_caption_names_is_read_back(many):
    for row, loose, full in zip(
        many.attributes, many.loose_captions(1), many.captions, strict=True
    ):
        shown = {k: v[i] for (k, v), i in zip(ATTRIBUTES.items(), row, strict=True)}
        assert named_in(loose).items() <= shown.items(), loose
        assert named_in(full).items() <= shown.items(), full
        assert {"body", "colour", "time"} <= named_in(full).keys()
    assert named_in("a white sports van at day") == {
        "colour": "white", "body": "van", "time": "day"
    }  # fmt: skip
    assert named_in("truck pointing left") == {"body": "pickup truck", "facing": "left"}
    assert named_in("A Red suv") == {"colour": "red", "body": "SUV"}
    assert named_in("a car") == named_in("") == {}


def test_loose_captions_fit_the_text_encoder(many):
    assert max(len(text.split()) for text in many.loose_captions(1)) <= 14


TYPED = """
import jaxtyping
jaxtyping.install_import_hook("ddpm_core", "typecheck.checker")
from ddpm_core.datasets import toy_car_drawing, toy_cars
assert hasattr(toy_car_drawing.draw_car, "__wrapped__")
toy_cars.draw_toy_cars(200, size=16, workers=1)
"""


def test_types_are_checked_at_the_pen_too():
    """In a process of its own: tests/conftest.py leaves the drawing out elsewhere."""
    done = subprocess.run(
        [sys.executable, "-c", TYPED],
        cwd=Path(__file__).parent,  # of `typecheck`
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
