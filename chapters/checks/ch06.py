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


def _count(value: object) -> float:
    """Return a number, or a tensor with one number in it, as a float."""
    expect_given(value)
    try:
        count = float(value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        expect(False, f"the function must return one number, not a {kind}")
    expect(count == round(count), f"a count is a whole number, not {count:g}")
    return count


def _expect_gradient(result: torch.Tensor) -> None:
    """End the check if no gradient can flow from the result to the input."""
    expect(
        result.requires_grad,
        "no gradient reaches the input: with `torch.no_grad` or `detach` inside, the "
        "layers before this one could not be trained",
    )


@exercise
def check_block_parameters(block_parameters):
    """The number of parameters of a residual block."""
    for i, o, e in ((16, 40, 64), (8, 8, 32), (24, 8, 20)):
        n = _count(block_parameters(i, o, e))
        case = f"for {i} -> {o} channels and an embedding of {e}"
        block = ResidualBlock(i, o, e, groups=4, dropout=0.0)
        sizes = {name: p.numel() for name, p in block.named_parameters()}
        right = sum(sizes.values())
        norms = 2 * (i + o)
        skip = i * o + o if i != o else 0
        of_convolutions = 3 * o if i != o else 2 * o  # biases
        missing = {
            norms: "you leave out the normalisations: each has a scale and a shift for "
            "every channel",
            i + o: "each normalisation has two parameters a channel, a scale and a "
            "shift",
            of_convolutions + o: "you leave out the biases: one for each output of a "
            "layer",
            of_convolutions: "you leave out the biases of the convolutions: one for "
            "each output channel",
            e * o + o: "you leave out the linear layer that brings in the timestep",
            skip: "you leave out the 1 x 1 convolution around the block",
            6 * (i * o + o * o): "a 3 x 3 filter has 9 weights for each pair of "
            "channels, not 3",
            9 * o * (o - i): "the second convolution has `outputs` channels on both "
            "sides",
        }
        for left_out, hint in missing.items():
            reject(left_out != 0 and n == right - left_out, f"{case} {hint}")
        reject(
            i == o and n == right + i * o + o,
            f"{case} you count a convolution around the block, but the widths are "
            "equal there and nothing has to change",
        )
        expect(n == right, f"{case} the block has {right:,} parameters, not {n:,.0f}")
    return "the library's block, with more, equal and fewer channels"


@exercise
def check_receptive_field(receptive_field):
    """How many pixels across a stack of (kernel, stride) layers sees."""
    r = _count(receptive_field([(3, 1), (3, 1), (3, 1)]))
    reject(
        r in (9, 27),
        "kernels neither add up nor multiply (3 + 3 + 3, 3 * 3 * 3): neighbouring "
        "windows overlap, and each layer adds kernel - 1 = 2",
    )
    expect(r == 7, f"three 3 x 3 convolutions see 7 pixels across, not {r:g}")
    expect(_count(receptive_field([])) == 1, "without any layer a pixel sees itself: 1")
    _check_stack(receptive_field, [(3, 1), (4, 2), (3, 1), (3, 2), (3, 1)])
    _check_stack(receptive_field, [(5, 3), (1, 1), (3, 2), (2, 1)])
    return "stacks by hand, and two stacks with strides against their gradients"


def _check_stack(receptive_field, stack: list[tuple[int, int]]) -> None:
    r, seen = _count(receptive_field(list(stack))), _seen(stack)
    reject(
        r == 1 + sum(k - 1 for k, _ in stack),
        "you ignore the strides: after a stride of 2, one step of a filter is two "
        "pixels of the input",
    )
    reject(
        r == 1 + sum((k - 1) * s for k, s in stack),
        "you let a stride widen its own layer only; it widens all layers after it, "
        "and strides multiply",
    )
    jump, total, early, added = 1, 0, 1, 1
    for k, s in stack:
        added += (k - 1) * max(1, total)
        jump, total = jump * s, total + s * (s > 1)
        early += (k - 1) * jump
    reject(
        r == early,
        "a layer's own stride does not widen its own window: first add "
        "(kernel - 1) * jump, then multiply the jump by the stride",
    )
    reject(r == added != seen, "strides multiply; you add them")
    expect(r == seen, f"{stack} sees {seen} pixels across by its gradient, not {r:g}")


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
    _check_groups(group_norm, (3, 8, 4, 4), 4)
    _check_groups(group_norm, (2, 6, 5, 3), 3)
    flat = torch.full((2, 4, 3, 3), 0.7, dtype=torch.float64)
    y = group_norm(flat, 2)
    expect(
        bool(y.isfinite().all()) and close(y, torch.zeros_like(y)),
        "a flat image must come out as 0, but its variance is 0 and you divide by it: "
        "add 1e-5 to the variance",
    )
    faint = 1e-3 * random_numbers(2, 8, 4, 4)  # of variance 1e-6
    y = expect_tensor(group_norm(faint, 4), faint.shape)
    parts = faint.reshape(2, 4, -1)
    std = parts.std(2, correction=0, keepdim=True)
    centred = parts - parts.mean(2, keepdim=True)
    for divisor in (std, std + 1e-5):
        reject(
            close(y, (centred / divisor).view_as(faint), 1e-3),
            "in a very faint image the groups must not come out with variance 1: add "
            "1e-5 to the variance, inside the root, not to the standard deviation",
        )
    expect(
        close(y, F.group_norm(faint, 4), 1e-3),
        "in a very faint image the values are not torch's: is it 1e-5 that you add to "
        "the variance?",
    )
    x = random_numbers(2, 8, 4, 4).requires_grad_()
    _expect_gradient(group_norm(x, 4))
    return (
        "alone as in company, mean 0 and variance 1 in each group, flat and faint "
        "images, torch's own"
    )


def _check_groups(group_norm, shape: tuple[int, ...], groups: int) -> None:
    b, c = shape[:2]
    sizes = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)[:b].view(-1, 1, 1, 1)
    x = sizes * random_numbers(*shape) + random_numbers(1, c, 1, 1, seed=1)
    given = x.clone()
    y = expect_tensor(group_norm(given, groups), shape)
    expect(torch.equal(x, given), "your function changes its argument x in place")
    reject(
        not close(group_norm(x[:1], groups)[0], y[0]),
        "the first image comes out differently alone and in company: the mean and the "
        "variance are taken over the batch too. Keep its dimension",
    )
    width = c // groups
    scattered = torch.arange(c).view(width, groups).T.flatten()  # 0, 4, 1, 5, ...
    regrouped = F.group_norm(x[:, scattered], groups)[:, scattered.argsort()]
    mistakes = (
        (
            F.group_norm(x, 1),
            "all channels of an image share one mean and variance here: split them "
            "into groups first",
        ),
        (
            F.group_norm(x, c),
            "each channel is normalised by itself: the channels of a group share a "
            "mean and a variance",
        ),
        (
            F.group_norm(x, width),
            f"you make groups of {groups} channels; `groups` = {groups} is the number "
            f"of groups, here of {width} channels each",
        ),
        (
            regrouped,
            "a group is a run of neighbouring channels: here 0 and 1, then 2 and 3; "
            "yours have channels from far apart",
        ),
    )
    for mistaken, hint in mistakes:
        reject(close(y, mistaken, 1e-3), hint)
    parts = y.reshape(b, groups, -1)
    mean, variance = parts.mean(2), parts.var(2, correction=0)
    n = parts.shape[2]
    expect(
        close(mean, torch.zeros_like(mean), 1e-3),
        "the mean of each group of each image must be 0",
    )
    reject(
        close(variance, torch.full_like(variance, (n - 1) / n), 1e-3),
        f"the groups' variances are {(n - 1) / n:.2f}: `var` and `std` divide by n - 1 "
        "unless they get `correction=0`",
    )
    reject(
        not close(variance, torch.ones_like(variance), 1e-2),
        f"the groups' variances are {variance.min():.2f} to {variance.max():.2f} "
        "instead of 1: did you divide by the variance, where the standard deviation "
        "belongs?",
    )
    expect(
        close(y, F.group_norm(x, groups), 1e-3),
        "the means and variances are right, but not the values: are they in order?",
    )


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
    earlier = expect_tensor(advance(code, omega, -40), code.shape)
    expect(close(earlier, embed(t - 40), 1e-3), "with k = -40 the code is not right")
    _check_other_hands(advance)
    return "three timesteps advanced by 25, 0 and -40, and hands of other speeds"


