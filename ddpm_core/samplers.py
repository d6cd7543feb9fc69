"""From noise to data: steps from t to `u < t`, and their loop. Chapters 08, 09.

A step is `step(x_t, x0_hat, t, u, noise) -> x_u`; bind its schedule with
`functools.partial`. Whatever the model is, the sampler sees `denoise(x_t, t) ->
x0_hat`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from math import expm1, inf, log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_like,
    check_number,
    check_output,
)
from ddpm_core.options import one_of
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Samples

Step = Callable[[Tensor, Tensor, int, int, Tensor], Tensor]
"""(x_t, x0_hat, t, u, noise) -> x_u, with `u < t`."""

Noise = torch.Generator | Sequence[torch.Generator] | None
"""Where noise comes from: one generator for a batch, or one for each of its samples."""

Variance = Callable[[Schedule, int, int], float]
"""(schedule, t, u) -> the variance of an ancestral step from t to u."""


class State(NamedTuple):
    """Where a sampling run stands: `x` at time `t`, and the clean sample seen in it.

    `x0_hat` is the model's estimate from this `x`; at `t = 0` it is `x` itself.
    """

    t: int
    x: Samples
    x0_hat: Samples


def sample(
    denoise: Denoise,
    step: Step,
    x_T: Samples,
    times: Sequence[int],
    *,
    generator: Noise = None,
) -> Iterator[State]:
    """Step from x_T down the times to 0 and yield the state at each of them.

    `times` fall strictly and end at 0, as `spaced_times` gives them; the first state
    holds x_T, the last the finished samples. `denoise` is called len(times) - 1 times.
    The noise of the steps is drawn from `generator`; with a sequence of them, one a
    sample, a sample does not depend on the others in its batch. Raises ValueError for
    times that do not fall to 0, and for a `denoise` or a `step` that returns another
    shape than x. Ho et al. 2020, algorithm 2. Chapter 08.
    """
    check_floating("x_T", x_T)
    _check_times_fall(times)
    return _walk(denoise, step, x_T, times, generator)


def _walk(
    denoise: Denoise, step: Step, x: Samples, times: Sequence[int], generator: Noise
) -> Iterator[State]:
    for t, u in pairwise(times):
        with torch.no_grad():  # not around the yield: the caller's mode is the caller's
            x0_hat = denoise(x, torch.full((len(x),), t, device=x.device))
        check_output("denoise", x0_hat, x, "x_t")
        yield State(t, x, x0_hat)
        with torch.no_grad():
            x_u = step(x, x0_hat, t, u, noise_like(x, generator))
        check_output("step", x_u, x, "x_t")
        x = x_u
    yield State(0, x, x)


def noise_like(x: Samples, generator: Noise = None) -> Samples:
    """Draw noise of the shape of x, on its device, from one generator or from many.

    Raises ValueError for a sequence that does not have one generator for each sample.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    if len(generator) != len(x):
        raise ValueError(
            f"{len(x)} samples need one generator, or as many, got {len(generator)}"
        )
    rows = [
        torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device)
        for g in generator
    ]
    return torch.stack(rows) if rows else torch.empty_like(x)


def last(states: Iterator[State]) -> Samples:
    """Run the sampler to its end and return the finished samples."""
    for state in states:  # noqa: B007 the last one is wanted
        pass
    return state.x


def followed_variance(
    step: Step, denoise: Denoise, times: Sequence[int], start: float = 1.0
) -> float:
    """Return the variance of the samples of one number, exactly, without drawing any.

    Where a step multiplies x by g and adds h times the noise, the variance v becomes
    `g^2 v + h^2`. This holds for the denoiser of a Gaussian around 0
    (`mixtures.blobs`). `start` is the variance at the first of the times, which fall
    and need not end at 0. Chapter 08.
    """
    check_number("start", start, 0)
    _check_times_fall(times, to_zero=False)
    one, zero = torch.tensor([[[1.0]], [[0.0]]], dtype=torch.float64)
    variance = start
    for t, u in pairwise(times):
        x0_hat = denoise(one, torch.tensor([t]))
        gain = step(one, x0_hat, t, u, zero).item()
        std = step(zero, zero, t, u, one).item()
        variance = gain**2 * variance + std**2
    return variance


