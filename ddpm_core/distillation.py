"""Fewer calls: pairs (x0, eps) that a teacher makes for its student. Chapter 13.

Nothing here is a second loss. A lesson turns what `diffusion_loss` takes, (x0, t, eps),
into another such triple: x0 is no longer a picture of the data but the end of the
straight line that replaces some of the teacher's steps.
"""

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Int
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_like,
    check_output,
    check_timed,
    quoted,
)
from ddpm_core.diffusion import add_noise
from ddpm_core.samplers import spaced_times
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Samples, Times

Lesson = Callable[[Samples, Times, Samples], tuple[Samples, Times, Samples]]
"""(x0, t, eps) -> (x0, t, eps): from what the data give to what the teacher gives."""

Paths = Int[Tensor, "k b"]
"""The times of k - 1 steps, falling, for each sample its own."""


@torch.no_grad()
def follow(denoise: Denoise, schedule: Schedule, x: Samples, times: Paths) -> Samples:
    """Take DDIM's steps from x, each sample at its own times: Song et al. 2021, (12).

    Raises ValueError for times that do not fall, on the CPU. Chapter 13.
    """
    check_floating("x", x)
    check_integers("times", times, "(k, b)")
    if times.device.type == "cpu" and not (times.diff(dim=0) < 0).all():
        raise ValueError(
            f"times must fall for each sample, got {quoted(times.tolist())}"
        )
    for t, u in pairwise(times):
        x0_hat = denoise(x, t)
        check_output("denoise", x0_hat, x, "x_t")
        a, s = schedule.scales(t, like=x)
        x = add_noise(schedule, x0_hat, u, (x - a * x0_hat) / s)
    return x


def shortcut(
    denoise: Denoise, schedule: Schedule, x_t: Samples, times: Paths
) -> tuple[Samples, Samples]:
    """Return the (x0, eps) for which one DDIM step goes where the teacher's steps go.

    `x0 = (s_t x_u - s_u x_t) / (s_t a_u - s_u a_t)`, `eps = (x_t - a_t x0) / s_t`,
    where x_u is where `denoise` leads from x_t by way of all `times`: Salimans and Ho
    2022, algorithm 2, for two steps. Chapter 13.
    """
    x_u = follow(denoise, schedule, x_t, times)
    a_t, s_t = schedule.scales(times[0], like=x_t)
    a_u, s_u = schedule.scales(times[-1], like=x_t)
    x0 = (s_t * x_u - s_u * x_t) / (s_t * a_u - s_u * a_t)
    return x0, (x_t - a_t * x0) / s_t


def progressive(
    denoise: Denoise, schedule: Schedule, *, calls: int, teacher_calls: int
) -> Lesson:
    """Teach a student to sample in `calls` calls what takes the teacher more of them.

    Each t becomes the first time of that of the student's steps in which it lies; x0
    and eps are the `shortcut` through the teacher's steps. `teacher_calls` is a
    multiple of `calls`, or ValueError is raised. Salimans and Ho 2022, algorithm 2.
    Chapter 13.
    """
    check_count("calls", calls)
    check_count("teacher_calls", teacher_calls)
    if teacher_calls % calls:
        raise ValueError(
            f"teacher_calls must be a multiple of calls = {calls}, got {teacher_calls}"
        )
    grid = _grid(schedule, teacher_calls)
    steps = torch.arange(teacher_calls // calls + 1, device=grid.device)[:, None]

    def lesson(x0: Samples, t: Times, eps: Samples) -> tuple[Samples, Times, Samples]:
        _check_times(schedule, x0, t)
        left = (t - 1) * calls // schedule.T  # steps of the student after this one
        first = (calls - 1 - left) * (len(steps) - 1)
        times = grid.to(t.device)[first + steps.to(t.device)]
        x_t = add_noise(schedule, x0, times[0], eps)
        x0, eps = shortcut(denoise, schedule, x_t, times)
        return x0, times[0], eps

    return lesson


def reflow(denoise: Denoise, schedule: Schedule, *, teacher_calls: int) -> Lesson:
    """Teach a student straight ways from the noise to what the teacher makes of it.

    x0 becomes the teacher's sample from `x_T = eps`, t and eps stay: Liu et al. 2023,
    algorithm 1. Raises ValueError for a schedule that does not end in pure noise.
    Chapter 13.
    """
    if not schedule.ends_in_pure_noise:
        raise ValueError(
            "the schedule must end in pure noise (alpha_bar_T = 0), "
            f"got alpha_bar_T = {schedule.alpha_bar_list[-1]:.3g}"
        )
    grid = _grid(schedule, teacher_calls)[:, None]

    def lesson(x0: Samples, t: Times, eps: Samples) -> tuple[Samples, Times, Samples]:
        _check_times(schedule, eps, t)
        times = grid.to(t.device).expand(-1, len(eps))
        return follow(denoise, schedule, eps, times), t, eps

    return lesson


def consistency(
    denoise: Denoise, student: Denoise, schedule: Schedule, *, steps: int
) -> Lesson:
    """Teach a student to give one answer all along a curve of the teacher.

    The curve is that of DDIM in `steps` steps. Each t becomes the first time of the
    step in which it lies; x0 becomes what the `student` sees in x_u, where the step
    ends, and x_u itself for `u = 0`; eps is the noise that leads to the same x_t. No
    gradient flows into it. The distillation of Song et al. 2023, who let an average of
    the student's weights answer at x_u. Chapter 13.
    """
    grid = _grid(schedule, steps)

    @torch.no_grad()
    def lesson(x0: Samples, t: Times, eps: Samples) -> tuple[Samples, Times, Samples]:
        _check_times(schedule, x0, t)
        first = steps - 1 - (t - 1) * steps // schedule.T
        times = grid.to(t.device)[torch.stack([first, first + 1])]
        x_t = add_noise(schedule, x0, times[0], eps)
        x_u = follow(denoise, schedule, x_t, times)
        seen = student(x_u, times[1].clamp(min=1))
        check_output("student", seen, x_u, "x_u")
        ends = (times[1] == 0).view(-1, *[1] * (x_u.ndim - 1))
        x0 = torch.where(ends, x_u, seen)
        a, s = schedule.scales(times[0], like=x_t)
        return x0, times[0], (x_t - a * x0) / s

    return lesson


def consistency_step(
    schedule: Schedule, x: Samples, x0_hat: Samples, t: int, u: int, noise: Samples
) -> Samples:
    """Noise x0_hat to the next time, with new noise: Song et al. 2023, algorithm 1.

    A consistency model sees the end of a curve in x, and begins another one here. The
    step of a sampler; from t it takes nothing but x0_hat. Chapter 13.
    """
    check_floating("x", x)
    check_like("x0_hat", x0_hat, x, of="x")
    check_like("noise", noise, x, of="x")
    ab_u = schedule.alpha_bars(t, u)[1]
    return sqrt(ab_u) * x0_hat + sqrt(1 - ab_u) * noise


def _check_times(schedule: Schedule, x: Samples, t: Times) -> None:
    check_timed("x0", x, t)
    if t.device.type == "cpu":  # elsewhere it would wait
        schedule.check_times(t, first=1)


def _grid(schedule: Schedule, calls: int) -> Tensor:
    device = schedule.alpha_bar.device
    return torch.tensor(spaced_times(schedule.T, calls), device=device)
