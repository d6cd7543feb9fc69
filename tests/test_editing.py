"""Inpainting, inversion and arcs, where the right answer has a formula. Chapter 12."""

from functools import partial

import pytest
import torch
from oracles import mixture

from ddpm_core.editing import (
    invert,
    reconstruction_guided,
    replacing,
    resampling,
    slerp,
)
from ddpm_core.mixtures import blobs
from ddpm_core.samplers import (
    ancestral_step,
    ddim_step,
    last,
    posterior_variance,
    sample,
    spaced_times,
)
from ddpm_core.schedules import cosine_schedule

FLOAT = {"dtype": torch.float64}
SCHEDULE = cosine_schedule(100)
COV = torch.tensor([[1.0, 0.8], [0.8, 1.0]], **FLOAT)
KNOWN = torch.tensor([True, False])


def correlated(x, t):
    """E[x0 | x_t] of two Gaussian numbers of correlation 0.8."""
    ab = SCHEDULE.alpha_bar[t[0]]
    noisy = ab * COV + (1 - ab) * torch.eye(2, **FLOAT)
    return x @ (ab.sqrt() * COV @ noisy.inverse()).T


def inpainted(rounds, n=1000):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.tensor([1.5, 0.0], **FLOAT).expand(n, 2)
    step = replacing(SCHEDULE, partial(ancestral_step, SCHEDULE), x0, KNOWN)
    step = resampling(SCHEDULE, step, correlated, rounds, generator=generator)
    x_T = torch.randn(n, 2, generator=generator, **FLOAT)
    x = last(sample(correlated, step, x_T, spaced_times(100, 100), generator=generator))
    assert torch.equal(x[:, 0], x0[:, 0])
    return x[:, 1]


def test_replacement_is_biased_and_resampling_comes_nearer():
    right = 0.8 * 1.5  # the mean of the second, given the first
    once, often = (abs(inpainted(r).mean().item() - right) for r in (1, 6))
    assert once > 0.1
    assert often < once / 2


def test_one_round_of_resampling_is_the_step():
    step = partial(ddim_step, SCHEDULE)
    again = resampling(SCHEDULE, step, correlated, 1)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), **FLOAT)
    assert torch.equal(again(x, x, 60, 40, x), step(x, x, 60, 40, x))


def test_resampling_keeps_the_marginal():
    """Up and down again with the posterior of a point leaves q(x_u | x0) alone."""
    step = partial(ancestral_step, SCHEDULE, variance=posterior_variance)
    point = torch.full((5000, 1), 0.7, **FLOAT)
    generator = torch.Generator().manual_seed(2)
    again = resampling(SCHEDULE, step, lambda x, t: point, 3, generator=generator)
    a, b = SCHEDULE.alpha_bar[60], SCHEDULE.alpha_bar[40]
    noise = torch.randn(2, 5000, 1, generator=generator, **FLOAT)
    x_t = a.sqrt() * point + (1 - a).sqrt() * noise[0]
    x_u = again(x_t, point, 60, 40, noise[1])
    assert x_u.mean() == pytest.approx(0.7 * b.sqrt().item(), abs=0.04)
    assert x_u.std() == pytest.approx((1 - b).sqrt().item(), abs=0.04)


def test_guidance_is_exact_for_gaussian_data_and_the_variance_of_the_known_part():
    """The rule takes (1 - ab) / ab for it; `scale` can make up for the difference."""
    ab = SCHEDULE.alpha_bar[60]
    x_t = torch.randn(6, 2, generator=torch.Generator().manual_seed(4), **FLOAT)
    x0, t = torch.tensor([1.5, 0.0], **FLOAT).expand(6, 2), torch.full((6,), 60)
    noisy = ab * COV + (1 - ab) * torch.eye(2, **FLOAT)
    given_x_t = COV - ab * COV @ noisy.inverse() @ COV
    scale = ((1 - ab) / ab / given_x_t[0, 0]).item()
    denoise = reconstruction_guided(correlated, SCHEDULE, x0, KNOWN, scale=scale)
    # E[x0 | x_t and x0's first number], from the Gaussian of all five numbers
    seen = torch.cat([ab.sqrt() * COV, COV[:1]])
    between = torch.cat([torch.cat([noisy, seen[:2, :1]], 1), seen[2:].new_ones(1, 3)])
    between[2] = torch.cat([seen[:2, 0], COV[0, :1]])
    observed = torch.cat([x_t, x0[:, :1]], dim=1)
    right = observed @ (seen.T @ between.inverse()).T
    torch.testing.assert_close(denoise(x_t, t), right)
    torch.testing.assert_close(right[:, 0], x0[:, 0])


