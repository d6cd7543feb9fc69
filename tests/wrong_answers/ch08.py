"""Wrong answers to the exercises of chapter 08, and the hints that they must get."""

import torch

RIGHT = {
    "check_posterior": [
        lambda ab, t, u: list(_posterior(ab, t, u)),
        lambda ab, t, u: torch.stack(_posterior(ab, t, u)),
    ],
    "check_walk_to_one_point": [
        lambda *args: tuple(_last_quiet(*args)),
        lambda *args: torch.stack(_last_quiet(*args)),
        lambda *args: iter(_last_quiet(*args)),
        lambda *args: [*_last_quiet(*args)[:-1], args[1]],  # x0_hat is c
    ],
    "check_clean_from_eps": [
        lambda x, e, ab: x / ab.sqrt() - (1 / ab - 1).sqrt() * e,
    ],
    "check_step_mean": [
        lambda x, e, ab, t: _from_clean(x, e, ab, t),
    ],
    "check_right_variance": [
        lambda ab, t, s2: float(_ratio(ab, t, s2) * (1 - _alpha(ab, t))),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_clean_from_eps": [
        (lambda x, e, ab: x - (1 - ab) ** 0.5 * e, "still shrunk"),
        (lambda x, e, ab: (x - e) / ab**0.5, "subtract eps_hat itself"),
        (lambda x, e, ab: (x - (1 - ab) * e) / ab, "variances alpha_bar_t"),
        (lambda x, e, ab: (x - (1 - ab) * e) / ab**0.5, "is a root missing"),
        (lambda x, e, ab: (x - ab**0.5 * e) / (1 - ab) ** 0.5, "are swapped"),
        (lambda x, e, ab: (x + (1 - ab) ** 0.5 * e) / ab**0.5, "once more"),
        (
            lambda x, e, ab: x.sub_((1 - ab) ** 0.5 * e) / ab**0.5,
            "make new ones",
        ),
        (lambda x, e, ab: (x - (1 - ab**0.5) * e) / ab**0.5, "must come back"),
        (lambda x, e, ab: None, "`return` missing"),
    ],
    "check_step_mean": [
        (lambda x, e, ab, t: x - _removed(e, ab, t), "1 / sqrt(alpha_t)"),
        (
            lambda x, e, ab, t: (x - _removed(e, ab, t)) / ab[t].sqrt(),
            "all the way to x0_hat",
        ),
        (
            lambda x, e, ab, t: (
                (x - (1 - _alpha(ab, t)).sqrt() * e) / _alpha(ab, t).sqrt()
            ),
            "Is a bar missing?",
        ),
        (
            lambda x, e, ab, t: (x - (1 - ab[t]).sqrt() * e) / _alpha(ab, t).sqrt(),
            "all the noise at once",
        ),
        (
            lambda x, e, ab, t: (
                (x - (1 - _alpha(ab, t)) / (1 - ab[t]) * e) / _alpha(ab, t).sqrt()
            ),
            "you divide by 1 - alpha_bar_t",
        ),
        (
            lambda x, e, ab, t: (x - _removed(e, ab, t)) / _alpha(ab, t),
            "with eps_hat = 0",
        ),
        (
            lambda x, e, ab, t: (x + _removed(e, ab, t)) / _alpha(ab, t).sqrt(),
            "the noise is added",
        ),
        (
            lambda x, e, ab, t: (x - _removed(e, ab, t)) * _alpha(ab, t).sqrt(),
            "this one undoes it",
        ),
        (
            lambda x, e, ab, t: (x - 2 * _removed(e, ab, t)) / _alpha(ab, t).sqrt(),
            "the factor of eps_hat must be",
        ),
    ],
    "check_right_variance": [
        (lambda ab, t, s2: 1 - _alpha(ab, t), "right only for s2 = 1"),
        (
            lambda ab, t, s2: (1 - ab[t - 1]) / (1 - ab[t]) * (1 - _alpha(ab, t)),
            "right only for s2 = 0",
        ),
        (lambda ab, t, s2: 1 / _ratio(ab, t, s2) * (1 - _alpha(ab, t)), "upside down"),
        (
            lambda ab, t, s2: _ratio(ab, t, s2**0.5) * (1 - _alpha(ab, t)),
            "do not take its root",
        ),
        (
            lambda ab, t, s2: (_ratio(ab, t, s2) * (1 - _alpha(ab, t))) ** 0.5,
            "the standard deviation",
        ),
        (
            lambda ab, t, s2: ab[t - 1] * s2 + 1 - ab[t - 1],
            "knowing x_t makes it smaller",
        ),
        (
            lambda ab, t, s2: s2 * (1 - _alpha(ab, t)),
            "for a single point",
        ),
    ],
    "check_clipped_step": [
        (lambda *args: _step(*args).clamp(-1, 1), "still clip the noisy state"),
        (lambda *args: _step(*args), "nothing is clipped"),
        (
            lambda x, x0, ab, t, z: _step(x.clamp(-1, 1), x0.clamp(-1, 1), ab, t, z),
            "x that comes in",
        ),
        (lambda x, x0, ab, t, z: _step(x, x0.clamp_(-1, 1), ab, t, z), "not clamp_"),
        (
            lambda x, x0, ab, t, z: (
                _step(x, x0.clamp(-1, 1), ab, t, z) + (0.1 * z if t == 1 else 0)
            ),
            "without noise",
        ),
        (
            lambda x, x0, ab, t, z: _step(x, x0.clamp(0, 1), ab, t, z),
            "clip x0_hat to [0, 1]",
        ),
        (lambda x, x0, ab, t, z: _step(x, x0.clamp(-1, 1), ab, t, 0 * z), "ignores"),
        (
            lambda x, x0, ab, t, z: _step(
                x, x0.clamp(-1, 1), ab, t, torch.randn_like(z)
            ),
            "draw none",
        ),
        (
            lambda x, x0, ab, t, z: (
                _step(x, x0.clamp(-1, 1), ab, t, 0 * z) + (1 - _alpha(ab, t)).sqrt() * z
            ),
            "has the variance beta_t",
        ),
        (
            lambda x, x0, ab, t, z: _step(x.mul_(1.01), x0.clamp(-1, 1), ab, t, z),
            "changes the x that",
        ),
        (
            lambda x, x0, ab, t, z: _step(x, x0.clamp(-2, 2), ab, t, z),
            "at t = 40 the step is not",
        ),
    ],
    "check_walk_to_one_point": [
        (
            lambda x, c, ab, g: _one_point(x, c, ab, g, lambda beta, t: beta.sqrt()),
            "last step must add none",
        ),
        (
            lambda x, c, ab, g: _one_point(x, c, ab, g, lambda beta, t: beta),
            "root of a variance",
        ),
        (
            lambda x, c, ab, g: _one_point(
                x, c, ab, g, lambda beta, t: _posterior(ab, t, t - 1)[2] ** 0.5
            ),
            "the exercise wants beta_t",
        ),
        (
            lambda x, c, ab, g: _one_point(x, c, ab, g, lambda beta, t: 0.0),
            "no noise is drawn",
        ),
        (lambda x, c, ab, g: [x] * (len(ab) - 1) + [c], "away from the mean"),
        (lambda x, c, ab, g: [x] * len(ab), "the last the finished image"),
        (lambda x, c, ab, g: [x, c], "states, x_T and x_0 included"),
        (
            lambda x, c, ab, g: _one_point(
                x, c, ab, g, lambda beta, t: beta.sqrt() if t > 1 else 0.5
            ),
            "at t = 1 the step must land on c",
        ),
        (lambda x, c, ab, g: [*_last_quiet(x, c, ab, g)[:-1], 0 * c], "away from c"),
        (
            lambda x, c, ab, g: [
                *_one_point(x, c, ab, g, lambda beta, t: beta.sqrt())[:-1],
                c,
            ],
            "the last step, from t = 1, must draw none",
        ),
        (
            lambda x, c, ab, g: _last_quiet(x, c, ab, torch.Generator()),
            "two seeds give the same noise",
        ),
        (lambda x, c, ab, g: _last_quiet(x, c, ab, None), "two runs"),
        (lambda x, c, ab, g: _last_quiet(x, c, ab, g, same=True), "several steps"),
        (lambda x, c, ab, g: _last_quiet(x, c, ab, g, rows=1), "all images of the"),
        (lambda x, c, ab, g: _last_quiet(x, c, ab, g)[::-1], "x_T first"),
    ],
    "check_posterior": [
        (lambda ab, t, u: _posterior(ab, t, t - 1), "variance of a single step"),
        (
            lambda ab, t, u: (
                *_posterior(ab, t, u)[:2],
                (1 - ab[u]) / (1 - ab[t]) * (1 - _alpha(ab, t)),
            ),
            "the last step alone",
        ),
        (
            lambda ab, t, u: (
                *_posterior(ab, t, u)[:2],
                _posterior(ab, t, u)[2] ** 0.5,
            ),
            "standard deviation",
        ),
        (
            lambda ab, t, u: (*_posterior(ab, t, u)[:2], 1 - ab[t] / ab[u]),
            "forward variance",
        ),
        (
            lambda ab, t, u: (
                _posterior(ab, t, u)[1],
                _posterior(ab, t, u)[0],
                _posterior(ab, t, u)[2],
            ),
            "must arrive with the factor",
        ),
        (
            lambda ab, t, u: (  # DDIM's, without noise
                ab[u].sqrt() - ((1 - ab[u]) / (1 - ab[t]) * ab[t]).sqrt(),
                ((1 - ab[u]) / (1 - ab[t])).sqrt(),
                0.0,
            ),
            "Bayes' rule gives",
        ),
        (lambda ab, t, u: _posterior(ab, t, u)[:2], "return three numbers"),
        (lambda ab, t, u: _posterior(ab, t, u + 1 if u else 0), "must arrive with"),
        (lambda ab, t, u: _posterior(ab, t, max(u, 1)), "must land on x_0"),
    ],
}


