"""Malformed input, at random: it works, or one line says what was wrong."""

import copy
import inspect
import json
import sys
from collections.abc import Iterator
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.models import OptionInfo

from ddpm_core.config import ModelConfig
from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.models import load_model
from ddpm_core.weights import WEIGHTS, read_card, save_weights
from ddpm_core.workshop import cli
from ddpm_core.workshop.commands import train
from ddpm_core.workshop.lora import add_lora, lora_state
from ddpm_core.workshop.preset_options import option_fields
from ddpm_core.workshop.presets import PRESETS, Preset

fuzz = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

WORDS = ["", "x", "toy-cars", "nan", "1e999", "a" * 3000, "\x1b[31m", "Łódź", "../.."]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.sampled_from(WORDS),
    st.lists(st.integers(-3, 300), max_size=4),
    st.dictionaries(st.sampled_from(["kind", "size"]), st.integers(), max_size=2),
)


def places(values: object, at: tuple = ()) -> list[tuple]:
    """The path to each field of nested objects."""
    if not isinstance(values, dict):
        return []
    inner = [place for key in values for place in places(values[key], (*at, key))]
    return [(*at, key) for key in values] + inner


def changed(values: dict, place: tuple, new: object, drop: bool) -> dict:
    """The same object with one field replaced, or left out."""
    values = copy.deepcopy(values)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    if drop:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return values


def is_one_line(text: str) -> bool:
    return "\n" not in text.strip() and 0 < len(text) < 600


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("kind", [Preset, ModelConfig])
@fuzz
@given(data=st.data())
def test_configurations(kind, data):
    preset = PRESETS[data.draw(st.sampled_from(sorted(PRESETS)))]
    values = (preset if kind is Preset else preset.model).to_dict()
    place = data.draw(st.sampled_from(places(values)))
    values = changed(values, place, data.draw(VALUES), data.draw(st.booleans()))
    try:
        made = kind.from_dict(json.loads(json.dumps(values)))
    except ValueError as error:
        assert is_one_line(str(error))
    else:
        assert kind.from_dict(made.to_dict()) == made


@pytest.mark.usefixtures("no_type_checks")
@fuzz
@given(data=st.data())
def test_cards(tmp_path, data):
    shipped = WEIGHTS / "toy-cars-32"
    card = json.loads((shipped / "card.json").read_text(encoding="utf-8"))
    place = data.draw(st.sampled_from(places(card)))
    card = changed(card, place, data.draw(VALUES), data.draw(st.booleans()))
    link = tmp_path / "weights.safetensors"
    if not link.exists():
        link.symlink_to(shipped / "weights.safetensors")
    text = json.dumps(card)[: data.draw(st.sampled_from([None, None, 40, 0]))]
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    try:
        load_model(tmp_path)
    except (ValueError, OSError) as error:
        assert is_one_line(str(error))


class Reached(BaseException):
    """A command came to what costs time: all that was given is accepted."""


def reached(*values, **options):
    raise Reached


