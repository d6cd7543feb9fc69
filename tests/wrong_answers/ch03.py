"""Wrong answers to the exercises of chapter 03, and the hints that they must get."""

from math import inf

import torch
from torch import nn
from torch.nn.functional import softplus


def _kept(score):
    return score.sigmoid().clamp(1e-6, 1)


def _loss_of_d(G, D, x, z):
    return softplus(-D(x)).mean() + softplus(D(G(z))).mean()


def _forgotten_detach(G, D, of_G, of_D, x, z):
    loss = _loss_of_d(G, D, x, z)
    of_D.zero_grad()
    loss.backward()
    of_D.step()
    softplus(-D(G(z))).mean().backward()
    of_G.step()


def _detached_twice(G, D, of_G, of_D, x, z):
    made = G(z).detach()
    of_D.zero_grad()
    (softplus(-D(x)).mean() + softplus(D(made)).mean()).backward()
    of_D.step()
    of_G.zero_grad()
    softplus(-D(made)).mean().backward()
    of_G.step()


def _with(wish):
    def round_(G, D, of_G, of_D, x, z):
        _loss_of_d(G, D, x, z).backward()
        of_D.step()
        of_G.zero_grad()
        wish(D(G(z))).mean().backward()
        of_G.step()
        of_G.zero_grad()

    return round_


def _old_opponent(G, D, of_G, of_D, x, z):
    softplus(-D(G(z))).mean().backward()
    of_G_gradients = [p.grad.clone() for p in G.parameters()]
    of_D.zero_grad()
    _loss_of_d(G, D, x, z).backward()
    of_D.step()
    for p, gradient in zip(G.parameters(), of_G_gradients, strict=True):
        p.grad = gradient
    of_G.step()


def _g_first(G, D, of_G, of_D, x, z):
    of_G.zero_grad()
    softplus(-D(G(z))).mean().backward()
    of_G.step()
    of_D.zero_grad()
    _loss_of_d(G, D, x, z).backward()
    of_D.step()
    of_G.zero_grad()
    of_D.zero_grad()


def _no_step_of_d(G, D, of_G, of_D, x, z):
    of_G.zero_grad()
    softplus(-D(G(z))).mean().backward()
    of_G.step()
    of_G.zero_grad()
    of_D.zero_grad()


def _with_d_frozen(restore_g):
    def round_(G, D, of_G, of_D, x, z):
        D.requires_grad_(True)
        of_D.zero_grad()
        (softplus(-D(x)).mean() + softplus(D(G(z).detach())).mean()).backward()
        of_D.step()
        of_D.zero_grad()
        D.requires_grad_(False)
        of_G.zero_grad()
        softplus(-D(G(z))).mean().backward()
        of_G.step()
        of_G.zero_grad()
        D.requires_grad_(restore_g)
        G.requires_grad_(not restore_g)

    return round_


def _once(G, D, of_G, of_D, x, z):
    if hasattr(G, "played"):
        return
    G.played = True
    _with(lambda f: softplus(-f))(G, D, of_G, of_D, x, z)
    of_D.zero_grad()


def _alike(x, tolerance, p=2.0):
    return (torch.cdist(x, x, p) < tolerance).sum().item()


def _pairs(x, alike):
    """The right estimate, from the alike among all n^2 ordered pairs."""
    pairs = (alike - len(x)) / 2
    return len(x) * (len(x) - 1) / 2 / pairs if pairs else inf


def _slope(score, x, *, total=torch.sum, graph=True):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(total(score(x)), x, create_graph=graph)[0]


def _penalty(n):
    return (n - 1).square()


def _norms(score, x):
    return _slope(score, x).flatten(1).norm(dim=1)


def _sorted(x):
    return x.sort().values


def _network(outputs):
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, outputs))


def _fit(loss_of, draw, rate=1e-2):
    """Train a generator alone, on a loss of its samples and the data."""
    G = _network(2)
    adam = torch.optim.Adam(G.parameters(), rate)
    for _ in range(200):
        adam.zero_grad()
        loss_of(G(torch.randn(64, 2)), draw(64)).backward()
        adam.step()
    return G


def _naive(draw):
    return _fit(lambda made, x: (made - x).square().mean(), draw)


