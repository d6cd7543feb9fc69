"""Wrong answers to the exercises of chapter 03, and the hints that they must get."""

import torch
from torch.nn.functional import softplus


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


def _alike(x, tolerance):
    return (torch.cdist(x, x) < tolerance).sum().item()


def _slope(score, x, *, total=torch.sum, graph=True):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(total(score(x)), x, create_graph=graph)[0]


WRONG = {
    "check_best_discriminator": [
        (lambda p, g: (g - p).sigmoid(), "probability of *made*"),
        (lambda p, g: p - g, "D is its sigmoid"),
        (lambda p, g: (p - g).exp(), "it can exceed 1"),
        (lambda p, g: p / (p + g), "you divide logarithms"),
        (lambda p, g: p.exp() / (p.exp() + g.exp()), "gives 0 / 0"),
    ],
    "check_two_losses": [
        (
            lambda r, f: (softplus(-r).mean() + softplus(f).mean(), softplus(-f)),
            "one loss a sample",
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
            lambda x, t: len(x) * (len(x) - 1) / (_alike(x, t) - len(x)),
            "without duplicates",
        ),
    ],
    "check_mended_round": [
        (_forgotten_detach, "gradient of D's loss"),
        (_detached_twice, "G does not move"),
        (_old_opponent, "the old D"),
        (_with(lambda f: -softplus(f)), "log(1 - D)"),
        (_with(softplus), "to be found out"),
        (_with(lambda f: softplus(-f)), "gradient in D"),
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
    ],
    "check_slope_penalty": [
        (
            lambda s, x: (_slope(s, x).flatten(1).norm(dim=1) - 1).square().mean(),
            "one number an image",
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
    ],
}
