"""Wrong answers to the exercises of chapter 10, and the hints that they must get."""

import torch
import torch.nn.functional as F

RIGHT = {
    "check_guide": [
        lambda c, u, s: torch.lerp(u, c, s),
        lambda c, u, s: (1 - s) * u + s * c,
        lambda c, u, s: c + (s - 1) * (c - u),
    ],
    "check_class_score": [
        lambda c, u, ab: -c / (1 - ab).sqrt() + u / (1 - ab).sqrt(),
    ],
    "check_contrast": [
        lambda i, t, s: (
            -sum((s * i @ t.T).log_softmax(d).diagonal().mean() for d in (0, 1)) / 2
        ),
    ],
    "check_word_shares": [
        lambda q, k, m: (
            torch.einsum("bpd,bwd->bpw", q, k / k.shape[-1] ** 0.5)
            .masked_fill(~m.unsqueeze(1), -torch.inf)
            .softmax(-1)
        ),
        lambda q, k, m: _by_exp(q, k, m),
    ],
    "check_drop_classes": [
        lambda c, e, s, g: torch.where(torch.rand(len(c), generator=g) < s, e, c),
        lambda c, e, s, g: torch.where(
            torch.bernoulli(torch.full((len(c),), s), generator=g).bool(), e, c
        ),
    ],
    "check_both": [
        lambda a, b, u, s: u + s * (a + b - 2 * u),
        lambda a, b, u, s: (1 - 2 * s) * u + s * a + s * b,
    ],
}
"""Other ways to be right."""

