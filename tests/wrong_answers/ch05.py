"""Wrong answers to the exercises of chapter 05, and the hints that they must get."""

WRONG = {
    "check_noise_std": [
        (lambda a: 1 - a**2, "standard deviation"),
        (lambda a: 1 - a, "variances add"),
        (lambda a: None, "`return` missing"),
        (lambda a: a, "a^2 + b^2 = 1.9602"),
    ],
    "check_beta_from_alpha_bar": [
        (lambda ab: 1 - ab / ab.roll(1), "no step leads to t = 0"),
        (lambda ab: 1 - ab[1:], "all the noise that is in x_t"),
        (lambda ab: ab[1:] / ab[:-1], "the rest"),
        (lambda ab: ab[:-1] - ab[1:], "a quotient"),
        (lambda ab: 1 - ab[:-1] / ab[1:], "upside down"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).sqrt(), "the root of beta_t"),
        (lambda ab: (1 - ab[1:] / ab[:-1])[:3], "must have the shape (512,)"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).round(decimals=2), "rounded"),
        (lambda ab: (1 - ab[1:] / ab[:-1]).clamp(max=0.9), "its cap"),
    ],
    "check_add_noise": [
        (
            lambda x0, ab, t, eps: _mix(x0, eps, _at(ab, t).sqrt(), 1 - _at(ab, t)),
            "root",
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
            lambda x0, ab, t, eps: _mix(x0, eps, ab[t[0]].sqrt(), 0),
            "each image's own t",
        ),
        (lambda x0, ab, t, eps: ab[t].sqrt() * x0, "your function raised RuntimeError"),
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
                x, eps, (ab[t] / ab[s]).sqrt(), 1 - ab[t] / ab[s]
            ),
            "is a root missing?",
        ),
        (
            lambda x, ab, s, t, eps: _mix(x, eps, ab[t] / ab[s], 0),
            "must end with the factor",
        ),
    ],
    "check_time_at_snr": [
        (lambda ab, db: _first(20 * (ab / (1 - ab)).log10() <= db), "10 log10"),
        (lambda ab, db: _first(10 * (ab / (1 - ab)).log() <= db), "natural logarithm"),
        (lambda ab, db: _first(10 * ab.log10() <= db), "alpha_bar itself"),
        (
            lambda ab, db: _first(10 * (ab / (1 - ab)).log10() <= db) - 1,
            "one too early",
        ),
        (lambda ab, db: (10 * (ab / (1 - ab)).log10() <= db).nonzero(), "the first"),
        (lambda ab, db: len(ab) - 1, "you give t = 1000"),
    ],
    "check_shift_for_resolution": [
        (lambda ab, f: ab / f**2, "alpha_bar_0 must stay 1"),
        (lambda ab, f: 1 - f**2 * (1 - ab), "becomes negative"),
        (lambda ab, f: ab / (ab + f * (1 - ab)), "a quarter of the variance"),
        (lambda ab, f: f**2 * ab / (f**2 * ab + 1 - ab), "more noise, not less"),
        (lambda ab, f: _with_snr((ab / (1 - ab)) / f**2), "the result holds NaN"),
    ],
}


def _at(alpha_bar, t):
    return alpha_bar[t].view(-1, 1, 1, 1)


def _mix(x, eps, signal, noise):
    return signal * x + noise * eps


def _first(condition):
    return int(condition.nonzero()[0])


def _with_snr(snr):
    return snr / (1 + snr)
