"""Wrong answers to the exercises of chapter 12, and the hints that they must get."""

import torch

RIGHT = {
    "check_start": [
        lambda x, ab, e: e * (1 - ab) ** 0.5 + x * ab**0.5,
    ],
    "check_put_back": [
        lambda u, x, k, ab, e: k * _noised(x, ab, e) + ~k * u,
        lambda u, x, k, ab, e: torch.lerp(u, _noised(x, ab, e), k.double()),
    ],
    "check_seam": [
        lambda x, k: _border(x, k).abs().mean().item(),
        lambda x, k: (
            (_rows(x, k).sum() + _rows(x.mT, k.T).sum())
            / (_rows(x, k).numel() + _rows(x.mT, k.T).numel())
        ),
    ],
    "check_renoise": [
        lambda x, t, u, e: (t**0.5 * x + (u - t) ** 0.5 * e) / u**0.5,
    ],
    "check_step_up": [
        lambda x, e, u, t: (
            (t / u) ** 0.5 * x + ((1 - t) ** 0.5 - (t / u * (1 - u)) ** 0.5) * e
        ),
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_start": [
        (lambda x, ab, e: x + (1 - ab) ** 0.5 * e, "keeps its full strength"),
        (lambda x, ab, e: ab * x + (1 - ab) * e, "values by its root"),
        (lambda x, ab, e: (1 - ab) ** 0.5 * x + ab**0.5 * e, "changed places"),
        (lambda x, ab, e: x, "not x_t of equation (1)"),
        (lambda x, ab, e: ab**0.5 * x + (1 - ab) * e, "is its root missing"),
        (lambda x, ab, e: ab**0.5 * x, "eps is not used"),
        (lambda x, ab, e: _noised(x, ab, torch.randn_like(x)), "draw none of your own"),
        (lambda x, ab, e: None, "`return` missing"),
    ],
    "check_put_back": [
        (lambda u, x, k, ab, e: torch.where(k, x, u), "noise it to u"),
        (lambda u, x, k, ab, e: torch.where(k, u, _noised(x, ab, e)), "upside down"),
        (lambda u, x, k, ab, e: _noised(x, ab, e), "what was drawn is lost"),
        (lambda u, x, k, ab, e: u, "not equation (2)"),
        (
            lambda u, x, k, ab, e: torch.where(k, ab * x + (1 - ab) * e, u),
            "values by its root",
        ),
        (
            lambda u, x, k, ab, e: _noised(torch.where(k, x, u), ab, e),
            "noise x0 alone",
        ),
        (lambda u, x, k, ab, e: None, "`return` missing"),
    ],
    "check_seam": [
        (lambda x, k: _rows(x, k).mean(), "above each other only"),
        (lambda x, k: _rows(x.mT, k.T).mean(), "beside each other only"),
        (lambda x, k: _all(x).mean(), "these are all neighbours"),
        (lambda x, k: _border(x, k).mean(), "cancel"),
        (lambda x, k: _border(x, k).square().mean(), "squared steps"),
        (
            lambda x, k: (_rows(x, k).mean() + _rows(x.mT, k.T).mean()) / 2,
            "one mean over all pairs",
        ),
        (lambda x, k: _one_way(x, k).mean(), "on both sides"),
        (lambda x, k: _rows(x, k), "one number"),
        (lambda x, k: x.std(), "on random pixels"),
    ],
    "check_renoise": [
        (lambda x, t, u, e: _noised(x, t, e), "x_u is noisy already"),
        (lambda x, t, u, e: t / u * x + (1 - t / u) * e, "values by its root"),
        (lambda x, t, u, e: x + (1 - t / u) ** 0.5 * e, "must shrink"),
        (
            lambda x, t, u, e: (t / u) ** 0.5 * x + (u - t) ** 0.5 * e,
            "shrinks with it",
        ),
        (lambda x, t, u, e: x, "the variance in all 1"),
    ],
    "check_step_up": [
        (lambda x, e, u, t: _noised(x, t, e), "for a clean picture"),
        (
            lambda x, e, u, t: _noised((x - (1 - t) ** 0.5 * e) / t**0.5, u, e),
            "goes down",
        ),
        (lambda x, e, u, t: _noised(x, t / u, e), "one and the same"),
        (
            lambda x, e, u, t: _noised(x - (1 - u) ** 0.5 * e, t, e),
            "is sqrt(ab_u) x0, not x0",
        ),
        (lambda x, e, u, t: x, "hit x_t exactly"),
    ],
}


def _noised(x, ab, eps):
    return ab**0.5 * x + (1 - ab) ** 0.5 * eps


def _rows(x, keep):
    return (x[..., 1:, :] - x[..., :-1, :]).abs()[..., keep[1:] != keep[:-1]]


def _one_way(x, keep):
    down = (x[..., 1:, :] - x[..., :-1, :])[..., keep[:-1] & ~keep[1:]]
    right = (x[..., 1:] - x[..., :-1])[..., keep[:, :-1] & ~keep[:, 1:]]
    return torch.cat([down, right], -1).abs()


def _all(x):
    down, right = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return torch.cat([down.abs().flatten(), right.abs().flatten()])


def _border(x, keep):
    down = (x[..., 1:, :] - x[..., :-1, :])[..., keep[1:] != keep[:-1]]
    right = (x[..., 1:] - x[..., :-1])[..., keep[:, 1:] != keep[:, :-1]]
    return torch.cat([down, right], -1)