WRONG = {
    "check_guide": [
        (lambda c, u, s: c + s * (c - u), "the paper's w"),
        (lambda c, u, s: u - s * (c - u), "upside down"),
        (lambda c, u, s: c + s * (u - c), "changed places"),
        (lambda c, u, s: u + s * c, "you add all of cond"),
        (lambda c, u, s: u.lerp_(c, s), "changes a tensor"),
        (lambda c, u, s: s * c, "the result must be"),
        (lambda c, u, s: None, "`return` missing"),
    ],
    "check_class_score": [
        (lambda c, u, ab: (c - u) / (1 - ab) ** 0.5, "away from the class"),
        (lambda c, u, ab: u - c, "difference of noises"),
        (lambda c, u, ab: (u - c) / (1 - ab), "is a root missing"),
        (lambda c, u, ab: -c / (1 - ab) ** 0.5, "take away that of p(x_t)"),
        (lambda c, u, ab: (u - c) / ab**0.5, "as autograd finds it"),
    ],
    "check_contrast": [
        (lambda i, t, s: _one_way(s * i @ t.T), "no caption looks for its image"),
        (lambda i, t, s: _one_way(s * t @ i.T), "no image looks for its caption"),
        (
            lambda i, t, s: _one_way(s * i @ t.T) + _one_way(s * t @ i.T),
            "not a sum",
        ),
        (
            lambda i, t, s: (_one_way(i @ t.T) + _one_way(t @ i.T)) / 2,
            "without their factor",
        ),
        (
            lambda i, t, s: (_one_way(i @ t.T / s) + _one_way(t @ i.T / s)) / 2,
            "you divide by `scale`",
        ),
        (
            lambda i, t, s: (_one_way(-s * i @ t.T) + _one_way(-s * t @ i.T)) / 2,
            "is there a sign missing",
        ),
        (lambda i, t, s: -(s * i * t).sum(1).mean(), "must be log 8"),
        (
            lambda i, t, s: (_one_way(7 * i @ t.T) + _one_way(7 * t @ i.T)) / 2,
            "with another `scale`",
        ),
        (
            lambda i, t, s: ((_one_way(s * i @ t.T) + _one_way(s * t @ i.T)) / 2).data,
            "has no gradient",
        ),
        (
            lambda i, t, s: (_one_way(i.mul_(s) @ t.T) + _one_way(t @ i.T)) / 2,
            "make a new one",
        ),
    ],
    "check_word_shares": [
        (lambda q, k, m: _logits(q, k, m).softmax(1), "sum to 1 over the positions"),
        (lambda q, k, m: _logits(q, k, ~m).nan_to_num(-99).softmax(2), "never read"),
        (lambda q, k, m: (q @ k.mT / 2).softmax(2), "read the padding"),
        (lambda q, k, m: (2 * _logits(q, k, m)).softmax(2), "the root of d"),
        (
            lambda q, k, m: (q @ k.mT / 2).softmax(2) * m[:, None],
            "mask before the softmax",
        ),
        (lambda q, k, m: (_logits(q, k, m) / 2).softmax(2), "divided by d"),
        (lambda q, k, m: (3 * _logits(q, k, m)).softmax(2), "they sum to 1, but"),
        (lambda q, k, m: _logits(q, k, m).softmax(2), "with d = 9"),
        (
            lambda q, k, m: (
                (q.div_(2) @ k.mT).masked_fill(~m[:, None], -torch.inf).softmax(2)
            ),
            "make a new one",
        ),
    ],
    "check_drop_classes": [
        (lambda c, e, s, g: c * (torch.rand(len(c), generator=g) >= s), "get class 0"),
        (
            lambda c, e, s, g: (
                torch.full_like(c, e) if torch.rand((), generator=g) < s else c.clone()
            ),
            "dropped at once",
        ),
        (
            lambda c, e, s, g: torch.where(
                torch.randperm(len(c), generator=g) < s * len(c), e, c
            ),
            "the same number is dropped every time",
        ),
        (
            lambda c, e, s, g: torch.where(
                torch.rand(len(c), generator=g) < s, c, torch.full_like(c, e)
            ),
            "the other way round",
        ),
        (
            lambda c, e, s, g: c.masked_fill_(torch.rand(len(c), generator=g) < s, e),
            "changes a tensor",
        ),
        (
            lambda c, e, s, g: c.masked_fill(torch.randn(len(c), generator=g) < s, e),
            "a fraction of 0.1 must be dropped",
        ),
        (
            lambda c, e, s, g: c.masked_fill(torch.rand(len(c), generator=g) < s, 3),
            "where `empty` is 5",
        ),
        (
            lambda c, e, s, g: c.masked_fill(torch.rand(len(c), generator=g) < 0.1, e),
            "a fraction of 0 must keep all",
        ),
        (lambda c, e, s, g: c.masked_fill(_rand(len(c)) < s, e), "two generators"),
        (lambda c, e, s, g: c.masked_fill(torch.rand(len(c)) < s, e), "one seed"),
    ],
    "check_both": [
        (lambda a, b, u, s: u + s * ((a + b) / 2 - u), "half obeyed"),
        (lambda a, b, u, s: u + s * (a + b - u), "take away uncond once"),
        (lambda a, b, u, s: b + s * (a - b), "a negative prompt"),
        (lambda a, b, u, s: s * (a + b), "say nothing (a = b = uncond)"),
        (lambda a, b, u, s: u + s * (a - u) + (b - u), "only the first condition"),
        (lambda a, b, u, s: a + b - u, "plain guidance towards a"),
        (
            lambda a, b, u, s: u + s * (a - u) + s**2 * (b - u),
            "by the square of `scale`",
        ),
        (lambda a, b, u, s: _nested(a, b, u, s), "guided already"),
        (
            lambda a, b, u, s: u + s * (a - u) + s**1.5 * (b - u),
            "plain guidance towards b",
        ),
    ],
}


def _one_way(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def _logits(q, k, mask):
    return (q @ k.mT / 2).masked_fill(~mask[:, None], -torch.inf)


def _rand(n):
    return torch.rand(n, generator=torch.Generator().manual_seed(7))


def _by_exp(q, k, mask):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).exp() * mask[:, None]
    return weights / weights.sum(2, keepdim=True)


def _nested(a, b, u, s):
    guided = u + s * (a - u)
    return guided + s * (b - guided)
