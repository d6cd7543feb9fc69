"""Low-rank changes to a trained network: few weights to train. Chapter 'Fine-tuning'.

A layer computes W x. Beside it, `LoRA` adds scale B A x, in which A has `rank` rows
and B as many columns: Hu et al. 2022, eq. (3), whose alpha / r is `scale` here. W
stays as it is; A and B are trained. Since B starts at zero, so does the change.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ddpm_core.checking import check_count, check_number

DOWN, UP = ".down.weight", ".up.weight"
"""How the two tensors of a layer are named in a state: its own name, then these."""


class LoRA(nn.Module):
    """A frozen linear layer or convolution W, and the change scale B A beside it.

    `down` is A: as W in kernel, stride and padding, with `rank` channels; `up` is B, at
    each position alike. Raises TypeError for another kind of layer, ValueError for a
    rank below 1 and for a grouped convolution.
    """

    def __init__(self, layer: nn.Module, rank: int, scale: float = 1.0):
        super().__init__()
        check_count("rank", rank)
        check_number("scale", scale)
        self.layer, self.scale = layer.requires_grad_(False), scale
        self.down, self.up = _pair(layer, rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * self.up(self.down(x))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Add the change to the layer's weights and return it: W + scale B A."""
        change = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
        self.layer.weight += self.scale * change.view_as(self.layer.weight)
        return self.layer


def _pair(layer: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    """A, at random, and B, zero, for that layer."""
    if isinstance(layer, nn.Linear):
        down = nn.Linear(layer.in_features, rank, bias=False)
        up = nn.Linear(rank, layer.out_features, bias=False)
    elif isinstance(layer, nn.Conv2d):
        if layer.groups > 1:
            raise ValueError(f"no LoRA for a convolution of {layer.groups} groups")
        shape = layer.kernel_size, layer.stride, layer.padding
        down = nn.Conv2d(layer.in_channels, rank, *shape, bias=False)
        up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
    else:
        raise TypeError(f"no LoRA for a {type(layer).__name__}")
    nn.init.normal_(down.weight, std=layer.weight[0].numel() ** -0.5)
    nn.init.zeros_(up.weight)
    return tuple(part.to(layer.weight) for part in (down, up))


def add_lora(net: nn.Module, rank: int, scale: float = 1.0) -> nn.Module:
    """Freeze `net` and put a `LoRA` around each linear layer and convolution in it.

    A rank of 0 only freezes: there is nothing to train, and nothing changes.
    """
    check_count("rank", rank, 0)
    net.requires_grad_(False)
    places = [
        (parent, name, layer)
        for parent in net.modules()
        for name, layer in parent.named_children()
        if rank and isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    for parent, name, layer in places:
        setattr(parent, name, LoRA(layer, rank, scale))
    return net


def merge_lora(net: nn.Module) -> nn.Module:
    """Replace each `LoRA` of `net` by its layer with the change added to it."""
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, LoRA):
                setattr(parent, name, layer.merged())
    return net


def lora_layers(net: nn.Module) -> Iterator[tuple[str, LoRA]]:
    """The `LoRA` layers of a network, by the names that their layers had."""
    return ((n, m) for n, m in net.named_modules() if isinstance(m, LoRA))


def lora_state(net: nn.Module) -> dict[str, Tensor]:
    """The tensors of all changes in `net`: what a LoRA is on disk."""
    return {
        name + end: part.weight.detach()
        for name, layer in lora_layers(net)
        for end, part in ((DOWN, layer.down), (UP, layer.up))
    }


def apply_lora(
    net: nn.Module, state: dict[str, Tensor], scale: float = 1.0
) -> nn.Module:
    """Add the changes of `state`, as `lora_state` gave them, to the weights of `net`.

    `scale` 0 leaves the network as it was, 1 takes the change as trained. Raises
    ValueError for a state of another network.
    """
    downs = [tensor for name, tensor in state.items() if name.endswith(DOWN)]
    ranks = {len(tensor) if tensor.ndim else 0 for tensor in downs}
    if len(ranks) != 1:
        raise ValueError(f"a LoRA has one rank for all layers, got {sorted(ranks)}")
    wanted = lora_state(add_lora(net, ranks.pop(), scale))
    differing = [
        name
        for name in sorted(wanted.keys() | state.keys())
        if name not in wanted
        or name not in state
        or wanted[name].shape != state[name].shape
    ]
    if differing:
        raise ValueError(
            f"this LoRA is of another network: {len(differing)} tensors differ, the "
            f"first is {differing[0]}"
        )
    for name, layer in lora_layers(net):
        layer.down.weight.data.copy_(state[name + DOWN])
        layer.up.weight.data.copy_(state[name + UP])
    return merge_lora(net)
