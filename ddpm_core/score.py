"""The score: what a denoiser says about the density, and steps along it. Chapter 13."""

from collections.abc import Callable
from math import log, sqrt

from torch import Tensor

from ddpm_core.checking import (
    check_floating,
    check_like,
    check_number,
    check_output,
    check_timed,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Samples, Times

Score = Callable[[Samples, Times], Samples]
"""(x_t, t) -> the gradient of log p_t at x_t."""


def make_score(denoise: Denoise, schedule: Schedule) -> Score:
    """Read the score off a denoiser: `(a x0_hat - x_t) / s^2 = -eps_hat / s`.

    Tweedie's formula, Vincent 2011, section 4.2. `t` lies in 1..T: on the CPU the
    result raises ValueError for other times. Chapter 13.
    """

    def score(x_t: Tensor, t: Tensor) -> Tensor:
        check_timed("x_t", x_t, t)
        if t.device.type == "cpu":
            schedule.check_times(t, first=1)
        a, s = schedule.scales(t, like=x_t)
        x0_hat = denoise(x_t, t)
        check_output("denoise", x0_hat, x_t, "x_t")
        return (a * x0_hat - x_t) / s.square()

    return score


def langevin_step(x: Samples, score: Samples, size: float, noise: Samples) -> Samples:
    """Step uphill and add noise: x + size score + sqrt(2 size) noise.

    Song and Ermon 2019, eq. (4), whose epsilon is 2 size. Many small steps leave the
    density with this score unchanged, and turn any other into it; steps of finite size
    leave it too wide. Raises ValueError for a size that is not above 0. Chapter 13.
    """
    check_number("size", size, above=0)
    check_floating("x", x)
    for name, other in (("score", score), ("noise", noise)):
        check_like(name, other, x, of="x")
    return x + size * score + sqrt(2 * size) * noise


def sde_step(
    schedule: Schedule,
    x: Samples,
    x0_hat: Samples,
    t: int,
    u: int,
    noise: Samples,
    *,
    churn: float = 1.0,
) -> Samples:
    """Euler's step of the equation backwards in time, with as much noise as requested.

    `x + B/2 (x + (1 + churn) score) + sqrt(churn B) noise`, with `B = log(ab_u /
    ab_t)`, the integral of beta from u to t: Song et al. 2021 (SDE), eqs. (6) and (13).
    `churn = 1` is the reverse stochastic equation, 0 the ordinary one; all have the
    same marginals. Raises ValueError for a negative churn and where no signal is left.
    Chapter 13.
    """
    check_number("churn", churn, 0)
    check_floating("x", x)
    for name, other in (("x0_hat", x0_hat), ("noise", noise)):
        check_like(name, other, x, of="x")
    ab_t, ab_u = schedule.alpha_bars(t, u)
    if ab_t == 0:
        raise ValueError(
            "the equation cannot be stepped from pure noise (alpha_bar_t = 0), where "
            "beta is infinite: take ddim_step or ancestral_step"
        )
    score = (sqrt(ab_t) * x0_hat - x) / (1 - ab_t)
    passed = log(ab_u / ab_t)
    drift = passed / 2 * (x + (1 + churn) * score)
    return x + drift + sqrt(churn * passed) * noise
