"""What a denoiser can reach on given data: two bounds of its loss. Chapter 07.

From above: the best linear denoiser, the Wiener filter. A trained network that does
worse has not learned yet, or is broken. From below: the exact posterior mean over the
training images. No network does better on these images.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm_core.checking import check_count, check_floating, check_shape
from ddpm_core.diffusion import Target, add_noise
from ddpm_core.mixtures import ideal_denoiser
from ddpm_core.schedules import Schedule
from ddpm_core.types import PerSample, Samples, Times


class Wiener(NamedTuple):
    """The best linear denoiser of Gaussian data: their mean and principal axes.

    `mean` (d,); `axes` (k, d), orthonormal; `variances` (k,) along them, and `rest` the
    variance in each of the other directions. Chapter 07.
    """

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "k d"]
    variances: Float[Tensor, " k"]
    rest: float = 0.0

    @classmethod
    def of(cls, data: Samples, k: int = 256) -> "Wiener":
        """Fit it to some samples, with at most k axes; all others share what is left.

        Raises ValueError for fewer than two samples.
        """
        check_floating("data", data)
        check_count("the number of samples", len(data), 2)
        check_count("k", k)
        x = data.flatten(1).double()
        mean = x.mean(0)
        off = (x - mean) / (len(x) - 1) ** 0.5
        if len(off) < off.shape[1]:  # the smaller of two matrices, of equal spectrum
            variances, turn = torch.linalg.eigh(off @ off.T)
            axes = turn.T @ off / variances.clamp(min=1e-30).sqrt()[:, None]
        else:
            variances, axes = torch.linalg.eigh(off.T @ off)
            axes = axes.T
        kept = (variances > 1e-9 * variances.sum()).nonzero()[:, 0].flip(0)[:k]
        parts = mean, axes[kept], variances[kept]
        left = (variances.sum() - variances[kept].sum()).clamp(min=0).item()
        others = max(1, x.shape[1] - len(kept))
        return cls(*(part.to(data.dtype) for part in parts), left / others)

    def error(self, schedule: Schedule, x0: Samples, t: Times) -> PerSample:
        """Its mean squared error on these samples at these timesteps, over all noise.

        Along an axis of variance v it answers with the gain `g = a v / (a^2 v + s^2)`,
        so that a sample c away from the mean has the error `(1 - a g)^2 c^2 + s^2 g^2`.
        (b,), a mean over d.
        """
        x = x0.flatten(1)
        check_shape("x0", x, (len(x), len(self.mean)))
        a, s = schedule.scales(t, like=x)
        off = x - self.mean
        along = off @ self.axes.T
        gain = a * self.variances / (a**2 * self.variances + s**2)
        error = ((1 - a * gain) * along).square() + (s * gain).square()
        others = x.shape[1] - len(self.variances)
        gain = a * self.rest / (a**2 * self.rest + s**2)
        across = off.square().sum(1, keepdim=True) - along.square().sum(1, keepdim=True)
        left = (1 - a * gain).square() * across.clamp(min=0) + others * (s * gain) ** 2
        return (error.sum(1) + left[:, 0]) / x.shape[1]


def posterior_error(
    data: Float[Tensor, "n ..."],
    schedule: Schedule,
    x0: Samples,
    t: Times,
    eps: Samples,
) -> PerSample:
    """The squared error of E[x0 | x_t] if x0 is one of `data`, one mean a sample.

    For x0 out of `data` no denoiser has a smaller one on average. Hence this average is
    also a lower bound for the population that `data` were drawn from: its best denoiser
    expects the same error on them as on new images. For x0 that `data` lack, it is an
    upper bound, since this denoiser is not the best. (b,). Chapter 07.
    """
    guess = ideal_denoiser(data, schedule)(add_noise(schedule, x0, t, eps), t)
    return (guess - x0).square().flatten(1).mean(1)


def as_loss(
    target: Target, schedule: Schedule, error: PerSample, t: Times
) -> PerSample:
    """The loss of a network with that target whose x0_hat has that squared error."""
    return error * target.weight(schedule.snr[t]).to(error)
