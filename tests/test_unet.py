"""The U-Net: its size, its parts, its gradients, its refusals."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.types import Condition
from ddpm_core.unet import (
    Attention,
    CrossAttention,
    DownBlock,
    ResidualBlock,
    SinusoidalEmbedding,
    UNet,
    UNetConfig,
)
from ddpm_core.workshop.presets import PRESETS, SMALL_UNET

TINY = UNetConfig(
    channels=(8, 16), attention=(False, True), blocks=1, groups=4, dropout=0.0
)

TOLD = replace(TINY, pooled=6, context=10)


def told(n: int, words: int = 5) -> Condition:
    """A condition for TOLD whose sample i has i + 1 words."""
    mask = torch.arange(words) <= torch.arange(n)[:, None]
    return Condition(torch.randn(n, 6), torch.randn(n, words, 10), mask)


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
    net = UNet(PRESETS["cars64-article"].model.network)
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


# With a condition -------------------------------------------------------------------


def test_every_parameter_of_a_conditional_network_gets_a_gradient():
    torch.manual_seed(0)
    net = awake(UNet(TOLD))
    net(
        torch.randn(2, 3, 16, 16), torch.tensor([3, 7]), told(2)
    ).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert sum(isinstance(m, CrossAttention) for m in net.modules()) == 4


def test_a_condition_starts_without_effect():
    torch.manual_seed(0)
    plain, net = UNet(TINY), UNet(TOLD)
    net.load_state_dict(plain.state_dict(), strict=False)
    for parameter in (*plain.head.parameters(), *net.head.parameters()):
        torch.nn.init.ones_(parameter)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 7])
    torch.testing.assert_close(net(x, t, told(2)), plain(x, t))


def test_words_beyond_the_mask_are_not_read():
    torch.manual_seed(0)
    net, cond = awake(UNet(TOLD)), told(3)
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([3, 7, 9])
    base = net(x, t, cond)
    states = torch.where(cond.mask[..., None], cond.states, torch.full((), 1e3))
    torch.testing.assert_close(net(x, t, cond._replace(states=states)), base)
    states = torch.where(cond.mask[..., None], cond.states + 1, cond.states)
    assert (net(x, t, cond._replace(states=states)) - base).abs().amax(
        (1, 2, 3)
    ).min() > 1e-4
    pooled = cond._replace(pooled=cond.pooled + 1)
    assert (net(x, t, pooled) - base).abs().amax((1, 2, 3)).min() > 1e-4


def test_cross_attention_is_softmax_of_queries_and_keys_and_tells_its_maps():
    torch.manual_seed(0)
    layer = awake(CrossAttention(8, context=10, heads=2, groups=4))
    x, cond = torch.randn(3, 8, 4, 4), told(3)
    maps = layer.maps(x, cond)
    torch.testing.assert_close(maps.sum(1), torch.ones(3, 4, 4))
    assert (maps[0, 0] == 1).all() and (maps[0, 1:] == 0).all()  # it has one word
    layer.heads = 1
    _, v = layer.key_value(cond.states).chunk(2, dim=2)
    mixed = torch.einsum("blhw,blc->bchw", layer.maps(x, cond), v)
    added = torch.einsum("bchw,oc->bohw", mixed, layer.out.weight)
    want = x + added + layer.out.bias[:, None, None]
    torch.testing.assert_close(layer(x, cond), want)


def test_a_missing_or_unfit_condition_is_refused():
    x, t, cond = torch.zeros(2, 3, 16, 16), torch.tensor([3, 7]), told(2)
    with pytest.raises(
        ValueError, match="a condition of 6 numbers and words of 10, got no"
    ):
        UNet(TOLD)(x, t)
    with pytest.raises(ValueError, match="takes no condition, got a condition of 6"):
        UNet(TINY)(x, t, cond)
    with pytest.raises(ValueError, match="6 numbers and no words, got .* words of 10"):
        UNet(replace(TINY, pooled=6))(x, t, cond)
    with pytest.raises(ValueError, match="2 samples need as many conditions, got 3"):
        UNet(TOLD)(x, t, told(3))
    with pytest.raises(ValueError, match="pooled vector: got context = 10"):
        replace(TINY, context=10)
