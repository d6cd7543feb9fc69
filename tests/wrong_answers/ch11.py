"""Wrong answers to the exercises of chapter 11, and the hints that they must get."""

from math import floor


def _channels(v):
    return v.view(1, -1, 1, 1)


def _unit(v):
    return v / v.norm(dim=1, keepdim=True)


WRONG = {
    "check_compression": [
        (lambda s, f, c: (f, 3 * f * f / c), "positions lie on a square"),
        (lambda s, f, c: (f * f, f * f), "you forget the channels"),
        (lambda s, f, c: (f * f, f * f / c), "3 channels each"),
        (lambda s, f, c: (f * f, c * f * f / 3), "upside down"),
        (lambda s, f, c: (3 * f * f / c, f * f), "positions come first"),
        (lambda s, f, c: 3 * f * f / c, "return two things"),
        (lambda s, f, c: (f * f, 20), "times fewer"),
    ],
    "check_channel_scales": [
        (lambda z: (z.mean(0), z.std(0)), "one mean a position"),
        (lambda z: (z.mean(), z.std()), "one number for all channels"),
        (lambda z: (z.mean((2, 3)), z.std((2, 3))), "one mean a picture"),
        (lambda z: (z.mean((0, 2, 3)), z.var((0, 2, 3))), "is a root missing"),
        (lambda z: (z[0].mean((1, 2)), z.std((0, 2, 3))), "the means are not"),
        (lambda z: z.std((0, 2, 3)), "return two things"),
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
            "give x back",
        ),
    ],
    "check_effective_alpha_bar": [
        (lambda ab, sigma: sigma**2 * ab / (1 - ab), "which alpha_bar has it"),
        (lambda ab, sigma: sigma**2 * ab, "signal and noise must sum"),
        (lambda ab, sigma: sigma * ab / (sigma * ab + 1 - ab), "enters squared"),
        (lambda ab, sigma: ab / (ab + sigma**2 * (1 - ab)), "not less"),
        (lambda ab, sigma: ab, "it is"),
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
        (lambda a, b: (a - b).abs().mean((1, 2, 3)), "the distance must be 0"),
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
    ],
}
