"""Feedback for the exercises of chapter 06, the denoising U-Net."""

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)
from ddpm_core.unet import Attention, ResidualBlock, SinusoidalEmbedding


@exercise
def check_block_parameters(block_parameters):
    """The number of parameters of a residual block."""
    for i, o, e in ((16, 32, 64), (8, 8, 32)):
        n = block_parameters(i, o, e)
        expect_given(n)
        n, case = int(n), f"for {i} -> {o} channels and an embedding of {e}"
        block = ResidualBlock(i, o, e, groups=4, dropout=0.0)
        sizes = {name: p.numel() for name, p in block.named_parameters()}
        right = sum(sizes.values())
        biases = sum(v for k, v in sizes.items() if k.endswith("bias"))
        norms = sum(v for k, v in sizes.items() if k.startswith("norm"))
        reject(
            n == right - norms,
            f"{case} you leave out the normalisations: each has a scale and a shift "
            "for every channel",
        )
        reject(
            n == right - biases + norms // 2,
            f"{case} you leave out the biases: one for each output of a layer",
        )
        reject(
            n == right - e * o - o,
            f"{case} you leave out the linear layer that brings in the time",
        )
        reject(
            i != o and n == right - i * o - o,
            f"{case} you leave out the 1 x 1 convolution on the way around",
        )
        reject(
            i == o and n == right + i * o + o,
            f"{case} you count a convolution on the way around, but the widths are "
            "equal there and nothing has to change",
        )
        expect(n == right, f"{case} the block has {right:,} parameters, not {n:,}")
    return "the library's block, with and without a change of width"


@exercise
def check_receptive_field(receptive_field):
    """How many pixels across a stack of (kernel, stride) layers sees."""
    by_hand = [(3, 1), (3, 1), (3, 1)]
    r = receptive_field(by_hand)
    expect_given(r)
    reject(
        int(r) in (9, 27),
        "kernels neither add up nor multiply (3 + 3 + 3, 3 * 3 * 3): neighbouring "
        "windows overlap, and each layer adds kernel - 1 = 2",
    )
    expect(int(r) == 7, f"three 3 x 3 convolutions see 7 pixels across, not {r}")
    expect(int(receptive_field([])) == 1, "without any layer a pixel sees itself: 1")
    stack = [(3, 1), (4, 2), (3, 1), (3, 2), (3, 1)]
    r, seen = int(receptive_field(stack)), _seen(stack)
    reject(
        r == 1 + sum(k - 1 for k, _ in stack),
        "you ignore the strides: after a stride of 2, one step of a filter is two "
        "pixels of the input",
    )
    late = 1 + sum((k - 1) * s for k, s in stack)
    reject(
        r == late,
        "you let a stride widen its own layer only; it widens all layers after it, "
        "and strides multiply",
    )
    jump, early = 1, 1
    for k, s in stack:
        jump *= s
        early += (k - 1) * jump
    reject(
        r == early,
        "a layer's own stride does not widen its own window: first add "
        "(kernel - 1) * jump, then multiply the jump by the stride",
    )
    expect(r == seen, f"{stack} sees {seen} pixels across by its gradient, not {r}")
    return "stacks by hand, and a stack with strides against its gradient"


def _seen(stack: list[tuple[int, int]]) -> int:
    """Pixels with a gradient in the middle output of the stack, on a line."""
    x = torch.ones(1, 1, 201, dtype=torch.float64, requires_grad=True)
    h = x
    for k, s in stack:
        h = F.conv1d(h, torch.ones(1, 1, k, dtype=torch.float64), stride=s)
    h[0, 0, h.shape[2] // 2].backward()
    return int((x.grad != 0).sum())


@exercise
def check_group_norm(group_norm):
    """Group normalisation without scale and shift: the bug clinic."""
    sizes = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64).view(3, 1, 1, 1)
    x = sizes * random_numbers(3, 8, 4, 4) + random_numbers(1, 8, 1, 1, seed=1)
    y = expect_tensor(group_norm(x, 4), x.shape)
    reject(
        not close(group_norm(x[:1], 4)[0], y[0]),
        "the first image comes out differently alone and in company: the mean and the "
        "variance are taken over the batch too. Keep its dimension",
    )
    whole = F.group_norm(x, 1)
    single = F.group_norm(x, 8)
    reject(
        close(y, whole, 1e-3),
        "all channels of an image share one mean and variance here: split them into "
        "groups first",
    )
    reject(
        close(y, single, 1e-3),
        "each channel is normalised by itself: the channels of a group share a mean "
        "and a variance",
    )
    reject(
        close(y, F.group_norm(x, 2), 1e-3),
        "you make groups of 4 channels; `groups` = 4 is the number of groups, here of "
        "2 channels each",
    )
    scattered = torch.arange(8).view(2, 4).T.flatten()  # 0, 4, 1, 5, ...
    regrouped = F.group_norm(x[:, scattered], 4)[:, scattered.argsort()]
    reject(
        close(y, regrouped, 1e-3),
        "a group is a run of neighbouring channels: here 0 and 1, then 2 and 3; "
        "yours have channels from far apart",
    )
    groups = y.reshape(3, 4, -1)
    expect(
        close(groups.mean(2), torch.zeros(3, 4), 1e-3),
        "the mean of each group of each image must be 0",
    )
    variance = groups.var(2, correction=0)
    n = groups.shape[2]
    reject(
        close(variance, torch.full((3, 4), (n - 1) / n), 1e-3),
        f"the groups' variances are {(n - 1) / n:.2f}: `var` and `std` divide by n - 1 "
        "if they are not told `correction=0`",
    )
    reject(
        not close(variance, torch.ones(3, 4), 1e-2),
        f"the groups' variances are {variance.min():.2f} to {variance.max():.2f} "
        "instead of 1: did you divide by the variance, where the standard deviation "
        "belongs?",
    )
    expect(
        close(y, F.group_norm(x, 4), 1e-2),
        "the means and variances are right, but not the values: are they in order?",
    )
    return "alone as in company, mean 0 and variance 1 in each group, torch's own"


