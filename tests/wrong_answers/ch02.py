"""Wrong answers to the exercises of chapter 02, and the hints that they must get."""

from math import log

import torch
from torch import nn
from torch.distributions import Normal


def _kl(mean, log_var):
    return (mean**2 + log_var.exp() - 1 - log_var) / 2


def _noise(like, generator):
    return torch.randn(like.shape, generator=generator)


def _errors(x, x_hat):
    return (x - x_hat).square().flatten(1)


def _trainer(loss, *, draw=True, whole=True, step=True, back=lambda code: code):
    """A `train_vae` with one part gone wrong; loss(x, x_hat, mean, log_var, s2)."""

    def train_vae(x, latent, variance, steps):
        encoder = nn.Sequential(nn.Linear(x.shape[1], 32), nn.Tanh())
        encoder.append(nn.Linear(32, 2 * latent))
        decoder = nn.Sequential(nn.Linear(latent, 32), nn.Tanh())
        decoder.append(nn.Linear(32, x.shape[1]))
        parameters = [*decoder.parameters()] + [*encoder.parameters()] * whole
        adam = torch.optim.Adam(parameters, lr=5e-3)
        for _ in range(min(steps, 500)):
            batch = x[torch.randint(len(x), (64,))]
            mean, log_var = encoder(batch).chunk(2, 1)
            z = mean + draw * (log_var / 2).exp() * torch.randn_like(mean)
            adam.zero_grad()
            loss(batch, decoder(z), mean, log_var, variance).mean().backward()
            if step:
                adam.step()
        return back(lambda x: encoder(x).chunk(2, 1)), decoder

    return train_vae


def _bound(x, y, m, v, s):
    return _errors(x, y).sum(1) / (2 * s) + _kl(m, v).sum(1)


