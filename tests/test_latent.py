"""Latents: their distance and loss in closed form, their scale, weights, and card."""

import json
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_core.config import ModelConfig, UNetConfig
from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.latent import (
    LatentScaler,
    autoencoder_loss,
    load_latent,
    lpips_distance,
    perceptual_distance,
)
from ddpm_core.models import DiffusionModel
from ddpm_core.neighbours.vae import (
    VAE,
    Encoding,
    VAEConfig,
    kl_to_standard_normal,
    sample,
)
from ddpm_core.weights import load_weights, save_weights
from ddpm_core.workshop.latents import cached, encoded
from ddpm_core.workshop.side.autoencoder import (
    CONFIG,
    Finishing,
    load_images,
    main,
    measure,
)

TINY = VAEConfig(
    size=16, channels=(8, 16), latent=2, spatial=True, patch=2, groups=4
)  # to 4x4x2


class Affine(VAE):
    """Latents that are the means of the images' first channels, stretched and moved."""

    def encode(self, x):
        z = nn.functional.avg_pool2d(x[:, :2], 4)
        mean = z * torch.tensor([3.0, 0.1]).view(2, 1, 1) + 5
        return Encoding(mean, torch.zeros_like(mean))

    def decode(self, z):
        z = (z - 5) / torch.tensor([3.0, 0.1]).view(2, 1, 1)
        z = torch.cat([z, z[:, :1]], dim=1)
        return nn.functional.interpolate(z, scale_factor=4)


@pytest.fixture
def images(generator) -> torch.Tensor:
    """Images of 4x4 squares, which `Affine` keeps exactly."""
    squares = torch.rand(300, 2, 4, 4, generator=generator) * 2 - 1
    squares = torch.cat([squares, squares[:, :1]], dim=1)
    return nn.functional.interpolate(squares, scale_factor=4)


@pytest.fixture
def tiny() -> VAE:
    torch.manual_seed(0)
    return VAE(TINY)


# Distance and loss ------------------------------------------------------------------


def test_perceptual_distance_is_of_directions_at_each_position():
    x = torch.zeros(3, 2, 2, 2)
    y = x.clone()
    x[:, 0] = 1.0
    y[0, 0], y[1, 1], y[2, 0] = 5.0, 2.0, -1.0  # the same way, across, against
    stages = [nn.Identity()]
    expected = torch.tensor([0.0, 2.0, 4.0])
    torch.testing.assert_close(perceptual_distance(stages, x, y), expected)
    y[:, :, 0], x[:, :, 0] = 1.0, 1.0  # half of the positions now agree
    torch.testing.assert_close(perceptual_distance(stages * 2, x, y), expected)


def test_loss_is_the_weighted_sum_of_its_terms(tiny, generator):
    x = torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1

    def loss(**weights):
        g = torch.Generator().manual_seed(1)
        return autoencoder_loss(tiny, x, generator=g, **weights)

    x_hat, encoding = tiny(x, generator=torch.Generator().manual_seed(1))
    off = (x - x_hat).abs().flatten(1).mean(1)
    torch.testing.assert_close(loss(kl_weight=0.0), off)
    kl = kl_to_standard_normal(*encoding) / 32  # numbers of z
    torch.testing.assert_close(loss(kl_weight=0.5), off + 0.5 * kl)

    def halves(x, y):
        return torch.full((len(x),), 0.5)

    seen = loss(kl_weight=0.0, perceptual=halves, perceptual_weight=3.0)
    torch.testing.assert_close(seen, off + 1.5)


def test_lpips_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(RuntimeError, match="pip install lpips"):
        lpips_distance()


# The network and its latents --------------------------------------------------------


def test_latents_are_pictures_that_keep_their_place(tiny):
    assert TINY.latent_shape == (2, 4, 4) and CONFIG.latent_shape == (4, 8, 8)
    assert replace(CONFIG, size=64).latent_shape == (4, 16, 16)
    large = VAE(replace(TINY, size=64))
    large.load_state_dict(tiny.state_dict())  # the same weights serve every size
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    mean = large.encode(x).mean
    assert mean.shape == (1, 2, 16, 16)
    assert large.decode(mean).shape == x.shape
    (seen,) = torch.autograd.grad(mean[0, :, 0, 0].sum(), x)
    near, far = seen[0, :, :32, :32].abs().sum(), seen[0, :, 32:, 32:].abs().sum()
    assert near > 10 * far
    assert sample(tiny, 3).shape == (3, 3, 16, 16)


