"""Gains multiply what a layer puts out; weights with them are made and measured."""

import json

import pytest
import torch
from torch import nn

from ddpm_core.datasets import PackedImages, draw_toy_cars, to_float, write_packed
from ddpm_core.models import load_model
from ddpm_core.weights import load_weights
from ddpm_core.workshop import gains
from ddpm_core.workshop.batches import load_split
from ddpm_core.workshop.presets import PLAIN

LAYERS = ("up.0.upsample", "middle_in.conv2", "up.0.attentions.0.out", "head")


def output_of(net: nn.Module, layer: str) -> torch.Tensor:
    """What the layer puts out when the network gets noise."""
    seen = []
    hook = net.get_submodule(layer).register_forward_hook(lambda *a: seen.append(a[-1]))
    with torch.no_grad():
        net(torch.ones(1, 3, 32, 32), torch.tensor([500]))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_gain_multiplies_what_a_layer_puts_out_and_nothing_before_it(layer):
    net = load_model("toy-cars-32").net
    before, first = output_of(net, layer), output_of(net, "down.0.residuals.0.conv1")
    gains.amplify(net, gains.read_gains(f"{layer}=1.5", net))
    torch.testing.assert_close(output_of(net, layer), 1.5 * before)
    assert torch.equal(output_of(net, "down.0.residuals.0.conv1"), first)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"no layer is named ''; nearest: "),
        (
            "up.0.upsampel=2",
            r"no layer is named 'up.0.upsampel'; nearest: up.0.ups",
        ),
        ("up.0=2", "no layer is named 'up.0'"),
        ("norm=2", "no layer is named 'norm'"),
        ("head", r"gain of head must be in 0.1..10, got ''"),
        ("head=nan", r"gain of head must be in 0.1..10, got 'nan'"),
        ("head=0", r"gain of head must be in 0.1..10, got '0'"),
        ("head=10.1", r"gain of head must be in 0.1..10, got '10.1'"),
        ("head=1,head=2", "each layer takes one gain, got head twice"),
    ],
)
def test_bad_gains_get_one_line(text, why):
    net = load_model("toy-cars-32").net
    with pytest.raises(ValueError, match=why) as error:
        gains.read_gains(text, net)
    assert len(str(error.value)) < 250


def test_rescaled_weights_differ_in_their_layers_alone_and_say_so(tmp_path):
    """What was measured of other weights is gone; gains that were there are undone."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    gains.rescale("toy-cars-32", once, "stem=2")
    gains.rescale(str(once), twice, "up.0.upsample=3, head=0.5")
    (old, before), (new, card) = load_weights("toy-cars-32"), load_weights(twice)
    chosen = {"up.0.upsample": 3.0, "head": 0.5}
    for name, weights in old.items():
        gain = chosen.get(name.rpartition(".")[0], 1.0)
        torch.testing.assert_close(new[name], gain * weights, rtol=2e-3, atol=1e-6)
        assert gain != 1 or torch.equal(new[name], weights)
    assert not torch.equal(load_weights(once)[0]["stem.weight"], old["stem.weight"])
    assert card["gains"] == chosen and card["measured"] == {}
    assert card["commands"] == [
        *before["commands"],
        f"ddpm rescale toy-cars-32 {once} stem=2",
        f"ddpm rescale {once} {twice} 'up.0.upsample=3, head=0.5'",
    ]
    said = "multiplied after the training (chapter 14): up.0.upsample by 3, head by 0.5"
    words = (twice / "README.md").read_text()
    assert said in words and "Nothing yet" in words


@pytest.mark.parametrize("name", ["toy-cars-autoencoder-32", "toy-cars-classifier-32"])
def test_only_diffusion_models_are_rescaled(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is no diffusion model, but: "):
        gains.rescale(name, tmp_path / "new", "head=1")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([], "must have 'gains' as an object"),
        ({"nose": 2}, "cannot be used: gains are .* no layer is named 'nose'"),
        ({"head": 0}, "cannot be used: the gain of head must be in 0.1..10, got '0'"),
    ],
)
def test_a_card_with_wrong_gains_is_named(tmp_path, wrong, why):
    gains.rescale("toy-cars-32", tmp_path / "loud", "stem=2")
    card = json.loads((tmp_path / "loud" / "card.json").read_text())
    (tmp_path / "loud" / "card.json").write_text(json.dumps(card | {"gains": wrong}))
    with pytest.raises(ValueError, match=f"the card of .*loud {why}"):
        gains.rescale(str(tmp_path / "loud"), tmp_path / "new", "stem=1")


def test_gains_are_chosen_on_photos_that_do_not_measure_the_model(tmp_path):
    data = str(tmp_path / "photos")
    write_packed(tmp_path / "photos", draw_toy_cars(96, workers=1).images)
    trained = PLAIN.replace(data=data, held_out=64)
    real, other = gains.images_to_choose_on(trained, 16)
    held = to_float(PackedImages.open(data).images[load_split(trained).held_out])
    assert torch.equal(real, held[-16:]) and torch.equal(other, held[-32:-16])
    with pytest.raises(ValueError, match="--n must be at most 32, half of the photos"):
        gains.images_to_choose_on(trained, 33)


def test_a_row_for_each_of_the_gains_and_seeds(tmp_path):
    out = tmp_path / "gains.json"
    words = ["toy-cars-32", "up.0.upsample=1", "head=0.5,up.0.upsample=1.1"]
    more = {"seeds": "1,2", "n": 16, "calls": 2, "features": "classifier"}
    gains.main(words[0], words[1:], out, **more)
    table = json.loads(out.read_text())
    assert table["command"] == (
        "ddpm measure-gains toy-cars-32 up.0.upsample=1 head=0.5,up.0.upsample=1.1 "
        f"--out {out} --seeds 1,2 --n 16 --calls 2 --features classifier"
    )
    keys = [(row["gains"], row["seed"]) for row in table["rows"]]
    wanted = ({}, {"up.0.upsample": 1.0}, {"head": 0.5, "up.0.upsample": 1.1})
    assert keys == [(chosen, seed) for chosen in wanted for seed in (1, 2)]
    frechet = [row["frechet"] for row in table["rows"]]
    assert frechet[:2] == frechet[2:4]  # a gain of 1 is none
    assert len(set(frechet)) == 4
    gains.rescale("toy-cars-32", tmp_path / "loud", "stem=2")
    gains.main(str(tmp_path / "loud"), ["head=2"], out, **more | {"seeds": "1"})
    first, second = (row["frechet"] for row in json.loads(out.read_text())["rows"])
    assert first == frechet[0] != second  # as trained, not as stored
