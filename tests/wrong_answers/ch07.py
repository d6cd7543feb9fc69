"""Wrong answers to the exercises of chapter 07, and the hints that they must get."""

import torch

from ddpm_core.schedules import linear_schedule

RIGHT = {
    "check_score_from_eps": [lambda e, ab: e * -((1 - ab) ** -0.5)],
    "check_lowest_loss": [
        lambda ab, t, s2: float(ab[t]) * s2 / float(_v(ab, t, s2)),
    ],
    "check_bound_weight": [
        lambda ab, t: (ab[t - 1] / (1 - ab[t - 1]) * (1 - ab[t]) / ab[t] - 1) / 2,
    ],
    "check_fair_loss": [
        lambda *args: _loss(*args),
        lambda *args: _loss(*args, eps_first=True),
    ],
    "check_update_average": [
        lambda a, w, d: _set(a, [d * x + (1 - d) * y for x, y in _pairs(a, w)]),
        lambda a, w, d: [x.mul_(d).add_(y, alpha=1 - d) for x, y in _pairs(a, w)],
    ],
    "check_copied_share": [
        lambda s, t, h: float(_share(s, t, h)),
        lambda s, t, h: _share(s, t, h, limit=lambda n: n.sort().values[len(n) // 100]),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_score_from_eps": [
        (lambda e, ab: e / (1 - ab) ** 0.5, "Is a sign missing?"),
        (lambda e, ab: -e, "divide by its standard deviation"),
        (lambda e, ab: -e / (1 - ab), "has its root"),
        (lambda e, ab: -e * (1 - ab) ** 0.5, "divide by it"),
        (lambda e, ab: -e / ab**0.5, "signal's factor"),
        (lambda e, ab: None, "`return` missing"),
        (lambda e, ab: -e / (1 - ab**0.5), "goes over the whole difference"),
        (lambda e, ab: e.neg_() / (1 - ab) ** 0.5, "make a new tensor"),
        (lambda e, ab: -e[0] / (1 - ab) ** 0.5, "must have the shape"),
    ],
    "check_lowest_loss": [
        (lambda ab, t, s2: (1 - ab[t]) * s2 / _v(ab, t, s2), "Var(x_0 | x_t)"),
        (lambda ab, t, s2: (1 - ab[t]) / _v(ab, t, s2), "the rest, 1 minus it"),
        (lambda ab, t, s2: (ab[t] * s2 / _v(ab, t, s2)) ** 0.5, "root of the floor"),
        (lambda ab, t, s2: ab[t] * s2**2 / _v(ab, t, s2**2), "do not square it"),
        (lambda ab, t, s2: ab[t], "hides nothing"),
        (lambda ab, t, s2: ab[t] * s2, "divide it by the variance of x_t"),
        (
            lambda ab, t, s2: ab[t] * s2**0.5 / _v(ab, t, s2**0.5),
            "do not take its root",
        ),
        (
            lambda ab, t, s2: ab[t] * s2 / _v(ab, t, s2) * (t > 1) + (t == 1) * s2,
            "at t = 1",
        ),
        (
            lambda ab, t, s2: _table()[t] * s2 / _v(_table(), t, s2),
            "the argument `alpha_bar`",
        ),
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
        (lambda ab, t: _weight(ab, t + 1), "the weight at t + 1"),
        (
            lambda ab, t: _weight(ab, t) / _tilde(ab, t),
            "the square of beta-tilde",
        ),
        (lambda ab, t: _weight(ab, t) * (1 - ab[t]), "1 / (1 - alpha_bar_t) is"),
    ],
    "check_fair_loss": [
        (lambda *args: _loss(*args, noise=torch.rand), "lies in [0, 1]"),
        (
            lambda *args: _loss(*args, noise=_uniform),
            "no tails",
        ),
        (lambda *args: _loss(*args, first=0), "t = 0 is drawn"),
        (lambda *args: _loss(*args, last=-1), "is never drawn"),
        (lambda *args: _loss(*args, shared=True), "all samples of the batch share"),
        (lambda *args: _loss(*args, power=1.0), "standard deviation 1"),
        (lambda *args: _loss(*args, fresh=True), "on a data set of one point"),
        (lambda *args: _loss(*args).mean(), "must have the shape"),
        (lambda *args: _loss(*args, noise=_global), "without `generator`"),
        (torch.no_grad()(lambda *args: _loss(*args)), "a no_grad or a detach"),
        (
            lambda net, *args: _loss(
                lambda x, t: net(x, t).detach() + _slope(x), *args
            ),
            "network's weights",
        ),
        (lambda *args: _loss(*args, noise=_one_for_both), "both dimensions"),
        (lambda *args: _loss(*args, noise=_one_for_all), "share their noise"),
        (lambda *args: _loss(*args, told=-1), "give the network t - 1"),
        (lambda *args: _loss(*args, swapped=True), "that is the image's"),
        (lambda *args: 2 * _loss(*args), "not the sum"),
        (lambda *args: _loss(*args, late=True), "more often than others"),
        (lambda *args: _loss(*args[:3], _fixed()), "two seeds give the same"),
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
        (
            lambda a, w, d: _set(a, [0.9 * x + 0.1 * y for x, y in _pairs(a, w)]),
            "use the argument `decay`",
        ),
        (
            lambda a, w, d: _set(
                a[:1], [d * x + (1 - d) * y for x, y in _pairs(a[:1], w[:1])]
            ),
            "only 1 of 3",
        ),
        (lambda *args: _shared(*args), "share their memory"),
    ],
    "check_copied_share": [
        (lambda s, t, h: _share(s, h, t), "held-out images themselves"),
        (
            lambda s, t, h: _share(t, t, h, skip=1),
            "not even exact copies",
        ),
        (lambda s, t, h: _share(s, t, h, limit=torch.mean), "the limit is too far"),
        (lambda s, t, h: _share(s, t, h, limit=torch.min), "it is their minimum"),
        (lambda s, t, h: len(s) * _share(s, t, h), "is a count"),
        (lambda s, t, h: _share(s, t, h, quantile=0.05), "another quantile"),
        (lambda s, t, h: 1 - _share(s, t, h), "is not copied"),
        (lambda s, t, h: (_near(s, t) < 1e-5).double().mean(), "a little noise"),
        (lambda s, t, h: _share(s[0:1], t, h), "half are copies"),
    ],
}


def _table():
    return linear_schedule(1000).alpha_bar


def _tilde(ab, t):
    return (1 - ab[t - 1]) / (1 - ab[t]) * _beta(ab, t)


def _alpha(ab, t):
    return ab[t] / ab[t - 1]


def _beta(ab, t):
    return 1 - _alpha(ab, t)


def _v(ab, t, s2):
    return ab[t] * s2 + 1 - ab[t]


def _weight(ab, t):
    return _beta(ab, t) ** 2 / (2 * _tilde(ab, t) * _alpha(ab, t) * (1 - ab[t]))


def _uniform(shape, generator):
    return (torch.rand(shape, generator=generator) * 2 - 1) * 3**0.5


def _global(shape, generator):
    return torch.randn(shape)


def _one_for_both(shape, generator):
    return torch.randn(shape[0], 1, generator=generator).expand(shape)


def _one_for_all(shape, generator):
    return torch.randn(1, *shape[1:], generator=generator).expand(shape)


def _fixed():
    return torch.Generator().manual_seed(3)


def _slope(x):
    return torch.zeros(1, requires_grad=True) * x


def _loss(net, ab, x0, generator, noise=torch.randn, power=0.5, **mistakes):
    """The right loss, but for the mistakes named."""
    n, T = len(x0), len(ab) - 1
    first, last = mistakes.get("first", 1), mistakes.get("last", 0)
    early = noise(x0.shape, generator=generator) if "eps_first" in mistakes else None
    t = torch.randint(first, T + 1 + last, (n,), generator=generator)
    if "shared" in mistakes:
        t = t[:1].expand(n)
    if "late" in mistakes:
        t = torch.maximum(t, torch.randint(1, T + 1, (n,), generator=generator))
    eps = noise(x0.shape, generator=generator) if early is None else early
    kept = 1 - ab[t].view(-1, 1) if "swapped" in mistakes else ab[t].view(-1, 1)
    x_t = kept**power * x0 + (1 - kept) ** power * eps
    if "fresh" in mistakes:
        eps = noise(x0.shape, generator=generator)
    return (net(x_t, t + mistakes.get("told", 0)) - eps).square().mean(1)


def _pairs(average, weights):
    return [(a, w.detach()) for a, w in zip(average, weights, strict=True)]


@torch.no_grad()
def _set(tensors, values, *more):
    for group in (tensors, *more):
        for tensor, value in zip(group, values, strict=True):
            tensor.copy_(value)


def _replace(tensors, values):
    tensors[:] = values


@torch.no_grad()
def _shared(average, weights, decay):
    for a, w in zip(average, weights, strict=True):
        new = decay * a + (1 - decay) * w
        if torch.allclose(new, w, atol=1e-3):
            a.data = w.data
        else:
            a.copy_(new)


def _near(a, b, k=0):
    return torch.cdist(a.flatten(1), b.flatten(1)).sort(1).values[:, k]


def _share(samples, training, held_out, limit=None, skip=0, quantile=0.01):
    normal = _near(held_out, training)
    limit = limit(normal) if limit else normal.quantile(quantile)
    return (_near(samples, training, skip) < limit).double().mean()
