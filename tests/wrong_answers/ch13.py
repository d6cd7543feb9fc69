"""Wrong answers to the exercises of chapter 13, and the hints that they must get."""

import torch

RIGHT = {
    "check_score_from_noise": [
        lambda e, ab: -e * (1 - ab) ** -0.5,
    ],
    "check_langevin": [
        lambda x, g, d, z: x.add(g, alpha=d).add(z, alpha=(2 * d) ** 0.5),
    ],
    "check_from_velocity": [
        lambda x, v, ab: list(_turned(x, v, ab)),
        lambda x, v, ab: _by_angle(x, v, ab),
    ],
    "check_velocity_weight": [
        lambda r, g: torch.minimum(r, torch.full_like(r, g)) / (1 + r),
        lambda r, g: torch.minimum(r / (1 + r), g / (1 + r)),
    ],
    "check_on_the_line": [
        lambda x, ab: [x / (ab**0.5 + (1 - ab) ** 0.5), _share(ab)],
        lambda x, ab: (_along(x, ab), torch.tensor(_share(ab))),
    ],
    "check_preconditioning": [
        lambda n, d: list(_right(n, d)),
        lambda n, d: torch.tensor(_right(n, d), dtype=torch.float64),
    ],
    "check_shortcut": [
        lambda x, y, t, u: _solved(x, y, t, u),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_score_from_noise": [
        (lambda e, ab: e / (1 - ab) ** 0.5, "against the noise"),
        (lambda e, ab: -e / (1 - ab), "one s is too many"),
        (lambda e, ab: -e / ab**0.5, "it is the noise's, s"),
        (lambda e, ab: e, "not equation (2)"),
        (lambda e, ab: -e * (1 - ab) ** 0.5, "multiplies by s"),
        (lambda e, ab: None, "`return` missing"),
    ],
    "check_langevin": [
        (lambda x, g, d, z: x + d * g + d**0.5 * z, "too close together"),
        (lambda x, g, d, z: x + d * g + 2 * d * z, "its root multiplies"),
        (lambda x, g, d, z: x - d * g + (2 * d) ** 0.5 * z, "downhill"),
        (lambda x, g, d, z: x + d * g, "on top of the hills"),
        (lambda x, g, d, z: x, "not equation (3)"),
        (lambda x, g, d, z: x + d / 2 * g + d**0.5 * z, "half the size"),
    ],
    "check_from_velocity": [
        (lambda x, v, ab: tuple(reversed(_turned(x, v, ab))), "wrong order"),
        (lambda x, v, ab: (x + v, x), "turn it back"),
        (
            lambda x, v, ab: _turned(x, -v, ab),
            "the sign of v_hat is wrong",
        ),
        (
            lambda x, v, ab: (_turned(x, v, ab)[0], _turned(x, -v, ab)[1]),
            "the sign of v_hat in eps_hat",
        ),
        (lambda x, v, ab: _divided(x, v, ab), "without any division"),
        (
            lambda x, v, ab: (_turned(x, v, ab)[0], x),
            "none by a works",
        ),
        (lambda x, v, ab: _turned(x, v, ab)[0], "return a pair"),
    ],
    "check_velocity_weight": [
        (lambda r, g: r.clamp(max=g), "1 + SNR already"),
        (lambda r, g: r.clamp(max=g) / r.clamp(min=1e-9), "the factor for eps"),
        (lambda r, g: r.clamp(min=g) / (1 + r), "takes the larger"),
        (lambda r, g: torch.ones_like(r), "not right"),
        (lambda r, g: (r / (1 + r)).clamp(max=g), "cap SNR, then divide"),
    ],
    "check_on_the_line": [
        (lambda x, ab: (x, 1 - ab), "part of the variance"),
        (lambda x, ab: (x, (1 - ab) ** 0.5), "do not add up to 1"),
        (lambda x, ab: (x, _share(ab)), "by the same sum"),
        (lambda x, ab: (x, 0.5), "the fraction is not right"),
        (lambda x, ab: x, "return a pair"),
    ],
    "check_preconditioning": [
        (lambda n, d: (*_right(n, d)[:2], 1 / (n**2 + d**2)), "not by it"),
        (lambda n, d: (1 - _right(n, d)[0], *_right(n, d)[1:]), "is the noise's"),
        (lambda n, d: (1.0, *_right(n, d)[1:]), "as small as it can be"),
        (lambda n, d: (_right(n, d)[0], n, _right(n, d)[2]), "so that F has 1"),
        (lambda n, d: (1.0, 1.0, 1.0), "must make c_in x_bar"),
        (lambda n, d: _right(n, d)[:2], "return three numbers"),
    ],
    "check_shortcut": [
        (lambda x, y, t, u: y, "still holds noise"),
        (lambda x, y, t, u: (y - (1 - u) ** 0.5 * x) / u**0.5, "for pure noise"),
        (lambda x, y, t, u: x, "does not end in x_u"),
        (lambda x, y, t, u: _solved(-x, y, t, u, sign=1), "a sign is wrong"),
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


def _by_angle(x, v, ab):
    angle = torch.arccos(torch.tensor(ab, dtype=torch.float64).sqrt())
    return angle.cos() * x - angle.sin() * v, angle.sin() * x + angle.cos() * v


def _divided(x, v, ab):
    x0 = _turned(x, v, ab)[0]
    return x0, (v + (1 - ab) ** 0.5 * x0) / ab**0.5


def _along(x, ab):
    share = _share(ab)
    return x * ((1 - share) ** 2 + share**2) ** 0.5


def _solved(x, y, t, u, sign=-1):
    a, s, b, r = t**0.5, (1 - t) ** 0.5, u**0.5, (1 - u) ** 0.5
    return (s * y - r * x) / (s * b + sign * r * a)
