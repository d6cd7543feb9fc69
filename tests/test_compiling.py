"""What is compiled for a GPU computes what is not."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.exc import BackendCompilerFailed

from ddpm_core import compiling
from ddpm_core.compiling import GroupNorm, compiled, normalised_by_channel
from ddpm_core.unet import UNet, UNetConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What was compiled for other vector instructions, by other runs, is not loaded."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_normalised_by_channel_as_torch_does(groups, offset):
    torch.manual_seed(0)
    norm = GroupNorm(groups, 12)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (torch.randn(3, 12, 5, 7) + offset).requires_grad_()
    inputs, weights = [x, norm.weight, norm.bias], torch.randn(3, 12, 5, 7)
    wanted = F.group_norm(x, groups, norm.weight, norm.bias, norm.eps)
    got = normalised_by_channel(norm, x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    gradients = (
        torch.autograd.grad((y * weights).sum(), inputs) for y in (got, wanted)
    )
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_normalised_by_channel_of_what_never_varies_is_the_bias():
    norm, x = GroupNorm(2, 4), torch.full((1, 4, 3, 3), 10.0)
    torch.nn.init.normal_(norm.bias)
    got = normalised_by_channel(norm, x)
    wanted = norm.bias[:, None, None].expand_as(got)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-3)


def test_normalised_by_channel_sums_half_precision_in_full():
    norm, x = GroupNorm(1, 8), torch.randn(2, 8, 64, 64).bfloat16()
    got = normalised_by_channel(norm, x)
    assert got.dtype == torch.bfloat16
    wanted = F.group_norm(x.float(), 1)
    torch.testing.assert_close(got.float(), wanted, rtol=2**-8, atol=2**-8)


def test_group_norm_takes_that_way_only_where_it_is_compiled_for_a_gpu(monkeypatch):
    norm, ways = GroupNorm(2, 4), []
    monkeypatch.setattr(
        compiling, "normalised_by_channel", lambda norm, x: ways.append(x.device) or x
    )
    norm(torch.randn(1, 4, 3, 3))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    norm(torch.randn(1, 4, 3, 3))
    assert ways == []
    with torch._subclasses.FakeTensorMode(), torch.device("cuda"):
        GroupNorm(2, 4)(torch.empty(1, 4, 3, 3))
    assert [device.type for device in ways] == ["cuda"]


@pytest.mark.xfail(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="what PyTorch compiles for a CPU without vector instructions is no C++",
    raises=BackendCompilerFailed,
    strict=True,
)
def test_compiled_network_gives_the_same_loss_and_gradients():
    torch.manual_seed(0)
    config = UNetConfig(channels=(8,), attention=(True,), blocks=1, groups=4)
    net = UNet(config).eval()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    torch.nn.init.normal_(net.head.weight)
    losses, gradients = [], []
    for way in (net, compiled(net)):
        loss = way(x, t).square().mean()
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
    torch.testing.assert_close(*losses)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