def called(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    """The exit code of `ddpm`, and what it wrote as an error."""
    monkeypatch.setattr(sys, "argv", ["ddpm", *words])
    with pytest.raises((SystemExit, Reached)) as ended:
        cli.main()
    return getattr(ended.value, "code", 0), capsys.readouterr().err


NUMBERS = ["0", "-1", "1", "7", "2.5", "nan", "inf", "-inf", "1e300", str(10**30)]
ARGUMENTS = st.sampled_from([*NUMBERS, *WORDS, "1,2", "true", "8,x", "red+blue"])


@pytest.mark.usefixtures("no_type_checks")
@fuzz
@given(data=st.data())
def test_options_of_training(monkeypatch, capsys, data):
    """Up to the preset that is made of them: nothing is trained."""
    monkeypatch.setattr(train, "train_once", lambda *args, **kwargs: True)
    names = data.draw(st.lists(st.sampled_from(sorted(option_fields())), max_size=3))
    words = []
    for name in names:
        words += ["--" + name.replace("_", "-"), data.draw(ARGUMENTS)]
    name = data.draw(st.sampled_from(["toy-cars-32", "photos-32", "lorries", ""]))
    code, said = called(monkeypatch, capsys, "train", name, *words)
    assert code == 0 or (code in (1, 2) and said.startswith("ddpm: "))
    assert code == 0 or is_one_line(said)


SAMPLE = ["n", "steps", "sampler", "spacing", "t-end", "seed", "prompt", "label"]
SAMPLE += ["scale", "negative", "out", "weights", "lora", "lora-scale", "zoom", "guide"]


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> str:
    """A LoRA for the weights toy-cars-32 that changes nothing yet."""
    folder = tmp_path_factory.mktemp("lora") / "lora"
    config = {"base": "toy-cars-32", "rank": 1}
    config["sha256 of base"] = read_card("toy-cars-32")["sha256"]
    state = lora_state(add_lora(load_model("toy-cars-32").net, 1))
    save_weights(folder, state, {"name": "lora", "kind": "lora", "config": config})
    return str(folder)


@pytest.mark.usefixtures("no_type_checks")
@settings(fuzz, max_examples=30)
@given(data=st.data())
def test_options_of_sampling(monkeypatch, capsys, tmp_path, lora, data):
    monkeypatch.chdir(tmp_path)
    words = ["--n", "1", "--steps", "1"]
    words += ["--weights", data.draw(st.sampled_from(["toy-cars-32", lora]))]
    arguments = ARGUMENTS | st.just(lora)
    for name in data.draw(st.lists(st.sampled_from(SAMPLE), max_size=2)):
        words += ["--" + name, data.draw(arguments)]
    code, said = called(monkeypatch, capsys, "sample", *words)
    said = said.replace("\r", "\n").splitlines()
    said = [line for line in said if line and "sampling" not in line]
    assert code == 0 or (code in (1, 2) and len(said) == 1)
    assert code == 0 or (said[0].startswith("ddpm: ") and len(said[0]) < 600)


CALLS = [*cli.COMMANDS, "--n", "--help", *WORDS, "-"]


COMPLETE = [[name] for name in ("sample", "train", "recipes", "photo-grid")]
"""These begin to work without another word."""


@fuzz
@given(words=st.lists(st.sampled_from(CALLS), max_size=3))
def test_any_words(monkeypatch, capsys, tmp_path, words):
    """Commands that are named without what they need, or with what they do not know."""
    if words[:1] in (["exercises"], ["models"], ["presets"]):
        return
    monkeypatch.chdir(tmp_path)
    if words[:1] in COMPLETE and "--help" not in words:
        words = [*words, "--unknown"]
    code, said = called(monkeypatch, capsys, *words)
    assert code in (0, 1, 2) and (code == 0 or is_one_line(said))


COSTS = {
    "prepare": "ddpm_core.datasets.prepare",
    "evaluate": "ddpm_core.workshop.evaluation.real_images",
    "doctor": "ddpm_core.workshop.commands.doctor.examine",
    "export": "ddpm_core.workshop.commands.export.export_run",
    "remeasure": "ddpm_core.workshop.commands.export.remeasure_weights",
    "exercises": "ddpm_core.workshop.commands.exercises.answers",
    "capstone": "ddpm_core.workshop.capstone.Run.begin",
    "recipes": "ddpm_core.workshop.recipes.judge",
    "photo-grid": "ddpm_core.workshop.recipes.judge",
    "speedrun": "ddpm_core.workshop.speedrun.attempt",
    "measure": "ddpm_core.workshop.tables.real_cars",
    "measure-guidance": "ddpm_core.workshop.guidance.cars_of_one_prompt",
    "measure-autoguidance": "ddpm_core.workshop.evaluation.extractor",
    "measure-where-lost": "ddpm_core.workshop.evaluation.real_images",
    "measure-calls": "ddpm_core.workshop.evaluation.real_images",
    "measure-gains": "ddpm_core.workshop.gains.images_to_choose_on",
    "measure-wordings": "ddpm_core.workshop.free_wording.rows",
    "measure-samplers": "ddpm_core.workshop.solvers.draw_toy_cars",
    "measure-parts": "ddpm_core.workshop.ablations.cars",
    "measure-consistency": "ddpm_core.workshop.consistency.cars",
    "measure-few-pictures": "ddpm_core.workshop.few_pictures.ruler",
    "measure-inpainting": "ddpm_core.workshop.inpainting.rows",
    "train-contender": "ddpm_core.workshop.side.vae_and_gan.draw_toy_cars",
    "train-autoencoder": "ddpm_core.workshop.side.autoencoder.load_images",
    "train-clip": "ddpm_core.workshop.side.clip.draw_toy_cars",
    "train-classifier": "ddpm_core.workshop.side.classifier.draw_toy_cars",
}
"""Where each command begins to cost time: a fuzz goes no further."""


@pytest.fixture(scope="module")
def needed(tmp_path_factory) -> dict[str, list[str]]:
    """What each command needs to come so far."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_packed(folder / "photos", draw_toy_cars(40, workers=1).images)
    photos, out = str(folder / "photos"), ["--out", "new"]
    return dict.fromkeys(COSTS, out) | {
        "prepare": [photos, *out],
        "evaluate": ["--weights", "toy-cars-32"],
        "doctor": ["toy-cars-32", "--data", photos, "--out", "new.png"],
        "export": ["toy-cars-32", "new"],
        "remeasure": ["toy-cars-32", "new"],
        "measure-autoguidance": ["toy-cars-32", "toy-cars-short-32", *out],
        "measure-calls": ["photos-32", *out],
        "measure-where-lost": ["photos-32", *out],
        "measure-gains": ["photos-32", "head=1", *out],
        "exercises": [],
        "capstone": ["toy-cars-32", "--run", "run", *out],
        "recipes": ["--data", photos, "--runs", "runs", *out],
        "photo-grid": ["--data", photos, "--n", "8", "--sizes", "32", *out],
        "speedrun": ["latents", "--minutes", "1", "--runs", "runs", *out],
        "measure": ["trilemma", *out],
        "measure-wordings": ["toy-cars-text-32", *out],
        "train-contender": ["vae", *out],
    }


def options(name: str) -> Iterator[tuple[str, type, OptionInfo]]:
    """The options of a command: the parameter, its type, what typer knows of it."""
    command = cli.load(cli.COMMANDS[name].place)
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters:
        kind, *more = get_args(hints[parameter])
        if isinstance(more[-1], OptionInfo):
            yield parameter, (get_args(kind) or [kind])[0], more[-1]


def test_every_command_is_fuzzed():
    others = {"train", "sample", "rescale", "models", "presets", "migrate"}
    assert set(COSTS) | others == set(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_number_has_a_range(name):
    """Those of presets have theirs in the preset."""
    endless = [
        parameter
        for parameter, kind, info in options(name)
        if kind in (int, float) and info.min is None and not info.rich_help_panel
    ]
    assert endless == []


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("name", COSTS)
@settings(fuzz, max_examples=12)
@given(data=st.data())
def test_options_of_every_command(monkeypatch, capsys, tmp_path, needed, name, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(COSTS[name], reached)
    given = {"--" + parameter.replace("_", "-") for parameter, *_ in options(name)}
    words = [name, *needed[name]]
    for flag in data.draw(st.lists(st.sampled_from(sorted(given)), max_size=2)):
        words += [flag, data.draw(ARGUMENTS)]
    code, said = called(monkeypatch, capsys, *words)
    assert code == 0 or (code in (1, 2) and said.startswith("ddpm: "))
    assert code == 0 or is_one_line(said)
