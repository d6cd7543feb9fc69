"""The U-Net: its size, its parts, its gradients, its refusals."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.presets import PRESETS, SMALL_UNET
from ddpm_core.unet import (
    Attention,
    DownBlock,
    ResidualBlock,
    SinusoidalEmbedding,
    UNet,
    UNetConfig,
)

TINY = UNetConfig(
    channels=(8, 16), attention=(False, True), blocks=1, groups=4, dropout=0.0
)


def awake(net: torch.nn.Module) -> torch.nn.Module:
    """Undo the zero start of the last layers, so that all parts have an effect."""
    with torch.no_grad():
        for parameter in net.parameters():
            if (parameter == 0).all():
                parameter.normal_(std=0.05)
    return net


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_capstone_has_the_published_size_and_cost():
    net = UNet(PRESETS["cars64-article"].unet)
    assert count(net) == 54_563_779
    x, t = torch.zeros(1, 3, 64, 64), torch.tensor([1])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t)
    assert counter.get_total_flops() / 1e9 == pytest.approx(17.66, abs=0.005)
    assert sum(isinstance(m, Attention) for m in net.modules()) == 11


def test_small_network_is_small():
    assert count(UNet(SMALL_UNET)) < 3_000_000


@pytest.mark.parametrize(
    "config", [TINY, SMALL_UNET, UNetConfig(channels=(32, 64), attention=(True, False))]
)
def test_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    net = awake(UNet(config))
    x = torch.randn(2, 3, 16, 16)
    net(x, torch.tensor([3, 700])).square().sum().backward()
    silent = [
        name
        for name, p in net.named_parameters()
        if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]
    assert silent == []


def test_output_has_the_shape_of_the_input_and_starts_at_zero():
    x = torch.randn(2, 3, 32, 32)
    out = UNet(SMALL_UNET)(x, torch.tensor([1, 1000]))
    assert out.shape == x.shape and (out == 0).all()


def test_output_depends_on_time_and_on_distant_pixels():
    torch.manual_seed(0)
    net = awake(UNet(TINY)).eval()
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([10])
    base = net(x, t)
    assert (net(x, torch.tensor([500])) - base).abs().max() > 1e-4
    moved = x.clone()
    moved[..., 0, 0] += 3
    assert (net(moved, t) - base)[..., -1, -1].abs().max() > 1e-7


def test_samples_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    net = awake(UNet(TINY)).eval()
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([5, 50, 500])
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, t), alone, rtol=1e-4, atol=1e-5)


def test_dropout_is_off_in_eval_mode():
    torch.manual_seed(0)
    net = awake(UNet(UNetConfig((32,), (True,), blocks=1, dropout=0.5)))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5])
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_time_embedding_is_that_of_diffusers():
    t = torch.tensor([0, 1, 17, 511, 1000])
    ours = SinusoidalEmbedding(64)(t)
    theirs = get_timestep_embedding(t, 64, downscale_freq_shift=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_attention_is_the_formula():
    """softmax(q k^T / sqrt(d)) v of the normalised map, added to it."""
    torch.manual_seed(0)
    block = awake(Attention(8, heads=2, groups=4))
    x = torch.randn(2, 8, 3, 3)
    flat = block.norm(x).flatten(2).mT
    heads = [part.split(4, dim=-1) for part in block.qkv(flat).chunk(3, dim=-1)]
    mixed = torch.cat(
        [
            torch.softmax(q @ k.mT / 4**0.5, -1) @ v
            for q, k, v in zip(*heads, strict=True)
        ],
        dim=-1,
    )
    want = x + block.out(mixed).mT.reshape(2, 8, 3, 3)
    torch.testing.assert_close(block(x), want)


def test_residual_block_starts_as_its_skip():
    block = ResidualBlock(8, 8, 16, groups=4, dropout=0.0)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x, torch.randn(2, 16)), x)


def test_each_level_halves_the_side():
    sizes = []
    net = UNet(UNetConfig((32, 64, 96), (False,) * 3, blocks=2))
    for block in net.down:
        assert isinstance(block, DownBlock)
        block.register_forward_hook(lambda m, i, o: sizes.append(o[0].shape[1:]))
    net(torch.randn(1, 3, 16, 16), torch.tensor([1]))
    assert sizes == [(32, 8, 8), (64, 4, 4), (96, 4, 4)]


def test_bad_input_is_refused():
    net, t = UNet(SMALL_UNET), torch.tensor([1])
    with pytest.raises(ValueError, match=r"multiples of 4, got \(1, 3, 30, 32\)"):
        net(torch.zeros(1, 3, 30, 32), t)
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\).*got \(1, 1, 32, 32\)"):
        net(torch.zeros(1, 1, 32, 32), t)
    with pytest.raises(ValueError, match="one entry a level, got 1 for 2"):
        UNetConfig((32, 64), (True,))
    with pytest.raises(ValueError, match="multiple of groups = 32.*got 48"):
        UNetConfig((48,), (True,))
