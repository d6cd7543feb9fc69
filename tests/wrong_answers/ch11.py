"""Wrong answers to the exercises of chapter 11, and the hints that they must get."""

from math import ceil, floor

import torch


def _channels(v):
    return v.view(1, -1, 1, 1)


def _unit(v):
    return v / v.norm(dim=1, keepdim=True)


RIGHT = {
    "check_compression": [
        lambda s, f, c: [f * f, 3 * f * f / c],
        lambda s, f, c: torch.tensor([f**2, 3 * f**2 / c]).tolist(),
        lambda s, f, c: (f**2, 3 * s * s / (c * (s // f) ** 2)),
    ],
    "check_channel_scales": [
        lambda z: [z.mean((0, 2, 3)), z.std((0, 2, 3))],
        lambda z: (_rows(z).mean(1), _rows(z).std(1, correction=0)),
        lambda z: tuple(reversed(torch.std_mean(z, (0, 2, 3)))),
    ],
    "check_round_trip": [
        lambda x, e, d, m, s: [d(e(x)), (e(x) - _channels(m)) / _channels(s)],
        lambda x, e, d, m, s: (
            d((e(x).mT.mT - m[:, None, None]) + m[:, None, None]),
            (e(x) - m[:, None, None]) / s[:, None, None],
        ),
    ],
    "check_effective_alpha_bar": [
        lambda ab, sigma: 1 / (1 + (1 - ab) / (sigma**2 * ab)),
        lambda ab, sigma: torch.tensor(sigma**2 * ab / (sigma**2 * ab + 1 - ab)),
    ],
    "check_stage_distance": [
        lambda a, b: 2 - 2 * torch.cosine_similarity(a, b, dim=1).mean((1, 2)),
        lambda a, b: (
            (torch.nn.functional.normalize(a) - torch.nn.functional.normalize(b))
            .square()
            .sum(1)
            .flatten(1)
            .mean(1)
        ),
    ],
    "check_pays_from": [
        lambda p, q, a, e: _counted(p, q, a + e),
        lambda p, q, a, e: None if p <= q else floor((a + e) / (p - q)) + 1,
        lambda p, q, a, e: None if p <= q else float((a + e) // (p - q) + 1),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_compression": [
        (lambda s, f, c: (f, 3 * f * f / c), "positions lie on a square"),
        (lambda s, f, c: (f * f, f * f), "you forget the channels"),
        (lambda s, f, c: (f * f, f * f / c), "3 channels each"),
        (lambda s, f, c: (f * f, c * f * f / 3), "upside down"),
        (lambda s, f, c: (3 * f * f / c, f * f), "positions come first"),
        (lambda s, f, c: 3 * f * f / c, "return two things"),
        (lambda s, f, c: (f * f, 20), "times fewer"),
        (lambda s, f, c: (f * f, 3 * f * f // c), "need not be a whole number"),
        (lambda s, f, c: None, "`return` missing"),
    ],
    "check_channel_scales": [
        (lambda z: (z.mean(0), z.std(0)), "one mean a position"),
        (lambda z: (z.mean(), z.std()), "one number for all channels"),
        (lambda z: (z.mean((2, 3)), z.std((2, 3))), "one mean a picture"),
        (lambda z: (z.mean((0, 2, 3)), z.var((0, 2, 3))), "is a root missing"),
        (lambda z: (z[0].mean((1, 2)), z.std((0, 2, 3))), "the means are not"),
        (lambda z: z.std((0, 2, 3)), "return two things"),
        (
            lambda z: (z.mean((0, 2, 3)), z.var((2, 3)).mean(0).sqrt()),
            "spread inside an image",
        ),
        (
            lambda z: (z.mean((0, 2, 3)), z.mean((2, 3)).std(0)),
            "spread of the images' means",
        ),
        (lambda z: (z.mean((0, 2, 3)), z.std() + 0 * z[0, :, 0, 0]), "deviations are"),
    ],
    "check_round_trip": [
        (
            lambda x, e, d, m, s: (
                d((e(x) - _channels(m)) / _channels(s) * _channels(s)),
                (e(x) - _channels(m)) / _channels(s),
            ),
            "the mean must be added again",
        ),
        (
            lambda x, e, d, m, s: (
                d(((e(x) - _channels(m)) / _channels(s) + _channels(m)) * _channels(s)),
                (e(x) - _channels(m)) / _channels(s),
            ),
            "after the factor",
        ),
        (
            lambda x, e, d, m, s: (d(e(x)), e(x) / _channels(s) - _channels(m)),
            "take the mean away first",
        ),
        (
            lambda x, e, d, m, s: (d(e(x)), (e(x) - _channels(m)) * _channels(s)),
            "variance 1",
        ),
        (lambda x, e, d, m, s: (d(e(x)), e(x)), "are not scaled"),
        (
            lambda x, e, d, m, s: (
                e(x),
                (e(x) - _channels(m)) / _channels(s),
            ),
            "must be decode(encode(x))",
        ),
        (
            lambda x, e, d, m, s: (x, (e(x) - _channels(m)) / _channels(s)),
            "was not decoded",
        ),
        (
            lambda x, e, d, m, s: (
                d((e(x) - _channels(m)) / _channels(s)),
                (e(x) - _channels(m)) / _channels(s),
            ),
            "undo the scaling first",
        ),
        (lambda x, e, d, m, s: (d(e(x)), (e(x) - m) / s), "belong to channels"),
        (
            lambda x, e, d, m, s: (d(e(x)), _channels(m) + 0 * e(x)),
            "(encode(x) - mean)",
        ),
        (lambda x, e, d, m, s: d(e(x)), "return two things"),
    ],
    "check_effective_alpha_bar": [
        (lambda ab, sigma: sigma**2 * ab / (1 - ab), "which alpha_bar has it"),
        (lambda ab, sigma: sigma**2 * ab, "signal and noise must sum"),
        (lambda ab, sigma: sigma * ab / (sigma * ab + 1 - ab), "enters squared"),
        (lambda ab, sigma: ab / (ab + sigma**2 * (1 - ab)), "not less"),
        (lambda ab, sigma: ab, "it is"),
        (
            lambda ab, sigma: (sigma**2 * ab / (sigma**2 * ab + 1 - ab)) ** 0.5,
            "that is its root",
        ),
    ],
    "check_stage_distance": [
        (lambda a, b: (a - b).square().sum(1).mean((1, 2)), "drown the others"),
        (
            lambda a, b: (_unit(a) - _unit(b)).square().sum((1, 2, 3)),
            "take their mean",
        ),
        (
            lambda a, b: (_unit(a) - _unit(b)).square().mean((1, 2, 3)),
            "only over positions averaged",
        ),
        (
            lambda a, b: (_unit(a) - _unit(b)).square().sum(1).sqrt().mean((1, 2)),
            "no root is taken",
        ),
        (lambda a, b: (a - b).abs().mean((1, 2, 3)), "must be 0"),
        (
            lambda a, b: (1 - torch.cosine_similarity(a, b, dim=1)).mean((1, 2)),
            "1 - cos is half",
        ),
        (lambda a, b: _normed(a, b, (2, 3)), "each channel's map"),
        (lambda a, b: _normed(a, b, (1, 2, 3)), "the whole map"),
        (
            lambda a, b: (_unit(a) - _unit(b)).abs().sum(1).mean((1, 2)),
            "squared difference of the unit vectors",
        ),
        (lambda a, b: (_unit(a) - _unit(b)).square().sum(1).mean(), "shape (5,)"),
    ],
    "check_pays_from": [
        (
            lambda p, q, a, e: floor(a / (p - q)) + 1 if p > q else None,
            "the encoding is missing",
        ),
        (lambda p, q, a, e: floor((a + e) / p) + 1, "what is saved"),
        (lambda p, q, a, e: 100_000, "cheaper before"),
        (
            lambda p, q, a, e: floor((a + e) / (p - q)) if p > q else None,
            "not cheaper yet",
        ),
        (lambda p, q, a, e: floor((a + e) / (p - q)) + 1, "it never pays"),
        (
            lambda p, q, a, e: ceil((a + e) / (p - q)) if p > q else None,
            "both cost the same",
        ),
        (
            lambda p, q, a, e: None if p < q else floor((a + e) / (p - q)) + 1,
            "nothing is saved",
        ),
        (lambda p, q, a, e: (a + e) / (p - q) + 0.9, "whole number of steps"),
    ],
}


def _rows(z):
    return z.transpose(0, 1).flatten(1)


def _normed(a, b, axes):
    u, v = (x / x.square().sum(axes, keepdim=True).sqrt() for x in (a, b))
    return (u - v).square().sum(1).mean((1, 2))


def _counted(pixel, latent, fixed):
    if latent >= pixel:
        return None
    steps = 0
    while latent * steps + fixed >= pixel * steps:
        steps += 1
    return steps
