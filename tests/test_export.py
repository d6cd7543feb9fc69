"""From a finished run to weights with a card; and the cards that ship."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.datasets.atomic import current_folder
from ddpm_core.models import load_model
from ddpm_core.samplers import SAMPLERS
from ddpm_core.unet import UNetConfig
from ddpm_core.weights import WEIGHTS
from ddpm_core.workshop.cards import SAMPLING, card_text
from ddpm_core.workshop.commands.common import drawn_as
from ddpm_core.workshop.export import export, remeasure
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.gains import rescale
from ddpm_core.workshop.presets import PLAIN
from ddpm_core.workshop.run import Run

TINY = PLAIN.replace(
    drawn=96,
    held_out=64,
    T=20,
    network=UNetConfig((8, 16), (False, True), blocks=1, groups=4, patch=2),
    epochs=2,
    log_every=1,
    checkpoint_every=1,
    strips=(),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run = Run.begin(folder, TINY)
    run.note_command("ddpm train tiny --out data/runs/tiny")
    run.train()
    out = folder.parent / "weights"
    export(folder, out, n=64, steps=2)
    return out


def test_export_writes_weights_card_and_pictures(exported):
    card = json.loads((exported / "card.json").read_text())
    assert card["images seen"] == 2 * 3 * 32 and card["images"] == 96
    assert card["commands"][0] == "ddpm train tiny --out data/runs/tiny"
    assert (exported / "README.md").read_text() == card_text(card)
    assert Image.open(exported / "samples.webp").size == (8 * 33 + 1, 8 * 33 + 1)
    assert Image.open(exported / "nearest.webp").size == (8 * 33 + 1, 4 * 33 + 1)
    assert Image.open(exported / "losses.webp").size[0] > 400
    last = read_log(exported.parent / "tiny")[-1]
    assert card["measured"]["held-out loss"] == last["held_out"]


def killed_at(event: int, action: Callable[[], object]) -> bool:
    """Whether a copy of this process reaches its nth file, where it is killed."""
    child = os.fork()
    if child == 0:
        left = iter(range(event))

        def watch(name: str, values: tuple) -> None:
            writes = (
                name == "open" and isinstance(values[1], str) and "r" not in values[1]
            )
            if (writes or name == "os.rename") and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)  # the threads of the parent are not in its copy
        sys.addaudithook(watch)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_weights_measured_again_are_what_they_were_but_for_the_measure(
    exported, tmp_path
):
    before, out = json.loads((exported / "card.json").read_text()), tmp_path / "again"
    again = remeasure(str(exported), out, n=64, steps=2)
    assert again["measured"] == before["measured"]
    assert again["commands"][:-1] == before["commands"]
    assert again["commands"][-1].startswith(f"ddpm remeasure {exported}")
    assert again["sha256"] == before["sha256"]
    assert {f.name for f in out.iterdir()} == {f.name for f in exported.iterdir()}
    early = remeasure(str(exported), out, n=64, steps=2, t_end=3)["measured"]
    assert early["t_end"] == 3 and early["scores"] != before["measured"]["scores"]
    assert early["held-out loss"] == before["measured"]["held-out loss"]


def test_weights_are_drawn_as_their_card_was_measured(exported, tmp_path):
    out = tmp_path / "anew"
    card = remeasure(str(exported), out, n=64, steps=3, sampler="ancestral")
    assert card["commands"][-1].endswith("--n 64 --steps 3 --sampler ancestral")
    before = json.loads((exported / "card.json").read_text())["measured"]
    assert card["measured"]["sampler"] == "ancestral"
    assert card["measured"]["scores"] != before["scores"]
    assert "With 3 steps of ancestral sampling, seed 0" in card_text(card)
    assert SAMPLING.keys() == SAMPLERS.keys()  # a card can name each of them
    assert drawn_as(str(out), None, None) == (3, "ancestral")
    assert drawn_as(str(out), 7, None) == (7, "ancestral")
    assert drawn_as(str(out), None, "ddim") == (3, "ddim")
    assert drawn_as(str(exported), None, None) == (2, "ddim")
    assert drawn_as(str(exported.parent / "tiny"), None, None) == (50, "ddim")  # a run


@pytest.mark.parametrize(
    ("measured", "answer"),
    [
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"sampler": "best"}, "unknown sampler 'best'; there is: ddim, "),
        ({"sampler": []}, ""),
        ([], ""),
    ],
)
def test_a_card_that_does_not_say_how_to_draw_is_named(
    exported, tmp_path, measured, answer
):
    copied = tmp_path / "copied"
    shutil.copytree(exported, copied)
    card = json.loads((copied / "card.json").read_text()) | {"measured": measured}
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"card\.json, 'measured': {answer}"):
        drawn_as(str(copied), None, None)
    assert drawn_as(str(copied), 5, "heun") == (5, "heun")


def test_rescaled_weights_are_measured_anew(exported, tmp_path):
    rescale(str(exported), tmp_path / "rescaled", "head=2")
    measured = remeasure(str(tmp_path / "rescaled"), tmp_path / "new", n=64, steps=2)
    before = json.loads((exported / "card.json").read_text())
    assert measured["gains"] == {"head": 2.0}
    assert measured["measured"]["scores"] != before["measured"]["scores"]
    assert "held-out loss" not in measured["measured"]
    same = "the same of held-out images"
    assert measured["measured"][same] == before["measured"][same]
    words = (tmp_path / "new" / "README.md").read_text()
    assert "(chapter 14): head by 2" in words and "Nothing yet" not in words


@pytest.mark.parametrize(
    ("field", "value", "answer"),
    [
        ("commands", None, "must have 'commands', a list"),
        ("commands", "ddpm train", "must have 'commands', a list"),
        ("measured", [], "must have 'measured', an object"),
    ],
)
def test_a_card_that_cannot_be_added_to_is_refused_before_any_cost(
    exported, tmp_path, field, value, answer
):
    copied = tmp_path / "copied"
    shutil.copytree(exported, copied)
    card = json.loads((copied / "card.json").read_text()) | {field: value}
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"copied.card\.json {answer}"):
        remeasure(str(copied), tmp_path / "again", n=64, steps=2)
    assert not (tmp_path / "again").exists()


def test_an_export_killed_at_any_file_leaves_whole_weights(exported, tmp_path):
    """Old or new, never half; and the next export clears up."""
    folder, out = exported.parent / "tiny", tmp_path / "weights"
    shutil.copytree(exported, out)
    old = (out / "card.json").read_text()
    action = partial(export, folder, out, n=32, steps=1, measure=False)
    deaths = 0
    while killed_at(deaths, action):
        deaths += 1
        whole = current_folder(out)
        load_model(whole)
        assert (whole / "README.md").read_text() == card_text(
            json.loads((whole / "card.json").read_text())
        )
    assert deaths > 5
    assert (out / "card.json").read_text() != old
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_exported_weights_are_the_averaged_ones(exported):
    average = Run.open(exported.parent / "tiny").ema.net.state_dict()
    for name, tensor in load_model(exported).net.state_dict().items():
        assert torch.equal(tensor, average[name].half().float()), name


def test_an_unfinished_run_is_not_exported(tmp_path):
    run = Run.begin(tmp_path / "run", TINY)
    rows = run.rows()
    next(rows), next(rows)
    with pytest.raises(ValueError, match="is at step 1 of 6: go on with --resume"):
        export(tmp_path / "run", tmp_path / "weights", n=64, steps=2)


def test_a_text_model_is_measured_on_its_prompts(tiny_clip, tmp_path):
    preset = TINY.replace(
        text=tiny_clip, pooled=16, context=16, epochs=1, absent=("red+van",)
    )
    Run.begin(tmp_path / "run", preset).train()
    card = export(tmp_path / "run", tmp_path / "weights", n=64, steps=2, scale=3.0)
    prompts = card["measured"]["prompts"]
    assert prompts["scale"] == 3 and prompts.keys() == {"scale", "obeyed", "red+van"}
    shares = prompts["obeyed"]
    assert 0 <= shares["all"] <= min(shares["body"], shares["colour"], shares["time"])
    said = (tmp_path / "weights" / "README.md").read_text()
    assert "| red+van | " in said and f"with captions, encoded by {tiny_clip}" in said
    assert card["commands"][-1].endswith("--scale 3.0")
    assert load_model(tmp_path / "weights").encoder.widths == (16, 16)


def test_a_card_names_the_latents(exported):
    card = json.loads((exported / "card.json").read_text())
    card["config"]["latent"] = "toy-cars-autoencoder-32"
    assert ",\nin the latents of toy-cars-autoencoder-32." in card_text(card)


@pytest.mark.parametrize("card", sorted(WEIGHTS.glob("*/card.json")), ids=str)
def test_cards_that_ship_are_put_into_words_as_they_stand(card):
    """The text of a card is made from its figures: no figure is typed by hand."""
    values = json.loads(card.read_text(encoding="utf-8"))
    text = card.with_name("README.md").read_text(encoding="utf-8")
    assert text == card_text(values)


def test_a_card_says_what_was_taught_and_how(exported):
    card = json.loads((exported / "card.json").read_text())
    assert "- Predicts: v; cosine schedule, T = 20.\n" in card_text(card)
    config = card["training"]
    card["config"]["zero_terminal_snr"] = True
    config |= {"min_snr": 5.0, "teacher": "old", "calls": 2}
    said = card_text(card)
    assert "T = 20, rescaled to end in pure noise; loss weighted by min(SNR, 5)" in said
    assert "distilled from 32 calls to 2." in said and "a student of old" in said
    config["calls"] = 0
    assert "from 32 calls to straight paths for any number." in card_text(card)


def test_photos_are_measured_on_the_features_that_are_named(tmp_path):
    cars = draw_toy_cars(192, size=32)  # in place of photos: no attributes are read
    packed = tmp_path / "packed"
    write_packed(packed, cars.images)
    run = tmp_path / "run"
    Run.begin(run, TINY.replace(data=str(packed), epochs=1)).train()
    card = export(run, tmp_path / "out", n=64, steps=2, features="imagenet")
    assert card["commands"][-1].endswith("--steps 2 --features imagenet")
    assert "features of EfficientNet-Lite0 (ImageNet)" in card["measured"]["scores"]
    assert "Frechet distance" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ValueError, match="65 photos that were not trained on"):
        export(run, tmp_path / "other", n=65, steps=2, features="imagenet")


def test_toy_cars_are_measured_on_their_classifier_alone(exported, tmp_path):
    with pytest.raises(ValueError, match="classifier's features, not on imagenet"):
        export(exported.parent / "tiny", tmp_path, n=64, steps=2, features="imagenet")
