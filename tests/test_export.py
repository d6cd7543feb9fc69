"""From a finished run to weights with a card; and the cards that ship."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm_core.export import card_text, export
from ddpm_core.models import load_model
from ddpm_core.presets import Preset
from ddpm_core.runs import Run, read_log
from ddpm_core.unet import UNetConfig
from ddpm_core.weights import WEIGHTS

TINY = Preset(
    data="toy-cars",
    drawn=96,
    held_out=64,
    T=20,
    unet=UNetConfig((8, 16), (False, True), blocks=1, groups=4, patch=2),
    epochs=2,
    log_every=1,
    checkpoint_every=1,
    strips=(),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run = Run(folder, TINY)
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
    assert Image.open(exported / "samples.png").size == (8 * 33 + 1, 8 * 33 + 1)
    assert Image.open(exported / "nearest.png").size == (8 * 33 + 1, 4 * 33 + 1)
    assert Image.open(exported / "losses.png").size[0] > 400
    last = read_log(exported.parent / "tiny")[-1]
    assert card["measured"]["held-out loss"] == last["held_out"]


def test_exported_weights_are_the_averaged_ones(exported):
    average = Run.open(exported.parent / "tiny").ema.net.state_dict()
    for name, tensor in load_model(exported).net.state_dict().items():
        assert torch.equal(tensor, average[name].half().float()), name


def test_an_unfinished_run_is_not_exported(tmp_path):
    run = Run(tmp_path / "run", TINY)
    rows = run.rows()
    next(rows), next(rows)
    with pytest.raises(ValueError, match="stands at step 1 of 6: go on with --resume"):
        export(tmp_path / "run", tmp_path / "weights", n=64, steps=2)


@pytest.mark.parametrize("card", sorted(WEIGHTS.glob("*/card.json")), ids=str)
def test_cards_that_ship_are_put_into_words_as_they_stand(card):
    """The text of a card is made from its figures: no figure is typed by hand."""
    values, text = json.loads(card.read_text()), card.with_name("README.md").read_text()
    if "classifier" in values["name"]:
        return  # held by test_classifier
    assert text == card_text(values)
