"""Guidance in one call and in two, conditions dropped and joined, classes."""

import pytest
import torch

from ddpm_core.conditioning import (
    ClassEmbedding,
    dropped,
    guided,
    guided_together,
    join,
)
from ddpm_core.types import Condition


def test_guidance_in_one_call_is_guidance_in_two(generator):
    told = torch.tensor([[1.0, -2.0], [0.5, 3.0]])

    def denoise_told(told):
        return lambda x, t: x * t[:, None] + told

    both = denoise_told(torch.cat([told, torch.zeros(2, 2)]))
    cond, uncond = denoise_told(told), denoise_told(torch.zeros(2, 2))
    x, t = torch.randn(2, 2, generator=generator), torch.tensor([3, 4])
    for scale in (0.0, 1.0, 2.5, 8.0):
        one, two = guided_together(both, scale), guided(cond, uncond, scale)
        torch.testing.assert_close(one(x, t), two(x, t))


def test_each_sample_is_dropped_for_itself_and_as_a_whole(generator):
    rows = torch.arange(1, 20_001)[:, None].expand(-1, 3)
    kept = dropped(rows, torch.tensor([0, -1, -2]), 0.1, generator)
    lost = (kept == torch.tensor([0, -1, -2])).all(1)
    assert lost.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(kept[~lost], rows[~lost])
    assert (dropped(rows, torch.tensor(0), 1.0, generator) == 0).all()
    assert torch.equal(dropped(rows, torch.tensor(0), 0.0, generator), rows)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 10"):
        dropped(rows, torch.tensor(0), 10.0, generator)


def test_conditions_are_joined_and_chosen_by_rows(generator):
    words = Condition(torch.randn(2, 4), torch.randn(2, 3, 5), torch.ones(2, 3).bool())
    both = join(words, words.rows(torch.tensor([1, 0])))
    for got, part in zip(both.rows(slice(2, 4)), words, strict=True):
        assert torch.equal(got, part.flip(0))
    plain = join(Condition(words.pooled), Condition(words.pooled))
    assert plain.states is None and plain.pooled.shape == (4, 4)


def test_a_class_has_its_vector_and_no_words():
    torch.manual_seed(0)
    embedding = ClassEmbedding(3, 8)
    cond = embedding(torch.tensor([0, 2, 0, embedding.empty]))
    assert cond.states is None and cond.mask is None
    assert torch.equal(cond.pooled[0], cond.pooled[2])
    assert len(cond.pooled.unique(dim=0)) == 3
    with pytest.raises(
        ValueError, match=r"classes lie in 0\.\.2, and 3 is none.*0\.\.4"
    ):
        embedding(torch.tensor([0, 4]))