def _alpha(alpha_bar, t):
    return alpha_bar[t] / alpha_bar[t - 1]


def _removed(eps_hat, alpha_bar, t):
    return (1 - _alpha(alpha_bar, t)) / (1 - alpha_bar[t]).sqrt() * eps_hat


def _from_clean(x, eps_hat, alpha_bar, t):
    x0_hat = (x - (1 - alpha_bar[t]).sqrt() * eps_hat) / alpha_bar[t].sqrt()
    to_clean, to_noisy, _ = _posterior(alpha_bar, t, t - 1)
    return to_clean * x0_hat + to_noisy * x


def _ratio(alpha_bar, t, s2):
    v = alpha_bar * s2 + 1 - alpha_bar
    return v[t - 1] / v[t]


def _posterior(alpha_bar, t, u):
    share = alpha_bar[t] / alpha_bar[u]
    return (
        alpha_bar[u].sqrt() * (1 - share) / (1 - alpha_bar[t]),
        share.sqrt() * (1 - alpha_bar[u]) / (1 - alpha_bar[t]),
        (1 - alpha_bar[u]) / (1 - alpha_bar[t]) * (1 - share),
    )


def _step(x, x0_hat, alpha_bar, t, noise):
    to_clean, to_noisy, variance = _posterior(alpha_bar, t, t - 1)
    return to_clean * x0_hat + to_noisy * x + variance.sqrt() * noise


def _one_point(x, c, alpha_bar, generator, std):
    states = [x]
    for t in range(len(alpha_bar) - 1, 0, -1):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = _step(x, c, alpha_bar, t, 0 * z) + std(1 - _alpha(alpha_bar, t), t) * z
        states.append(x)
    return states


def _last_quiet(x, c, alpha_bar, generator, same=False, rows=None):
    """The right answer, but for the mistakes named."""
    states, z = [x], None
    for t in range(len(alpha_bar) - 1, 0, -1):
        x = _step(x, c, alpha_bar, t, torch.zeros_like(x))
        if t > 1:
            if z is None or not same:
                shape = (rows or len(x), *x.shape[1:])
                z = torch.randn(shape, generator=generator, dtype=x.dtype)
            x = x + (1 - _alpha(alpha_bar, t)).sqrt() * z
        states.append(x)
    return states
