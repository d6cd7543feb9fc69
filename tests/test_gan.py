"""The game: its optimum in closed form, its penalty, whose step moves whom."""

import copy
from functools import partial
from math import log

import pytest
import torch
from torch import nn

from ddpm_core.neighbours.gan import (
    MINIMAX,
    NON_SATURATING,
    WASSERSTEIN,
    Critic,
    GANConfig,
    Generator,
    gradient_penalty,
    sample,
    train,
)

TINY = GANConfig(size=8, channels=(8, 16), latent=3, patch=2, groups=4)
ASKED = GANConfig(size=8, channels=(8, 16), latent=3, patch=2, groups=4, values=(2, 3))
X = torch.linspace(-12, 12, 4001, dtype=torch.float64)
"""A fine grid, on which a mean over a density is a sum."""


def density(mean: float) -> torch.Tensor:
    """N(mean, 1) on the grid, as weights that sum to 1."""
    return (-(X - mean).square() / 2).softmax(0)


def game_value(score, p, q) -> torch.Tensor:
    """E_p log D + E_q log(1 - D): minus the critic's loss, summed over the grid."""
    terms = MINIMAX.critic(score, torch.full_like(score, -1e9)) * p  # real alone
    terms = terms + MINIMAX.critic(torch.full_like(score, 1e9), score) * q
    return -terms.sum()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# The losses ---------------------------------------------------------------------------


def test_best_discriminator_is_p_over_p_plus_q():
    p, q = density(-1.0), density(0.5)
    score = torch.zeros_like(X, requires_grad=True)
    best = (p / q).log()
    torch.testing.assert_close(best.sigmoid(), p / (p + q))
    game_value(score, p, q).backward()
    assert score.grad.abs().max() > 1e-4
    score = best.clone().requires_grad_()
    game_value(score, p, q).backward()  # at the optimum the slope is 0
    assert score.grad.abs().max() < 1e-12


@pytest.mark.parametrize("apart", [0.0, 0.7, 3.0])
def test_value_at_the_optimum_is_the_jensen_shannon_divergence(apart):
    p, q = density(0.0), density(apart)
    middle = (p + q) / 2
    js = (p * (p / middle).log() + q * (q / middle).log()).sum() / 2
    value = game_value((p / q).log(), p, q)
    torch.testing.assert_close(value, 2 * js - log(4))
    if apart == 0:
        torch.testing.assert_close(value, torch.tensor(-log(4)).double())


def test_losses_stay_finite_where_the_sigmoid_is_0_or_1():
    far = torch.tensor([-500.0, 500.0])
    assert MINIMAX.critic(far, far).isfinite().all()
    assert MINIMAX.generator(far).tolist() == [0.0, -500.0]
    assert NON_SATURATING.generator(far).tolist() == [500.0, 0.0]


@pytest.mark.parametrize(
    ("objective", "slope"),
    [
        (MINIMAX, lambda D: -D),
        (NON_SATURATING, lambda D: D - 1),
        (WASSERSTEIN, lambda D: -torch.ones_like(D)),
    ],
)
def test_slope_that_the_generator_gets(objective, slope):
    score = random(20).mul(3).requires_grad_()
    objective.generator(score).sum().backward()
    torch.testing.assert_close(score.grad, slope(score.detach().sigmoid()))


def test_wasserstein_loss_is_the_difference_of_the_means():
    real, fake = random(50), random(50, seed=1)
    loss = WASSERSTEIN.critic(real, fake).mean()
    torch.testing.assert_close(loss, fake.mean() - real.mean())


# The penalty --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 2, 2)])
def test_penalty_of_a_linear_critic(shape):
    w = random(*shape[1:])
    real, fake = random(*shape, seed=1), random(*shape, seed=2)
    got = gradient_penalty(lambda x: (x * w).flatten(1).sum(1), real, fake, weight=7.0)
    expected = 7 * (w.norm() - 1).square()
    torch.testing.assert_close(got, expected.expand(6))


def test_penalty_is_taken_between_real_and_fake_at_one_place_a_sample(generator):
    real, fake = torch.zeros(5000, 2), torch.tensor([1.0, 2.0]).expand(5000, 2)
    seen = []

    def score(x):
        seen.append(x.detach())
        return x.sum(1)

    gradient_penalty(score, real, fake, generator=generator)
    (x,) = seen
    torch.testing.assert_close(x[:, 1], 2 * x[:, 0])
    assert 0 <= x[:, 0].min() < 0.01 < 0.99 < x[:, 0].max() <= 1
    assert abs(x[:, 0].mean() - 0.5) < 0.02


def test_penalty_teaches_the_critic_and_not_the_generator():
    w = random(3).requires_grad_()
    fake = random(4, 3).requires_grad_()
    gradient_penalty(lambda x: x @ w, random(4, 3, seed=1), fake).sum().backward()
    norm = w.detach().norm()
    torch.testing.assert_close(w.grad, 4 * 20 * (norm - 1) * w.detach() / norm)
    assert fake.grad is None


