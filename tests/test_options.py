"""Fields of configurations: their types, their ranges, and JSON."""

from dataclasses import dataclass

import pytest

from ddpm_core.options import check, from_json, one_of, option, to_json


@dataclass(frozen=True)
class Bicycle:
    wheels: int = option("wheels", at_least=1, at_most=4)
    speed: float = option("metres a second", 4.0, above=0, below=30)
    bell: bool = option("a bell", True)
    colour: str = option("red or blue", "red", choices=("red", "blue"))
    gears: tuple[int, ...] = option("teeth of each", (11, 13), at_least=9)

    def __post_init__(self):
        check(self)


def test_json_gives_a_configuration_back():
    one = Bicycle(2, speed=3, gears=(10,))
    assert from_json(Bicycle, to_json(one), "a bicycle") == one


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"wheels": 0},
            "wheels must be a whole number, at least 1 and at most 4; got 0",
        ),
        ({"wheels": 2.0}, "wheels must be a whole number, .*; got 2.0"),
        ({"wheels": True}, "wheels must be a whole number, .*; got True"),
        ({"wheels": "2"}, "wheels must be a whole number, .*; got '2'"),
        ({"wheels": None}, "wheels must be a whole number, .*; got None"),
        ({"wheels": 10**400}, "wheels must be a whole number, .*; got 10"),
        ({"speed": 30.0}, "speed must be a number, above 0 and below 30; got 30.0"),
        ({"speed": float("nan")}, "speed must be a number, .*; got nan"),
        ({"speed": float("inf")}, "speed must be a number, .*; got inf"),
        ({"speed": 10**400}, "speed must be a number, .*; got 1000"),
        ({"bell": 1}, "bell must be true or false; got 1"),
        ({"colour": "pink"}, "unknown colour 'pink'; there is: red, blue"),
        ({"colour": 3}, "colour must be text; got 3"),
        ({"gears": 11}, "gears must be a list, got 11"),
        ({"gears": [11, 8]}, r"gears: each must be a whole n.*; got \(11, 8\)"),
        ({"gears": [11, "x"]}, r"gears: each must be a whole n.*; got \(11, 'x'\)"),
        ({"wings": 2}, "a bicycle has unknown fields: 'wings'"),
        ({"speed": "x" * 10_000}, r"speed must be a number, .*; got 'x+\.\.\.$"),
    ],
)
def test_values_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_json(Bicycle, {"wheels": 2, **values}, "a bicycle")


@pytest.mark.parametrize("values", [[], None, "x", 3])
def test_json_of_another_shape_is_refused(values):
    with pytest.raises(ValueError, match="a bicycle must be an object, got"):
        from_json(Bicycle, values, "a bicycle")


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="a bicycle lacks wheels"):
        from_json(Bicycle, {"speed": 2.0}, "a bicycle")


def test_an_unknown_name_lists_the_known_ones():
    assert one_of("colour", "red", ["red", "blue"]) == "red"
    with pytest.raises(ValueError, match="unknown colour 'x'; there is: red, blue"):
        one_of("colour", "x", ["red", "blue"])
