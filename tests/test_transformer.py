"""The transformer and the U-Net of chapter 13: what is alike, and what a row holds."""

import json

import pytest
import torch

from ddpm_core.workshop import transformer


def test_the_two_cost_about_the_same():
    costs = [transformer.mflop(transformer.built(name, 0)) for name in ("DiT", "U-Net")]
    assert max(costs) < 1.1 * min(costs)
    assert 25 < min(costs) < 35


def test_the_held_out_loss_is_that_of_nothing_learned(generator):
    """A network that answers 0 has the mean square of the velocity, 1 for unit data."""
    z = torch.randn(400, 4, 8, 8, generator=generator)
    loss = transformer.held_out_loss(lambda x, t, cond: 0 * x, z)
    assert loss == pytest.approx(1, abs=0.02)


def test_rows_hold_the_losses_and_the_picture_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(transformer, "CARS", 40)
    monkeypatch.setattr(transformer, "CALLS", 1)
    monkeypatch.setattr(transformer, "EVERY", 1)
    out = tmp_path / "transformer.json"
    transformer.main(out, steps=2, seeds=1, n=100)
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["command"].startswith("ddpm measure-transformer --out")
    assert [row["name"] for row in table["rows"]] == ["DiT", "U-Net"]
    for row in table["rows"]:
        assert row["images"] == [32, 64] and row["losses"][1] < row["losses"][0]
    assert table["floor"] < table["decoded cars"] < table["rows"][0]["frechet"]
    assert out.with_suffix(".png").exists()
