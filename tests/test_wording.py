"""Prompts in natural wording are answered with what can be said."""

import json
from pathlib import Path

import pytest

from ddpm_core.datasets.toy_cars import BODIES, COLOURS, GROUNDS
from ddpm_core.workshop.wording import MEANINGS, NEAREST, SAYABLE, check_words

CARD = Path(__file__).parents[1] / "data/weights/toy-cars-clip-32/card.json"
KNOWN = json.loads(CARD.read_text())["config"]["words"]


def refused(prompt: str) -> str:
    with pytest.raises(ValueError) as raised:
        check_words([prompt], KNOWN)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("prompt", "nearest"),
    [
        ("a pink car", "'pink' is not understood; the nearest is 'purple'"),
        ("a red van at the beach", "the nearest is 'on sand'"),
        ("two red vans", "'two': a picture shows one car; --n draws several"),
        ("a red sportscar", "the nearest is 'sports car'"),
        ("a lorry in the daytime", "the nearest is 'pickup truck'"),
        ("a purpel van", "the nearest is 'purple'"),
        ("a photo of a car", "'photo' is not understood;"),
        ("a car without wheels", "'without': a picture shows one car"),
    ],
)
def test_an_unknown_word_gets_the_nearest_in_meaning(prompt, nearest):
    said = refused(prompt)
    assert nearest in said
    assert "colour: red, orange" in said and "time: by day, at night" in said


def test_the_words_of_captions_are_understood():
    check_words(["A red sports car, in the snow.", "", "an SUV by day!"], KNOWN)


def test_what_can_be_said_is_what_the_cars_are():
    assert set(SAYABLE["colour"]) == set(COLOURS)
    assert set(SAYABLE["kind of car"]) - {"car"} == set(BODIES)
    said = " ".join(SAYABLE["ground"])
    assert all(ground in said for ground in GROUNDS)
    words = {w for group in SAYABLE.values() for said in group for w in said.split()}
    assert {word.lower() for word in words} <= set(KNOWN)


def test_every_meaning_leads_to_what_can_be_said():
    sayable = {said for group in SAYABLE.values() for said in group}
    assert set(MEANINGS) <= sayable
    assert not set(NEAREST) & set(KNOWN)
    assert len(NEAREST) == sum(len(words.split()) for words in MEANINGS.values())
