"""Wrong answers to the exercises of chapter 13, and the hints that they must get."""

import torch

WRONG = {
    "check_score_from_noise": [
        (lambda e, ab: e / (1 - ab) ** 0.5, "against the noise"),
        (lambda e, ab: -e / (1 - ab), "one s is too many"),
        (lambda e, ab: -e / ab**0.5, "it is the noise's, s"),
        (lambda e, ab: e, "not equation (2)"),
        (lambda e, ab: None, "`return` missing"),
    ],
    "check_langevin": [
        (lambda x, g, d, z: x + d * g + d**0.5 * z, "too close together"),
        (lambda x, g, d, z: x + d * g + 2 * d * z, "its root multiplies"),
        (lambda x, g, d, z: x - d * g + (2 * d) ** 0.5 * z, "downhill"),
        (lambda x, g, d, z: x + d * g, "on top of the hills"),
        (lambda x, g, d, z: x, "not equation (3)"),
    ],
    "check_from_velocity": [
        (lambda x, v, ab: tuple(reversed(_turned(x, v, ab))), "wrong order"),
        (lambda x, v, ab: (x + v, x), "turn it back"),
        (lambda x, v, ab: (_turned(x, v, ab)[0], x), "no division"),
        (lambda x, v, ab: _turned(x, v, ab)[0], "return a pair"),
    ],
    "check_velocity_weight": [
        (lambda r, g: r.clamp(max=g), "1 + SNR already"),
        (lambda r, g: r.clamp(max=g) / r.clamp(min=1e-9), "the factor for eps"),
        (lambda r, g: r.clamp(min=g) / (1 + r), "takes the larger"),
        (lambda r, g: torch.ones_like(r), "not right"),
    ],
    "check_on_the_line": [
        (lambda x, ab: (x, 1 - ab), "share of the variance"),
        (lambda x, ab: (x, (1 - ab) ** 0.5), "do not add up to 1"),
        (lambda x, ab: (x, _share(ab)), "scaled by the same sum"),
        (lambda x, ab: (x, 0.5), "the share is not right"),
        (lambda x, ab: x, "return a pair"),
    ],
    "check_preconditioning": [
        (lambda n, d: (*_right(n, d)[:2], 1 / (n**2 + d**2)), "not by it"),
        (lambda n, d: (1 - _right(n, d)[0], *_right(n, d)[1:]), "is the noise's"),
        (lambda n, d: (1.0, *_right(n, d)[1:]), "as small as it can be"),
        (lambda n, d: (_right(n, d)[0], n, _right(n, d)[2]), "so that F has 1"),
        (lambda n, d: (1.0, 1.0, 1.0), "must make c_in x_bar"),
    ],
    "check_shortcut": [
        (lambda x, y, t, u: y, "still holds noise"),
        (lambda x, y, t, u: (y - (1 - u) ** 0.5 * x) / u**0.5, "for pure noise"),
        (lambda x, y, t, u: x, "does not end in x_u"),
    ],
}


def _turned(x, v, ab):
    a, s = ab**0.5, (1 - ab) ** 0.5
    return a * x - s * v, s * x + a * v


def _share(ab):
    a, s = ab**0.5, (1 - ab) ** 0.5
    return s / (a + s)


def _right(sigma, sigma_data):
    n = (sigma**2 + sigma_data**2) ** 0.5
    return (sigma_data / n) ** 2, sigma * sigma_data / n, 1 / n
