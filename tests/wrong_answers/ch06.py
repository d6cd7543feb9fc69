"""Wrong answers to the exercises of chapter 06, and the hints that they must get."""

import torch
import torch.nn.functional as F


def _block(i, o, e, *, norm=2, bias=1, time=1, skip=None, conv_bias=1):
    skip = i != o if skip is None else skip
    convs = bias * conv_bias * o
    count = norm * (i + o) + 9 * i * o + convs + 9 * o * o + convs
    return count + time * (e * o + bias * o) + skip * (i * o + convs)


def _three_weights(i, o, e):
    return _block(i, o, e) - 6 * (i * o + o * o)


def _late(layers):
    return 1 + sum((k - 1) * s for k, s in layers)


def _early(layers):
    field, jump = 1, 1
    for kernel, stride in layers:
        jump *= stride
        field += (kernel - 1) * jump
    return field


def _added(layers):
    field, total = 1, 0
    for kernel, stride in layers:
        field += (kernel - 1) * max(1, total)
        total += stride * (stride > 1)
    return field


def _two_only(layers):
    field, jump = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= min(stride, 2)
    return field


def _product(layers):
    field = 1
    for kernel, _ in layers:
        field *= kernel
    return field


def _over_the_batch(x, groups):
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean((0, 2), keepdim=True)
    return (centred / parts.std((0, 2), keepdim=True)).view_as(x)


def _by_variance(x, groups):
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    return (centred / parts.var(2, keepdim=True)).view_as(x)


