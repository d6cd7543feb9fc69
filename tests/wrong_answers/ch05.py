"""Wrong answers to the exercises of chapter 05, and the hints that they must get."""

import torch


def _at(alpha_bar, t):
    return alpha_bar[t].view(-1, 1, 1, 1)


def _mix(x, eps, signal, noise):
    return signal * x + noise * eps


def _right(x0, ab, t, eps):
    return _mix(x0, eps, _at(ab, t).sqrt(), (1 - _at(ab, t)).sqrt())


def _in_place(x0, ab, t, eps):
    x0 *= _at(ab, t).sqrt()
    return x0.add_((1 - _at(ab, t)).sqrt() * eps)


def _one_step(x0, ab, t, eps):
    alpha = _at(ab, t) / _at(ab, t - 1)
    return _mix(x0, eps, alpha.sqrt(), (1 - alpha).sqrt())


def _jump(x, ab, s, t, eps):
    kept = ab[t] / ab[s]
    return _mix(x, eps, kept.sqrt(), (1 - kept).sqrt())


def _jump_in_place(x, ab, s, t, eps):
    if len(x) == 1:
        return _jump(x, ab, s, t, eps)
    x *= (ab[t] / ab[s]).sqrt()
    return x + (1 - ab[t] / ab[s]).sqrt() * eps


def _beta_in_place(ab):
    ab[1:] /= ab[:-1].clone()
    return 1 - ab[1:]


def _first(condition):
    return int(condition.nonzero()[0])


def _decibels(ab):
    return 10 * (ab / (1 - ab)).log10()


def _with_snr(snr):
    return snr / (1 + snr)


def _shifted(ab, f2):
    return ab / (ab + f2 * (1 - ab))


def _shift_in_place(ab, f):
    return ab.div_(ab + f**2 * (1 - ab))


