"""The VAE: its two terms in closed form, its bound on exact evidence, its parts."""

from math import log, pi

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from ddpm_core.neighbours.vae import (
    VAE,
    Encoding,
    VAEConfig,
    draw_latents,
    gaussian_nll,
    kl_to_standard_normal,
    sample,
    vae_loss,
    with_decoder_blocks,
)

TINY = VAEConfig(size=8, channels=(8, 16), latent=3, patch=2, groups=4)
VARIANCE = 0.3  # of the linear model's noise


@pytest.fixture
def tiny() -> VAE:
    torch.manual_seed(0)
    return VAE(TINY)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Linear:
    """A linear Gaussian model, x = W z + noise, with any linear encoder.

    Its evidence is a Gaussian density. `mean_of` (d, D) and `log_var` (d,) are q's.
    """

    def __init__(self, weight, mean_of, log_var):
        self.weight, self.mean_of, self.log_var = weight, mean_of, log_var

    @classmethod
    def exact(cls, weight) -> "Linear":
        """Its encoder is the posterior, diagonal because W's columns are orthogonal."""
        precision = 1 + weight.square().sum(0) / VARIANCE
        return cls(weight, (weight / VARIANCE / precision).T, -precision.log())

    def __call__(self, x, generator=None):
        mean = x @ self.mean_of.T
        encoding = Encoding(mean, self.log_var.expand_as(mean))
        return draw_latents(*encoding, generator=generator) @ self.weight.T, encoding

    def log_evidence(self, x):
        dimensions = len(self.weight)
        noise = VARIANCE * torch.eye(dimensions, dtype=x.dtype)
        covariance = self.weight @ self.weight.T + noise
        return MultivariateNormal(x.new_zeros(dimensions), covariance).log_prob(x)


@pytest.fixture
def weight() -> torch.Tensor:
    orthogonal = torch.linalg.qr(random(5, 2)).Q
    return orthogonal * torch.tensor([1.5, 0.7], dtype=torch.float64)


def bounds(model: Linear, x: torch.Tensor, n: int, generator) -> torch.Tensor:
    """n estimates of the evidence's lower bound for each x, (n, b)."""
    losses = vae_loss(model, x.repeat(n, 1), variance=VARIANCE, generator=generator)
    return -losses.view(n, len(x))


# The two terms ----------------------------------------------------------------------


def test_kl_is_that_of_torch():
    mean, log_var = random(6, 4), random(6, 4, seed=1)
    q = Normal(mean, (log_var / 2).exp())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(q, prior).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_var), expected)


def test_kl_is_zero_at_the_prior_alone():
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0
    assert kl_to_standard_normal(random(50, 3), random(50, 3, seed=1)).min() > 0


def test_nll_is_that_of_torch():
    x, x_hat = random(4, 3, 2, 2), random(4, 3, 2, 2, seed=1)
    expected = -Normal(x_hat, VARIANCE**0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(x, x_hat, VARIANCE), expected)


def test_nll_takes_the_likeliest_variance():
    x, x_hat = random(4, 12), random(4, 12, seed=1)
    mse = (x - x_hat).square().mean()
    best = gaussian_nll(x, x_hat).mean()
    torch.testing.assert_close(best, 6 * (1 + (2 * pi * mse).log()))
    for factor in (0.9, 1.1):
        assert gaussian_nll(x, x_hat, float(factor * mse)).mean() > best


def test_latents_have_the_encoding_s_moments(generator):
    mean, log_var = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, log(0.25)]])
    z = draw_latents(
        mean.expand(100_000, -1), log_var.expand(100_000, -1), generator=generator
    )
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 0.5]), atol=0.01, rtol=0)


# The bound --------------------------------------------------------------------------


def test_bound_is_the_evidence_at_the_optimum(weight, generator):
    model, x = Linear.exact(weight), random(3, 5)
    estimates = bounds(model, x, 50_000, generator)
    error = estimates.std(0) / 50_000**0.5
    assert ((estimates.mean(0) - model.log_evidence(x)).abs() < 4 * error).all()


