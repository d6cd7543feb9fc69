"""Fine-tuning on few pictures: the table of chapter 'Fine-tuning'."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_core.models import load_model
from ddpm_core.workshop import few_pictures
from ddpm_core.workshop.few_pictures import WAYS, cars, pink_cars, share_pink

ROOT = Path(__file__).parents[1]


def test_pink_cars_are_counted_by_their_pixels():
    assert share_pink(pink_cars(100, seed=3)) > 0.97
    assert share_pink(cars(300, 32, seed=4)) < 0.01


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_training_changes_its_own_network_alone(way):
    model, base = load_model("toy-cars-32"), load_model("toy-cars-32")
    own, old = pink_cars(5, seed=0), cars(8, 32, seed=0)
    before = few_pictures.loss_on(base, own)
    few_pictures.fine_tune(model, own, old, way, steps=8, seed=0)
    assert model.net.state_dict().keys() == base.net.state_dict().keys()  # merged
    assert few_pictures.loss_on(model, own) < before
    assert few_pictures.loss_on(base, own) == before
    assert not any(p.requires_grad for p in model.net.parameters())


def test_old_pictures_hold_the_old_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(few_pictures, "SIZES", (5,))
    monkeypatch.setattr(few_pictures, "CALLS", 6)
    monkeypatch.setattr(few_pictures, "TIMES", 64)
    out = tmp_path / "few.json"
    few_pictures.main(out, steps=20, seeds=1, n=32)
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["command"].startswith("ddpm measure-few-pictures --out")
    found = {row["way"]: row for row in table["rows"]}
    assert list(found) == ["before", *WAYS]
    plain, prior = found["all weights"], found["all weights + prior"]
    kept = found["before"]["frechet old"], prior["frechet old"], plain["frechet old"]
    assert sorted(kept) == list(kept)
    assert plain["loss own"] < found["before"]["loss own"]


def test_a_copy_is_near():
    own = pink_cars(8, seed=0)
    assert few_pictures.distances(own, own).max() == 0
    usual = few_pictures.distances(pink_cars(8, seed=1), own).median()
    shifted = (own + 0.05).clamp(-1, 1)
    assert (few_pictures.distances(shifted, own) < 0.5 * usual).all()
    assert torch.isfinite(usual)