def test_penalty_of_a_flat_critic_is_finite():
    w = torch.zeros(3, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ w, torch.ones(4, 3), torch.zeros(4, 3))
    penalty.sum().backward()
    assert penalty.tolist() == [10.0] * 4
    assert w.grad.isfinite().all()


# The steps ----------------------------------------------------------------------------


class Shift(nn.Module):
    """G: z + shift."""

    def __init__(self, shift: float):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z):
        return z + self.shift


class Slope(nn.Module):
    """D: slope x."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x):
        return self.slope * x[:, 0]


def play(G, D, rounds, *, rates=(0.1, 0.1), **kwargs):
    g = torch.Generator().manual_seed(0)
    batches = (
        (torch.randn(4000, 1, generator=g),)
        for _ in range(rounds * kwargs.get("critic_steps", 1))
    )
    nets = zip((G, D), rates, strict=True)
    optimizers = tuple(torch.optim.SGD(net.parameters(), rate) for net, rate in nets)
    yield from train(G, D, batches, optimizers, latent=1, generator=g, **kwargs)


def test_each_player_takes_its_own_step_and_no_other():
    G, D = Shift(2.0), Slope(-0.5)
    (step,) = play(G, D, 1, objective=WASSERSTEIN)
    # D's loss is slope (E fake - E real) = 2 slope; then G's is -slope (E z + shift)
    torch.testing.assert_close(D.slope.detach(), torch.tensor(-0.7), atol=0.01, rtol=0)
    torch.testing.assert_close(
        G.shift.detach(), 2 + 0.1 * D.slope.detach(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(step.critic_loss, step.fake - step.real)
    assert all(p.requires_grad for net in (G, D) for p in net.parameters())


def test_critic_takes_its_steps_before_the_generator():
    G, D = Shift(2.0), Slope(0.0)
    steps = list(play(G, D, 2, objective=WASSERSTEIN, critic_steps=3, rates=(0.0, 0.1)))
    assert [s.step for s in steps] == [1, 2]
    torch.testing.assert_close(D.slope.detach(), torch.tensor(-1.2), atol=0.05, rtol=0)


def test_penalty_joins_the_critic_s_loss():
    D = Slope(3.0)
    penalty = partial(gradient_penalty, weight=1.0)
    (step,) = play(Shift(0.0), D, 1, objective=WASSERSTEIN, penalty=penalty)
    torch.testing.assert_close(D.slope.detach(), torch.tensor(2.6), atol=0.02, rtol=0)
    assert step.critic_loss.abs() < 0.2


def test_labels_reach_both_players(generator):
    torch.manual_seed(0)
    G, D = Generator(ASKED), Critic(ASKED)
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    labels = torch.tensor([[0, 0], [1, 2], [0, 1], [1, 0]])
    optimizers = tuple(torch.optim.SGD(net.parameters(), 0.1) for net in (G, D))
    before = [copy.deepcopy(net.label.state_dict()) for net in (G, D)]
    list(train(G, D, [(x, labels)], optimizers, latent=3, generator=generator))
    for net, state in zip((G, D), before, strict=True):
        for name, table in net.label.state_dict().items():
            assert (table != state[name]).any(1).all()


# The networks -------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, ASKED, GANConfig(), GANConfig(patch=4)])
def test_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    G, D = Generator(config), Critic(config)
    asked = [torch.zeros(3, len(config.values), dtype=torch.long)]
    labels = asked if config.values else []
    z = torch.randn(3, config.latent)
    x = G(z, *labels)
    assert x.shape == (3, 3, config.size, config.size)
    assert x.abs().max() <= 1
    D(x, *labels).sum().backward()
    silent = [
        name
        for net in (G, D)
        for name, p in net.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert silent == []


def test_critic_scores_each_image_by_itself():
    torch.manual_seed(0)
    D = Critic(TINY)
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(D(x)[1:2], D(x[1:2]))
    assert D(x).std() > 0


@pytest.mark.parametrize("net", [Generator, Critic])
def test_labels_change_the_answer(net):
    torch.manual_seed(0)
    net, x = (
        net(ASKED),
        torch.rand(2, 3) if net is Generator else torch.rand(2, 3, 8, 8),
    )
    one, two = (net(x, torch.tensor([row, row])) for row in ([0, 1], [1, 1]))
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("labels", [None, torch.zeros(2, 1, dtype=torch.long)])
def test_missing_labels_are_refused(labels):
    with pytest.raises(ValueError, match=r"\(b, 2\) are needed"):
        Generator(ASKED)(torch.zeros(2, 3), labels)


def test_samples_are_made_of_the_generator_s_noise():
    torch.manual_seed(0)
    G = Generator(TINY)
    drawn = sample(G, 5, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, G(z).detach())
    assert not drawn.requires_grad


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"channels": (12, 16)}, "multiple of groups = 8"),
        ({"size": 30}, "size must be a multiple of 8"),
        ({"values": (6, 1)}, "at least 2 values"),
    ],
)
def test_impossible_shapes_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        GANConfig(**values)