def test_guidance_moves_nothing_that_the_known_part_says_nothing_of():
    denoise = blobs(torch.zeros(1, 2, **FLOAT), 0.7).denoiser(SCHEDULE)
    x0, x_t = torch.ones(3, 2, **FLOAT), torch.zeros(3, 2, **FLOAT)
    t = torch.full((3,), 50)
    guided = reconstruction_guided(denoise, SCHEDULE, x0, KNOWN)(x_t, t)
    torch.testing.assert_close(guided[:, 1], denoise(x_t, t)[:, 1])
    ab = SCHEDULE.alpha_bar[50].item()
    factor = ab * 0.49 / (ab * 0.49 + 1 - ab)  # a times the slope of x0_hat
    torch.testing.assert_close(guided[:, 0], torch.full((3,), factor, **FLOAT))


def test_guidance_takes_each_sample_for_itself():
    x_t = torch.randn(4, 2, generator=torch.Generator().manual_seed(5), **FLOAT)
    x0, t = torch.flip(x_t, [0]), torch.full((4,), 30)
    together = reconstruction_guided(correlated, SCHEDULE, x0, KNOWN)(x_t, t)
    alone = reconstruction_guided(correlated, SCHEDULE, x0[2:3], KNOWN)
    torch.testing.assert_close(together[2:3], alone(x_t[2:3], t[:1]))


def test_guidance_leaves_no_gradient_and_no_mode_behind():
    net = torch.nn.Linear(2, 2, **FLOAT)  # its weights ask for gradients
    x_t, x0 = torch.ones(2, 3, 2, **FLOAT)
    guided = reconstruction_guided(lambda x, t: net(x), SCHEDULE, x0, KNOWN)
    t = torch.full((3,), 10)
    for on in (True, False):
        with torch.set_grad_enabled(on):
            x0_hat = guided(x_t, t)
            assert torch.is_grad_enabled() == on
        assert not x0_hat.requires_grad and not x_t.requires_grad
    assert all(p.grad is None for p in net.parameters())


def test_guidance_is_less_biased_than_replacement():
    x0 = torch.tensor([1.5, 0.0], **FLOAT).expand(1000, 2)
    generator = torch.Generator().manual_seed(0)
    denoise = reconstruction_guided(correlated, SCHEDULE, x0, KNOWN, scale=2)
    x_T = torch.randn(1000, 2, generator=generator, **FLOAT)
    step, times = partial(ancestral_step, SCHEDULE), spaced_times(100, 100)
    x = last(sample(denoise, step, x_T, times, generator=generator))
    off = abs(x[:, 1].mean().item() - 1.2)
    assert off < abs(inpainted(1).mean().item() - 1.2) / 2


def round_trip(steps, rounds=1):
    schedule = cosine_schedule(1000)
    data = mixture(schedule, (1.0, 0.3, 0.5))
    times = spaced_times(900, steps)
    x0 = torch.linspace(-1, 1, 9, **FLOAT).view(-1, 1)
    x_t = last(invert(data.denoise, schedule, x0, times, rounds=rounds))
    back = last(sample(data.denoise, partial(ddim_step, schedule), x_t, times))
    return (back - x0).abs().max().item()


def test_the_error_of_inversion_falls_with_the_steps():
    errors = [round_trip(steps) for steps in (20, 40, 80)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.25)


def test_rounds_make_inversion_exact():
    assert round_trip(50, rounds=40) < 1e-6


def test_an_arc_keeps_the_length_and_meets_its_ends():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 4, 3, 8, 8, generator=generator, **FLOAT)
    torch.testing.assert_close(slerp(x, y, 0.0), x)
    torch.testing.assert_close(slerp(x, y, 1.0), y)
    torch.testing.assert_close(slerp(x, x, 0.3), x)
    x, y = (v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (x, y))
    lengths = slerp(x, y, 0.4).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4, **FLOAT))


def test_what_makes_no_sense_is_refused():
    step, x = partial(ddim_step, SCHEDULE), torch.zeros(1, 2, **FLOAT)
    with pytest.raises(ValueError, match="booleans"):
        replacing(SCHEDULE, step, x, torch.ones(2))
    with pytest.raises(ValueError, match="keep must broadcast"):
        reconstruction_guided(correlated, SCHEDULE, x, torch.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="scale must be a finite number, got nan"):
        reconstruction_guided(correlated, SCHEDULE, x, KNOWN, scale=float("nan"))
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        resampling(SCHEDULE, step, correlated, 0)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        last(invert(correlated, SCHEDULE, x, [10, 0], rounds=0))
    with pytest.raises(ValueError, match="fall strictly and end at 0"):
        last(invert(correlated, SCHEDULE, x, [0, 10]))
