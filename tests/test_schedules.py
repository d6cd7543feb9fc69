"""Schedules against closed forms, against diffusers, and their refusals."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm_core.schedules import (
    Schedule,
    cosine_schedule,
    linear_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)

ALL = [linear_schedule, cosine_schedule, sigmoid_schedule]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("T", [2, 10, 512, 1000, 4000])
def test_derived_curves_agree_with_alpha_bar(make, T):
    schedule = make(T, 1e-4, 0.02) if make is linear_schedule else make(T)
    assert schedule.T == T and schedule.alpha_bar[0] == 1
    torch.testing.assert_close(schedule.alpha.cumprod(0), schedule.alpha_bar)
    torch.testing.assert_close(schedule.beta, 1 - schedule.alpha)
    ab = schedule.snr[1:] / (1 + schedule.snr[1:])
    torch.testing.assert_close(ab, schedule.alpha_bar[1:])


def test_linear_has_the_published_terminal_values():
    """facts: T = 512 leaves 0.0750 of the signal's amplitude, T = 1000 0.00635."""
    for T, ab, root in [(512, 0.00563, 0.0750), (1000, 4.04e-5, 0.00635)]:
        last = linear_schedule(T).alpha_bar[-1].item()
        assert last == pytest.approx(ab, rel=2e-3)
        assert math.sqrt(last) == pytest.approx(root, rel=2e-3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear_schedule, {"beta_schedule": "linear"}),
        (cosine_schedule, {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_alpha_bar_is_that_of_diffusers(ours, theirs):
    scheduler = DDPMScheduler(1000, **theirs)
    ab = ours(1000).alpha_bar[1:]
    torch.testing.assert_close(ab, scheduler.alphas_cumprod.double(), rtol=0, atol=1e-5)


def test_sigmoid_is_antisymmetric_about_its_middle():
    """alpha_bar(1 - u) = 1 - alpha_bar(u) for symmetric ends, away from the cap."""
    ab = sigmoid_schedule(1000, max_beta=1.0).alpha_bar
    torch.testing.assert_close(ab.flip(0), 1 - ab, rtol=0, atol=1e-12)


def test_cosine_follows_its_formula_up_to_the_cap():
    ab = cosine_schedule(100).alpha_bar
    f = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    want = torch.tensor(f, dtype=torch.float64) / f[0]
    torch.testing.assert_close(ab[:-1], want[:-1])


@pytest.mark.parametrize("make", ALL)
def test_zero_terminal_snr_ends_at_zero_and_keeps_the_start(make):
    before, after = make(512), rescale_zero_terminal_snr(make(512))
    assert after.alpha_bar[-1] == 0 and after.ends_in_pure_noise
    assert not before.ends_in_pure_noise
    torch.testing.assert_close(after.alpha_bar[1], before.alpha_bar[1])
    ratio = after.alpha_bar[1:-1].sqrt().diff() / before.alpha_bar[1:-1].sqrt().diff()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_zero_terminal_snr_is_that_of_diffusers():
    scheduler = DDIMScheduler(1000, rescale_betas_zero_snr=True)
    ours = rescale_zero_terminal_snr(linear_schedule(1000)).alpha_bar[1:]
    torch.testing.assert_close(
        ours, scheduler.alphas_cumprod.double(), rtol=0, atol=1e-5
    )


def test_scales_are_the_roots_in_the_shape_and_dtype_of_their_image():
    schedule = linear_schedule(100)
    like = torch.zeros(3, 3, 4, 4)
    a, s = schedule.scales(torch.tensor([0, 50, 100]), like)
    assert a.shape == s.shape == (3, 1, 1, 1) and a.dtype == torch.float32
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))
    assert a[0] == 1 and s[0] == 0
    assert a[1].item() == pytest.approx(math.sqrt(schedule.alpha_bar[50]), rel=1e-6)


@pytest.mark.parametrize("t", [-1, 101])
def test_scales_refuse_times_outside(t):
    with pytest.raises(ValueError, match=r"0\.\.100, got"):
        linear_schedule(100).scales(torch.tensor([t]), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "T\\+1 >= 2"),
        ([0.9, 0.5], "must be 1"),
        ([1.0, 0.5, 0.5], "fall strictly, got 0.5 at t = 1 and 0.5 at 2"),
        ([1.0, 0.5, float("nan")], "fall strictly"),
        ([1.0, 0.5, -0.1], ">= 0"),
    ],
)
def test_a_schedule_that_is_none_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Schedule(torch.tensor(values, dtype=torch.float64))


def test_options_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="beta_start = 0.5, beta_end = 0.02"):
        linear_schedule(100, 0.5, 0.02)
    with pytest.raises(ValueError, match="T must be at least 2, got 1"):
        cosine_schedule(1)
    with pytest.raises(ValueError, match="start < end"):
        sigmoid_schedule(10, 3.0, -3.0)
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0 to 0.5"):
        Schedule.from_beta(torch.tensor([0.0, 0.5], dtype=torch.float64))
