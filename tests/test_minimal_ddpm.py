"""Each part of chapters/minimal_ddpm.py does what the library does."""

import io
from functools import partial
from pathlib import Path

import minimal_ddpm
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core import diffusion, samplers, schedules, training, unet

T = minimal_ddpm.T
SCHEDULE = schedules.linear_schedule(T, 0.1 / T, 20 / T)


def trained_a_little(seed: int = 0) -> minimal_ddpm.UNet:
    """A network whose last layer is not zero."""
    torch.manual_seed(seed)
    net = minimal_ddpm.UNet()
    torch.nn.init.normal_(net.head.weight, std=0.02)
    return net


def without_condition(net):
    return lambda x, t, cond=None: net(x, t)


def test_file_is_short_and_needs_nothing_but_torch():
    lines = Path(minimal_ddpm.__file__).read_text().splitlines()
    imports = {s.split()[1].split(".")[0] for s in lines if s.startswith("import ")}
    assert imports == {"copy", "struct", "zlib", "torch"}
    assert [s for s in lines if s.startswith("from ")] == ["from torch import nn"]
    assert len(lines) < 120


def test_schedule_is_the_librarys():
    torch.testing.assert_close(minimal_ddpm.ALPHA_BAR, SCHEDULE.alpha_bar)
    torch.testing.assert_close(minimal_ddpm.BETA, SCHEDULE.beta[1:])


def test_block_is_the_librarys_residual_block():
    torch.manual_seed(0)
    mine = minimal_ddpm.Block(8, 16, 4)
    theirs = unet.ResidualBlock(8, 16, 4, groups=8, dropout=0.0)
    theirs.load_state_dict(mine.state_dict())
    x, embedding = torch.randn(2, 8, 5, 6), torch.randn(2, 4)
    expected = theirs(x, embedding)
    silu = torch.nn.functional.silu(embedding)
    torch.testing.assert_close(mine(x, silu), expected)


def test_timestep_is_embedded_as_in_the_library():
    net, seen = minimal_ddpm.UNet(), []
    net.time.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    t = torch.tensor([1, 7, T])
    net(torch.zeros(3, 3, 16, 32), t)
    expected = unet.SinusoidalEmbedding(48)(t)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_network_starts_at_zero_and_uses_t_and_every_weight():
    torch.manual_seed(0)
    x, t = torch.randn(2, 3, 16, 32), torch.tensor([3, 300])
    fresh = minimal_ddpm.UNet()(x, t)
    assert fresh.shape == x.shape and fresh.abs().max() < 0.2  # the bias alone
    net = trained_a_little()
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 1e-3
    net(x, t).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_loss_is_the_librarys_from_the_same_random_numbers():
    net, x0 = trained_a_little(), minimal_ddpm.draw_cars(6)
    torch.manual_seed(1)
    mine = minimal_ddpm.diffusion_loss(net, x0)
    torch.manual_seed(1)
    theirs = diffusion.diffusion_loss(
        without_condition(net), SCHEDULE, diffusion.EPS, x0
    )
    torch.testing.assert_close(mine, theirs.mean())


def test_training_and_average_are_the_librarys(capsys):
    steps, net = 5, trained_a_little()
    torch.manual_seed(2)
    average = minimal_ddpm.train(net, steps)
    assert f"step {steps} of {steps}" in capsys.readouterr().out

    again = trained_a_little()
    ema = training.EMA(again, decay=0.995)

    def loss(network, x0):
        return diffusion.diffusion_loss(
            without_condition(network), SCHEDULE, diffusion.EPS, x0
        )

    torch.manual_seed(2)
    list(
        training.train(
            again,
            loss,
            ((minimal_ddpm.draw_cars(32),) for _ in range(steps)),
            torch.optim.Adam(again.parameters()),
            lr=lambda step: 2e-3 * (1 - step / steps),
            ema=ema,
        )
    )
    for mine, theirs in zip(
        (*net.parameters(), *average.parameters()),
        (*again.parameters(), *ema.net.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(net.parameters(), trained_a_little().parameters(), strict=True)
    ]
    assert max(moved) > 5e-3


def test_sampler_is_the_librarys_ancestral_step(monkeypatch):
    """The first steps from noise, then the last ones to the image."""
    net = trained_a_little()
    denoise = diffusion.make_denoiser(without_condition(net), SCHEDULE, diffusion.EPS)
    torch.manual_seed(3)
    x_T = torch.randn(2, 3, 16, 32)
    torch.manual_seed(4)
    states = samplers.sample(
        denoise, partial(samplers.ancestral_step, SCHEDULE), x_T, range(T, -1, -1)
    )
    theirs = samplers.last(states)
    torch.manual_seed(4)
    mine = minimal_ddpm.sample(net, x_T)
    torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)
    assert theirs.std() > 0.5


def test_cars_differ_and_lie_in_the_range():
    torch.manual_seed(0)
    cars = minimal_ddpm.draw_cars(64)
    assert cars.shape == (64, 3, 16, 32)
    assert cars.min() >= -1 and cars.max() <= 1 and cars.std() > 0.4
    assert (cars[:-1] - cars[1:]).abs().mean((1, 2, 3)).min() > 0.05
    wheels = cars[:, :, 12, 8:24].amin(2)  # something black under every car
    assert wheels.max() < -0.9


@pytest.mark.parametrize("n", [4, 8])
def test_png_is_read_back_as_it_was(n):
    torch.manual_seed(0)
    images = torch.rand(n, 3, 4, 6) * 2.4 - 1.2
    with Image.open(io.BytesIO(minimal_ddpm.png(images))) as picture:
        assert picture.format == "PNG" and picture.size == (24, 4 * n // 4)
        pixels = torch.tensor(np.array(picture))
    last = pixels[-4:, -6:].permute(2, 0, 1)
    expected = (127.5 * (images[-1].clamp(-1, 1) + 1)).byte()
    assert torch.equal(last, expected)