def _every_other(x, groups):
    b, c, h, w = x.shape
    mixed = x.view(b, c // groups, groups, h, w).transpose(1, 2).reshape(x.shape)
    normed = F.group_norm(mixed, groups).view(b, groups, c // groups, h, w)
    return normed.transpose(1, 2).reshape(x.shape)


def _normed(x, groups, root):
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    return (centred / root(parts.var(2, keepdim=True, correction=0))).view_as(x)


def _norm_in_place(x, groups):
    with torch.no_grad():
        return x.copy_(F.group_norm(x, groups))


def _correction(x, groups):
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    return (centred / (parts.var(2, keepdim=True) + 1e-5).sqrt()).view_as(x)


def _turn(code, omega, k, sign=1):
    sine, cosine = code.chunk(2, dim=1)
    a, b = (k * omega).cos(), sign * (k * omega).sin()
    return torch.cat([a * sine + b * cosine, a * cosine - b * sine], dim=1)


def _sine_first(code, omega, k):
    sine, cosine = code.chunk(2, dim=1)
    a, b = (k * omega).cos(), (k * omega).sin()
    sine = a * sine + b * cosine
    return torch.cat([sine, a * cosine - b * sine], dim=1)


def _heads(q, k, v, heads, scale=None):
    b, n, c = q.shape
    q, k, v = (x.view(b, n, heads, -1).transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return mixed.transpose(1, 2).reshape(b, n, c)


def _every_fourth(q, k, v, heads):
    b, n, _ = q.shape
    q, k, v = (x.view(b, n, -1, heads).permute(0, 3, 1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).flatten(2)


def _not_moved(q, k, v, heads):
    b, n, c = q.shape
    q, k, v = (x.reshape(b, heads, n, c // heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).reshape(b, n, c)


def _over_the_queries(q, k, v, heads):
    products = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
    return products.softmax(dim=1) @ v


WRONG = {
    "check_block_parameters": [
        (lambda i, o, e: _block(i, o, e, norm=0), "normalisations"),
        (lambda i, o, e: _block(i, o, e, bias=0), "the biases"),
        (lambda i, o, e: _block(i, o, e, time=0), "brings in the time"),
        (lambda i, o, e: _block(i, o, e, skip=False), "1 x 1 convolution"),
        (lambda i, o, e: _block(i, o, e, skip=True), "nothing has to change"),
        (lambda i, o, e: _block(i, o, e, conv_bias=0), "biases of the convolutions"),
        (lambda i, o, e: _block(i, o, e, norm=1), "two parameters a channel"),
        (lambda i, o, e: _three_weights(i, o, e), "9 weights"),
        (lambda i, o, e: _block(i, o, e) - 9 * o * (o - i), "on both sides"),
        (lambda i, o, e: _block(i, o, e) + 0.5, "a whole number"),
        (lambda i, o, e: _block(max(i, o), max(i, o), e), "the block has"),
    ],
    "check_receptive_field": [
        (_product, "neighbouring windows overlap"),
        (lambda layers: 1 + sum(k - 1 for k, _ in layers), "ignore the strides"),
        (_late, "all layers after it"),
        (_early, "own stride does not widen"),
        (lambda layers: 2 * len(layers), "not 6"),
        (lambda layers: 7, "sees itself"),
        (_added, "strides multiply; you add"),
        (_two_only, "(5, 3)"),
        (lambda layers: None, "`return` missing"),
    ],
    "check_group_norm": [
        (_over_the_batch, "alone and in company"),
        (lambda x, groups: F.group_norm(x, 1), "split them into groups"),
        (lambda x, groups: F.group_norm(x, x.shape[1]), "by itself"),
        (_by_variance, "divide by the variance"),
        (_every_other, "neighbouring channels"),
        (lambda x, groups: F.group_norm(x, x.shape[1] // groups), "number of groups"),
        (_correction, "correction=0"),
        (lambda x, groups: x, "must be 0"),
        (lambda x, groups: F.group_norm(x, groups).flip(3), "in order"),
        (lambda x, groups: _normed(x, groups, lambda v: v.sqrt()), "a flat image"),
        (lambda x, groups: _normed(x, groups, lambda v: v.sqrt() + 1e-5), "faint"),
        (
            lambda x, groups: _normed(x, groups, lambda v: (v + 1e-6).sqrt()),
            "is it 1e-5",
        ),
        (lambda x, groups: F.group_norm(x, 4), "to be divisible by"),
        (lambda x, groups: F.group_norm(x.detach(), groups), "no gradient"),
        (_norm_in_place, "in place"),
    ],
    "check_advance": [
        (lambda c, omega, k: _turn(c, omega, k, sign=-1), "backwards"),
        (
            lambda c, omega, k: c + torch.cat([(k * omega).sin(), (k * omega).cos()]),
            "codes of t and k",
        ),
        (lambda c, omega, k: c + (k * omega).repeat(2), "angle to the sine"),
        (_sine_first, "must both come from the old ones"),
        (lambda c, omega, k: c, "not the code of t + 25"),
        (lambda c, omega, k: _turn(c, omega, abs(k)), "with k = -40"),
        (
            lambda c, omega, k: _turn(c, 1e4 ** -torch.linspace(0, 1, len(omega)), k),
            "other speeds",
        ),
    ],
    "check_attention_flops": [
        (lambda s, c: 4 * s**2 * c**2 + 2 * s**4 * c, "it is two"),
        (lambda s, c: 6 * s**2 * c**2 + 4 * s**4 * c, "`out`"),
        (lambda s, c: 8 * s**2 * c**2 + 2 * s**4 * c, "there are two"),
        (lambda s, c: 8 * s * c**2 + 4 * s**2 * c, "side^2"),
        (lambda s, c: 4 * s**2 * c**2 + 4 * s**4 * c, "one map of `qkv`"),
        (lambda s, c: 8 * s**2 * c**2, "linear layers only"),
        (lambda s, c: 4 * s**4 * c, "PyTorch counts"),
    ],
    "check_attend": [
        (lambda q, k, v, heads: _heads(q, k, v, heads, 1.0), "not divided"),
        (
            lambda q, k, v, heads: _heads(q, k, v, heads, heads / q.shape[2]),
            "it is its root",
        ),
        (_over_the_queries, "listened to"),
        (lambda q, k, v, heads: _heads(q, k, v, 1), "changes nothing"),
        (
            lambda q, k, v, heads: _heads(q, k, v, heads, q.shape[2] ** -0.5),
            "not that of c",
        ),
        (_not_moved, "moved before the positions"),
        (_every_fourth, "a run of neighbours"),
        (
            lambda q, k, v, heads: _heads(q, k, v, 4 if heads > 1 else 1),
            "2 heads are not",
        ),
        (
            lambda q, k, v, heads: _heads(q, k, v, heads) if len(q) == 2 else q,
            "(3, 7, 12)",
        ),
        (lambda q, k, v, heads: _heads(q, k, v, heads).detach(), "no gradient"),
    ],
}
