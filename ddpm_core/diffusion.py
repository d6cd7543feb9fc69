"""Noising, what the network learns from it, and the loss. Chapters 05 and 07."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_like,
    check_number,
    check_output,
    check_shape,
    check_timed,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, PerSample, Samples, Times


def add_noise(schedule: Schedule, x0: Samples, t: Times, eps: Samples) -> Samples:
    """Noise clean samples to timestep t in one go: `x_t = a x0 + s eps`.

    `a = sqrt(alpha_bar_t)`, `s = sqrt(1 - alpha_bar_t)`, Ho et al. 2020, eq. (4). `x0`,
    `eps`: (b, ...), floating; `t`: (b,) in 0..T, where 0 returns x0. Raises ValueError
    for other times and shapes, TypeError for other types. Chapter 05.
    """
    check_timed("x0", x0, t)
    check_like("eps", eps, x0, of="x0")
    a, s = schedule.scales(t, like=x0)
    return a * x0 + s * eps


class Target(NamedTuple):
    """What the network regresses; the only place where the targets below differ.

    `from_clean(x0, eps, a, s)` is the regression target, `to_clean(output, x_t, a, s)`
    turns the network's output into x0_hat; a, s as `Schedule.scales` gives them.
    `weight(snr)` is the factor by which the squared error of the output exceeds that of
    x0_hat. Chapters 07 and 13.
    """

    name: str
    from_clean: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_clean: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


def _clean_from_eps(eps_hat: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    if (a == 0).any():
        raise ValueError(
            "EPS gives no x0_hat where the signal is zero (alpha_bar_t = 0): "
            "train with V or X0, or sample from an earlier time"
        )
    return (x_t - s * eps_hat) / a


EPS = Target(
    "eps",
    from_clean=lambda x0, eps, a, s: eps,
    to_clean=_clean_from_eps,
    weight=lambda snr: snr,
)
"""The total noise in x_t. Ho et al. 2020, eqs. (14) and (15), which has x0_hat."""

X0 = Target(
    "x0",
    from_clean=lambda x0, eps, a, s: x0,
    to_clean=lambda output, x_t, a, s: output,
    weight=torch.ones_like,
)
"""The clean sample itself."""

V = Target(
    "v",
    from_clean=lambda x0, eps, a, s: a * eps - s * x0,
    to_clean=lambda v_hat, x_t, a, s: a * x_t - s * v_hat,
    weight=lambda snr: 1 + snr,
)
"""The velocity a eps - s x0, well defined at every t. Salimans and Ho 2022, app. D."""

FLOW = Target(
    "flow",
    from_clean=lambda x0, eps, a, s: eps - x0,
    to_clean=lambda flow_hat, x_t, a, s: (x_t - s * flow_hat) / (a + s),
    weight=lambda snr: (1 + snr.sqrt()).square(),
)
"""The speed eps - x0 on the straight line from x0 to eps. Liu et al. 2023, eq. (1).

