"""Networks compiled for a GPU: fewer bytes to move, fewer launches. Chapter 14."""

import torch
from torch import nn

from ddpm_core.types import FeatureMap

FUSED = {
    "realize_reads_threshold": 16,
    "realize_acc_reads_threshold": 32,
    "realize_opcount_threshold": 200,
}
"""What normalisation needs twice is computed twice; by default it is stored in fp32."""


def compiled(net: nn.Module, *, graphs: bool = False) -> nn.Module:
    """Compile a network at its first call, which takes minutes for a large one.

    `graphs` launches its kernels as CUDA graphs; the next call then overwrites what the
    last one returned. Chapter 14.
    """
    return torch.compile(net, options={**FUSED, "triton.cudagraphs": graphs})


class GroupNorm(nn.GroupNorm):
    """Group normalisation, Wu and He 2018, which compiles well on a GPU. Chapter 06.

    (b, c, h, w) -> the same. There, the compiler's own version makes copies in fp32
    that keep the positions of a channel together, while convolutions want the channels
    of a position together.
    """

    def forward(self, x: FeatureMap) -> FeatureMap:
        if torch.compiler.is_compiling() and x.is_cuda:
            return normalised_by_channel(self, x)
        return super().forward(x)


def normalised_by_channel(norm: nn.GroupNorm, x: FeatureMap) -> FeatureMap:
    """Normalise as `norm` does, by a factor and an offset for each channel.

    Both come from the mean and the mean square of each channel, whose sums run over
    positions only, in fp32. Chapter 14.
    """
    wide, size = x.float(), x.shape[1] // norm.num_groups
    mean, mean_square = (
        moment.mean((2, 3)).unflatten(1, (norm.num_groups, size)).mean(2)
        for moment in (wide, wide.square())
    )
    variance = (mean_square - mean.square()).clamp(min=0)
    scale = (variance + norm.eps).rsqrt()
    factor = norm.weight * scale.repeat_interleave(size, 1)
    summand = norm.bias - mean.repeat_interleave(size, 1) * factor
    return (wide * factor[..., None, None] + summand[..., None, None]).to(x.dtype)