WRONG = {
    "check_noise_std": [
        (lambda a: 1 - a**2, "standard deviation"),
        (lambda a: 1 - a, "variances add"),
        (lambda a: (1 - a) ** 0.5, "sqrt(1 - a)"),
        (lambda a: -((1 - a**2) ** 0.5), "never negative"),
        (lambda a: None, "`return` missing"),
        (lambda a: (a, (1 - a**2) ** 0.5), "one number, not a tuple"),
        (lambda a: a, "a^2 + b^2 = 1.9602"),
        (lambda a: max((1 - a**2) ** 0.5, 0.01), "no room for noise"),
        (lambda a: (1 - a**2) ** 0.5 if a else 0.0, "all the variance is noise"),
    ],
    "check_beta_from_alpha_bar": [
        (lambda ab: 1 - ab / ab.roll(1), "no step leads to t = 0"),
        (lambda ab: 1 - ab[1:], "all the noise that is in x_t"),
        (lambda ab: ab[1:] / ab[:-1], "the remainder"),
        (lambda ab: ab[:-1] - ab[1:], "a quotient"),
        (lambda ab: 1 - ab[:-1] / ab[1:], "upside down"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).sqrt(), "the root of beta_t"),
        (lambda ab: 1 - (ab[1:] / ab[:-1]).sqrt(), "without a root"),
        (lambda ab: ab[:-1].log() - ab[1:].log(), "-log(alpha_t)"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).flip(0), "reverse order"),
        (_beta_in_place, "changes its argument alpha_bar"),
        (lambda ab: (1 - ab[1:] / ab[:-1])[:3], "must have the shape (512,)"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).round(decimals=2), "rounded"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).clamp(max=0.9), "its cap"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).clamp(max=0.999), "nothing is cut off"),
    ],
    "check_add_noise": [
        (
            lambda x0, ab, t, eps: _mix(x0, eps, _at(ab, t).sqrt(), 1 - _at(ab, t)),
            "eps is multiplied by the root",
        ),
        (
            lambda x0, ab, t, eps: _mix(
                x0, eps, _at(ab, t).sqrt(), 1 - _at(ab, t).sqrt()
            ),
            "subtract first",
        ),
        (
            lambda x0, ab, t, eps: _mix(x0, eps, _at(ab, t), (1 - _at(ab, t)).sqrt()),
            "multiplied by alpha_bar",
        ),
        (
            lambda x0, ab, t, eps: _mix(
                x0, eps, (1 - _at(ab, t)).sqrt(), _at(ab, t).sqrt()
            ),
            "each other's factors",
        ),
        (
            lambda x0, ab, t, eps: _mix(
                x0, eps, ab[t[0]].sqrt(), (1 - ab[t[0]]).sqrt()
            ),
            "the timestep of the first",
        ),
        (
            lambda x0, ab, t, eps: _mix(x0, eps, _at(ab, t).sqrt(), 0),
            "eps makes no difference",
        ),
        (
            lambda x0, ab, t, eps: _right(x0, ab, t, torch.randn_like(x0)),
            "do not draw any",
        ),
        (lambda x0, ab, t, eps: _right(x0, ab, t - 1, eps), "at t - 1"),
        (_one_step, "one step of the chain"),
        (lambda x0, ab, t, eps: _right(x0, ab, t, eps).clamp(-1, 1), "without noise"),
        (
            lambda x0, ab, t, eps: _right(x0, ab, t, eps) + 0.1 * x0 * eps,
            "neither clipped nor scaled",
        ),
        (_in_place, "changes its argument x0"),
        (
            lambda x0, ab, t, eps: _mix(
                x0,
                eps,
                ab[t].view(4, 1, 1, 1).sqrt(),
                (1 - ab[t].view(4, 1, 1, 1)).sqrt(),
            ),
            "is invalid for input of size 2",
        ),
        (lambda x0, ab, t, eps: ab[t].sqrt() * x0, "must match the size"),
    ],
    "check_jump": [
        (
            lambda x, ab, s, t, eps: _mix(x, eps, ab[t].sqrt(), (1 - ab[t]).sqrt()),
            "as if x_s were clean",
        ),
        (
            lambda x, ab, s, t, eps: _mix(
                x, eps, (ab[t] / ab[s]).sqrt(), (ab[s] - ab[t]).sqrt()
            ),
            "room for more",
        ),
        (
            lambda x, ab, s, t, eps: _mix(
                x, eps, (ab[t] / ab[s]).sqrt(), (1 - ab[t]).sqrt()
            ),
            "as if x_s had no noise yet",
        ),
        (
            lambda x, ab, s, t, eps: _mix(
                x, eps, (ab[t] / ab[s]).sqrt(), 1 - ab[t] / ab[s]
            ),
            "is a root missing?",
        ),
        (
            lambda x, ab, s, t, eps: _mix(
                x, eps, ab[t] / ab[s], (1 - ab[t] / ab[s]).sqrt()
            ),
            "multiplied by its root",
        ),
        (lambda x, ab, s, t, eps: _jump(x, ab, t, s, eps), "the root of a negative"),
        (lambda x, ab, s, t, eps: _jump(x, ab, t - 1, t, eps), "one step only"),
        (
            lambda x, ab, s, t, eps: (ab[t] / ab[s]).sqrt() * x,
            "eps makes no difference",
        ),
        (
            lambda x, ab, s, t, eps: _jump(x, ab, s, t, torch.randn_like(x)),
            "do not draw any",
        ),
        (lambda x, ab, s, t, eps: _jump(x, ab, s, t, -eps), "eps is subtracted"),
        (lambda x, ab, s, t, eps: x + eps, "must end with the factor"),
        (_jump_in_place, "changes its argument x_s"),
        (
            lambda x, ab, s, t, eps: _jump(x, ab, s, t, eps).clamp(-1, 1),
            "a batch of images does not",
        ),
    ],
    "check_time_at_snr": [
        (lambda ab, db: _first(2 * _decibels(ab) <= db), "10 log10"),
        (lambda ab, db: _first(_decibels(ab) / 10 <= db), "the factor 10"),
        (lambda ab, db: _first(10 * (ab / (1 - ab)).log() <= db), "natural logarithm"),
        (lambda ab, db: _first(10 * ab.log10() <= db), "alpha_bar itself"),
        (lambda ab, db: _first(-_decibels(ab) <= db), "upside down"),
        (lambda ab, db: _first(ab / (1 - ab) <= db), "the ratio itself"),
        (lambda ab, db: _first(_decibels(ab) <= db) - 1, "one too early"),
        (lambda ab, db: _first(_decibels(ab) <= db) + 1, "one too late"),
        (lambda ab, db: _first(_decibels(ab) < db), "exactly 0 dB at t = 2"),
        (lambda ab, db: (_decibels(ab) <= db).nonzero(), "the first, not"),
        (lambda ab, db: _first(_decibels(ab) <= db) + 0.5, "a whole number"),
        (lambda ab, db: len(ab) - 1, "you return t = 1000"),
        (
            lambda ab, db: _first(_decibels(ab) <= db) if len(ab) == 1001 else 99,
            "at 15 dB the first timestep is t",
        ),
    ],
    "check_shift_for_resolution": [
        (lambda ab, f: ab / f**2, "alpha_bar_0 must stay 1"),
        (lambda ab, f: 1 - f**2 * (1 - ab), "becomes negative"),
        (lambda ab, f: _shifted(ab, f), "1/4 of the variance"),
        (lambda ab, f: _shifted(ab, 2 * f), "2 * factor = 6"),
        (lambda ab, f: _shifted(ab, 1 / f**2), "more noise, not less"),
        (lambda ab, f: _shifted(ab, f**4), "square the factor once"),
        (lambda ab, f: _shifted(ab, 4), "with factor = 3"),
        (lambda ab, f: ab**f, "is divided by"),
        (lambda ab, f: _shifted(ab, f**2 if f > 1 else 1.5), "nothing must change"),
        (lambda ab, f: _with_snr((ab / (1 - ab)) / f**2), "the result holds NaN"),
        (_shift_in_place, "changes its argument alpha_bar"),
        (lambda ab, f: _shifted(ab, f**2).clamp(min=1e-8), "must still end there"),
    ],
}
