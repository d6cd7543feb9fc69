"""The small CLIP: its words, its towers, its loss, and the weights that ship."""

import json
from itertools import product
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddpm_core.clip import CLIP, CLIPConfig, contrastive_loss, load_clip
from ddpm_core.datasets.toy_cars import ATTRIBUTES, caption, draw_toy_cars
from ddpm_core.tokens import BEGIN, END, PAD, Tokenizer
from ddpm_core.workshop.side.clip import found, measure

WORDS = Tokenizer.of(["a red car", "a blue van at night"], 8)


@pytest.fixture(scope="module")
def shipped():
    return load_clip()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    config = CLIPConfig(WORDS.words, 8, 16, 1, 2, 12, (16, 16, 32))
    return CLIP(config).eval()


def test_words_become_numbers_between_begin_and_end():
    rows = WORDS(["a red car", "A RED, car!", ""])
    assert rows.shape == (3, 8) and torch.equal(rows[0], rows[1])
    assert rows[2].tolist() == [BEGIN, END] + 6 * [PAD]
    words = [WORDS.words[i - 3] for i in rows[0, 1:4]]
    assert words == ["a", "red", "car"] and rows[0, 4] == END


def test_unknown_words_are_named_with_the_nearest_known_ones():
    with pytest.raises(ValueError, match="unknown word 'nigth': do you mean night"):
        WORDS(["a van at nigth"])
    with pytest.raises(ValueError, match="'zzz': none is like it. All words: a, at, b"):
        WORDS(["zzz"])
    with pytest.raises(ValueError, match="has 7 words, at most 6 fit"):
        WORDS(["a red car at night at night"])
    with pytest.raises(ValueError, match="a word occurs twice"):
        Tokenizer(("a", "a"), 8)


def test_a_word_sees_those_before_it_alone_and_the_end_sees_all(tiny):
    one, two = tiny.encode(["a red car"]), tiny.encode(["a red van"])
    assert torch.equal(one.states[:, :3], two.states[:, :3])
    assert (one.states[:, 3] - two.states[:, 3]).abs().max() > 1e-3
    assert (one.pooled - two.pooled).abs().max() > 1e-3
    assert torch.equal(one.pooled, one.states[:, 4])
    assert one.mask.tolist() == [[True] * 5 + [False] * 3]


def test_embeddings_are_unit_vectors_whatever_the_batch(tiny, generator):
    images = torch.rand(5, 3, 32, 32, generator=generator) * 2 - 1
    embedded = tiny.embed_images(images)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(tiny.embed_images(images[3:4]), embedded[3:4])
    texts = tiny.embed_captions(["a red car", ""])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(tiny.embed_captions([""]), texts[1:])


def test_loss_knows_pairs_from_chance(generator):
    unit = F.normalize(torch.randn(64, 16, generator=generator), dim=1)
    same = unit[:1].expand(64, -1)
    assert contrastive_loss(same, same, 10.0).item() == pytest.approx(log(64), rel=1e-5)
    assert contrastive_loss(unit, unit, 100.0) < 1e-3
    assert contrastive_loss(unit, unit.flip(0), 100.0) > 10
    a, b = unit[:2], unit[2:4]  # the definition, by hand
    logits = (3 * a @ b.T).double()
    rows = [logits[i, i] - logits[i].logsumexp(0) for i in (0, 1)]
    columns = [logits[i, i] - logits[:, i].logsumexp(0) for i in (0, 1)]
    want = -(sum(rows) / 2 + sum(columns) / 2) / 2
    assert contrastive_loss(a, b, 3.0).item() == pytest.approx(want.item(), rel=1e-5)


def test_scale_is_bounded(tiny):
    with torch.no_grad():
        tiny.log_scale.fill_(9.0)
    assert tiny.scale.item() == 100


def test_equal_captions_are_all_right_answers():
    unit = torch.eye(3)
    captions = ["a car", "a van", "a car"]
    assert found(unit, unit.roll(1, 0), captions, 1).tolist() == [False, False, True]
    assert found(unit, unit, captions, 1).all()


def test_config_survives_json_and_refuses_others():
    config = CLIPConfig(WORDS.words, 8)
    assert CLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="not the configuration of a CLIP"):
        CLIPConfig.from_dict({"length": 8})
    with pytest.raises(ValueError, match="multiple of heads = 4, got 30"):
        CLIPConfig(("a",), width=30)


def test_shipped_weights_find_captions_and_cars(shipped):
    measured = measure(shipped, n=512, seed=20_261)
    assert min(measured["retrieval"].values()) > 0.95
    assert min(measured["preferred"].values()) > 0.9


def test_shipped_vocabularies_are_those_of_the_captions(shipped):
    cars = product(*(range(len(values)) for values in ATTRIBUTES.values()))
    captions = [caption(np.array(car), ground=True, facing=True) for car in cars]
    uniform = load_clip("toy-cars-clip-uniform-32").tokenizer.words
    assert Tokenizer.of(captions, 16).words == uniform
    said = draw_toy_cars(1000, size=16, seed=3).loose_captions(3)
    assert Tokenizer.of(captions + said, 16).words == shipped.tokenizer.words
