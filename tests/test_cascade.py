"""The second stage of a cascade: what it is shown, that it follows it. Chapter 14."""

import torch
import torch.nn.functional as F

from ddpm_core.models import DiffusionModel
from ddpm_core.workshop import cascade
from ddpm_core.workshop.presets import preset


class Repeats(torch.nn.Module):
    """A network that predicts, as x0, the condition that it is shown."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        return torch.cat([x[:, 3:], x[:, :3]], dim=1)


def test_what_is_shown_is_the_small_image_enlarged_and_noised():
    small = torch.zeros(50, 3, 8, 8)
    seen = cascade.shown(small, torch.Generator().manual_seed(0))
    assert seen.shape == (50, 3, 16, 16)
    torch.testing.assert_close(seen.std(), torch.tensor(0.2), atol=5e-3, rtol=0)
    torch.testing.assert_close(seen[..., ::2, ::2], seen[..., 1::2, 1::2])


def test_the_large_image_follows_the_small_one(monkeypatch, generator):
    monkeypatch.setattr(cascade, "NOISE", 0.0)
    small = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    chosen = preset("cars-64-latents").replace(target="x0", latent="")
    model = DiffusionModel(Repeats(), chosen.model)
    large = cascade.upsampled(model, small, 4, generator)
    torch.testing.assert_close(large, F.interpolate(small, scale_factor=2.0))
