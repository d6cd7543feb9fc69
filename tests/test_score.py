"""Score, Langevin and the pair of equations, against densities in closed form."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import mixture

from ddpm_core.samplers import ddim_step, followed_variance, last, sample, spaced_times
from ddpm_core.schedules import (
    cosine_schedule,
    flow_schedule,
    linear_schedule,
)
from ddpm_core.score import langevin_step, make_score, sde_step

FLOAT = {"dtype": torch.float64}
TWO_PEAKS = [(0.3, -1.0, 0.3), (0.7, 0.8, 0.2)]


@pytest.mark.parametrize("t", [1, 300, 900])
def test_score_is_the_gradient_of_the_mixtures_log_density(t):
    data = mixture(cosine_schedule(1000), *TWO_PEAKS)
    x = torch.linspace(-2, 2, 41, **FLOAT)[:, None].requires_grad_()
    ab, law = data.schedule.alpha_bar[t], data.law
    noised = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(law.weights),
        torch.distributions.Normal(
            ab.sqrt() * law.means[:, 0], (ab * law.stds**2 + 1 - ab).sqrt()
        ),
    )
    (slope,) = torch.autograd.grad(noised.log_prob(x).sum(), x)
    score = make_score(data.denoise, data.schedule)
    got = score(x.detach(), torch.full((41,), t))
    torch.testing.assert_close(got, slope)


@pytest.mark.parametrize("size", [0.02, 0.1])
def test_langevins_stationary_law_on_a_gaussian(size, generator):
    """N(0, s^2): variance s^2 / (1 - size / (2 s^2)), from any start; Gaussian."""
    s = 0.5
    x = torch.full((100_000,), 3.0, **FLOAT)
    for _ in range(round(2 / size)):
        noise = torch.randn(x.shape, generator=generator, **FLOAT)
        x = langevin_step(x, -x / s**2, size, noise)
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.var().item() == pytest.approx(s**2 / (1 - size / (2 * s**2)), rel=0.02)
    z = (x - x.mean()) / x.std()
    assert (z**4).mean().item() == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 2.0])
def test_all_equations_have_the_marginals_of_the_forward_process(churn):
    """Data N(0, 1/4), down to t = 300: the error falls with the first order."""
    schedule = linear_schedule(40_000, 2.5e-6, 5e-4)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    ab, errors = schedule.alpha_bar[12_000].item(), []
    for steps in (50, 100, 200):
        times = np.linspace(40_000, 12_000, steps + 1).round().astype(int).tolist()
        step = partial(sde_step, schedule, churn=churn)
        var = followed_variance(step, data.denoise, times)
        errors.append(abs(var - (ab / 4 + 1 - ab)))
    assert errors[-1] < 0.02
    for coarse, fine in pairwise(errors):
        assert 0.7 < np.log2(coarse / fine) < 1.3


def test_without_churn_small_steps_are_those_of_ddim(generator):
    schedule = cosine_schedule(1000)
    data = mixture(schedule, *TWO_PEAKS)
    x = torch.randn(200, 1, generator=generator, **FLOAT)
    x0_hat, zero = data.denoise(x, torch.full((200,), 500)), torch.zeros_like(x)
    still = sde_step(schedule, x, x0_hat, 500, 499, zero, churn=0.0)
    ddim = ddim_step(schedule, x, x0_hat, 500, 499, zero)
    assert (still - ddim).abs().max() < 0.01 * (ddim - x).abs().max()


def test_the_stochastic_equation_makes_the_data(generator):
    data = mixture(cosine_schedule(1000), *TWO_PEAKS)
    x = torch.randn(20_000, 1, generator=generator, **FLOAT)
    step = partial(sde_step, data.schedule)
    times = [*range(999, -1, -1)]  # beta_T of the cosine is cut at 0.999
    x = last(sample(data.denoise, step, x, times, generator=generator))
    for k in (1, 2, 3, 4):
        assert (x**k).mean().item() == pytest.approx(data.moment(k), abs=0.03), k


def test_what_cannot_be_is_refused():
    x, schedule = torch.ones(1, 1), flow_schedule(10)
    with pytest.raises(ValueError, match=r"size must be above 0, got 0"):
        langevin_step(x, x, 0.0, x)
    with pytest.raises(ValueError, match="churn must be at least 0, got -1"):
        sde_step(schedule, x, x, 5, 4, x, churn=-1)
    with pytest.raises(ValueError, match="cannot be stepped from pure noise"):
        sde_step(schedule, x, x, 10, 9, x)


def test_ddim_on_a_flow_is_eulers_step_on_the_straight_line(generator):
    """z = x / (a + s) moves by (u - t) (eps_hat - x0_hat), in the time of the line."""
    schedule = flow_schedule(50)
    data = mixture(schedule, *TWO_PEAKS)
    x = torch.randn(30, 1, generator=generator, **FLOAT)
    for t, u in ((50, 37), (30, 5), (5, 0)):
        x0_hat = data.denoise(x, torch.full((30,), t))
        a, s = schedule.scales(torch.tensor([t]), x)
        b, r = schedule.scales(torch.tensor([u]), x)
        eps_hat = (x - a * x0_hat) / s
        euler = x / (a + s) + (u - t) / 50 * (eps_hat - x0_hat)
        ddim = ddim_step(schedule, x, x0_hat, t, u, torch.zeros_like(x))
        torch.testing.assert_close(ddim / (b + r), euler)


def test_the_flow_of_a_gaussian_is_sampled_exactly():
    """N(m, s^2): the flow takes the noise z to m + s z, and quantiles to quantiles."""
    data = mixture(flow_schedule(4000), (1.0, 0.4, 0.5))
    z = torch.linspace(-2, 2, 9, **FLOAT)[:, None]
    step = partial(ddim_step, data.schedule)
    x = last(sample(data.denoise, step, z, spaced_times(4000, 4000)))
    torch.testing.assert_close(x, 0.4 + 0.5 * z, rtol=0, atol=2e-3)