WRONG = {
    "check_train_vae": [
        (lambda x, d, s, n: None, "returns None"),
        (lambda x, d, s, n: nn.Linear(x.shape[1], d), "encode and decode"),
        (_trainer(_bound, back=lambda code: lambda x: code(x)[0]), "mean and log_var"),
        (_trainer(_bound, step=False), "leave both networks as they were"),
        (
            _trainer(lambda x, y, m, v, s: _errors(x, y).mean(1) + _kl(m, v).sum(1)),
            "counts too little beside the KL",
        ),
        (
            _trainer(lambda x, y, m, v, s: _errors(x, y).mean() + 9 * _kl(m, v).sum(1)),
            "the posterior has collapsed",
        ),
        (_trainer(_bound, whole=False), "leave the encoder as it was"),
        (
            _trainer(lambda x, y, m, v, s: _errors(x, y).sum(1) / (2 * s)),
            "codes outrun their noise",
        ),
        (_trainer(_bound, draw=False), "mean + std * eps"),
        (
            _trainer(lambda x, y, m, v, s: _errors(x, y).sum(1) + _kl(m, v).sum(1)),
            "the two must come within 1",
        ),
    ],
    "check_kl_to_prior": [
        (lambda m, s: _kl(m, 2 * s.log()), "sum over the dimensions"),
        (lambda m, s: _kl(m, 2 * s.log()).mean(1), "you average"),
        (lambda m, s: 2 * _kl(m, 2 * s.log()).sum(1), "one half is missing"),
        (lambda m, s: -_kl(m, 2 * s.log()).sum(1), "sign is wrong"),
        (lambda m, s: _kl(m, s.log()).sum(1), "std for the variance"),
        (
            lambda m, s: (m**2 + s**2 - 1 - s.log()).sum(1) / 2,
            "log(std^2) is 2 log(std)",
        ),
        (lambda m, s: (m**2 + s**2 - 2 * s.log()).sum(1) / 2, "the prior itself"),
    ],
    "check_draw": [
        (lambda m, v, g: m, "nothing is drawn"),
        (lambda m, v, g: m + v.exp() * _noise(m, g), "take its root"),
        (lambda m, v, g: m + v * _noise(m, g), "log_var itself"),
        (
            lambda m, v, g: m + (v / 2).exp() * torch.randn(m.shape[1], generator=g),
            "same noise serves",
        ),
        (
            lambda m, v, g: Normal(m, (v / 2).exp()).sample(),
            "z has no gradient",
        ),
        (
            lambda m, v, g: m + (v / 2).exp().detach() * _noise(m, g),
            "log_var gets none",
        ),
        (
            lambda m, v, g: m + (v / 2).exp() * torch.randn_like(m),
            "equal seeds differ",
        ),
        (
            lambda m, v, g: m + (v / 2).exp() * _noise(m, torch.Generator()),
            "different seeds are equal",
        ),
        (
            lambda m, v, g: m + (v / 2).exp() * _noise(m, g).sign(),
            "fraction of 0.00",
        ),
        (
            lambda m, v, g: (
                m + (v / 2).exp() * (torch.rand(m.shape, generator=g) * 2 - 1) * 3**0.5
            ),
            "fraction of 0.29",
        ),
        (
            lambda m, v, g: (
                m
                + (v / 2).exp()
                * torch.randn(m.shape[:2], generator=g).view(
                    *m.shape[:2], *[1] * (m.ndim - 2)
                )
            ),
            "share their noise",
        ),
    ],
    "check_implied_beta": [
        (lambda w, d, s: w, "the weight itself"),
        (lambda w, d, s: w / (2 * s), "divided by the number of values"),
        (lambda w, d, s: w * d, "what stands before the squared error"),
        (lambda w, d, s: w * d / s, "the 2 of 1 / (2 variance)"),
        (lambda w, d, s: 2 * s / (w * d), "upside down"),
    ],
    "check_fixed_loss": [
        (
            lambda x, y, m, v, s: (
                (_errors(x, y).sum(1) / (2 * s)).mean() + _kl(m, v).sum()
            ),
            "one loss for each sample",
        ),
        (
            lambda x, y, m, v, s: _errors(x, y).mean(1) / (2 * s) + _kl(m, v).sum(1),
            "still a mean over the pixels",
        ),
        (
            lambda x, y, m, v, s: _errors(x, y).sum(1) + _kl(m, v).sum(1),
            "does not know the decoder's variance",
        ),
        (
            lambda x, y, m, v, s: _errors(x, y).sum(1) / s + _kl(m, v).sum(1),
            "counts twice",
        ),
        (
            lambda x, y, m, v, s: _errors(x, y).sum(1) / (2 * s) + _kl(m, v).mean(1),
            "averaged over the latent dimensions",
        ),
        (
            lambda x, y, m, v, s: _errors(x, y).sum(1) / 0.2 + _kl(m, v).sum(1),
            "use the argument",
        ),
        (
            lambda x, y, m, v, s: (
                _errors(x, y.detach()).sum(1) / (2 * s) + _kl(m, v).sum(1)
            ),
            "no gradient reaches x_hat",
        ),
        (
            lambda x, y, m, v, s: (
                _errors(x, y).sum(1) / (2 * s) + _kl(m, v.detach()).sum(1)
            ),
            "no gradient reaches log_var",
        ),
    ],
    "check_log_evidence": [
        (lambda p, q: (p - q).mean(0), "mean of the logarithms"),
        (lambda p, q: (p - q).logsumexp(0), "too high by log k"),
        (lambda p, q: p.logsumexp(0) - log(len(p)), "divide by q"),
        (lambda p, q: (q - p).logsumexp(0) - log(len(p)), "upside down"),
        (lambda p, q: (p - q).exp().mean(0).log(), "use logsumexp"),
        (
            lambda p, q: (p - q - (p - q).max()).exp().mean(0).log() + (p - q).max(),
            "each column's own maximum",
        ),
        (
            lambda p, q: (
                ((p - p.max(0).values).exp() / q.exp()).mean(0).log() + p.max(0).values
            ),
            "log_joint - log_q whose maximum",
        ),
    ],
    "check_strength": [
        (lambda e, s, b: e > b * s, "how strong they are"),
        (lambda e, s, b: e - b * s, "dead direction"),
        (lambda e, s, b: (e - s).clamp(min=0), "does not depend on beta"),
        (lambda e, s, b: (e - b).clamp(min=0), "unit of a variance"),
        (lambda e, s, b: (e - s / b).clamp(min=0), "the wrong way"),
        (lambda e, s, b: (e - b * s).clamp(min=0).sqrt(), "answer is w^2"),
    ],
}