def spaced_times(T: int, steps: int, t_end: int = 0) -> list[int]:
    """Return steps + 1 integers from T down to 0, as evenly spaced as integers allow.

    Both ends are included, as Lin et al. 2024, section 3.3, recommend. With `t_end`
    above 0 the spaced times end there, and the last step goes to 0 at once: for a
    network that cannot be trusted where there is hardly any noise. Raises ValueError
    unless 1 <= steps <= T and, with `t_end`, 2 <= steps <= T - t_end + 1. Chapters 09
    and 14.
    """
    for name, value in (("T", T), ("steps", steps), ("t_end", t_end)):
        check_count(name, value, low=-inf)
    if not 1 <= steps <= T:
        raise ValueError(
            f"steps must lie in 1..{T}, got {steps}: the model knows T = {T} times, "
            "and each step must go to a smaller one"
        )
    if not t_end:
        return [round(T * (steps - i) / steps) for i in range(steps + 1)]
    if not (0 < t_end < T and 2 <= steps <= T - t_end + 1):
        raise ValueError(
            f"t_end must lie in 0..{T - 1} and leave {steps} steps, of which the last "
            f"is from there to 0, got {t_end}"
        )
    return [t_end + t for t in spaced_times(T - t_end, steps - 1)] + [0]


def log_snr_times(schedule: Schedule, steps: int, t_end: int = 0) -> list[int]:
    """Return steps + 1 timesteps from T to 0 whose log-SNR falls in even steps.

    Lu et al. 2022 (DPM-Solver), section 3.3: small steps near the data, where the
    signal-to-noise ratio changes fastest in t. The last step is from `t = 1`, or from
    `t_end`, to 0. Where s / a exceeds `LARGEST_SIGMA` at T, the even spacing begins
    below it, after one step. Neighbours stay at least 1 apart. Raises ValueError as
    `spaced_times` does. Chapter 09.
    """
    T, last = schedule.T, t_end or 1
    spaced_times(T, steps, t_end)  # for its errors
    if steps == 1:
        return [T, 0]
    half = [_half_log_snr(ab) for ab in schedule.alpha_bar_list[1:]]  # of t = 1..T
    start = T
    if _begins_in_noise(schedule):
        start = max(t for t in range(1, T) if half[t - 1] >= -log(LARGEST_SIGMA))
        start = max(start, last + steps - 2)
    inner = steps - 1 - (start < T)  # intervals between start and last
    rise = (half[last - 1] - half[start - 1]) / max(1, inner)
    curve = [-value for value in half[:start]]  # rises with t
    times = [T] if start < T else []
    for i in range(inner + 1):
        t = 1 + bisect_left(curve, -(half[start - 1] + i * rise) - 1e-9)
        least, most = last + inner - i, (times[-1] - 1 if times else start)
        times.append(max(least, min(most, t)))
    return [*times, 0]


SPACINGS: dict[str, Callable[[Schedule, int, int], list[int]]] = {
    "time": lambda schedule, steps, t_end: spaced_times(schedule.T, steps, t_end),
    "log-snr": log_snr_times,
}
"""The ways to choose the timesteps of a run, by name."""


def posterior_variance(schedule: Schedule, t: int, u: int) -> float:
    """beta-tilde, the variance of q(x_u | x_t, x_0): the right one for a single point.

    `(1 - alpha_bar_u) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_u)`,
    Ho et al. 2020, eq. (7), for `u = t - 1`. Chapter 08.
    """
    ab_t, ab_u = schedule.alpha_bars(t, u)
    return (1 - ab_u) / (1 - ab_t) * (1 - ab_t / ab_u)


def forward_variance(schedule: Schedule, t: int, u: int) -> float:
    """beta, the variance of q(x_t | x_u): the right one for data that is N(0, I).

    `1 - alpha_bar_t / alpha_bar_u`, Ho et al. 2020, section 3.2, for `u = t - 1`.
    Chapter 08.
    """
    ab_t, ab_u = schedule.alpha_bars(t, u)
    return 1 - ab_t / ab_u