def test_scaled_latents_have_the_moments_of_noise_and_come_back(images):
    latent = LatentScaler(Affine(TINY)).fit(images)
    z = latent.encode(images, chunk=7)
    assert z.shape == (300, *latent.shape)
    by_channel = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_channel.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(by_channel.std(1), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.decode(z, chunk=7), images, atol=1e-4, rtol=0)
    expected = 3.0 * images[:, 0].std()
    torch.testing.assert_close(latent.std[0], expected, atol=0.02, rtol=0)
    torch.testing.assert_close(latent.fit(images).encode(images), z)  # fits anew


def test_what_cannot_be_scaled_is_refused(tiny):
    with pytest.raises(ValueError, match="pictures: spatial=True"):
        LatentScaler(VAE(replace(TINY, spatial=False)))
    with pytest.raises(ValueError, match="channel 0 of the latents never changes"):
        LatentScaler(Affine(TINY)).fit(torch.zeros(4, 3, 16, 16))


# Weights ----------------------------------------------------------------------------


def test_weights_come_back_with_their_scales(tiny, tmp_path):
    cars = to_float(draw_toy_cars(20, size=16).images)
    latent = LatentScaler(tiny).fit(cars).requires_grad_(False)
    card = {"name": "tiny", "config": TINY.to_dict()}
    save_weights(tmp_path / "tiny", latent.state_dict(), card)
    again = load_latent(tmp_path / "tiny")
    torch.testing.assert_close(again.std, latent.std, atol=0, rtol=1e-3)
    torch.testing.assert_close(
        again.encode(cars), latent.encode(cars), atol=0.02, rtol=0
    )
    assert VAEConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    with pytest.raises(ValueError, match="not a VAEConfig: .*side"):
        VAEConfig.from_dict({"side": 16})


def test_stored_latents_are_checked_and_replaced(tiny, images, tmp_path):
    stored = np.full((5, 16, 16, 3), 7, np.uint8)
    stored[2:] = 200
    latent = LatentScaler(tiny).fit(images).requires_grad_(False)
    right = encoded(stored, latent, flip=True)
    for damage in ("flip", "cut", "empty", "none"):
        found = cached(tmp_path / "kept", stored, latent, flip=True)
        assert torch.equal(found, right)
        (path,) = (tmp_path / "kept").iterdir()  # and nothing beside it
        data = bytearray(path.read_bytes())
        changed = {"cut": data[:-8], "empty": b"", "none": bytes(data)}
        data[-3] ^= 1
        path.write_bytes({"flip": data, **changed}[damage])
    assert torch.equal(cached(tmp_path / "kept", stored, latent, flip=True), right)


def test_latents_that_cannot_be_stored_serve_all_the_same(tiny, images, tmp_path):
    stored = np.full((5, 16, 16, 3), 7, np.uint8)
    (tmp_path / "kept").write_text("a file, where a folder should be")
    latent = LatentScaler(tiny).fit(images).requires_grad_(False)
    found = cached(tmp_path / "kept", stored, latent, flip=False)
    assert torch.equal(found, encoded(stored, latent, flip=False))


def test_a_wrong_end_in_a_card_is_named(tiny_autoencoder, tmp_path):
    copytree(tiny_autoencoder, tmp_path / "w")
    path = tmp_path / "w" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"t_end": -1}))
    with pytest.raises(ValueError, match=r"card\.json.*: t_end must be at least 0"):
        load_latent(tmp_path / "w")


def test_measure_tells_decibels(images):
    class Brighter(Affine):
        def decode(self, z):
            return super().decode(z) + 0.02

    small = 0.5 * images  # nothing is clipped
    exact, brighter = (
        measure(LatentScaler(net(TINY)).fit(small), small, False)["psnr"]
        for net in (Affine, Brighter)
    )
    assert exact > 80
    assert brighter == pytest.approx(40, abs=0.01)  # 10 log10(4 / 0.02^2)