The line is `(1 - l) x0 + l eps = x_t / (a + s)`, with `l = s / (a + s)`.
"""


def edm(sigma_data: float) -> Target:
    """What Karras et al. let a network predict for data of that standard deviation.

    `x0_hat = c_skip x_t / a + c_out F`, Karras et al. 2022, eq. (7) and table 1, in
    which `sigma = s / a`: `c_skip = a^2 sigma_data^2 / n^2` and `c_out = s sigma_data /
    n`, where `n^2 = a^2 sigma_data^2 + s^2` is the variance of x_t. F has unit variance
    at every t. For `sigma_data = 1` it is -v. Raises ValueError unless sigma_data is
    above 0. Chapter 13.
    """
    check_number("sigma_data", sigma_data, above=0)

    def spread(a: Tensor, s: Tensor) -> Tensor:
        return (a.square() * sigma_data**2 + s.square()).sqrt()

    def from_clean(x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return (s * x0 - a * sigma_data**2 * eps) / (sigma_data * spread(a, s))

    def to_clean(output: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
        n = spread(a, s)
        return a * (sigma_data / n).square() * x_t + s * sigma_data / n * output

    return Target("edm", from_clean, to_clean, lambda snr: sigma_data**-2 + snr)


EDM = edm(0.5)
"""The same for images in [-1, 1]: Karras et al. take sigma_data = 0.5."""

TARGETS = {target.name: target for target in (EPS, X0, V, FLOW, EDM)}


def min_snr(target: Target, gamma: float = 5.0) -> Callable[[Tensor], Tensor]:
    """Weigh the squared error of x0_hat by min(SNR, gamma), whatever the target.

    Returns the `weight` that `diffusion_loss` takes: min(SNR, gamma) over the weight
    that the target has by itself. Raises ValueError unless gamma is above 0. Hang et
    al. 2023, section 3.4. Chapter 13.
    """
    check_number("gamma", gamma, above=0)

    def weight(snr: Tensor) -> Tensor:
        return snr.clamp(max=gamma) / target.weight(snr)

    return weight


def diffusion_loss(
    net: Callable[[Tensor, Tensor, object], Tensor],
    schedule: Schedule,
    target: Target,
    x0: Samples,
    cond: object = None,
    *,
    t: Times | None = None,
    eps: Samples | None = None,
    weight: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    """Return the squared error of the network's prediction, one mean a sample.

    `L = |target - net(x_t, t, cond)|^2` averaged over the dimensions of a sample, with
    t uniform in 1..T and `eps ~ N(0, I)` unless given: Ho et al. 2020, eq. (14),
    algorithm 1. `weight` maps the (b,) signal-to-noise ratios at t to the (b,) factors
    of the loss. Raises ValueError for `t = 0` or `t > T`, for a network or a weight
    that returns another shape, and for EPS on a schedule that ends in pure noise;
    TypeError for samples or times of another type. Chapter 07.
    """
    check_floating("x0", x0)
    if target is EPS and schedule.ends_in_pure_noise:
        raise ValueError(
            "EPS cannot be learned on a schedule that ends in pure noise "
            "(alpha_bar_T = 0), where the noise is x_t itself: use V or X0"
        )
    if t is None:
        t = draw_times(schedule, len(x0), device=x0.device, generator=generator)
    elif isinstance(t, Tensor) and t.device.type == "cpu":
        schedule.check_times(t, first=1)
    if eps is None:
        eps = torch.randn(
            x0.shape, generator=generator, dtype=x0.dtype, device=x0.device
        )
    x_t = add_noise(schedule, x0, t, eps)
    wanted = target.from_clean(x0, eps, *schedule.scales(t, like=x0))
    output = net(x_t, t, cond)
    check_output("the network", output, x_t, "x_t")
    error = (output - wanted).square().flatten(1).mean(1)
    if weight is None:
        return error
    factors = weight(schedule.snr[t.to(schedule.snr.device)])
    check_shape("the weight of the loss", factors, error.shape, of="t")
    return error * factors.to(error.dtype).to(error.device)


def draw_times(
    schedule: Schedule, n: int, *, device=None, generator: torch.Generator | None = None
) -> Times:
    """Draw n training times, uniform in 1..T. Chapter 07."""
    check_count("n", n, 0)
    return torch.randint(1, schedule.T + 1, (n,), device=device, generator=generator)


def make_denoiser(
    net: Callable[[Tensor, Tensor, object], Tensor],
    schedule: Schedule,
    target: Target,
    cond: object = None,
) -> Denoise:
    """Wrap a trained network as denoise(x_t, t) -> x0_hat, all that a sampler needs.

    The result raises ValueError for a network that returns another shape than x_t. On
    the CPU it does so for `t = 0` or `t > T` too; elsewhere that check would make the
    device wait, and `sample` has checked its times. Chapter 08.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        check_timed("x_t", x_t, t)
        if t.device.type == "cpu":
            schedule.check_times(t, first=1)
        a, s = schedule.scales(t, like=x_t)
        output = net(x_t, t, cond)
        check_output("the network", output, x_t, "x_t")
        return target.to_clean(output, x_t, a, s)

    return denoise
