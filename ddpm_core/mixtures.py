"""Data whose perfect denoiser is a formula, so that no network is to blame. Chapter 08.

A network is trained to return E[x0 | x_t]. For round Gaussians, and for a finite set of
points, it can be written down.
"""

from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_number,
    check_shape,
    check_timed,
    quoted,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Features, PerSample, Samples


class GaussianMixture(NamedTuple):
    """Round Gaussians of d numbers: `q(x0) = sum_k w_k N(x0; m_k, s_k^2 I)`.

    `weights` (k,) sum to 1; `means` (k, d); `stds` (k,) are not negative, and where one
    is 0 there is no density before noise is added. Chapter 08.
    """

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    stds: Float[Tensor, " k"]

    def check(self) -> None:
        """Raise ValueError unless the three fit together and are a mixture."""
        check_floating("means", self.means, "(k, d)")
        k = (len(self.means),)
        for name, numbers in (("weights", self.weights), ("stds", self.stds)):
            check_floating(name, numbers, "(k,)")
            check_shape(name, numbers, k)
            if not ((numbers >= 0) & numbers.isfinite()).all():
                got = quoted(numbers.tolist())
                raise ValueError(f"{name} must be finite and not negative, got {got}")
        if abs(self.weights.sum().item() - 1) > 1e-4:
            raise ValueError(f"weights must sum to 1, got {self.weights.sum().item()}")

    def sample(self, n: int, generator: torch.Generator) -> Features:
        """Draw n samples: choose a Gaussian for each, then draw from it. (n, d)."""
        self.check()
        check_count("n", n)
        k = self.weights.multinomial(n, replacement=True, generator=generator)
        shape = (n, self.means.shape[1])
        z = torch.randn(shape, generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.stds[k, None] * z

    def log_density(
        self, x: Features, a: float | Tensor = 1.0, s: float | Tensor = 0.0
    ) -> PerSample:
        """Return the log-density of a x0 + s eps at x; of x0, as it stands. (n,).

        `a`, `s`: two numbers, or, for samples at different times, what
        `schedule.scales(t, like=x[:, None])` returns. Chapters 07 and 13.
        """
        return self._by_component(x, a, s)[0].logsumexp(1)[:, 0]

    def densities(self, schedule: Schedule, x: Features) -> Float[Tensor, "T_plus_1 n"]:
        """Return q(x_t) at the places x, one row for each time 0..T. Chapter 08."""
        check_floating("x", x, "(n, d)")
        ab = schedule.alpha_bar.to(x.dtype).to(x.device)  # no float64 on Apple's GPUs
        scales = zip(ab.sqrt(), (1 - ab).sqrt(), strict=True)
        return torch.stack([self.log_density(x, a, s).exp() for a, s in scales])

    def denoiser(self, schedule: Schedule) -> Denoise:
        """Return (x_t, t) -> E[x0 | x_t], exactly. Chapter 08.

        `sum_k r_k (m_k + a s_k^2 / v_k (x_t - a m_k))` with `v_k = a^2 s_k^2 + 1 - a^2`
        and `a^2 = ab_t`; r_k, by Bayes' rule, is the weight of component k in q(x_t).
        Raises ValueError for numbers that are no mixture and x_t of another width.
        """
        self.check()

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            check_timed("x_t", x_t, t)
            a, s = schedule.scales(t, like=x_t[:, None])
            log_p, guess = self._by_component(x_t, a, s)
            return (log_p.softmax(1) * guess).sum(1)

        return denoise

    def _by_component(self, x, a, s) -> tuple[Tensor, Tensor]:
        """Return log(w_k N_k(x)) and E[x0 | x, k]: (n, k, 1) and (n, k, d)."""
        check_floating("x", x, "(n, d)")
        if x.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"samples must have {self.means.shape[1]} numbers, got {x.shape[1]}"
            )
        clean = self.stds[:, None].square()
        var = a**2 * clean + s**2
        off = x[:, None] - a * self.means
        squared = off.square().sum(2, keepdim=True)
        log_normal = -(squared / var + x.shape[1] * (2 * pi * var).log()) / 2
        log_p = self.weights.log()[:, None] + log_normal
        return log_p, self.means + a * clean / var * off


def blobs(means: Features, std: float) -> GaussianMixture:
    """Return the mixture of equally likely Gaussians of one width. Chapter 07.

    Raises ValueError for a width below 0.
    """
    check_floating("means", means, "(k, d)")
    check_number("std", std, 0)
    one = means.new_ones(len(means))
    return GaussianMixture(one / len(means), means, std * one)


def two_peaks() -> GaussianMixture:
    """Return the numbers of chapters 08, 09 and 13: float64, 30 % at -1, 70 % at 0.8.

    `0.3 N(-1, 0.3^2) + 0.7 N(0.8, 0.2^2)`.
    """
    weights, means, stds = torch.tensor(
        [[0.3, 0.7], [-1.0, 0.8], [0.3, 0.2]], dtype=torch.float64
    )
    return GaussianMixture(weights, means[:, None], stds)


def ideal_denoiser(data: Samples, schedule: Schedule) -> Denoise:
    """Return (x_t, t) -> E[x0 | x_t] if x0 is one of `data`, each equally likely.

    `sum_i w_i x_i`, w_i in proportion to `N(x_t; a x_i, 1 - a^2)`, `a^2 = ab_t`: Karras
    et al. 2022, appendix B.3. No network has a lower loss on `data`, and samples drawn
    with it are copies of them. `t` lies in 1..T. Raises ValueError for no data, and for
    x_t or (on the CPU) t that do not fit. Chapter 07.
    """
    check_floating("data", data, "(n, d, ...)")
    if not data.numel():
        raise ValueError(f"data must hold samples, got {tuple(data.shape)}")
    flat = data.flatten(1)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        check_timed("x_t", x_t, t)
        check_shape("x_t", x_t, (len(x_t), *data.shape[1:]))
        if t.device.type == "cpu":
            schedule.check_times(t, first=1)
        x = x_t.flatten(1)
        a, s = schedule.scales(t, like=x)
        # |x - a x_i|^2 without |x|^2, which is the same for all i
        squared = (a * flat.norm(dim=1)) ** 2 - 2 * a * x @ flat.T
        return ((-squared / (2 * s**2)).softmax(1) @ flat).view_as(x_t)

    return denoise
