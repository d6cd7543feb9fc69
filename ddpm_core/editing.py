"""What a trained denoiser does with a picture that is already there. Chapter 12.

Nothing here is a second sampler: `replacing` and `resampling` wrap a step,
`reconstruction_guided` wraps a denoiser, `invert` walks a deterministic step backwards.
Image-to-image needs no function at all: noise the picture to a time t, and
`samplers.sample` on from there, with `spaced_times(t, steps)`.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_number,
    check_output,
    check_shape,
    check_tensor,
)
from ddpm_core.diffusion import add_noise
from ddpm_core.samplers import Noise, State, Step, noise_like
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Samples


def replacing(schedule: Schedule, step: Step, x0: Samples, keep: Tensor) -> Step:
    """Inpaint: after each step, put the known part of x0 back, noised to that time.

    `x_u = keep (sqrt(ab_u) x0 + sqrt(1 - ab_u) noise) + (1 - keep) step(...)`, Lugmayr
    et al. 2022 (RePaint), eq. (8). One tensor of noise serves both parts, for no value
    lies in both. `keep`: booleans that broadcast over x0. What the step drew beside the
    known part has not seen it: the result is biased. Raises ValueError for a mask that
    is not of booleans, or of more axes or other sizes than x0. Chapter 12.
    """
    _check_known(x0, keep)

    def replaced(x: Tensor, x0_hat: Tensor, t: int, u: int, noise: Tensor) -> Tensor:
        check_shape("x", x, x0.shape, of="x0")
        when = torch.full((len(x),), u, device=x.device)
        known = add_noise(schedule, x0, when, noise)
        return torch.where(keep, known, step(x, x0_hat, t, u, noise))

    return replaced


def _check_known(x0: Samples, keep: Tensor) -> None:
    """Raise ValueError unless `keep` holds booleans that broadcast over x0."""
    check_floating("x0", x0)
    check_tensor("keep", keep)
    try:
        fits = torch.broadcast_shapes(keep.shape, x0.shape) == x0.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"keep must broadcast over x0, {tuple(x0.shape)}, got {tuple(keep.shape)}"
        )
    if keep.dtype != torch.bool:
        raise ValueError(f"keep must be of booleans, got {keep.dtype}")


def resampling(
    schedule: Schedule,
    step: Step,
    denoise: Denoise,
    rounds: int,
    *,
    generator: Noise = None,
) -> Step:
    """Make each step `rounds` times, and noise its result back to t in between.

    `x_t = sqrt(ab_t / ab_u) x_u + sqrt(1 - ab_t / ab_u) noise`, Lugmayr et al. 2022
    (RePaint), algorithm 1, with jumps of one step. Around `replacing` the two parts
    come to agree. Costs `rounds` calls of `denoise` a step, but one for the step to 0.
    Raises ValueError for rounds below 1. Chapter 12.
    """
    check_count("rounds", rounds)
    table = schedule.alpha_bar_list

    def resampled(x: Tensor, x0_hat: Tensor, t: int, u: int, noise: Tensor) -> Tensor:
        x_u = step(x, x0_hat, t, u, noise)
        when = torch.full((len(x),), t, device=x.device)
        for _ in range(rounds - 1 if u else 0):
            kept = table[t] / table[u]
            x_t = sqrt(kept) * x_u + sqrt(1 - kept) * noise_like(x, generator)
            again = denoise(x_t, when)
            x_u = step(x_t, again, t, u, noise_like(x, generator))
        return x_u

    return resampled


def reconstruction_guided(
    denoise: Denoise,
    schedule: Schedule,
    x0: Samples,
    keep: Tensor,
    *,
    scale: float = 1.0,
) -> Denoise:
    """Inpaint: correct x0_hat by the gradient of its error on the known part of x0.

    `x0_hat - scale a / 2 grad |keep (x0 - x0_hat)|^2`, with `a = sqrt(ab_t)` and the
    gradient with respect to x_t, through `denoise`: Ho et al. 2022 (VDM), section 3.1,
    whose w_r is `scale`. For 1 it follows from Bayes' rule if the known part, given
    x_t, is a Gaussian around its estimate, of variance (1 - ab_t) / ab_t. The paper has
    `replacing` around the step as well; without it the known part is met nearly, not
    exactly. A call costs one of `denoise` and a backward pass, and leaves no gradient
    anywhere. Clip the result, not `denoise`: what is clipped has no gradient. `keep`:
    as in `replacing`, with its errors; ValueError for a scale that is not finite.
    Chapter 12.
    """
    _check_known(x0, keep)
    check_number("scale", scale)

    def corrected(x_t: Tensor, t: Tensor) -> Tensor:
        check_shape("x_t", x_t, x0.shape, of="x0")
        with torch.enable_grad():  # samplers switch it off
            x = x_t.detach().requires_grad_()
            x0_hat = denoise(x, t)
            check_output("denoise", x0_hat, x, "x_t")
            error = torch.where(keep, x0 - x0_hat, 0.0).square().sum()
            (slope,) = torch.autograd.grad(error, x)
        a, _ = schedule.scales(t, like=x_t)
        return x0_hat.detach() - scale * a / 2 * slope

    return corrected


def invert(
    denoise: Denoise,
    schedule: Schedule,
    x0: Samples,
    times: Sequence[int],
    *,
    rounds: int = 1,
) -> Iterator[State]:
    """Walk from x0 up the times to that x_t from which DDIM comes back to it.

    `times` fall to 0, as those of the way back, and are read from their end. A step up
    solves `x_u = sqrt(ab_u) x0_hat + sqrt(1 - ab_u) eps_hat` for x_t, with both
    estimates made at (x_u, t), for x_t is not known yet: Song et al. 2021 (DDIM), eq.
    (14). More `rounds` put the x_t just found in its place, a fixed-point iteration:
    Pan et al. 2023 (AIDI). Yields the state at each time; its x0_hat is that of the
    step which led there. Raises ValueError for rounds below 1 and times that do not
    fall to 0. Chapter 12.
    """
    check_count("rounds", rounds)
    check_floating("x0", x0)
    for t in times:
        check_count("each of the times", t, 0, schedule.T)
    rising = list(reversed(times))
    if len(rising) < 2 or rising[0] != 0 or any(u >= t for u, t in pairwise(rising)):
        raise ValueError(f"times must fall strictly and end at 0, got {list(times)}")
    table, x = schedule.alpha_bar_list, x0
    yield State(0, x, x)
    for u, t in pairwise(rising):
        when = torch.full((len(x),), t, device=x.device)
        x_t = x
        with torch.no_grad():
            for _ in range(rounds):
                x0_hat = denoise(x_t, when)
                check_output("denoise", x0_hat, x_t, "x_t")
                eps_hat = (x_t - sqrt(table[t]) * x0_hat) / sqrt(1 - table[t])
                clean = (x - sqrt(1 - table[u]) * eps_hat) / sqrt(table[u])
                x_t = sqrt(table[t]) * clean + sqrt(1 - table[t]) * eps_hat
        x = x_t
        yield State(t, x, x0_hat)


def slerp(x: Samples, y: Samples, f: float) -> Samples:
    """Go the fraction f of the way from x to y on an arc, not on the chord.

    `(sin((1 - f) w) x + sin(f w) y) / sin(w)`, with w the angle of each pair: Song et
    al. 2021 (DDIM), appendix. Between noises it keeps their length and distribution.
    Pairs of one direction go straight. Raises ValueError for unequal shapes and an f
    that is not finite. Chapters 09 and 12.
    """
    check_floating("x", x)
    check_floating("y", y)
    check_shape("y", y, x.shape, of="x")
    check_number("f", f)
    shape = (-1,) + (1,) * (x.ndim - 1)
    cos = torch.cosine_similarity(x.flatten(1), y.flatten(1), dim=1)
    w = cos.clamp(-1, 1).acos().view(shape)
    near = w.sin() < 1e-4
    safe = torch.where(near, torch.ones_like(w), w)
    left = torch.where(near, 1 - f, ((1 - f) * safe).sin() / safe.sin())
    right = torch.where(near, f, (f * safe).sin() / safe.sin())
    return left * x + right * y
