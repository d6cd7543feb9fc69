"""Trains on crops of images, which cost less than whole ones. Chapter 14.

A network of convolutions works on squares of any side. In each step a part of the batch
is whole, so that it learns how a car hangs together, and the rest are crops of half the
side, at a quarter of the cost. After Wang et al. 2023, who also tell the network where
a crop lies; here it is not told.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpm_core.schedules import Schedule
from ddpm_core.types import Images, Times
from ddpm_core.workshop.run import Run

WHOLE = 4  # one image of so many stays whole


def crop(images: Images, places: Tensor) -> Tensor:
    """Cut (b, c, h, w) to (b, c, h/2, w/2), each from its row and column, (b, 2)."""
    h, w = (side // 2 for side in images.shape[-2:])
    cut = (
        x[:, i : i + h, j : j + w]
        for x, (i, j) in zip(images, places.tolist(), strict=True)
    )
    return torch.stack(list(cut))


class CropRun(Run):
    """A run that trains on whole images and on crops of them in each step."""

    def _loss(self, schedule: Schedule) -> Callable[..., Tensor]:
        each = super()._loss(schedule)

        def loss(net: nn.Module, x0: Images, t: Times, eps: Images) -> Tensor:
            n = len(x0) // WHOLE
            sides = torch.tensor(x0.shape[-2:]) // 2
            places = (torch.rand(len(x0) - n, 2) * (sides + 1)).long()
            whole = each(net, x0[:n], t[:n], eps[:n])
            part = each(net, crop(x0[n:], places), t[n:], crop(eps[n:], places))
            return torch.cat([whole, part])

        return loss
