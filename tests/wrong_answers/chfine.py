"""Wrong answers to the exercises on fine-tuning, and the hints that they must get."""

import torch

WRONG = {
    "check_lora_weights": [
        (lambda r, i, o: i * o, "the whole matrix"),
        (lambda r, i, o: r * i * o, "their sizes add up"),
        (lambda r, i, o: r * i, "A alone"),
        (lambda r, i, o: r + i + o, "rank 4, 96 to 48"),
    ],
    "check_merge": [
        (lambda w, a, b, s: w + b @ a, "the scale is missing"),
        (lambda w, a, b, s: s * (w + b @ a), "not W"),
        (lambda w, a, b, s: s * b @ a, "change alone: add"),
        (lambda w, a, b, s: w.add_(s * b @ a), "must stay as it is"),
        (lambda w, a, b, s: w, "differs from both"),
    ],
    "check_first_gradients": [
        (lambda a, b, x, g: (_grads(a, b, x, g)[0], torch.outer(g, g[:2])), "A x"),
        (lambda a, b, x, g: (_grads(a, b, x, g)[0], b), "not the outer product"),
        (lambda a, b, x, g: (torch.ones_like(a), _grads(a, b, x, g)[1]), "B = 0"),
        (lambda a, b, x, g: (0 * a, _grads(a, b, x, g)[1]), "dA is not"),
        (lambda a, b, x, g: _grads(a, b, x, g)[0], "return a pair"),
    ],
    "check_with_prior": [
        (lambda n, o, w: n + w * o.mean(), "one number"),
        (lambda n, o, w: torch.cat([n, w * o]).mean(), "the larger one more"),
        (lambda n, o, w: n.sum() + w * o.sum(), "means, not sums"),
        (lambda n, o, w: n.mean() if w == 1 else 0, "not eq. (2)"),
    ],
    "check_forgetting": [
        (lambda b, a: (a / b).mean() - 1, "ratio of the means"),
        (lambda b, a: a.mean() / b.mean(), "must give 0, not 1"),
        (lambda b, a: b.mean() / a.mean() - 1, "must be above 0"),
        (lambda b, a: a.mean() - b.mean(), "divide by the one before"),
        (lambda b, a: 0.0, "it must not be 0.0000"),
    ],
    "check_rank_needed": [
        (lambda c, share: _rank(c, share, 1), "are squared before"),
        (lambda c, share: _rank(c, share, 2) - 1, "one too few"),
        (lambda c, share: 6, "it takes rank"),
    ],
}


def _grads(a, b, x, g):
    return torch.outer(b.T @ g, x), torch.outer(g, a @ x)


def _rank(change, share, power):
    kept = torch.linalg.svdvals(change).pow(power).cumsum(0)
    return int((kept / kept[-1] < share).sum()) + 1
