"""A published CLIP's text tower: a real one of open_clip, but small and untrained."""

import sys

import open_clip
import pytest
import torch

from ddpm_core.models import DiffusionModel, load_encoder
from ddpm_core.published_clip import PublishedCLIP, load_published_clip
from ddpm_core.unet import UNetConfig
from ddpm_core.workshop.presets import PLAIN
from ddpm_core.workshop.run import Run

NAME = "open_clip:ViT-B-32/openai"
CAPTIONS = ["a red car", "", "Acura TL Sedan 2012, zzyzx"]


@pytest.fixture
def clip():
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 20, "width": 48, "heads": 2, "layers": 2}
    return open_clip.CLIP(16, {**vision, "image_size": 16}, text).eval()


@pytest.fixture
def encoder(clip):
    return PublishedCLIP(clip, open_clip.get_tokenizer("ViT-B-32"))


@pytest.fixture
def fetched(clip, monkeypatch):
    """What loading finds where the network would bring the weights."""
    monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: clip)


@torch.no_grad()
def test_its_vector_is_what_open_clip_projects(clip, encoder):
    told = encoder.encode(CAPTIONS)
    tokens = encoder.tokenizer(CAPTIONS, context_length=20)
    expected = clip.encode_text(tokens)
    torch.testing.assert_close(told.pooled @ clip.text_projection, expected)


def test_its_words_end_with_the_caption(encoder):
    told = encoder.encode(CAPTIONS)
    assert told.states.shape == (3, 20, 48) and encoder.widths == (48, 48)
    pieces = [len(encoder.tokenizer.encode(caption)) for caption in CAPTIONS]
    assert told.mask.sum(1).tolist() == [n + 2 for n in pieces]
    last = told.states[torch.arange(3), told.mask.sum(1) - 1]
    assert torch.equal(last, told.pooled)


def test_a_long_caption_says_the_limit(encoder):
    with pytest.raises(ValueError, match="has 19 tokens, at most 18 fit"):
        encoder.encode(["", "car " * 19])


@pytest.mark.usefixtures("fetched")
def test_it_trains_and_draws_in_the_place_of_the_small_one(tmp_path):
    preset = PLAIN.replace(
        drawn=32,
        held_out=16,
        T=20,
        network=UNetConfig(
            (8, 16), (False, True), blocks=1, groups=4, patch=2, pooled=48, context=48
        ),
        text=NAME,
        epochs=1,
        strips=(),
    )
    run = Run.begin(tmp_path / "run", preset)
    run.train()
    assert isinstance(run.encoder, PublishedCLIP) and isinstance(
        run.model, DiffusionModel
    )
    *_, end = run.model.sample(run.model.noise(2), 2, prompts=["BMW M3", ""], scale=2.0)
    assert end.x.shape == (2, 3, 32, 32)


@pytest.mark.usefixtures("fetched")
def test_widths_that_do_not_fit_are_named():
    unet = UNetConfig(pooled=64, context=64)
    preset = PLAIN.replace(size=64, text=NAME, network=unet)
    with pytest.raises(
        ValueError, match=r"of widths \(48, 48\), the network takes \(64"
    ):
        load_encoder(preset.model, "cpu")


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(ValueError, match="no 'ViT-B-32/opnai'; .*ViT-B-32/openai"):
        load_published_clip("open_clip:ViT-B-32/opnai")


def test_without_a_network_it_says_what_is_missing(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(
        RuntimeError, match="at first use they need a network: no route"
    ):
        load_published_clip(NAME)


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ddpm-core\[open-clip\]'"):
        load_published_clip(NAME)