def ancestral_step(
    schedule: Schedule,
    x: Samples,
    x0_hat: Samples,
    t: int,
    u: int,
    noise: Samples,
    *,
    variance: Variance = posterior_variance,
) -> Samples:
    """Draw x_u from `q(x_u | x_t, x_0 = x0_hat)`, the step of DDPM.

    `mean = sqrt(ab_u) (1 - ab_t/ab_u) / (1 - ab_t) x0_hat
         + sqrt(ab_t/ab_u) (1 - ab_u) / (1 - ab_t) x_t`,
    Ho et al. 2020, eqs. (6) and (7), for any `u < t` (alpha_t becomes ab_t/ab_u).
    The step to `u = 0` returns x0_hat. Chapters 08 and 09.
    """
    ab_t, ab_u = schedule.alpha_bars(t, u)
    _check_step(x, x0_hat, noise=noise)
    if u == 0:
        return x0_hat
    to_clean = sqrt(ab_u) * (1 - ab_t / ab_u) / (1 - ab_t)
    to_noisy = sqrt(ab_t / ab_u) * (1 - ab_u) / (1 - ab_t)
    std = sqrt(variance(schedule, t, u))
    return to_clean * x0_hat + to_noisy * x + std * noise


def ddim_step(
    schedule: Schedule,
    x: Samples,
    x0_hat: Samples,
    t: int,
    u: int,
    noise: Samples,
    *,
    eta: float = 0.0,
) -> Samples:
    """Step along the line from x0_hat through x_t, renewing a part of the noise.

    `x_u = sqrt(ab_u) x0_hat + sqrt(1 - ab_u - std^2) eps_hat + std noise`, with `std =
    eta sqrt(beta-tilde)`, Song et al. 2021 (DDIM), eqs. (12) and (16). `eta = 0` is
    deterministic, `eta = 1` is `ancestral_step`. Chapter 09.
    """
    check_number("eta", eta, 0, 1)
    ab_t, ab_u = schedule.alpha_bars(t, u)
    _check_step(x, x0_hat, noise=noise)
    eps_hat = (x - sqrt(ab_t) * x0_hat) / sqrt(1 - ab_t)
    std = eta * sqrt(posterior_variance(schedule, t, u))
    kept = sqrt(max(1 - ab_u - std**2, 0.0))
    return sqrt(ab_u) * x0_hat + kept * eps_hat + std * noise