def test_the_command_trains_measures_and_writes_a_card(tmp_path, capsys):
    out = tmp_path / "tiny-autoencoder"
    main(
        out, "toy-cars", 32, 64, 1, 16, 1e-3, 3e-3, "classifier", 0.1, 0, 64
    )  # as the command line calls it
    card = json.loads((out / "card.json").read_text())
    assert card["images seen"] == 64 and set(card["measured"]["kept"]) > {"body"}
    (command,) = card["commands"]
    assert "--kl-weight 0.003" in command and "--cars 64" in command
    assert (out / "reconstructions.webp").exists()
    said = (out / "README.md").read_text()
    assert "8x8 positions with 4 channels, 12 times fewer" in said
    assert load_latent(out).shape == (4, 8, 8)
    again = tmp_path / "refined"
    main(
        again, cars=64, passes=1, test=64, lr=1e-2, mirrored=0.5, refine=str(out),
        decoder_blocks=2,
    )  # fmt: skip
    before, after = load_latent(out), load_latent(again)
    assert after.autoencoder.config.decoder_blocks == 2
    for name, tensor in before.state_dict().items():
        if not name.startswith("autoencoder.decoder"):
            torch.testing.assert_close(after.state_dict()[name], tensor, msg=name)
    cars = to_float(draw_toy_cars(8, size=32).images)
    z = before.encode(cars)
    torch.testing.assert_close(after.encode(cars), z)
    assert not torch.allclose(after.decode(z), before.decode(z), atol=0.01)
    commands = json.loads((again / "card.json").read_text())["commands"]
    assert "--cars 64" in commands[0] and "--refine" in commands[1]
    with pytest.raises(Exception, match="choose classifier, efficientnet, lpips or"):
        main(out, perceptual="vgg")
    for alone, why in (
        ({"finishes": "toy-cars-32"}, "needs --refine"),
        ({"finishes": "toy-cars-32", "refine": "x", "t_end": 9}, "1..--noised-to"),
        ({"t_end": 100}, "belong to --finishes"),
        ({"data": "photos"}, "the classifier knows toy cars, not photos"),
        ({"refine": "x", "encoder": "resized"}, "--encoder has no effect"),
        ({"refine": "toy-cars-autoencoder-32", "size": 64}, "--size 32, got 64"),
    ):
        with pytest.raises(Exception, match=why):
            main(out, **alone)


class Halving(DiffusionModel):
    """A stand-in for a trained model: the estimate is half of what it is given."""

    def denoiser(self):
        return lambda x_t, t: x_t / 2


def halving(latent: LatentScaler | None) -> Halving:
    net = UNetConfig((8,), (False,), groups=4, image_channels=2)
    config = ModelConfig(size=16, network=net, T=100, latent="it" if latent else "")
    return Halving(config.make_network(), config, latent=latent)


def test_a_decoder_that_finishes_sees_what_the_model_makes_of_noise(tiny_autoencoder):
    latent = load_latent(tiny_autoencoder)
    x = to_float(draw_toy_cars(64, size=16).images)
    z, model = latent.encode(x), halving(latent)
    finishing = Finishing(latent, model, noised_to=1)
    seen = finishing.blurred(z, torch.Generator().manual_seed(0))
    same = (seen == z).flatten(1).all(1)
    assert 16 < same.sum() < 48  # t is 0 for half of them
    keep = model.schedule.alpha_bar[1].sqrt()
    torch.testing.assert_close(seen[~same], keep * z[~same] / 2, atol=0.1, rtol=0)
    image, _ = finishing(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(image.clamp(-1, 1), latent.decode(seen))
    with pytest.raises(ValueError, match=r"got one that draws \(2, 16, 16\)"):
        Finishing(latent, halving(None), 1)
    with pytest.raises(ValueError, match=r"noised_to must lie in 1\.\.100, got 101"):
        Finishing(latent, model, 101)


def test_the_decoder_says_where_sampling_ends(tiny_autoencoder, tmp_path):
    state, card = load_weights(tiny_autoencoder)
    save_weights(tmp_path / "early", state, card | {"t_end": 30})
    assert load_latent(tiny_autoencoder).t_end == 0
    model = halving(load_latent(tmp_path / "early"))
    x_T = model.noise(1)
    assert [s.t for s in model.sample(x_T, 3)] == [100, 65, 30, 0]
    assert [s.t for s in model.sample(x_T, 2, t_end=0)] == [100, 50, 0]


def test_packed_images_are_split_and_those_that_do_not_fit_refused(tmp_path):
    from ddpm_core.datasets import write_packed

    write_packed(tmp_path / "packed", draw_toy_cars(30, size=16).images)
    train, unseen = load_images(str(tmp_path / "packed"), 16, 0, 10, 0)
    assert train.shape == (20, 16, 16, 3) and unseen.shape == (10, 3, 16, 16)
    with pytest.raises(ValueError, match="holds 30 images of 16 pixels"):
        load_images(str(tmp_path / "packed"), 32, 0, 10, 0)
