"""Data whose perfect denoiser is known in closed form, noised by a schedule."""

from dataclasses import dataclass

import torch

from ddpm_core.mixtures import GaussianMixture
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise


@dataclass(frozen=True, eq=False)
class NoisedMixture:
    """A mixture of Gaussians in one dimension and the schedule that noises it."""

    schedule: Schedule
    law: GaussianMixture

    @property
    def denoise(self) -> Denoise:
        return self.law.denoiser(self.schedule)

    def moment(self, k: int) -> float:
        """E[x0^k] for k up to 4."""
        m, v = self.law.means[:, 0], self.law.stds**2
        raw = {
            1: m,
            2: m**2 + v,
            3: m**3 + 3 * m * v,
            4: m**4 + 6 * m**2 * v + 3 * v**2,
        }
        return (self.law.weights * raw[k]).sum().item()


def mixture(schedule: Schedule, *components: tuple[float, float, float]):
    """A mixture of (weight, mean, std) components; one component is a Gaussian."""
    weights, means, stds = torch.tensor(components, dtype=torch.float64).unbind(1)
    return NoisedMixture(schedule, GaussianMixture(weights, means[:, None], stds))
