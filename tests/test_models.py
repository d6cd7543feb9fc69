"""Weights on disk: their round trip, their hash, their refusals; sampling from them."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddpm_core.config import ModelConfig
from ddpm_core.latent import load_latent
from ddpm_core.models import (
    DiffusionModel,
    HalfPrecision,
    load_autoencoder,
    load_encoder,
    load_model,
    quick,
    step_generators,
)
from ddpm_core.samplers import SAMPLERS, last, noise_like
from ddpm_core.unet import UNet, UNetConfig
from ddpm_core.weights import WEIGHTS, find_weights, load_weights, save_weights
from ddpm_core.workshop.evaluation import draw_samples

TINY = ModelConfig(
    size=16,
    T=50,
    network=UNetConfig((8, 16), (False, True), blocks=1, groups=4, dropout=0.5),
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    net = UNet(TINY.network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path / "tiny"
    save_weights(folder, net.state_dict(), {"name": "tiny", "config": TINY.to_dict()})
    return folder, net


def test_weights_come_back_as_stored_in_half_precision(saved):
    folder, net = saved
    model = load_model(folder)
    assert model.config == TINY and not model.net.training
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name].half().float())


def test_samples_are_images_and_repeat_from_their_seed(saved):
    model = load_model(saved[0])
    x_T = model.noise(3, torch.Generator().manual_seed(1))
    for sampler in SAMPLERS:

        def once(sampler=sampler):
            g = torch.Generator().manual_seed(2)
            return last(model.sample(x_T, 5, sampler, generator=g))

        x = once()
        assert x.shape == (3, 3, 16, 16) and x.abs().max() <= 1 and x.std() > 0.05
        assert torch.equal(x, once())


def test_half_precision_is_near_and_comes_back_as_fp32(saved):
    model = load_model(saved[0])
    half = HalfPrecision(model.net, torch.bfloat16)
    x, t = model.noise(3, torch.Generator().manual_seed(1)), torch.full((3,), 20)
    got, wanted = half(x, t), model.net(x, t)
    assert got.dtype == torch.float32 and (got - wanted).abs().max() > 0
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.05)
    if not torch.cuda.is_available():
        assert quick(model).net is model.net


def test_the_noise_of_the_steps_is_not_that_of_the_start(saved):
    """One seed for both, and yet the first step does not add x_T once more."""
    x_T = load_model(saved[0]).noise(4, torch.Generator().manual_seed(7))
    first = noise_like(x_T, step_generators(7, 4))
    pair = torch.stack([x_T.flatten(), first.flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.1


def test_steps_beyond_T_are_refused(saved):
    model = load_model(saved[0])
    with pytest.raises(ValueError, match=r"1\.\.50, got 2000: the model knows T = 50"):
        model.sample(model.noise(1), 2000)
    with pytest.raises(ValueError, match="'euler'; there is: ddim, ancestral, dpm-"):
        model.sample(model.noise(1), 5, "euler")


def test_a_changed_file_is_noticed(saved):
    folder, _ = saved
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is not the file of its card: sha256"):
        load_weights(folder)


def test_weights_that_do_not_fit_their_card_are_refused(saved):
    folder, _ = saved
    card = json.loads((folder / "card.json").read_text())
    card["config"]["network"]["channels"] = [8, 24]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"do not fit their card: \d+ tensors differ"):
        load_model(folder)


def test_a_pickle_is_never_read(saved):
    folder, net = saved
    torch.save(net.state_dict(), folder / "weights.safetensors")
    with_hash(folder)
    with pytest.raises(ValueError, match="no readable safetensors"):
        load_model(folder)


def test_an_unknown_name_lists_what_ships():
    with pytest.raises(FileNotFoundError, match="'trucks'; there is: .*toy-cars-32"):
        load_model("trucks")


def test_the_denoiser_is_clipped(saved):
    model: DiffusionModel = load_model(saved[0])
    x0_hat = model.denoiser()(9 * model.noise(2), torch.tensor([50, 50]))
    assert x0_hat.abs().max() <= 1


# With prompts -----------------------------------------------------------------------


@pytest.fixture
def told(tiny_clip) -> DiffusionModel:
    """An untrained text model whose every part has an effect."""
    torch.manual_seed(0)
    preset = TINY.replace(text=tiny_clip, pooled=16, context=16)
    net = UNet(preset.network).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return DiffusionModel(net, preset, load_encoder(preset, "cpu"))


def test_a_scale_of_0_is_the_empty_prompt_and_1_the_prompt(told):
    x, t = told.noise(2, torch.Generator().manual_seed(0)), torch.tensor([40, 40])
    prompts, empty = ["a red van at night", "a blue SUV by day"], ["", ""]
    red = told.denoiser(prompts)(x, t)
    none = told.denoiser(empty)(x, t)
    assert (red - none).abs().max() > 1e-3
    assert torch.equal(told.denoiser(prompts, scale=0)(x, t), none)
    near_one = told.denoiser(prompts, scale=1 + 1e-6)(x, t)
    torch.testing.assert_close(near_one, red, atol=1e-4, rtol=0)
    torch.testing.assert_close(told.denoiser(empty, scale=7)(x, t), none)
    away = told.denoiser(empty, scale=0, negative=prompts[0])(x, t)
    torch.testing.assert_close(away[:1], red[:1])


def test_prompts_and_models_must_fit(told, saved, tiny_clip):
    with pytest.raises(ValueError, match="without captions: it takes no prompts"):
        load_model(saved[0]).denoiser(["a red van"])
    with pytest.raises(ValueError, match="give one a sample, '' for none"):
        told.denoiser()
    with pytest.raises(ValueError, match="3 samples need as many conditions, got 2"):
        last(told.sample(told.noise(3), 2, prompts=["", ""]))
    with pytest.raises(ValueError, match="unknown word 'pink'"):
        last(told.sample(told.noise(1), 2, prompts=["a pink van"]))
    unfit = told.config.replace(pooled=8)
    with pytest.raises(
        ValueError, match=r"widths \(16, 16\), the network takes \(8, 16"
    ):
        load_encoder(unfit, "cpu")


def test_a_guide_is_what_guidance_leads_away_from(told, saved):
    x, t = told.noise(2, torch.Generator().manual_seed(0)), torch.tensor([40, 40])
    model = load_model(saved[0])
    worse = DiffusionModel(UNet(TINY.network).eval(), TINY)
    alone, other = model.denoiser()(x, t), worse.denoiser()(x, t)
    away = model.denoiser(guide=worse, scale=3)(x, t)
    assert (alone - other).abs().max() > 1e-3
    torch.testing.assert_close(away, (other + 3 * (alone - other)).clamp(-1, 1))
    assert torch.equal(model.denoiser(guide=worse)(x, t), alone)
    torch.testing.assert_close(model.denoiser(guide=model, scale=9)(x, t), alone)
    prompts = ["a red van at night", "a blue SUV by day"]  # both get these
    red = told.denoiser(prompts)(x, t)
    torch.testing.assert_close(told.denoiser(prompts, guide=told, scale=5)(x, t), red)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"size": 8}, r"draws, \(3, 16, 16\), got one that draws \(3, 8, 8\)"),
        ({"T": 40}, "cosine of T = 50, got cosine of T = 40"),
        ({"schedule": "linear"}, "cosine of T = 50, got linear of T = 50"),
    ],
)
def test_a_guide_must_draw_the_same_images_in_the_same_steps(saved, changed, why):
    config = TINY.replace(**changed)
    guide = DiffusionModel(UNet(TINY.network).eval(), config)
    with pytest.raises(ValueError, match=why):
        load_model(saved[0]).denoiser(guide=guide, scale=2)


def test_a_guide_takes_prompts_where_the_model_does(told, saved):
    guide = DiffusionModel(UNet(TINY.network).eval(), TINY)
    why = "take prompts as the model does"
    with pytest.raises(ValueError, match=why):
        told.denoiser(["a van"], guide=guide, scale=2)
    with pytest.raises(ValueError, match=why):
        load_model(saved[0]).denoiser(guide=told, scale=2)


def test_a_guide_draws_latents_of_the_same_autoencoder(tiny_autoencoder):
    network = replace(TINY.network, image_channels=2)
    model, guide = (
        DiffusionModel(UNet(network), TINY, latent=load_latent(tiny_autoencoder))
        for _ in range(2)
    )
    x, t = model.noise(1), torch.tensor([40])
    assert model.denoiser(guide=guide, scale=2)(x, t).shape == x.shape
    guide.latent.std.mul_(1.5)
    with pytest.raises(ValueError, match="latents of the model's autoencoder"):
        model.denoiser(guide=guide, scale=2)


def test_a_guide_takes_the_place_of_a_negative_prompt(told):
    with pytest.raises(ValueError, match="a guide or a negative prompt"):
        told.denoiser(["a van"], guide=told, negative="a van", scale=2)


# In latents -------------------------------------------------------------------------


def test_a_latent_model_and_its_autoencoder_must_fit(tiny_autoencoder):
    preset = TINY.replace(latent=tiny_autoencoder, size=16, image_channels=2, patch=1)
    latent = load_autoencoder(preset, "cpu")
    model = DiffusionModel(UNet(preset.network), preset, latent=latent)
    x = model.noise(2)
    assert x.shape == (2, 2, 4, 4)
    assert torch.equal(model.decode(x), latent.decode(x))
    assert load_autoencoder(TINY, "cpu") is None
    with pytest.raises(ValueError, match="of 16 pixels and gives 2 channels, the mod"):
        load_autoencoder(preset.replace(size=32), "cpu")
    with pytest.raises(ValueError, match="gives 2 channels.*image_channels = 4"):
        load_autoencoder(preset.replace(image_channels=4), "cpu")
    deep = preset.replace(channels=(8, 8, 8, 8), attention=(False,) * 4)
    with pytest.raises(ValueError, match="4x4 do not fit this network.*multiples of 8"):
        load_autoencoder(deep, "cpu")
    with pytest.raises(FileNotFoundError, match="no weights named 'nowhere'"):
        load_autoencoder(preset.replace(latent="nowhere"), "cpu")


# The same image for every n ---------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_i_is_the_same_for_every_n_and_chunk(saved, sampler):
    draw = partial(draw_samples, load_model(saved[0]), steps=5, sampler=sampler, seed=3)
    seven = draw(7, chunk=7)
    assert (seven[0] - seven[1]).abs().mean() > 0.05
    for n, chunk in ((7, 3), (4, 4), (5, 1)):
        torch.testing.assert_close(draw(n, chunk=chunk), seven[:n], atol=1e-4, rtol=0)
    assert (draw(7, chunk=7, seed=4) - seven).abs().mean() > 0.05


def test_starting_points_do_not_depend_on_how_many_there_are(tiny_autoencoder):
    """Also where an image's numbers do not fill the blocks in which torch draws."""
    odd = TINY.replace(size=6, channels=(8,), attention=(False,))
    model = DiffusionModel(UNet(odd.network), odd)
    g = torch.Generator().manual_seed(1)
    few = torch.cat([model.noise(1, g), model.noise(2, g)])
    assert torch.equal(model.noise(5, torch.Generator().manual_seed(1))[:3], few)


