"""The score: what a denoiser says of the density, and steps along it. Chapter 13."""

from collections.abc import Callable
from math import log, sqrt

from torch import Tensor

from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Samples, Times

Score = Callable[[Samples, Times], Samples]
"""(x_t, t) -> the gradient of log p_t at x_t."""


def make_score(denoise: Denoise, schedule: Schedule) -> Score:
    """Read the score off a denoiser: (a x0_hat - x_t) / s^2 = -eps_hat / s.

    Tweedie's formula, Vincent 2011, section 4.2. `t` lies in 1..T. Chapter 13.
    """

    def score(x_t: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.scales(t, like=x_t)
        return (a * denoise(x_t, t) - x_t) / s.square()

    return score


def langevin_step(x: Samples, score: Samples, size: float, noise: Samples) -> Samples:
    """Step uphill and add noise: x + size score + sqrt(2 size) noise.

    Song and Ermon 2019, eq. (4), whose epsilon is 2 size. Small steps for long leave
    any density whose score it is unchanged, and make it from any other; steps of finite
    size leave it too wide. Raises ValueError for a size that is not above 0. Chapter
    13.
    """
    if not size > 0:
        raise ValueError(f"size must be above 0, got {size}")
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
    """Euler's step of the equation backwards in time, with as much noise as asked.

    x + B/2 (x + (1 + churn) score) + sqrt(churn B) noise, where B = log(ab_u / ab_t) is
    the integral of beta from u to t: Song et al. 2021 (SDE), eqs. (6) and (13). churn =
    1 is the reverse stochastic equation, 0 the ordinary one; all have the same law at
    each time. Raises ValueError for a negative churn and where no signal is left.
    Chapter 13.
    """
    if churn < 0:
        raise ValueError(f"churn must not be negative, got {churn}")
    ab_t, ab_u = schedule.alpha_bar_list[t], schedule.alpha_bar_list[u]
    if ab_t == 0:
        raise ValueError(
            "the equation cannot be stepped from pure noise (alpha_bar_t = 0), where "
            "beta is infinite: take ddim_step or ancestral_step"
        )
    score = (sqrt(ab_t) * x0_hat - x) / (1 - ab_t)
    passed = log(ab_u / ab_t)
    drift = passed / 2 * (x + (1 + churn) * score)
    return x + drift + sqrt(churn * passed) * noise
