"""Data whose perfect denoiser is known in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_core.schedules import Schedule


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """sum_k w_k N(mean_k, std_k^2) in one dimension, noised by a schedule."""

    schedule: Schedule
    weights: Tensor
    means: Tensor
    stds: Tensor

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x_t = x], exactly: the posterior means, weighted by responsibility."""
        ab = self.schedule.alpha_bar[t].view(-1, 1)
        var = ab * self.stds**2 + 1 - ab
        off = x - ab.sqrt() * self.means
        log_p = self.weights.log() - off**2 / (2 * var) - var.log() / 2
        posterior = self.means + ab.sqrt() * self.stds**2 / var * off
        return (log_p.softmax(1) * posterior).sum(1, keepdim=True)

    def moment(self, k: int) -> float:
        """E[x0^k] for k up to 4."""
        m, v = self.means, self.stds**2
        raw = {
            1: m,
            2: m**2 + v,
            3: m**3 + 3 * m * v,
            4: m**4 + 6 * m**2 * v + 3 * v**2,
        }
        return (self.weights * raw[k]).sum().item()


def mixture(schedule: Schedule, *components: tuple[float, float, float]):
    """A mixture of (weight, mean, std) components; one component is a Gaussian."""
    columns = torch.tensor(components, dtype=torch.float64).unbind(1)
    return GaussianMixture(schedule, *columns)
