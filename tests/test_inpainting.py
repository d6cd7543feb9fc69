"""Mask channels: how a network is widened, what it is shown, what a row holds."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.conditioning import beside
from ddpm_core.unet import UNet, UNetConfig
from ddpm_core.workshop import inpainting


@pytest.fixture
def net():
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(8, 16), attention=(False, True), blocks=1, groups=4, patch=2
    )
    net = UNet(config)
    for weight in net.parameters():  # those that start at zero would hide all
        torch.nn.init.normal_(weight, std=0.1)
    return net.eval().requires_grad_(False)


def test_a_widened_network_ignores_what_is_new(net, generator):
    x, t = torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([5, 500])
    condition = torch.randn(2, 4, 8, 8, generator=generator)
    wide = inpainting.widened(net, 4)
    torch.testing.assert_close(beside(wide, condition)(x, t), net(x, t))


def test_what_is_shown_hides_the_hole_and_says_where_it_is(generator):
    x0 = torch.rand(2, 3, 4, 4, generator=generator) + 1
    keep = torch.tensor([True, True, False, False]).expand(1, 1, 4, 4)
    seen = inpainting.shown(x0, keep)
    assert seen.shape == (2, 4, 4, 4)
    assert torch.equal(seen[:, :3, :, :2], x0[..., :2]) and not seen[..., 2:].any()
    assert (seen[:, 3, :, :2] == 1).all()


def test_holes_are_rectangles_and_bands_of_all_places(generator):
    masks = inpainting.random_masks(500, 8, generator)
    assert masks.shape == (500, 1, 8, 8) and masks.dtype == torch.bool
    missing = ~masks[:, 0]
    rows, columns = missing.any(2), missing.any(1)
    assert torch.equal(missing, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # without gaps
        assert (lines.int().diff(dim=1).abs().sum(1) <= 2).all()
        assert 0.3 < lines[lines.any(1)].all(1).float().mean() < 0.7
    often = missing.float().mean(0)
    assert often.min() > 0.25 and often.max() < 0.75


def test_fills_are_measured_against_originals(generator):
    def read(images):
        return torch.zeros(len(images), 5, dtype=torch.long)

    x0 = torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1
    keep, wanted = inpainting.right_half(8), torch.zeros(3, 5, dtype=torch.long)
    filled = x0.repeat_interleave(2, 0)
    exact = inpainting.measure(filled, x0, keep, wanted, read)
    assert exact["known"] == exact["hole"] == exact["spread"] == 0
    assert exact["seam"] == pytest.approx(1) and exact["body"] == 1
    filled = filled.clone()
    filled[::2] += 0.2
    filled[1::2] -= 0.2
    found = inpainting.measure(filled, x0, keep, wanted, read)
    assert found["known"] == pytest.approx(0.2, abs=1e-5)
    assert found["hole"] == pytest.approx(0.2, abs=1e-5)
    assert found["spread"] == pytest.approx(0.2 * 2**0.5, abs=1e-5)


def test_ways_are_measured_and_what_repeats_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(inpainting, "CARS", 40)
    monkeypatch.setattr(inpainting, "STEPS", 2)
    monkeypatch.setattr(inpainting, "BATCH", 4)
    tables = []
    for name in ("a.json", "b.json"):
        inpainting.main(tmp_path / name, steps=1, trainings=1, n=16, fills=2, seeds=2)
        tables.append(json.loads((tmp_path / name).read_text(encoding="utf-8")))
    first, again = tables
    assert first["command"].startswith("ddpm measure-inpainting --out")
    assert first["rows"] == again["rows"]
    rows = {(row["name"], row["seed"]): row for row in first["rows"]}
    assert rows["replacement", 0]["known"] == 0 < rows["guidance", 0]["known"]
    assert rows["resampling", 0]["calls"] == 2 + inpainting.ROUNDS - 1
    assert rows["mask channels", 0]["training"] == 0
    assert rows["pasted", 0]["spread"] != rows["pasted", 1]["spread"]
    picture = np.array(Image.open(tmp_path / "a.png"))
    assert picture.shape == (32, 16 * 32, 3)