def _check_other_hands(advance) -> None:
    """The speeds come from `omega`, also where they are not the library's."""
    omega = torch.tensor([2.0, 0.3, 0.05], dtype=torch.float64)
    t = torch.tensor([[5.0], [900.0]], dtype=torch.float64)
    code, later = (
        torch.cat([(u * omega).sin(), (u * omega).cos()], dim=1) for u in (t, t + 7)
    )
    expect(
        close(expect_tensor(advance(code, omega, 7), code.shape), later, 1e-3),
        "with other speeds than the library's the code is not right: each hand turns "
        "by k times its own speed in `omega`, whatever t is",
    )


@exercise
def check_attention_flops(attention_flops):
    """FLOP of an attention block on side x side positions."""
    for side, channels in ((8, 48), (12, 40)):
        f = _count(attention_flops(side, channels))
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
            int(f) == right - 4 * n * c**2,
            f"{case} you count one map of `qkv`; it makes three vectors for each "
            "position",
        )
        reject(
            int(f) == right - 4 * n**2 * c,
            f"{case} you count the linear layers only: the two products with all pairs "
            "of positions are missing",
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
    return "PyTorch's own count, at 8 x 8 and at 12 x 12"


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
    two = expect_tensor(attend(q, k, v, 2), q.shape)
    expect(close(two, reference(2)), "4 heads are right, but 2 heads are not")
    _check_gradient_and_shape(attend)
    return "one head by the formula, two and four by PyTorch's own, heads kept apart"


def _check_gradient_and_shape(attend) -> None:
    q, k, v = random_numbers(3, 3, 7, 12, seed=1)
    parts = [x.view(3, 7, 3, 4).transpose(1, 2) for x in (q, k, v)]
    right = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(3, 7, 12)
    result = expect_tensor(attend(q.requires_grad_(), k, v, 3), q.shape)
    expect(
        close(result.detach(), right.detach()),
        "(2, 5, 8) is right, but (3, 7, 12) with 3 heads is not: is a size written out "
        "as a number?",
    )
    _expect_gradient(result)
