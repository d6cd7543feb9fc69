"""LoRA: a change of low rank, which starts at nothing and can be merged."""

import pytest
import torch
from torch import nn

from ddpm_core.unet import UNet, UNetConfig
from ddpm_core.workshop.lora import LoRA, add_lora, apply_lora, lora_state, merge_lora

CONFIG = UNetConfig((8, 16), (False, True), blocks=1, groups=4, dropout=0.0, patch=2)


def network(seed: int = 0) -> nn.Module:
    """A small U-Net in float64 whose layers are all away from zero."""
    torch.manual_seed(seed)
    net = UNet(CONFIG).double().eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def answer(net: nn.Module) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 16, 16, generator=g, dtype=torch.float64)
    return net(x, torch.tensor([1, 40, 900])).detach()


def trained(rank: int, scale: float = 1.0) -> nn.Module:
    """A network with changes that are not zero."""
    net = add_lora(network(), rank, scale)
    g = torch.Generator().manual_seed(2)
    for parameter in (p for p in net.parameters() if p.requires_grad):
        noise = torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
        parameter.data = 0.1 * noise
    return net


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_a_new_lora_changes_nothing(rank):
    assert torch.equal(answer(add_lora(network(), rank)), answer(network()))


def test_rank_0_has_nothing_to_train():
    net = add_lora(network(), 0)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 0
    torch.testing.assert_close(answer(merge_lora(net)), answer(network()))


@pytest.mark.parametrize("scale", [-0.5, 0.8, 1.0])
def test_merged_equals_unmerged(scale):
    net = trained(3, scale)
    apart = answer(net)
    assert (apart - answer(network())).abs().max() > 0.01
    torch.testing.assert_close(answer(merge_lora(net)), apart, rtol=0, atol=1e-6)
    assert not any(isinstance(module, LoRA) for module in net.modules())


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 5), nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 5, 3, stride=2)],
    ids=str,
)
def test_the_change_has_the_rank(layer):
    lora = LoRA(layer, 2)
    before = layer.weight.detach().clone()
    nn.init.normal_(lora.up.weight)
    change = (lora.merged().weight.detach() - before).flatten(1)
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2


def test_a_linear_change_is_the_formula():
    lora = LoRA(nn.Linear(4, 3, dtype=torch.float64), 2, scale=0.7)
    nn.init.normal_(lora.up.weight)
    a, b, w = lora.down.weight, lora.up.weight, lora.layer.weight
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = x @ (w + 0.7 * b @ a).T + lora.layer.bias
    torch.testing.assert_close(lora(x), expected)


def test_only_the_change_is_trained():
    net = add_lora(network(), 2)
    names = {name for name, p in net.named_parameters() if p.requires_grad}
    assert names and all(name.split(".")[-2] in ("down", "up") for name in names)
    answer_with_gradients = net(
        torch.ones(1, 3, 16, 16, dtype=torch.float64), torch.tensor([5])
    )
    answer_with_gradients.square().mean().backward()
    ups = [p.grad for name, p in net.named_parameters() if name.endswith("up.weight")]
    assert all(grad is not None and grad.abs().max() > 0 for grad in ups)


def test_a_state_is_applied_in_proportion_to_its_scale():
    state = lora_state(trained(3))
    whole = apply_lora(network(), state)
    torch.testing.assert_close(answer(whole), answer(trained(3)), rtol=0, atol=1e-6)
    half = apply_lora(network(), state, 0.5)
    same = merge_lora(trained(3, 0.5))
    torch.testing.assert_close(answer(half), answer(same), rtol=0, atol=1e-6)
    assert torch.equal(answer(apply_lora(network(), state, 0.0)), answer(network()))


def test_a_lora_of_another_network_is_refused():
    state = lora_state(trained(3))
    with pytest.raises(ValueError, match="of another network: 1 tensors differ"):
        apply_lora(network(), dict(list(state.items())[1:]))
    with pytest.raises(ValueError, match="one rank for all layers, got \\[\\]"):
        apply_lora(network(), {})


def test_what_no_lora_fits_is_refused():
    with pytest.raises(TypeError, match="no LoRA for a ReLU"):
        LoRA(nn.ReLU(), 2)
    with pytest.raises(ValueError, match="of 2 groups"):
        LoRA(nn.Conv2d(4, 4, 3, groups=2), 2)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        LoRA(nn.Linear(2, 2), 0)
