"""Grey images, and images that are not square: from the photo to the card."""

import json
import re

import numpy as np
import pytest
import torch
from photo_samples import save_photo
from test_cli import ddpm, succeeded

from ddpm_core.config import ModelConfig
from ddpm_core.datasets import PackedImages, prepare, to_float
from ddpm_core.datasets.packed import write_packed
from ddpm_core.datasets.sizes import read_size, spelled, typed
from ddpm_core.display import plots
from ddpm_core.dit import DiTConfig
from ddpm_core.models import load_model
from ddpm_core.unet import UNetConfig
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.presets import PLAIN
from ddpm_core.workshop.run import Run

FRAME = (16, 24)
TINY = PLAIN.replace(
    size=FRAME,
    drawn=64,
    held_out=8,
    T=20,
    batch=8,
    network=UNetConfig(
        (8, 16), (False, True), blocks=1, groups=4, patch=2, image_channels=1
    ),
    epochs=2,
    log_every=1,
    checkpoint_every=1,
    strips=(2,),
    sample_steps=9,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64), ("64x64", 64), ("64x96", (64, 96)), (" 8x9", (8, 9))],
)
def test_a_size_is_read_as_it_is_typed(text, size):
    assert read_size(text) == size
    assert read_size(typed(size)) == size
    assert read_size(spelled(size)) == size


@pytest.mark.parametrize("text", ["", "64x", "x64", "6.4", "64x96x3", "-64", "64*96"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=rf"or 64x96; got '{re.escape(text)}'"):
        read_size(text)


@pytest.mark.parametrize("network", [UNetConfig(), DiTConfig(width=16, depth=1)])
def test_a_model_of_any_frame_comes_back_from_its_card(network):
    for size in (64, (64, 96)):
        config = ModelConfig(size=size, network=network)
        stored = json.loads(json.dumps(config.to_dict()))
        assert ModelConfig.from_dict(stored) == config
        assert config.sides == (64, size if size == 64 else 96)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 90), "multiple of 8 for this network, got .64, 90."),
        ((64,), r"size must be a list of 2, got \(64,\)"),
        ((64, 2), "each must be a whole number, at least 4 and at most 4096"),
        (64.0, "size must be a whole number, at least 4"),
        ("64", "size must be a whole number, at least 4"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(size, message, no_type_checks):
    with pytest.raises(ValueError, match=message):
        ModelConfig(size=size)


def test_a_transformer_keeps_the_frame(generator):
    net = DiTConfig(width=16, depth=1, image_channels=1).build()
    x = torch.randn(2, 1, *FRAME, generator=generator)
    assert net(x, torch.tensor([3, 7])).shape == x.shape


def test_grey_images_are_drawn_grey():
    ramp = torch.linspace(-1, 1, 24).expand(1, 1, *FRAME)
    (ax,) = plots.image_grid(ramp).axes
    colours = ax.images[0].to_rgba(ax.images[0].get_array())
    assert (colours[..., 0] == colours[..., 2]).all()
    assert colours[0, 0, 0] == 0 and colours[0, -1, 0] == 1


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey")
    for i in range(40):
        save_photo(folder / "photos" / f"{i}.png", i, (48, 32))
    prepare(
        folder / "photos", folder / "packed", size=FRAME, channels=1, progress=False
    )
    return folder / "packed"


def test_grey_frames_are_trained_sampled_and_measured(packed, tmp_path, monkeypatch):
    """All of it by the command line, on features that see their place in the frame."""
    halves = evaluation.Extractor(
        "halves", lambda x: x.unflatten(3, (2, 12)).mean((1, 2, 4))
    )
    monkeypatch.setitem(evaluation.EXTRACTORS, "imagenet", lambda: halves)
    run, weights = tmp_path / "run", tmp_path / "weights"
    command = ["train", "photos-32", "--data", packed, "--out", run]
    command += ["--size", "16x24", "--image-channels", 1, "--channels", "8,16"]
    command += ["--groups", 4, "--T", 20, "--held-out", 8, "--batch", 8, "--epochs", 1]
    command += ["--strips", 1, "--sample-steps", 9, "--log-every", 1]
    succeeded(*command, "--checkpoint-every", 1)
    succeeded("export", run, weights, "--n", 64, "--steps", 2)
    card = json.loads((weights / "card.json").read_text())
    assert card["config"]["size"] == [16, 24]
    assert "for grey images of 16x24 pixels" in (weights / "README.md").read_text()
    assert load_model(weights).shape == (1, 16, 24)
    picture = tmp_path / "a.png"
    drawn = ["--n", 2, "--steps", 2, "--zoom", 1, "--out", picture]
    succeeded("sample", "--weights", weights, *drawn)
    shown = np.asarray(plots.Image.open(picture))
    assert shown.shape == (18, 2 * 25 + 1, 3) and (np.ptp(shown, axis=2) == 0).all()
    command = ["evaluate", "--weights", weights, "--n", 8, "--steps", 2]
    said = succeeded(*command, "--features", "imagenet", "--data", packed)
    assert "features of halves: Frechet distance" in said


def test_mirrored_frames_are_mirrored_left_to_right(packed, tmp_path):
    run = Run.begin(tmp_path / "run", TINY.replace(data=str(packed), flip=True))
    x0, mirrored = run.batches.clean(run.split.train[:3])
    stored = to_float(PackedImages.open(packed).images[run.split.train[:3].numpy()])
    assert torch.equal(x0, stored) and torch.equal(mirrored, stored.flip(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"size": (24, 16)},
            "are 16x24 pixels wide, the run's are 24x16: prepare",
        ),
        ({"size": 16}, "are 16x24 pixels wide, the run's are 16: prepare them with"),
        ({"image_channels": 3}, "have 1 channels, the run takes 3: .* without --grey"),
        ({"data": "toy-cars"}, "toy cars are square, got --size 16x24"),
        ({"data": "toy-cars", "size": 16}, "have 3 channels, the run takes 1: .*grey"),
    ],
)
def test_images_that_do_not_fit_are_refused(packed, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        Run.begin(tmp_path / "run", TINY.replace(**{"data": str(packed)} | changes))


def test_networks_of_colours_see_grey_images_as_such(generator):
    grey = torch.rand(2, 1, 4, 6, generator=generator)
    assert torch.equal(evaluation.in_colour(grey), grey.repeat(1, 3, 1, 1))
    colour = torch.rand(2, 3, 4, 6, generator=generator)
    assert torch.equal(evaluation.in_colour(colour), colour)


def test_images_without_an_area_are_not_packed(tmp_path):
    empty = [np.zeros((0, 8, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match="3 or 1 channels"):
        write_packed(tmp_path / "out", empty)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "4"], "--size must lie in 8..4096, got '4'"),
        (["--size", "64x"], "size must be a side in pixels, or height x width"),
        (["--margin", "3"], "--margin is around the boxes of --boxes: give both"),
        (["--boxes"], "is a folder of images: prepare it without boxes"),
    ],
)
def test_options_of_prepare_that_cannot_be_are_told(packed, tmp_path, options, said):
    source = packed.parent / "photos"
    done = ddpm("prepare", source, "--out", tmp_path / "out", *options)
    assert done.returncode == 1 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1
