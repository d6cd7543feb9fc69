"""Noise schedules: how much of the signal is left at each timestep. Chapter 05.

A schedule is one tensor, `alpha_bar[t]` for `t = 0..T`. Everything else is derived from
it.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_number,
)

LONGEST = 1_000_000
"""The largest T: its table of alpha_bar takes 8 MB."""

Curve = Float64[Tensor, " T_plus_1"]
"""One number for each time 0..T, in float64."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The fraction of the variance that is signal, alpha_bar[t], at `t = 0..T`.

    `alpha_bar` is float64 of shape (T+1,), starts at exactly 1 (`t = 0` is clean),
    falls strictly and may reach 0 only at T. Ho et al. 2020, eq. (4). Raises ValueError
    for anything else. Chapter 05.
    """

    alpha_bar: Curve

    def __post_init__(self):
        ab = self.alpha_bar
        check_floating("alpha_bar", ab)
        if ab.ndim != 1 or len(ab) < 2:
            raise ValueError(
                f"alpha_bar must be one row of T+1 >= 2 values, got {tuple(ab.shape)}"
            )
        if ab.dtype != torch.float64:
            raise ValueError(f"alpha_bar must be float64, got {ab.dtype}")
        if ab[0] != 1:
            raise ValueError(f"alpha_bar[0] must be 1 (clean), got {ab[0].item()}")
        if not (ab.diff() < 0).all():  # False for NaN too
            t = int((~(ab.diff() < 0)).nonzero()[0]) + 1
            raise ValueError(
                "alpha_bar must fall strictly, got "
                f"{ab[t - 1].item():.6g} at t = {t - 1} and {ab[t].item():.6g} at {t}"
            )
        if ab[-1] < 0:
            raise ValueError(f"alpha_bar must be >= 0, got {ab[-1].item():.6g} at T")

    @classmethod
    def from_beta(cls, beta: Float64[Tensor, " T"]) -> "Schedule":
        """Build the schedule whose forward steps have the variances beta_1..beta_T.

        `alpha_bar_t = prod_{i=1..t} (1 - beta_i)`, Ho et al. 2020, eq. (4). Each beta
        lies in (0, 1]; 1 is allowed only at T. Chapter 05.
        """
        check_floating("beta", beta, "(T,)")
        if not ((beta > 0) & (beta <= 1)).all():
            raise ValueError(
                "every beta must lie in (0, 1], got "
                f"{beta.min().item():.6g} to {beta.max().item():.6g}"
            )
        start = torch.ones(1, dtype=torch.float64)
        return cls(torch.cat([start, (1 - beta.double()).cumprod(0)]))

    @property
    def T(self) -> int:
        """The number of forward steps."""
        return len(self.alpha_bar) - 1

    @cached_property
    def alpha(self) -> Curve:
        """`alpha_t = 1 - beta_t`, the fraction of the variance that step t keeps."""
        ab = self.alpha_bar
        return torch.cat([ab[:1], ab[1:] / ab[:-1]])

    @cached_property
    def beta(self) -> Curve:
        """beta_t, the variance step t adds; 0 at `t = 0`. Ho et al. 2020, eq. (2)."""
        return 1 - self.alpha

    @cached_property
    def snr(self) -> Curve:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar); infinite at `t = 0`.

        Kingma et al. 2021, eq. (2). In decibels: 10 log10(snr). Chapter 05.
        """
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def ends_in_pure_noise(self) -> bool:
        """True if alpha_bar[T] is 0: no signal is left (zero terminal SNR)."""
        return self.alpha_bar[-1].item() == 0

    @cached_property
    def alpha_bar_list(self) -> list[float]:
        """alpha_bar as plain numbers, for samplers, whose t is one number a step."""
        return self.alpha_bar.tolist()

    def alpha_bars(self, t: int, u: int) -> tuple[float, float]:
        """Return alpha_bar at t and u, the ends of a step, as plain numbers.

        Raises ValueError unless `0 <= u < t <= T`.
        """
        for name, time in (("t", t), ("u", u)):
            check_count(name, time, low=-inf)
        if not 0 <= u < t <= self.T:
            raise ValueError(
                f"a step goes from t to a smaller u with 0 <= u < t <= T = {self.T}, "
                f"got t = {t}, u = {u}"
            )
        return self.alpha_bar_list[t], self.alpha_bar_list[u]

    def scales(self, t: Int[Tensor, " b"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sqrt(alpha_bar_t)` and `sqrt(1 - alpha_bar_t)`, to scale `like`.

        `t`: (b,) times in 0..T; `like`: (b, ...). Both results are (b, 1, ...) in the
        dtype and on the device of `like`. Times on a GPU are checked by the look-up
        itself, without waiting for it. Raises TypeError for times that are no integers
        and for `like` that is not floating. Ho et al. 2020, eq. (4). Chapter 05.
        """
        check_integers("t", t)
        check_floating("like", like)
        if t.device.type == "cpu":
            self.check_times(t)
        ab = self.alpha_bar[t.to(self.alpha_bar.device)]
        shape = (-1,) + (1,) * (like.ndim - 1)
        signal, noise = ab.sqrt(), (1 - ab).sqrt()
        return tuple(
            v.to(like.dtype).to(like.device).view(shape) for v in (signal, noise)
        )

    def check_times(self, t: Tensor, first: int = 0) -> None:
        """Raise ValueError unless every time lies in first..T."""
        check_integers("t", t)
        if t.numel() and not (first <= t.min() and t.max() <= self.T):
            raise ValueError(
                f"t must lie in {first}..{self.T}, got {t.min().item()}"
                f"..{t.max().item()}"
            )

    def to(self, device) -> "Schedule":
        """Return the same schedule with its tensor on `device`.

        Apple's GPUs have no float64: for them it stays on the CPU, and so do look-ups.
        """
        if torch.device(device).type == "mps":
            return self
        return Schedule(self.alpha_bar.to(device))


def linear_schedule(
    T: int, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
    """beta rises linearly from beta_start at `t = 1` to beta_end at `t = T`.

    Ho et al. 2020, section 4 (`T = 1000`). With a smaller T these ends leave signal at
    T: scale them by 1000 / T. Chapter 05.
    """
    _check_length(T)
    check_number("beta_start", beta_start)
    check_number("beta_end", beta_end)
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            "0 < beta_start <= beta_end < 1 is needed, "
            f"got beta_start = {beta_start}, beta_end = {beta_end}"
        )
    return Schedule.from_beta(
        torch.linspace(beta_start, beta_end, T, dtype=torch.float64)
    )


def cosine_schedule(T: int, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """alpha_bar falls as a squared cosine; beta is capped just short of 1.

    `alpha_bar_t = f(t) / f(0)`, `f(t) = cos^2(pi/2 (t/T + offset) / (1 + offset))`,
    Nichol and Dhariwal 2021, eq. (17). Raises ValueError unless `0 <= offset <= 1` and
    0 < max_beta <= 1. Chapter 05.
    """
    _check_length(T)
    check_number("offset", offset, 0, 1)
    check_number("max_beta", max_beta, high=1, above=0)
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    f = torch.cos((u + offset) / (1 + offset) * torch.pi / 2) ** 2
    return Schedule.from_beta((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def sigmoid_schedule(
    T: int, start: float = -3.0, end: float = 3.0, max_beta: float = 0.999
) -> Schedule:
    """alpha_bar falls as a sigmoid from `start` to `end`; beta is capped short of 1.

    `alpha_bar_t = (s(end) - s(start + (end - start) t/T)) / (s(end) - s(start))` with
    the logistic function s: Jabri et al. 2023, figure 8, in the form of Chen 2023,
    algorithm 1 (whose temperature divides `start` and `end`). Chapter 05.
    """
    _check_length(T)
    check_number("start", start)
    check_number("end", end)
    check_number("max_beta", max_beta, high=1, above=0)
    if not start < end:
        raise ValueError(f"start < end is needed, got start = {start}, end = {end}")
    u = torch.linspace(start, end, T + 1, dtype=torch.float64).sigmoid()
    f = (u[-1] - u) / (u[-1] - u[0])
    return Schedule.from_beta((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def flow_schedule(T: int) -> Schedule:
    """The line `(1 - l) x0 + l eps`, `l = t / T`, scaled to keep the variance.

    `alpha_bar_t = (1 - l)^2 / ((1 - l)^2 + l^2)`: the path of flow matching, Lipman et
    al. 2023, eq. (22), and of rectified flow, Liu et al. 2023, eq. (1), divided by the
    root of the sum of the squares of its two factors. It ends in pure noise. Chapter
    13.
    """
    _check_length(T)
    line = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    signal, noise = (1 - line).square(), line.square()
    return Schedule(signal / (signal + noise))


def rescale_zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Shift and stretch `sqrt(alpha_bar)`: it ends at 0 and keeps its value at 1.

    Lin et al. 2024, algorithm 1. With it the network must predict V or X0: at T the
    noise prediction says nothing. Chapters 05 and 13.
    """
    root = schedule.alpha_bar.sqrt()
    first, last = root[1], root[-1]
    stretched = (root - last) * first / (first - last)
    stretched[0] = 1
    return Schedule(stretched.square())


def _check_length(T: int) -> None:
    check_count("T", T, 2)
    check_count("T", T, 2, LONGEST)
