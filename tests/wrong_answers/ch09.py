"""Wrong answers to the exercises of chapter 09, and the hints that they must get."""

from itertools import pairwise

import torch

from ddpm_core.schedules import cosine_schedule

RIGHT = {
    "check_even_times": [
        lambda T, n: torch.linspace(T, 0, n + 1).round().long(),
        lambda T, n: tuple(T - T * i // n for i in range(n + 1)),
        lambda T, n: [int(T * (n - i) / n + 0.5) for i in range(n + 1)],
        lambda T, n: (round(T * (n - i) / n) for i in range(n + 1)),
    ],
    "check_ddim_from_eps": [
        lambda x, e, t, u: (
            (u / t) ** 0.5 * x + ((1 - u) ** 0.5 - (u * (1 - t) / t) ** 0.5) * e
        ),
    ],
    "check_mixed_step": [
        lambda x, x0, t, u, eta, z: _mixed_by_x(x, x0, t, u, eta, z),
    ],
    "check_slerp": [
        lambda x, y, f: _slerp(x, y, f),
        lambda x, y, f: _slerp(x.flatten(), y.flatten(), f).view_as(x),
    ],
    "check_encode": [
        lambda d, x, ab, times: _encode(d, x, ab, tuple(times)),
        lambda d, x, ab, times: _encode_bar(d, x, ab, times),
    ],
    "check_second_order_step": [
        lambda *a: _second(*a, clock=lambda ab: torch.logit(ab) / 2),
        lambda *a: _second(*a, clock=lambda ab: (ab.sqrt() / (1 - ab).sqrt()).log()),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_even_times": [
        (lambda T, n: [round(T * i / n) for i in range(n + 1)], "your timesteps rise"),
        (
            lambda T, n: [round(T * (n - i) / n) for i in range(n)],
            "without the step to 0",
        ),
        (
            lambda T, n: [round((T - 1) * (n - i) / n) for i in range(n + 1)],
            "not at T",
        ),
        (lambda T, n: [T * (n - i) / n for i in range(n + 1)], "whole numbers"),
        (lambda T, n: [*range(T, 0, -(T // n)), 0], "each step has two ends"),
        (
            lambda T, n: [round(T * ((n - i) / n) ** 2) for i in range(n + 1)],
            "the strides are between",
        ),
    ],
    "check_ddim_from_eps": [
        (lambda x, e, t, u: _clean(x, e, t), "you return x0_hat"),
        (lambda x, e, t, u: u**0.5 * _clean(x, e, t), "the noise is gone"),
        (
            lambda x, e, t, u: u**0.5 * _clean(x, e, t) + (1 - u) * e,
            "is a root missing",
        ),
        (
            lambda x, e, t, u: u**0.5 * _clean(x, e, t) + (1 - t) ** 0.5 * e,
            "still that of t",
        ),
        (
            lambda x, e, t, u: u**0.5 * (x - (1 - t) ** 0.5 * e) + (1 - u) ** 0.5 * e,
            "still shrunk",
        ),
        (
            lambda x, e, t, u: u * _clean(x, e, t) + (1 - u) ** 0.5 * e,
            "the image has the factor alpha_bar_u",
        ),
        (
            lambda x, e, t, u: (
                u**0.5 * _clean(x, e, t) + (1 - u) ** 0.5 * torch.randn_like(x)
            ),
            "an exact eps_hat",
        ),
        (
            lambda x, e, t, u: (
                u**0.5 * x.sub_((1 - t) ** 0.5 * e) / t**0.5 + (1 - u) ** 0.5 * e
            ),
            "make a new one",
        ),
        (
            lambda x, e, t, u: u**0.5 * _clean(x, e, t)[0] + (1 - u) ** 0.5 * e[0],
            "must have the shape",
        ),
        (lambda x, e, t, u: None, "`return` missing"),
    ],
    "check_mixed_step": [
        (lambda *a: _mixed(*a, kept=lambda v, std: v.sqrt()), "kept whole"),
        (
            lambda *a: _mixed(*a, kept=lambda v, std: v - std**2),
            "is a root missing",
        ),
        (
            lambda x, x0, t, u, eta, z: _mixed(x, x0, t, u, 1.0, z),
            "must not depend on the noise",
        ),
        (
            lambda x, x0, t, u, eta, z: _mixed(x, x0, t, u, 0.0, z),
            "no noise at all",
        ),
        (
            lambda x, x0, t, u, eta, z: (
                _mixed(x, x0, t, u, eta, z) + (1 - u.sqrt()) * x0
            ),
            "not the one of equations",
        ),
        (
            lambda *a: _mixed(*a, kept=lambda v, std: (v - std).clamp(min=0).sqrt()),
            "keeps too little",
        ),
        (lambda x, *a: _mixed(x.mul_(1.0).add_(0.1), *a), "make a new one"),
        (
            lambda *a: _mixed(*a, std=lambda eta, variance: eta * variance),
            "beta-tilde is a variance",
        ),
        (
            lambda *a: _mixed(*a, std=lambda eta, variance: (eta * variance) ** 0.5),
            "the root of eta",
        ),
    ],
    "check_slerp": [
        (lambda x, y, f: (1 - f) * x + f * y, "the straight line"),
        (lambda x, y, f: _stretched(x, y, f), "you stretch"),
        (lambda x, y, f: _slerp(y, x, f), "the ends are swapped"),
        (
            lambda x, y, f: (
                torch.tensor(f * torch.pi / 2).cos() * x
                + torch.tensor(f * torch.pi / 2).sin() * y
            ),
            "at right angles",
        ),
        (
            lambda x, y, f: torch.stack(
                [
                    _slerp(a, b, f)
                    for a, b in zip(
                        x.view(-1, x.shape[-1]), y.view(-1, x.shape[-1]), strict=True
                    )
                ]
            ).view_as(x),
            "an angle for each row",
        ),
        (
            lambda x, y, f: torch.stack(
                [_slerp(a, b, f) for a, b in zip(x, y, strict=True)]
            ),
            "for each entry of the first dimension",
        ),
        (
            lambda x, y, f: (
                _slerp(x, y * x.norm() / y.norm(), f) if 0 < f < 1 else _slerp(x, y, f)
            ),
            "of different lengths are not",
        ),
        (lambda x, y, f: _slerp(x, y, f) * 1.1, "the end itself"),
        (lambda x, y, f: _slerp(x, y, f * f), "a third of the way"),
    ],
    "check_encode": [
        (lambda d, x, ab, times: x, "never called"),
        (lambda d, x, ab, times: _called_once(d, x, times), "after one call"),
        (lambda d, x, ab, times: _encode(d, x, ab, times, at="u"), "one and the same"),
        (lambda d, x, ab, times: _encode(d, x, ab, times, noise=0.0), "scaled down"),
        (
            lambda d, x, ab, times: _encode(
                d, x, cosine_schedule(1000).alpha_bar, times
            ),
            "under another schedule",
        ),
        (
            lambda d, x, ab, times: _encode(d, x, ab, times).reshape(-1, 2),
            "come back as",
        ),
        (
            lambda d, x, ab, times: x.copy_(_encode(d, x, ab, times)),
            "make a new one",
        ),
        (
            lambda d, x, ab, times: (
                ab[times[-1]].sqrt() * x
                + (1 - ab[times[-1]]).sqrt() * torch.randn(x.shape).double()
            ),
            "is random",
        ),
        (
            lambda d, x, ab, times: _encode(d, x, ab, times[: len(times) // 2]),
            "is doubled",
        ),
        (lambda d, x, ab, times: _encode(d, x, ab, times, ahead=True), "with 20 it"),
        (lambda d, x, ab, times: _encode(d, x, ab, times[::-1]), "as they are"),
        (lambda d, x, ab, times: _noised_on(d, x, ab, times), "blown up"),
    ],
    "check_second_order_step": [
        (lambda *a: _second(*a, rule=lambda h, b: 0.0), "this is DDIM"),
        (lambda *a: _second(*a, rule=lambda h, b: b / h / 2), "upside down"),
        (lambda *a: _second(*a, rule=lambda h, b: h / b), "end of the step"),
        (lambda *a: _second(*a, rule=lambda h, b: -h / b / 2), "back towards"),
        (lambda *a: _second(*a, rule=lambda h, b: 0.5), "must move on by"),
        (
            lambda x, x0, old, b, t, u: _second(2 * x, x0, old, b, t, u),
            "must be DDIM's",
        ),
        (lambda *a: _second(*a, clock=lambda ab: (ab / (1 - ab)).log()), "half the"),
        (
            lambda x, x0, old, b, t, u: _second(
                x, x0, old, b, t, u, rule=lambda *_: (u - t) / (t - b) / 2
            ),
            "steps in alpha_bar",
        ),
        (
            lambda *a: _second(*a, rule=lambda h, b: (h / (1 - (-h).exp()) - 1) / b),
            "but not 2M",
        ),
    ],
}


def _clean(x, eps_hat, ab):
    return (x - (1 - ab) ** 0.5 * eps_hat) / ab**0.5


def _mixed(
    x,
    x0_hat,
    ab_t,
    ab_u,
    eta,
    noise,
    kept=lambda v, std: (v - std**2).sqrt(),
    std=lambda eta, variance: eta * variance.sqrt(),
):
    eps_hat = (x - ab_t.sqrt() * x0_hat) / (1 - ab_t).sqrt()
    drawn = std(eta, (1 - ab_u) / (1 - ab_t) * (1 - ab_t / ab_u))
    return ab_u.sqrt() * x0_hat + kept(1 - ab_u, drawn) * eps_hat + drawn * noise


def _stretched(x, other, f):
    line = (1 - f) * x + f * other
    return line / line.norm() * x.norm()


def _slerp(x, other, f):
    theta = ((x * other).sum() / (x.norm() * other.norm())).acos()
    near, far = ((1 - f) * theta).sin(), (f * theta).sin()
    return (near * x + far * other) / theta.sin()


def _encode(denoise, x, alpha_bar, times, noise=1.0, ahead=False, at="t"):
    for t, u in pairwise(times):
        ab_t, ab_u = alpha_bar[u if at == "u" else t], alpha_bar[u]
        x0_hat = denoise(x, torch.full((len(x),), u if ahead else t))
        eps_hat = (x - ab_t.sqrt() * x0_hat) / (1 - ab_t).sqrt()
        x = ab_u.sqrt() * x0_hat + noise * (1 - ab_u).sqrt() * eps_hat
    return x


def _encode_bar(denoise, x, alpha_bar, times):
    """In the variables of equation (5)."""
    for t, u in pairwise(times):
        now, then = (((1 - alpha_bar[v]) / alpha_bar[v]).sqrt() for v in (t, u))
        bar = x / alpha_bar[t].sqrt()
        slope = (bar - denoise(x, torch.full((len(x),), t))) / now
        x = alpha_bar[u].sqrt() * (bar + (then - now) * slope)
    return x


def _called_once(denoise, x, times):
    denoise(x, torch.full((len(x),), times[0]))
    return x


def _mixed_by_x(x, x0_hat, ab_t, ab_u, eta, noise):
    std = eta * ((1 - ab_u) / (1 - ab_t) * (1 - ab_t / ab_u)).sqrt()
    factor = ((1 - ab_u - std**2) / (1 - ab_t)).sqrt()
    return factor * x + (ab_u.sqrt() - factor * ab_t.sqrt()) * x0_hat + std * noise


def _noised_on(denoise, x, alpha_bar, times):
    for t, u in pairwise(times):
        x0_hat = denoise(x, torch.full((len(x),), t))
        eps_hat = (x - alpha_bar[t].sqrt() * x0_hat) / (1 - alpha_bar[t]).sqrt()
        share = alpha_bar[u] / alpha_bar[t]
        x = share.sqrt() * x + (1 - share).sqrt() * eps_hat
    return x


def _second(
    x,
    x0_hat,
    old,
    ab_old,
    ab_t,
    ab_u,
    rule=lambda h, b: h / b / 2,
    clock=lambda ab: (ab / (1 - ab)).log() / 2,
):
    before, now, then = [clock(ab) for ab in (ab_old, ab_t, ab_u)]
    h, h_before = then - now, now - before
    guess = x0_hat + rule(h, h_before) * (x0_hat - old)
    ratio = ((1 - ab_u) / (1 - ab_t)).sqrt()
    return ratio * x + ab_u.sqrt() * (1 - (-h).exp()) * guess