def test_starting_points_are_those_of_one_draw(saved):
    x_T = load_model(saved[0]).noise(3, torch.Generator().manual_seed(1))
    at_once = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(x_T, at_once)


# Damaged weights --------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70_000.0])
def test_what_fp16_cannot_hold_is_not_saved(saved, tmp_path, value):
    state = saved[1].state_dict()
    state["head.bias"] = torch.full((3,), value)
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match="the tensor head.bias cannot be saved: it ho"):
        save_weights(folder, state, {"name": "new", "config": {}})
    assert not folder.exists()


def with_hash(folder):
    """Write the card of the weights that lie in the folder."""
    data = (folder / "weights.safetensors").read_bytes()
    card = json.loads((folder / "card.json").read_text())
    card["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def test_stored_nan_is_refused(saved):
    folder, net = saved
    state = net.state_dict() | {"head.bias": torch.full((3,), float("nan"))}
    save_file(state, folder / "weights.safetensors")
    with_hash(folder)
    with pytest.raises(
        ValueError, match=r"head\.bias of .*weights\.safetensors cannot"
    ):
        load_model(folder)


CARDS = {
    "empty": ("", "is not JSON"),
    "cut off": ('{"config": {', "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "a long number": ("9" * 5000, "is not JSON"),
    "a list": ("[]", r"must hold an object, got \[\]"),
    "null": ("null", "must hold an object, got None"),
    "no config": ("{}", r"must have a 'config' \(an object\), got none"),
    "config a list": (
        '{"config": []}',
        r"must have a 'config' \(an object\), got \[\]",
    ),
    "no hash": ('{"config": {}}', r"must have a 'sha256' \(text\), got none"),
    "hash a number": ('{"config": {}, "sha256": 1}', "must have a 'sha256'.*got 1"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_damaged_card_is_named(saved, name):
    text, why = CARDS[name]
    (saved[0] / "card.json").write_text(text)
    with pytest.raises(ValueError, match=rf"tiny/card\.json {why}") as raised:
        load_model(saved[0])
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", 1.0),
        ("channels", "8,16"),
        ("channels", [8, "16"]),
        ("attention", [0, 1]),
        ("dropout", None),
        ("heads", 10**400),
        ("unknown", 1),
    ],
)
def test_a_field_of_another_type_is_named(saved, no_type_checks, field, value):
    card = json.loads((saved[0] / "card.json").read_text())
    card["config"]["network"][field] = value
    (saved[0] / "card.json").write_text(json.dumps(card))
    named = rf"tiny/card\.json, 'config': .*{field}"
    with pytest.raises(ValueError, match=named) as raised:
        load_model(saved[0])
    assert "\n" not in str(raised.value)


def test_a_folder_without_weights_is_named(saved):
    (saved[0] / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds a card, but no weights.safe"):
        load_model(saved[0])


def test_a_path_is_that_path_and_a_bare_name_must_be_one(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "toy-cars-32"
    saved[0].rename(own)
    for path in ("./toy-cars-32", str(own), Path("toy-cars-32"), "toy-cars-32/"):
        assert find_weights(path).samefile(own)
    with pytest.raises(
        ValueError, match=r"'toy-cars-32' names weights that ship .*\./"
    ):
        find_weights("toy-cars-32")
    assert find_weights("toy-cars-flow-32") == WEIGHTS / "toy-cars-flow-32"
    with pytest.raises(
        FileNotFoundError, match="no weights in the folder './toy-cars-f"
    ):
        find_weights("./toy-cars-flow-32")
    monkeypatch.chdir(WEIGHTS)
    assert find_weights("toy-cars-32").samefile(WEIGHTS / "toy-cars-32")
    for name in ("", "a" * 10_000, "a\0b", "."):
        with pytest.raises(FileNotFoundError) as raised:
            find_weights(name)
        assert len(str(raised.value)) < 600