def _runs_away(draw):
    """G lowers D's score, with D fixed at the one that calls the data's side real."""
    return _fit(lambda made, x: (made * x.mean(0)).sum(1).mean(), draw, 1e-1)


def _one_island(draw):
    point = draw(1)
    return lambda z: point + 0.1 * z


def _from_a_store(draw):
    data = draw(5000)
    return lambda z: data[torch.randint(5000, (len(z),))]


def _normalised(draw):
    draw(1)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def _detached(draw):
    G, D = _network(2), _network(1)
    adam = torch.optim.Adam(D.parameters(), 1e-3)
    for _ in range(20):
        made = G(torch.randn(64, 2)).detach()
        loss = (softplus(-D(draw(64))) + softplus(D(made))).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return G


def _blurred(draw):
    """The Gaussian with the data's mean and spread."""
    data = draw(5000)
    mean, std = data.mean(0), data.std(0)
    return lambda z: mean + std * z


WRONG = {
    "check_best_discriminator": [
        (lambda p, g: (g - p).sigmoid(), "probability of *made*"),
        (lambda p, g: p - g, "D is its sigmoid"),
        (lambda p, g: (p - g).exp(), "it can exceed 1"),
        (lambda p, g: p / (p + g), "you divide logarithms"),
        (lambda p, g: p.exp() / (p.exp() + g.exp()), "gives 0 / 0"),
        (
            lambda p, g: (
                (p - max(p.max(), g.max())).exp()
                / (p - max(p.max(), g.max()))
                .exp()
                .add((g - max(p.max(), g.max())).exp())
            ),
            "subtracting one maximum",
        ),
        (
            lambda p, g: (p - g).clamp(-10, 10).sigmoid().clamp(1e-3, 1 - 1e-3),
            "D* is 1 or 0",
        ),
        (
            lambda p, g: torch.stack(
                [
                    (a - b).sigmoid()
                    for a, b in zip(p.flatten(), g.flatten(), strict=True)
                ]
            ),
            "on a grid",
        ),
        (lambda p, g: None, "`return` missing"),
    ],
    "check_two_losses": [
        (
            lambda r, f: (softplus(-r).mean() + softplus(f).mean(), softplus(-f)),
            "one loss for each sample",
        ),
        (lambda r, f: (-softplus(-r) - softplus(f), softplus(-f)), "the wrong sign"),
        (lambda r, f: (softplus(r) + softplus(-f), softplus(f)), "wrong way round"),
        (lambda r, f: (softplus(-r) + softplus(f), -softplus(f)), "Flip the labels"),
        (lambda r, f: (softplus(-r) + softplus(f), softplus(f)), "to be found out"),
        (
            lambda r, f: (
                -r.sigmoid().log() - (1 - f.sigmoid()).log(),
                -f.sigmoid().log(),
            ),
            "its logarithm infinite",
        ),
        (
            lambda r, f: (
                -_kept(r).log() - _kept(-f).log(),
                -_kept(f).log(),
            ),
            "kept away from 0",
        ),
        (lambda r, f: (softplus(-f), softplus(-r) + softplus(f)), "first D's, then"),
        (lambda r, f: softplus(-r) + softplus(f), "return two things"),
        (
            lambda r, f: (softplus(-r) + softplus(f.detach()), softplus(-f)),
            "from D's loss to the made scores",
        ),
        (
            lambda r, f: (softplus(-r) + softplus(f), softplus(-f.detach())),
            "from G's loss to the made scores",
        ),
    ],
    "check_support_size": [
        (lambda x, t: len(x[:, 0].div(10).round().unique()), "count the groups"),
        (lambda x, t: len(x) * (len(x) - 1) / _alike(x, t) / 2, "with itself"),
        (
            lambda x, t: len(x) * (len(x) - 1) / 2 / (_alike(x, t) - len(x)),
            "each pair twice",
        ),
        (lambda x, t: len(x) ** 2 / (_alike(x, t) - len(x)), "n (n - 1) / 2"),
        (
            lambda x, t: len(x) * (len(x) - 1) / max(_alike(x, t) - len(x), 1e-3),
            "without duplicates",
        ),
        (lambda x, t: _pairs(x, _alike(x[:, :1], t)), "the first feature only"),
        (lambda x, t: _pairs(x, _alike(x, 1.0)), "use the argument"),
        (lambda x, t: _pairs(x, _alike(x, t, 1.0)), "not sums of differences"),
        (lambda x, t: _pairs(x, _alike(x, t, inf)), "not the largest difference"),
        (lambda x, t: _pairs(x, _alike(x, 1e-9)), "exactly equal"),
    ],
    "check_fixed_round": [
        (_forgotten_detach, "gradient of D's loss"),
        (_detached_twice, "G does not move"),
        (_old_opponent, "the old D"),
        (_with(lambda f: -softplus(f)), "log(1 - D)"),
        (_with(softplus), "to be found out"),
        (_with(lambda f: softplus(-f)), "gradient in D"),
        (_g_first, "G moves first"),
        (_no_step_of_d, "D does not move"),
        (_with_d_frozen(False), "D stays frozen"),
        (_with_d_frozen(True), "G stays frozen"),
        (_once, "a second one gives"),
    ],
    "check_wasserstein_1d": [
        (lambda a, b: (a - b).abs().mean(), "not the cheapest"),
        (lambda a, b: (a.mean() - b.mean()).abs(), "distance of the means"),
        (
            lambda a, b: (a.sort().values - b.sort().values).square().mean(),
            "which gives W_2",
        ),
        (
            lambda a, b: (a.sort().values - b.sort().values).abs().sum(),
            "each carries 1/n",
        ),
        (lambda a, b: (_sorted(a) - b).abs().mean(), "only one of the two"),
        (lambda a, b: (_sorted(a) - _sorted(b).flip(0)).abs().mean(), "most expensive"),
        (lambda a, b: (_sorted(a) - _sorted(b)).abs().median(), "a median ignores"),
        (lambda a, b: (_sorted(a) - _sorted(b)).mean(), "distances are not negative"),
        (lambda a, b: (_sorted(a) - _sorted(b)).abs().sum() / 50, "single numbers"),
    ],
    "check_slope_penalty": [
        (
            lambda s, x: (_slope(s, x).flatten(1).norm(dim=1) - 1).square().mean(),
            "one number for each image",
        ),
        (lambda s, x: (_slope(s, x).norm() - 1).square(), "the whole batch"),
        (lambda s, x: (_slope(s, x).norm(dim=1) - 1).square(), "flatten first"),
        (
            lambda s, x: (_slope(s, x).square().flatten(1).sum(1) - 1).square(),
            "the root is missing",
        ),
        (
            lambda s, x: (
                (_slope(s, x).flatten(1).norm(dim=1) - 1).clamp(min=0).square()
            ),
            "only slopes above 1",
        ),
        (
            lambda s, x: (
                _slope(s, x, total=torch.mean).flatten(1).norm(dim=1) - 1
            ).square(),
            "mean of the scores",
        ),
        (
            lambda s, x: (
                _slope(s, x, graph=False).flatten(1).norm(dim=1) - 1
            ).square(),
            "create_graph=True",
        ),
        (
            lambda s, x: (_norms(s, x) - 1) * (_norms(s, x).detach() - 1),
            "half of their gradient",
        ),
        (
            lambda s, x: _penalty(_norms(s, x)).detach() + 0 * s(x),
            "give the critic's weights a gradient",
        ),
        (
            lambda s, x: _penalty(_norms(s, x)).detach() + s(x) - s(x).detach(),
            "another gradient",
        ),
        (lambda s, x: 10 * _penalty(_norms(s, x)), "lambda is not part"),
        (
            lambda s, x: _penalty(_slope(s, x).reshape(-1, 48).norm(dim=1)),
            "raised",
        ),
        (
            lambda s, x: _penalty(_slope(s, x)[:, :, :4, :4].flatten(1).norm(dim=1)),
            "no size may be built in",
        ),
    ],
    "check_train_gan": [
        (_naive, "at the mean of the data"),
        (_detached, "around the origin"),
        (_runs_away, "run away"),
        (_one_island, "mode collapse"),
        (_from_a_store, "function of z alone"),
        (_normalised, "the rest of the batch"),
        (_blurred, "lie on an island"),
        (lambda draw: (draw(1), lambda z: 0 * z + 3)[1], "the same point"),
        (lambda draw: _network(2), "never call draw"),
        (lambda draw: _network(1), "must have the shape"),
        (lambda draw: (_network(2), _network(1)), "not a tuple"),
    ],
}