class DPMSolverPP2M:
    """DPM-Solver++(2M): second order from one call a step, and the last x0_hat.

    Lu et al. 2022 (DPM-Solver++), algorithm 2. Make a fresh one for each run: it holds
    the run's memory. The first step and the step to 0 are of first order (DDIM's).
    Chapter 09.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.previous = None  # (x0_hat, half log-SNR) of the step before

    def __call__(
        self, x: Samples, x0_hat: Samples, t: int, u: int, noise: Samples
    ) -> Samples:
        """Step x_t -> x_u; `noise` is not used."""
        ab_t, ab_u = self.schedule.alpha_bars(t, u)
        _check_step(x, x0_hat)
        lambda_t = _half_log_snr(ab_t)
        estimate = x0_hat
        if self.previous is not None and u > 0:
            before, lambda_before = self.previous
            slope = (_half_log_snr(ab_u) - lambda_t) / (lambda_t - lambda_before) / 2
            estimate = x0_hat + slope * (x0_hat - before)
        if u == 0:
            self.previous = None  # the run is over
            return x0_hat
        self.previous = (x0_hat, lambda_t)
        h = _half_log_snr(ab_u) - lambda_t
        return sqrt((1 - ab_u) / (1 - ab_t)) * x - sqrt(ab_u) * expm1(-h) * estimate


LARGEST_SIGMA = 80.0
"""The noise level s / a from which Karras et al. 2022, table 1, sample images."""


class Heun:
    """Heun's method on dx/dsigma, second order from two calls a step, for one run.

    With `sigma = s / a`, x / a moves by the mean of its slopes (x - x0_hat) / s at both
    ends: Karras et al. 2022, algorithm 1, without its churn. Euler's steps, which are
    DDIM's, are the last one, to 0, and the first where sigma exceeds `LARGEST_SIGMA`
    there. Each of the `intervals` takes one of the network calls; what is left is spent
    on second slopes, from the end backwards. Chapter 09.
    """

    def __init__(self, schedule: Schedule, denoise: Denoise, calls: int):
        check_count("calls", calls)
        self.schedule, self.denoise = schedule, denoise
        intervals = self.intervals(schedule, calls)
        self.euler = 2 * intervals - 1 - calls  # steps with one slope, at the start
        self.taken = 0

    @staticmethod
    def intervals(schedule: Schedule, calls: int) -> int:
        """Return how many steps the network calls are enough for."""
        return min(calls, (calls + _begins_in_noise(schedule)) // 2 + 1)

    def __call__(
        self, x: Samples, x0_hat: Samples, t: int, u: int, noise: Samples
    ) -> Samples:
        """Step x_t -> x_u; `noise` is not used."""
        self.taken += 1
        euler = ddim_step(self.schedule, x, x0_hat, t, u, noise)
        if u == 0 or self.taken <= self.euler:
            return euler
        ab_t, ab_u = self.schedule.alpha_bars(t, u)
        sigma_t, sigma_u = sqrt(1 / ab_t - 1), sqrt(1 / ab_u - 1)
        first = (x / sqrt(ab_t) - x0_hat) / sigma_t
        there = self.denoise(euler, torch.full((len(x),), u, device=x.device))
        second = (euler / sqrt(ab_u) - there) / sigma_u
        return sqrt(ab_u) * (
            x / sqrt(ab_t) + (sigma_u - sigma_t) * (first + second) / 2
        )


class Sampler(NamedTuple):
    """How to sample under one name: `make(schedule, denoise, calls)` is a run's step.

    `intervals(schedule, calls)`: the steps which that many network calls are enough
    for.
    """

    make: Callable[[Schedule, Denoise, int], Step]
    intervals: Callable[[Schedule, int], int] = lambda schedule, calls: calls


SAMPLERS = {
    "ddim": Sampler(lambda schedule, denoise, calls: partial(ddim_step, schedule)),
    "ancestral": Sampler(
        lambda schedule, denoise, calls: partial(ancestral_step, schedule)
    ),
    "dpm-solver++": Sampler(lambda schedule, denoise, calls: DPMSolverPP2M(schedule)),
    "heun": Sampler(Heun, Heun.intervals),
}
"""The samplers by name: one row here makes one known everywhere. Chapter 09."""


def sample_by_name(
    name: str,
    schedule: Schedule,
    denoise: Denoise,
    x_T: Samples,
    calls: int,
    *,
    spacing: str = "time",
    t_end: int = 0,
    generator: Noise = None,
) -> Iterator[State]:
    """Sample from x_T in that many network calls; yields as `sample` does.

    `name` is one of `SAMPLERS`, `spacing` one of `SPACINGS`; where `t_end` is above 0,
    the last step is from there. Raises ValueError for other names and for calls that
    the schedule does not have. Chapter 09.
    """
    times = times_by_name(name, schedule, calls, spacing=spacing, t_end=t_end)
    step = SAMPLERS[name].make(schedule, denoise, calls)
    return sample(denoise, step, x_T, times, generator=generator)


def times_by_name(
    name: str, schedule: Schedule, calls: int, *, spacing: str = "time", t_end: int = 0
) -> list[int]:
    """Return the timesteps of `sample_by_name`; raises as it does. Chapter 09."""
    sampler = SAMPLERS[one_of("sampler", name, SAMPLERS)]
    space = SPACINGS[one_of("spacing", spacing, SPACINGS)]
    check_count("steps", calls, low=-inf)
    if not 1 <= calls <= schedule.T:
        raise ValueError(
            f"steps must lie in 1..{schedule.T}, got {calls}: the model knows "
            f"T = {schedule.T} timesteps, and each call must be at a smaller one"
        )
    return space(schedule, sampler.intervals(schedule, calls), t_end)


def _check_step(x: Tensor, x0_hat: Tensor, **noise: Tensor) -> None:
    check_floating("x", x)
    for name, other in {"x0_hat": x0_hat, **noise}.items():
        check_like(name, other, x, of="x")


def _begins_in_noise(schedule: Schedule) -> bool:
    """Whether so little signal is left at T that one step may leave it behind."""
    return _half_log_snr(schedule.alpha_bar_list[-1]) < -log(LARGEST_SIGMA)


def _half_log_snr(ab: float) -> float:
    """lambda = log(ab / (1 - ab)) / 2, Lu et al. 2022 (DPM-Solver++), section 2."""
    return float("-inf") if ab == 0 else (log(ab) - log(1 - ab)) / 2


def _check_times_fall(times: Sequence[int], *, to_zero: bool = True) -> None:
    for t in times:
        check_count("each of the times", t, 0)
    falling = all(t > u for t, u in pairwise(times))
    if len(times) < 2 or not falling or (to_zero and times[-1] != 0):
        raise ValueError(
            f"times must fall strictly{' and end at 0' if to_zero else ''}, got "
            f"{list(times)[:8]}" + ("..." if len(times) > 8 else "")
        )
