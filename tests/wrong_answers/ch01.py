"""Wrong answers to the exercises of chapter 01, and the hints that they must get."""

import math

import torch

WRONG = {
    "check_analogy": [
        (lambda a, b, c, g: _nearest(c + a - b, g), "from b to a"),
        (lambda a, b, c, g: _nearest(c, g), "step b - a is missing"),
        (lambda a, b, c, g: _nearest(b, g), "must start at c"),
        (lambda a, b, c, g: int((g @ (c - a + b)).argmax()), "dot product"),
        (lambda a, b, c, g: _nearest(a + b + c, g), "one of the signs"),
        (lambda a, b, c, g: (g - c + a - b).norm(dim=1).min(), "index of a row"),
        (lambda a, b, c, g: 20, "if a and b are the same"),
        (
            lambda a, b, c, g: int(
                torch.cosine_similarity(g, (c - a + b)[None]).argmax()
            ),
            "you take the cosine",
        ),
        (lambda a, b, c, g: _nearest(c - a + b, g, order=1), "the L1 norm"),
        (lambda a, b, c, g: _nearest(c - a + b, g, order=math.inf), "maximum norm"),
        (lambda a, b, c, g: int((g - c + a - b).norm(dim=1).argmax()), "farthest row"),
        (lambda a, b, c, g: 22 if (a == b).all() else 20, "reverse order"),
    ],
    "check_posterior": [
        (lambda logp, prior: logp.softmax(1), "prior is missing"),
        (lambda logp, prior: (logp + prior.log()).softmax(0), "rows must"),
        (lambda logp, prior: (logp + prior).softmax(1), "logarithm of the prior"),
        (lambda logp, prior: logp.exp() * prior, "divide by its sum"),
        (lambda logp, prior: (logp + prior.log()).log_softmax(1), "exponentiate"),
        (lambda logp, prior: _normalised(logp.exp() * prior), "exp(-5000) is 0"),
        (
            lambda logp, prior: _normalised((logp - logp.max()).exp() * prior),
            "each row's own maximum",
        ),
        (
            lambda logp, prior: _normalised(logp.double().exp() * prior + 1e-300),
            "the odds must be",
        ),
        (lambda logp, prior: _two_classes(logp, prior), "the shape (2, 3)"),
    ],
    "check_sample_peaks": [
        (
            lambda w, m, s, n, g: (w * (m + s * torch.randn(n, 2, generator=g))).sum(1),
            "do not add them up",
        ),
        (
            lambda w, m, s, n, g: _drawn(m, s, _choice(torch.ones(2), n, g), g),
            "choose with the weights",
        ),
        (
            lambda w, m, s, n, g: _drawn(m, s, _choice(w, 1, g).expand(n), g),
            "a choice of its own",
        ),
        (
            lambda w, m, s, n, g: _drawn(m, s, 1 - _choice(w, n, g), g),
            "each other's weight",
        ),
        (
            lambda w, m, s, n, g: _drawn(
                m, s, w.multinomial(n, replacement=True), torch.Generator()
            ),
            "equal seeds differ",
        ),
        (
            lambda w, m, s, n, g: _drawn(
                m, s, _choice(w, n, _seven()), _seven().manual_seed(8)
            ),
            "two different seeds give the same",
        ),
        (
            lambda w, m, s, n, g: _drawn(
                m[:2], s[:2], (torch.rand(n, generator=g) > w[0]).long(), g
            ),
            "take any K",
        ),
        (lambda w, m, s, n, g: _drawn(m, s, _quotas(w, n), g), "sorted by component"),
        (
            lambda w, m, s, n, g: _drawn(
                m, s, _quotas(w, n)[torch.randperm(n, generator=g)], g
            ),
            "a quota is no draw",
        ),
        (
            lambda w, m, s, n, g: _uniform(m, s, _choice(w, n, g), g),
            "noise is not Gaussian",
        ),
        (
            lambda w, m, s, n, g: _drawn(m, s**2, _choice(w, n, g), g),
            "square of what it should be",
        ),
    ],
    "check_m_step": [
        (lambda x, r: (r.sum(0), *_moments(x, r)), "sum to the number of points"),
        (lambda x, r: (r.mean(0), r.T @ x / len(x), _moments(x, r)[1]), "near 0"),
        (
            lambda x, r: (r.mean(0), _moments(x, _hard(r))[0], _moments(x, r)[1]),
            "k-means",
        ),
        (
            lambda x, r: (r.mean(0), _moments(x, r)[0], _scatter(x, r, 0.0)),
            "second moments",
        ),
        (
            lambda x, r: (r.mean(0), _moments(x, r)[0], _scatter(x, r, x.mean(0))),
            "mean of all points",
        ),
        (
            lambda x, r: (
                r.mean(0),
                _moments(x, r)[0],
                _moments(x, r)[1] * r.mean(0)[:, None, None],
            ),
            "covariances are divided by n",
        ),
        (lambda x, r: r.mean(0), "three tensors"),
        (lambda x, r: _flat_m_step(x, r), "more than two coordinates"),
    ],
    "check_fill_in": [
        (lambda x1, w, m, c: (w, *_given(x1, w, m, c)[1:]), "weights are unchanged"),
        (
            lambda x1, w, m, c: (2 * _given(x1, w, m, c)[0], *_given(x1, w, m, c)[1:]),
            "must be proportional",
        ),
        (
            lambda x1, w, m, c: (_given(x1, w, m, c, root=1)[0], m[:, 1], c[:, 1, 1]),
            "is a root missing?",
        ),
        (
            lambda x1, w, m, c: (_given(x1, w, m, c)[0], m[:, 1], c[:, 1, 1].sqrt()),
            "means are unchanged",
        ),
        (
            lambda x1, w, m, c: (*_given(x1, w, m, c)[:2], c[:, 1, 1].sqrt()),
            "spread is unchanged",
        ),
        (
            lambda x1, w, m, c: (
                *_given(x1, w, m, c)[:2],
                _given(x1, w, m, c)[2].square(),
            ),
            "these are variances",
        ),
        (
            lambda x1, w, m, c: (
                _given(x1, torch.ones_like(w), m, c)[0],
                *_given(x1, w, m, c)[1:],
            ),
            "how frequent it is",
        ),
        (
            lambda x1, w, m, c: _given(torch.tensor(0.5).double(), w, m, c),
            "any x1 and any K",
        ),
    ],
    "check_flow_log_density": [
        (lambda x, t, s: _flow(x, t, s, 0.0), "integrates to"),
        (lambda x, t, s: _flow(x, t, s, 1.0), "sign of s"),
        (
            lambda x, t, s: _flow(x, t, s, -1.0) + math.log(2 * math.pi),
            "1 / (2 pi) is missing",
        ),
        (
            lambda x, t, s: (
                _normal(x[:, 0], t(x[:, 0]) + s(x[:, 0]).exp() * x[:, 1]) - s(x[:, 0])
            ),
            "once more",
        ),
        (
            lambda x, t, s: (
                _normal(x[:, 0], (-s(x[:, 0])).exp() * x[:, 1] - t(x[:, 0]))
                - s(x[:, 0])
            ),
            "reverse order",
        ),
    ],
}