@exercise
def check_advance(advance):
    """The code of t + k from the code of t, without t."""
    embed = SinusoidalEmbedding(16).double()
    omega = embed.frequencies
    t = torch.tensor([3, 40, 700])
    code = embed(t)
    still = expect_tensor(advance(code, omega, 0), code.shape)
    later = expect_tensor(advance(code, omega, 25), code.shape)
    right = embed(t + 25)
    reject(
        close(later, embed(t - 25)),
        "you turn the hands backwards: this is the code of t - k. Look at the signs "
        "in sin(a + b) and cos(a + b)",
    )
    angles = (25 * omega).repeat(2)
    reject(
        close(later, code + torch.cat([(25 * omega).sin(), (25 * omega).cos()])),
        "you add the codes of t and k: it is the angles that add up, not their sines",
    )
    reject(
        close(later, code + angles),
        "you add the angle to the sine: turn each pair (sin, cos) by that angle",
    )
    expect(close(still, code), "with k = 0 the code must stay as it is")
    length = later.square().sum(1)
    expect(
        close(length, code.square().sum(1), 1e-3),
        "a turn keeps sin^2 + cos^2 = 1 of every hand, but yours changes it: the new "
        "sine and cosine must both come from the old ones",
    )
    expect(
        close(later, right, 1e-3),
        "this is not the code of t + 25. Are all the sines in front, and do a sine and "
        "the cosine of the same hand go together?",
    )
    return "three times advanced by 25, and by 0, and the length of every hand"


@exercise
def check_attention_flops(attention_flops):
    """FLOP of an attention block on side x side positions."""
    for side, channels in ((8, 48), (16, 32)):
        f = attention_flops(side, channels)
        expect_given(f)
        n, c = side**2, channels
        right, case = 8 * n * c**2 + 4 * n**2 * c, f"at {side} x {side}, c = {channels}"
        reject(
            int(f) * 2 == right,
            f"{case} you count a multiplication with its addition as one; it is two",
        )
        reject(
            int(f) == right - 2 * n * c**2,
            f"{case} you leave out the last linear layer, `out`",
        )
        reject(
            int(f) == right - 2 * n**2 * c,
            f"{case} you count one product of the size of all pairs; there are two, "
            "for the weights and for the mean of the values",
        )
        reject(
            int(f) == 8 * side * c**2 + 4 * side**2 * c,
            f"{case} you take `side` for the number of positions, which is side^2",
        )
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            block = Attention(c, heads=1, groups=4)
            with torch.no_grad():
                block(torch.zeros(1, c, side, side))
        counted = counter.get_total_flops()
        expect(
            int(f) == counted,
            f"{case} PyTorch counts {counted:,} FLOP, you {int(f):,}",
        )
    return "PyTorch's own count, at 8 x 8 and at 16 x 16"


@exercise
def check_attend(attend):
    """Attention with several heads, from q, k and v."""
    q, k, v = random_numbers(3, 2, 5, 8)

    def reference(heads, scale=None):
        parts = [x.view(2, 5, heads, -1).transpose(1, 2) for x in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*parts, scale=scale)
        return mixed.transpose(1, 2).reshape(2, 5, 8)

    one = expect_tensor(attend(q, k, v, 1), q.shape)
    reject(
        close(one, reference(1, scale=1.0)),
        "the products are not divided by the root of the number of channels",
    )
    reject(
        close(one, reference(1, scale=1 / 8)),
        "you divide by the number of channels; it is its root",
    )
    expect(
        close(one, reference(1)),
        "with one head this must be softmax(q k^T / sqrt(c)) v; the softmax runs over "
        "the positions that are listened to, the last dimension",
    )
    four = expect_tensor(attend(q, k, v, 4), q.shape)
    reject(
        close(four, one),
        "the number of heads changes nothing: split the channels, and let each head "
        "have a softmax of its own",
    )
    reject(
        close(four, reference(4, scale=8**-0.5)),
        "with 4 heads a query has c / 4 channels, and its root belongs under the "
        "product, not that of c",
    )
    strided = [x.view(2, 5, -1, 4).permute(0, 3, 1, 2) for x in (q, k, v)]
    mixed = F.scaled_dot_product_attention(*strided).permute(0, 2, 3, 1).flatten(2)
    reject(
        close(four, mixed),
        "each of your heads has every fourth channel; a head has a run of neighbours: "
        "`view(b, n, heads, c // heads)`",
    )
    changed = v.clone()
    changed[:, :, 6:] += 1  # the last head's channels
    leak = expect_tensor(attend(q, k, changed, 4), q.shape)
    reject(
        not close(leak[:, :, :6], four[:, :, :6]),
        "a change in the last head's values reaches other heads' results: after "
        "`view(b, n, heads, c // heads)` the heads must be moved before the positions",
    )
    expect(close(four, reference(4)), "with 4 heads the values are not right")
    return "one head by the formula, four by PyTorch's own, and heads kept apart"
