"""Mixtures and finite sets against torch.distributions and against Bayes' rule."""

import pytest
import torch
from torch import distributions as laws

from ddpm_core.mixtures import GaussianMixture, blobs, ideal_denoiser, two_peaks
from ddpm_core.schedules import cosine_schedule

FLOAT = {"dtype": torch.float64}
COSINE = cosine_schedule(1000)
TIMES = torch.tensor([1, 150, 500, 900])


def in_the_plane() -> GaussianMixture:
    """Three Gaussians of different weights, places and widths."""
    return GaussianMixture(
        torch.tensor([0.5, 0.3, 0.2], **FLOAT),
        torch.tensor([[-1.0, 0.2], [0.9, -0.4], [0.1, 1.3]], **FLOAT),
        torch.tensor([0.1, 0.3, 0.6], **FLOAT),
    )


def oracle(data: GaussianMixture, a: float, s: float) -> laws.Distribution:
    """The law of a x0 + s eps, by PyTorch's own mixture."""
    std = (a**2 * data.stds**2 + s**2).sqrt()[:, None].expand(data.means.shape)
    parts = laws.Independent(laws.Normal(a * data.means, std), 1)
    return laws.MixtureSameFamily(laws.Categorical(data.weights), parts)


def expected_x0(data: GaussianMixture, x_t: float, ab: float) -> float:
    """E[x0 | x_t] in one dimension, by Bayes' rule and a sum over a fine grid."""
    x0 = torch.linspace(-4, 4, 40_001, **FLOAT)[:, None]
    prior = oracle(data, 1.0, 0.0).log_prob(x0)
    likelihood = laws.Normal(ab**0.5 * x0[:, 0], (1 - ab) ** 0.5).log_prob(
        torch.tensor(x_t, **FLOAT)
    )
    return ((prior + likelihood).softmax(0) @ x0).item()


@pytest.mark.parametrize(("a", "s"), [(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)])
def test_log_density_is_that_of_pytorchs_mixture(a, s, generator):
    x = torch.randn(200, 2, generator=generator, **FLOAT)
    got = in_the_plane().log_density(x, a, s)
    torch.testing.assert_close(got, oracle(in_the_plane(), a, s).log_prob(x))


def test_each_sample_may_have_its_own_time(generator):
    data, x = in_the_plane(), torch.randn(4, 2, generator=generator, **FLOAT)
    together = data.log_density(x, *COSINE.scales(TIMES, like=x[:, None]))
    denoised = data.denoiser(COSINE)(x, TIMES)
    for i, t in enumerate(TIMES.tolist()):
        ab = COSINE.alpha_bar_list[t]
        alone = data.log_density(x[i : i + 1], ab**0.5, (1 - ab) ** 0.5)
        torch.testing.assert_close(together[i : i + 1], alone)
        alone = data.denoiser(COSINE)(x[i : i + 1], TIMES[i : i + 1])
        torch.testing.assert_close(denoised[i : i + 1], alone)


@pytest.mark.parametrize("t", TIMES.tolist())
def test_the_denoiser_is_bayes_rule_summed_over_a_grid(t):
    data, x = two_peaks(), torch.linspace(-1.5, 1.5, 7, **FLOAT)[:, None]
    got = data.denoiser(COSINE)(x, torch.full((7,), t))[:, 0]
    ab = COSINE.alpha_bar_list[t]
    wanted = [expected_x0(data, value, ab) for value in x[:, 0].tolist()]
    torch.testing.assert_close(got, torch.tensor(wanted, **FLOAT))


@pytest.mark.parametrize("t", TIMES.tolist())
def test_the_denoiser_is_tweedies_formula_in_the_plane(t, generator):
    """a E[x0 | x_t] = x_t + s^2 grad log q(x_t), with the gradient of another code."""
    data, ab = in_the_plane(), COSINE.alpha_bar_list[t]
    x = torch.randn(100, 2, generator=generator, **FLOAT).requires_grad_()
    log_q = oracle(data, ab**0.5, (1 - ab) ** 0.5).log_prob(x)
    (slope,) = torch.autograd.grad(log_q.sum(), x)
    got = ab**0.5 * data.denoiser(COSINE)(x.detach(), torch.full((100,), t))
    torch.testing.assert_close(got, x.detach() + (1 - ab) * slope)


def test_one_gaussian_is_denoised_along_a_line():
    """m + a r^2 / (a^2 r^2 + 1 - a^2) (x - a m): chapter 08, eq. (1)."""
    m, r = torch.tensor([[0.4, -0.2]], **FLOAT), 0.3
    x, ab = torch.tensor([[1.0, 2.0]], **FLOAT), COSINE.alpha_bar[400]
    a, var = ab.sqrt(), ab * r**2 + 1 - ab
    got = blobs(m, r).denoiser(COSINE)(x, torch.tensor([400]))
    torch.testing.assert_close(got, m + a * r**2 / var * (x - a * m))


def test_samples_have_the_moments_and_the_shares(generator):
    data = in_the_plane()
    x, law = data.sample(200_000, generator), oracle(data, 1.0, 0.0)
    torch.testing.assert_close(x.mean(0), law.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(x.var(0), law.variance, atol=0.01, rtol=0)
    near_first = (x - data.means[0]).norm(dim=1) < 0.3  # 3 of its 0.1
    own = 0.5 * (1 - torch.tensor(-9 / 2).exp())  # Rayleigh; others add a little
    assert own - 0.005 < near_first.double().mean() < own + 0.01


def test_densities_are_those_of_each_time_and_sum_to_1():
    schedule, x = cosine_schedule(20), torch.linspace(-6, 6, 2401, **FLOAT)[:, None]
    film = two_peaks().densities(schedule, x)
    assert film.shape == (21, 2401)
    for t in (0, 7, 20):
        ab = schedule.alpha_bar_list[t]
        law = oracle(two_peaks(), ab**0.5, (1 - ab) ** 0.5)
        torch.testing.assert_close(film[t], law.log_prob(x).exp())
    torch.testing.assert_close(film.sum(1) * 0.005, torch.ones(21, **FLOAT))


def test_the_two_peaks_are_those_of_the_text():
    data = two_peaks()
    assert data.weights.tolist() == [0.3, 0.7]
    assert data.means.tolist() == [[-1.0], [0.8]]
    assert data.stds.tolist() == [0.3, 0.2]


@pytest.mark.parametrize("t", TIMES.tolist())
def test_the_ideal_denoiser_is_that_of_blobs_without_width(t, generator):
    points, x = torch.randn(2, 30, 3, generator=generator, **FLOAT)
    when = torch.full((30,), t)
    got = ideal_denoiser(points, COSINE)(x, when)
    torch.testing.assert_close(got, blobs(points, 0.0).denoiser(COSINE)(x, when))
    images = ideal_denoiser(points.view(30, 3, 1, 1), COSINE)(x.view(30, 3, 1, 1), when)
    torch.testing.assert_close(images.flatten(1), got)


def test_the_ideal_denoiser_ends_on_the_nearest_point():
    points = torch.tensor([[0.0], [1.0]], **FLOAT)
    x = torch.tensor([[0.2], [0.7]], **FLOAT)
    got = ideal_denoiser(points, COSINE)(x, torch.tensor([1, 1]))
    torch.testing.assert_close(got, points)