def _nearest(point, gallery, order=2):
    return int((gallery - point).norm(order, dim=1).argmin())


def _two_classes(logp, prior):
    odds = logp[:, 1] - logp[:, 0] + (prior[1] / prior[0]).log()
    return torch.stack([(-odds).sigmoid(), odds.sigmoid()], 1)


def _normalised(joint):
    return joint / joint.sum(1, keepdim=True)


def _choice(weights, n, generator):
    return weights.multinomial(n, replacement=True, generator=generator)


def _drawn(means, stds, k, generator):
    return means[k] + stds[k] * torch.randn(len(k), generator=generator)


def _seven():
    return torch.Generator().manual_seed(7)


def _quotas(weights, n):
    counts = (weights * n).round().long()
    return torch.arange(len(weights)).repeat_interleave(counts)


def _uniform(means, stds, k, generator):
    noise = (torch.rand(len(k), generator=generator) * 2 - 1) * 3**0.5
    return means[k] + stds[k] * noise


def _flat_m_step(x, r):
    """Right in the plane; in space the covariances lack the third coordinate."""
    means, covs = _moments(x, r)
    covs[:, 2:] = 0.0
    return r.mean(0), means, covs


def _scatter(x, r, centre):
    away = x - centre
    return torch.einsum("nk,ni,nj->kij", r, away, away) / r.sum(0)[:, None, None]


def _moments(x, r):
    means = r.T @ x / r.sum(0)[:, None]
    away = x[:, None] - means
    covs = torch.einsum("nk,nki,nkj->kij", r, away, away)
    return means, covs / r.sum(0)[:, None, None]


def _hard(r):
    return torch.nn.functional.one_hot(r.argmax(1), r.shape[1]).to(r)


def _given(x1, weights, means, covs, root=0.5):
    s11, s12, s22 = covs[:, 0, 0], covs[:, 0, 1], covs[:, 1, 1]
    near = torch.distributions.Normal(means[:, 0], s11**root).log_prob(x1)
    w = (weights.log() + near).softmax(0)
    m = means[:, 1] + s12 / s11 * (x1 - means[:, 0])
    return w, m, (s22 - s12**2 / s11).sqrt()


def _normal(z1, z2):
    return -0.5 * (z1**2 + z2**2) - math.log(2 * math.pi)


def _flow(x, t, s, sign):
    x1, x2 = x.unbind(1)
    return _normal(x1, (x2 - t(x1)) * (-s(x1)).exp()) + sign * s(x1)
