"""The diffusion transformer: its interface is the U-Net's, its parts do their part."""

import pytest
import torch
import torch.nn.functional as F

from ddpm_core.dit import DiT, DiTConfig, positions
from ddpm_core.types import Condition


def awake(**changes) -> DiT:
    """A small network whose every part has an effect."""
    torch.manual_seed(0)
    net = DiT(DiTConfig(**{"width": 16, "depth": 2, "heads": 2, "patch": 2} | changes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


X, T = torch.randn(3, 3, 8, 12), torch.tensor([1, 50, 900])


def test_a_fresh_network_predicts_zero_and_an_awake_one_does_not():
    assert DiT(DiTConfig(width=16, depth=1, heads=2))(X, T).abs().max() == 0
    out = awake()(X, T)
    assert out.shape == X.shape and out.isfinite().all() and out.std() > 0.01


def test_samples_do_not_see_each_other():
    net = awake()
    torch.testing.assert_close(net(X, T)[1:2], net(X[1:2], T[1:2]))


def test_every_patch_sees_every_other_and_its_place():
    net, x = awake(), X[:1].clone().requires_grad_(True)
    net(x, T[:1])[0, 0, 0, 0].backward()
    assert (x.grad.abs().amax((0, 1)) > 0).all()
    turned = net(X[:1].roll(2, dims=2), T[:1]).roll(-2, dims=2)
    assert (turned - net(X[:1], T[:1])).abs().max() > 1e-3


def test_the_timestep_reaches_the_output():
    net = awake()
    assert (net(X, T) - net(X, T.flip(0)))[0].abs().max() > 1e-3


def test_positions_are_those_of_row_and_column():
    table = positions(3, 5, 16).unflatten(0, (3, 5))
    torch.testing.assert_close(table[1, 2, :8], table[1, 4, :8])  # of the row
    torch.testing.assert_close(table[0, 3, 8:], table[2, 3, 8:])  # of the column
    torch.testing.assert_close(table[2, 0, 0], torch.tensor(2.0).sin())
    assert table.flatten(0, 1).unique(dim=0).shape[0] == 15


def test_a_condition_and_its_words_are_read_and_masked_words_are_not():
    net = awake(pooled=4, context=6)
    pooled, words = torch.randn(3, 4), torch.randn(3, 5, 6)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    out = net(X, T, Condition(pooled, words, mask))
    other = words.clone()
    other[:, 3:] = 9.0
    torch.testing.assert_close(net(X, T, Condition(pooled, other, mask)), out)
    other[:, 0] = 9.0
    assert (net(X, T, Condition(pooled, other, mask)) - out).abs().max() > 1e-3
    assert (net(X, T, Condition(pooled + 1, words, mask)) - out).abs().max() > 1e-3


def test_attention_is_that_of_torch():
    """A block whose gates are 1 and whose second half is off, by hand."""
    block = awake(depth=1).blocks[0]
    x, embedding = torch.randn(2, 6, 16), torch.zeros(2, 16)
    with torch.no_grad():
        block.modulation.weight.zero_()
        block.modulation.bias.copy_(
            torch.tensor([0.0, 0, 1, 0, 0, 0]).repeat_interleave(16)
        )
    h = F.layer_norm(x, (16,))
    k, v = F.linear(h, block.key_value.weight, block.key_value.bias).chunk(2, 2)
    heads = [y.unflatten(2, (2, 8)).transpose(1, 2) for y in (block.query(h), k, v)]
    weights = (heads[0] @ heads[1].mT / 8**0.5).softmax(-1)
    mixed = (weights @ heads[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block(x, embedding), x + block.out(mixed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 18, "heads": 3}, "multiple of 4 and of heads = 3, got 18"),
        ({"depth": 0}, "depth must be a whole number, at least 1"),
        ({"context": 4}, "words come with a pooled vector"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DiTConfig(**changes)


def test_images_and_conditions_that_do_not_fit_are_refused():
    net = awake()
    with pytest.raises(ValueError, match="multiples of 2, got"):
        net(torch.zeros(3, 3, 8, 9), T)
    with pytest.raises(ValueError, match="takes no condition, got a condition of 4"):
        net(X, T, Condition(torch.zeros(3, 4)))
