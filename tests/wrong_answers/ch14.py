"""Wrong answers to the exercises of chapter 14, and the hints that they must get."""

from math import sqrt

import torch

WRONG = {
    "check_run_flop": [
        (lambda f, n, e: f * n * e, "the way forward only"),
        (lambda f, n, e: 2 * f * n * e, "the way back only"),
        (lambda f, n, e: 3 * f * n, "one epoch"),
        (lambda f, n, e: 6 * f * n * e, "not 5.14e+17"),
        (lambda f, n, e: None, "`return` missing"),
    ],
    "check_scaled": [
        (lambda m, a, p, lr, b: (m * p, lr * sqrt(m * p / b)), "parts of a batch"),
        (lambda m, a, p, lr, b: (m * a, lr * sqrt(m * a / b)), "all processes"),
        (lambda m, a, p, lr, b: (m * a * p, lr * m * a * p / b), "linear rule"),
        (lambda m, a, p, lr, b: (m * a * p, lr * sqrt(b / (m * a * p))), "less noise"),
        (lambda m, a, p, lr, b: (m * a * p, lr), "times the batch makes the rate"),
        (lambda m, a, p, lr, b: m * a * p, "two values"),
        (lambda m, a, p, lr, b: (m, lr), "the batch must be"),
    ],
    "check_training_bytes": [
        (lambda n: (5 * n, 4 * n), "each takes 4 bytes"),
        (lambda n: (16 * n, 16 * n), "one copy is missing"),
        (lambda n: (12 * n, 4 * n), "Adam keeps two moments"),
        (lambda n: (20 * n, 20 * n), "need not be stored"),
        (lambda n: (20 * n, 4 * n), "begins anew after each cut"),
        (lambda n: (20 * n, 12 * n), "both are needed"),
        (lambda n: (40 * n, 16 * n), "you count 40 bytes a parameter in training"),
        (lambda n: (20 * n, 24 * n), "bytes a parameter in a checkpoint"),
        (lambda n: 20 * n, "two values"),
    ],
    "check_warmed_up": [
        (lambda d: 1 / (1 - d), "reaches back"),
        (lambda d: 10 * d - 1, "collect it"),
        (lambda d: (1 - 10 * d) / (1 - d), "a sign is turned"),
        (lambda d: 10 / (1 - d), "the two meet at step"),
    ],
    "check_fair_split": [
        (lambda g, n, r: _rows(g, 2 * n, r), "draw photos, not rows"),
        (lambda g, n, r: _photos(g, n // 2, r), "these are 30"),
        (lambda g, n, r: _photos(g, n, r)[::-1], "changed places"),
        (lambda g, n, r: _photos(g, n + 5, r), "65 photos are held out"),
        (lambda g, n, r: _named(g, g.unique()[40 : 40 + n]), "not drawn one by one"),
        (lambda g, n, r: _photos(g, n, None), "the same generator"),
        (lambda g, n, r: _named(g, g.unique()[: 2 * n : 2]), "another seed"),
        (lambda g, n, r: _thinned(*_photos(g, n, r)), "of the 700 rows are on no side"),
        (lambda g, n, r: _masks(*_photos(g, n, r), len(g)), "these are masks"),
        (lambda g, n, r: (g, g), "return the numbers of rows"),
        (lambda g, n, r: torch.arange(3), "return two tensors"),
    ],
    "check_without_bias": [
        (lambda n, f: _line(1 / n, f)[0], "that is the slope"),
        (lambda n, f: f[-1], "the largest n measured"),
        (lambda n, f: f.mean(), "draw a line"),
        (lambda n, f: _line(1 / n[-2:], f[-2:])[1], "two of the points"),
        (lambda n, f: _line(n, f)[1], "no images at all"),
        (lambda n, f: _line(n**-0.5, f)[1], "ends at"),
    ],
}


def _named(groups, photos):
    held_out = torch.isin(groups, photos)
    return (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


def _photos(groups, n, generator):
    photos = groups.unique()
    order = torch.randperm(len(photos), generator=generator)
    return _named(groups, photos[order[:n]])


def _rows(groups, n, generator):
    order = torch.randperm(len(groups), generator=generator)
    return order[n:], order[:n]


def _masks(train, held_out, n):
    masks = torch.zeros(2, n, dtype=torch.bool)
    masks[0, train] = masks[1, held_out] = True
    return masks[0], masks[1]


def _thinned(train, held_out):
    return train[::2], held_out


def _line(x, y):
    columns = torch.stack([x, torch.ones_like(x)], 1)
    return torch.linalg.lstsq(columns, y[:, None]).solution[:, 0]
