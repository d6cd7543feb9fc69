"""Wrong answers to the exercises of chapter 07, and the hints that they must get."""

import torch

WRONG = {
    "check_score_from_eps": [
        (lambda e, ab: e / (1 - ab) ** 0.5, "Is a sign missing?"),
        (lambda e, ab: -e, "divide by its standard deviation"),
        (lambda e, ab: -e / (1 - ab), "has its root"),
        (lambda e, ab: -e * (1 - ab) ** 0.5, "divide by it"),
        (lambda e, ab: -e / ab**0.5, "signal's factor"),
        (lambda e, ab: None, "`return` missing"),
    ],
    "check_lowest_loss": [
        (lambda ab, t, s2: (1 - ab[t]) * s2 / _v(ab, t, s2), "Var(x_0 | x_t)"),
        (lambda ab, t, s2: (1 - ab[t]) / _v(ab, t, s2), "the rest of 1"),
        (lambda ab, t, s2: (ab[t] * s2 / _v(ab, t, s2)) ** 0.5, "root of the floor"),
        (lambda ab, t, s2: ab[t] * s2**2 / _v(ab, t, s2**2), "do not square it"),
        (lambda ab, t, s2: ab[t], "hides nothing"),
    ],
    "check_bound_weight": [
        (lambda ab, t: 2 * _weight(ab, t), "the 1/2 of the Gaussian"),
        (
            lambda ab, t: _beta(ab, t) / (2 * _alpha(ab, t) * (1 - ab[t])),
            "weight for sigma^2 = beta;",
        ),
        (lambda ab, t: _weight(ab, t) * _alpha(ab, t), "alpha_t is missing"),
        (lambda ab, t: _weight(ab, t) * _alpha(ab, t) / ab[t], "one bar too many"),
        (lambda ab, t: _weight(ab, t) / _beta(ab, t), "must be squared"),
        (
            lambda ab, t: (ab[t - 1] / (1 - ab[t - 1]) - ab[t] / (1 - ab[t])) / 2,
            "weight of the error in x0_hat",
        ),
    ],
    "check_fair_loss": [
        (lambda *args: _loss(*args, noise=torch.rand), "lies in [0, 1]"),
        (
            lambda *args: _loss(*args, noise=_uniform),
            "no tails",
        ),
        (lambda *args: _loss(*args, first=0), "t = 0 is drawn"),
        (lambda *args: _loss(*args, last=-1), "is never drawn"),
        (lambda *args: _loss(*args, shared=True), "share the time"),
        (lambda *args: _loss(*args, power=1.0), "standard deviation 1"),
        (lambda *args: _loss(*args, fresh=True), "on a data set of one point"),
        (lambda *args: _loss(*args).mean(), "must have the shape"),
        (lambda *args: _loss(*args, noise=_global), "without `generator`"),
    ],
    "check_update_average": [
        (
            lambda a, w, d: _set(a, [(1 - d) * x + d * y for x, y in _pairs(a, w)]),
            "OLD",
        ),
        (
            lambda a, w, d: [d * x + (1 - d) * y for x, y in _pairs(a, w)],
            "you return new tensors",
        ),
        (lambda a, w, d: None, "the averages are as before"),
        (
            lambda a, w, d: _set(w, [d * x + (1 - d) * y for x, y in _pairs(a, w)], a),
            "you change the weights",
        ),
        (
            lambda a, w, d: [x.lerp_(y, 1 - d) for x, y in zip(a, w, strict=True)],
            "carry a gradient",
        ),
        (
            lambda a, w, d: _set(a, [(x + y) / 2 for x, y in _pairs(a, w)]),
            "must become",
        ),
        (
            lambda a, w, d: _replace(a, [d * x + (1 - d) * y for x, y in _pairs(a, w)]),
            "new tensors into the list",
        ),
    ],
    "check_copied_share": [
        (lambda s, t, h: _share(s, h, t), "held-out images themselves"),
        (lambda s, t, h: _share(t, t, h, skip=1), "even exact copies are not found"),
        (lambda s, t, h: _share(s, t, h, limit=torch.mean), "yardstick is too long"),
        (lambda s, t, h: _share(s, t, h, limit=torch.min), "it is their minimum"),
        (lambda s, t, h: len(s) * _share(s, t, h), "is a count"),
    ],
}


def _alpha(ab, t):
    return ab[t] / ab[t - 1]


def _beta(ab, t):
    return 1 - _alpha(ab, t)


def _v(ab, t, s2):
    return ab[t] * s2 + 1 - ab[t]


def _weight(ab, t):
    tilde = (1 - ab[t - 1]) / (1 - ab[t]) * _beta(ab, t)
    return _beta(ab, t) ** 2 / (2 * tilde * _alpha(ab, t) * (1 - ab[t]))


def _uniform(shape, generator):
    return (torch.rand(shape, generator=generator) * 2 - 1) * 3**0.5


def _global(shape, generator):
    return torch.randn(shape)


def _loss(
    net,
    ab,
    x0,
    generator,
    noise=torch.randn,
    first=1,
    last=0,
    shared=False,
    power=0.5,
    fresh=False,
):
    n, T = len(x0), len(ab) - 1
    t = torch.randint(first, T + 1 + last, (n,), generator=generator)
    t = t[:1].expand(n) if shared else t
    eps = noise(x0.shape, generator=generator)
    share = ab[t].view(-1, 1)
    x_t = share**power * x0 + (1 - share) ** power * eps
    eps = noise(x0.shape, generator=generator) if fresh else eps
    return (net(x_t, t) - eps).square().mean(1)


def _pairs(average, weights):
    return [(a, w.detach()) for a, w in zip(average, weights, strict=True)]


@torch.no_grad()
def _set(tensors, values, *more):
    for group in (tensors, *more):
        for tensor, value in zip(group, values, strict=True):
            tensor.copy_(value)


def _replace(tensors, values):
    tensors[:] = values


def _near(a, b, k=0):
    return torch.cdist(a.flatten(1), b.flatten(1)).sort(1).values[:, k]


def _share(samples, training, held_out, limit=None, skip=0):
    normal = _near(held_out, training)
    limit = limit(normal) if limit else normal.quantile(0.01)
    return (_near(samples, training, skip) < limit).double().mean()