@pytest.mark.parametrize("wider", [0.25, 4.0])
def test_bound_falls_short_by_the_divergence_to_the_posterior(weight, generator, wider):
    exact, x = Linear.exact(weight), random(3, 5)
    log_var = exact.log_var + log(wider)
    off = Linear(weight, exact.mean_of, log_var)
    estimates = bounds(off, x, 50_000, generator)
    gap = exact.log_evidence(x) - estimates.mean(0)
    expected = kl_divergence(
        Normal(0, (log_var / 2).exp()), Normal(0, (exact.log_var / 2).exp())
    ).sum()
    error = estimates.std(0) / 50_000**0.5
    assert expected > 0.3
    assert ((gap - expected).abs() < 4 * error).all()


def test_beta_weighs_the_divergence(tiny):
    x = torch.rand(2, 3, 8, 8)
    one, three = (
        vae_loss(tiny, x, beta=beta, generator=torch.Generator().manual_seed(0))
        for beta in (1.0, 3.0)
    )
    kl = kl_to_standard_normal(*tiny.encode(x))
    torch.testing.assert_close(three - one, 2 * kl)


# The network ------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, VAEConfig(), VAEConfig(blocks=2, patch=4)])
def test_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    vae = VAE(config)
    vae_loss(vae, torch.rand(2, 3, config.size, config.size)).sum().backward()
    silent = [
        name
        for name, p in vae.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert silent == []


def test_noise_is_drawn_from_the_generator_and_used(tiny):
    x = torch.rand(2, 3, 8, 8)
    first, again, other = (
        tiny(x, generator=torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().max() > 1e-3


def test_it_learns_a_single_image(tiny, generator):
    x = (torch.rand(1, 3, 8, 8, generator=generator) * 2 - 1).expand(4, -1, -1, -1)
    optimizer = torch.optim.Adam(tiny.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        vae_loss(tiny, x, variance=0.01, generator=generator).mean().backward()
        optimizer.step()
    drawn = sample(tiny, 4, generator=generator)
    assert (x - drawn).square().mean() < 0.1  # before: 0.33


def test_samples_are_decoded_draws_from_the_prior(tiny):
    drawn = sample(tiny, 5, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, tiny.decode(z).clamp(-1, 1))
    assert not drawn.requires_grad


@pytest.mark.parametrize("x", [torch.rand(1, 3, 16, 16), torch.rand(1, 1, 8, 8)])
def test_images_of_another_shape_are_refused(tiny, x):
    with pytest.raises(ValueError, match=r"\(b, 3, 8, 8\), got"):
        tiny(x)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"channels": (30,)}, "multiple of groups = 8"),
        ({"channels": ()}, "one width a level"),
        ({"size": 36}, "multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        VAEConfig(**values)


def test_more_decoder_blocks_change_nothing_until_they_are_trained(generator):
    config = VAEConfig(16, (8, 16), latent=2, spatial=True, groups=4)
    torch.manual_seed(0)
    vae = VAE(config)
    z = torch.randn(3, 2, 4, 4, generator=generator)
    larger = with_decoder_blocks(vae, 3)
    torch.testing.assert_close(larger.decode(z), vae.decode(z))
    again = with_decoder_blocks(larger, 4)
    torch.testing.assert_close(again.decode(z), vae.decode(z))
    assert VAEConfig.from_dict(again.config.to_dict()).decoder_blocks == 4
    x = torch.rand(2, 3, 16, 16, generator=generator)
    torch.testing.assert_close(again.encode(x).mean, vae.encode(x).mean)
    again.decode(z).square().sum().backward()
    assert all(p.grad is not None for p in again.decoder.parameters())
    with pytest.raises(ValueError, match="decoder has 3 blocks a level, got 2"):
        with_decoder_blocks(larger, 2)
    with pytest.raises(ValueError, match="must be 0 or at least blocks = 1"):
        VAEConfig(decoder_blocks=-1)
