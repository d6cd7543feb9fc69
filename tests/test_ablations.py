"""The ablation of chapter 06: what is taken away, and what a row holds."""

import copy
import json

import pytest
import torch

from ddpm_core import unet
from ddpm_core.workshop import ablations


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = unet.UNet(ablations.TINY)
    for weight in net.parameters():  # those that start at zero would hide all
        torch.nn.init.normal_(weight, std=0.1)
    return net.requires_grad_(False)


def test_without_time_the_answer_does_not_depend_on_t(net, generator):
    x = torch.randn(2, 3, 16, 16, generator=generator)
    early, late = torch.tensor([1, 1]), torch.tensor([900, 900])
    assert not torch.allclose(net(x, early), net(x, late))
    silent = ablations.no_time(copy.deepcopy(net))
    torch.testing.assert_close(silent(x, early), silent(x, late))


def test_without_attention_none_is_left(net, generator):
    x, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([5, 500])
    cut = ablations.no_attention(copy.deepcopy(net))
    assert not any(isinstance(m, unet.Attention) for m in cut.modules())
    assert not torch.allclose(cut(x, t), net(x, t))


def test_variants_of_a_seed_are_trained_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "CARS", 40)
    monkeypatch.setattr(ablations, "BANDS", ((1, 500), (501, 1000)))
    monkeypatch.setattr(ablations, "PARTS", (ablations.full, ablations.full))
    ablations.parts(tmp_path / "parts.json", steps=2, seeds=2)
    table = json.loads((tmp_path / "parts.json").read_text(encoding="utf-8"))
    assert table["command"].startswith("ddpm measure-parts --out")
    first, same, other, _ = table["rows"]
    assert first["losses"] == same["losses"] != other["losses"]
    assert all(0.3 < loss < 2 for loss in first["losses"])
