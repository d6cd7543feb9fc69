"""Wrong answers to the exercises of chapter 04, and the hints that they must get."""

from math import ceil, log

import torch

from ddpm_core import metrics


def _kernel(x):
    return (x @ x.T / x.shape[1] + 1) ** 3


def _off_diagonal(K):
    return K.sum() - K.diagonal().sum()


def _radii(x, k):
    return torch.cdist(x, x).sort(dim=1).values[:, k]


def _matched_by_rank(a, b):
    at = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    return (a.quantile(at) - b.quantile(at)).square().mean()


def _without_equal_rows(x):
    K = _kernel(x)
    return K[torch.cdist(x, x) > 1e-6].mean()


def _of_moments(real, fake):
    """The mean of the batches' means and covariances, as if they were those of all."""
    real, fake = (
        [torch.stack(m).mean(0) for m in zip(*map(_moments, parts), strict=True)]
        for parts in (real, fake)
    )
    return metrics.gaussian_distance(*real, *fake)


def _moments(x):
    return x.mean(0), x.T.cov()


def _cut_to_equal(real, fake):
    real, fake = torch.cat(list(real)), torch.cat(list(fake))
    n = min(len(real), len(fake))
    return metrics.frechet_distance(real[:n], fake[:n])


def _covered(real, fake, k):
    return (torch.cdist(real, fake) <= _radii(real, k)[:, None]).any(1).double().mean()


WRONG = {
    "check_frechet_1d": [
        (
            lambda a, b: ((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2) ** 0.5,
            "equation (1) is its square",
        ),
        (
            lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var() - b.var()) ** 2,
            "not variances",
        ),
        (lambda a, b: (a.mean() - b.mean()) ** 2, "differ in width"),
        (lambda a, b: (a.std() - b.std()) ** 2, "can lie apart"),
        (
            lambda a, b: (a.mean() - b.mean()).abs() + (a.std() - b.std()).abs(),
            "squared before",
        ),
        (lambda a, b: (a.mean() - b.mean()) ** 2 + a.std() * b.std(), "gives"),
        (lambda a, b: a.sort().values, "must return a number"),
        (
            lambda a, b: (a.median() - b.median()) ** 2 + (a.std() - b.std()) ** 2,
            "you compare medians",
        ),
        (_matched_by_rank, "the samples themselves"),
        (
            lambda a, b: (
                (a.mean() - b.mean()) ** 2
                + (a.std() - b.std()) ** 2
                + (0 if len(a) > len(b) else 1)
            ),
            "of a sample to itself",
        ),
    ],
    "check_mean_kernel": [
        (lambda x: _kernel(x).mean(), "includes the pairs of a point and itself"),
        (lambda x: _off_diagonal(_kernel(x)) / len(x) ** 2, "how many pairs are left"),
        (
            lambda x: _kernel(x).triu(1).sum() / (len(x) * (len(x) - 1)),
            "holds each pair once",
        ),
        (
            lambda x: _off_diagonal((x @ x.T + 1) ** 3) / (len(x) * (len(x) - 1)),
            "divided by the number of features",
        ),
        (lambda x: _off_diagonal(x @ x.T) / (len(x) * (len(x) - 1)), "the mean is"),
        (
            lambda x: _off_diagonal((x @ x.T / 3 + 1) ** 3) / (len(x) * (len(x) - 1)),
            "built in",
        ),
        (_without_equal_rows, "two rows with equal values"),
    ],
    "check_frechet_of_batches": [
        (
            lambda real, fake: (
                sum(
                    metrics.frechet_distance(r, f)
                    for r, f in zip(real, fake, strict=False)
                )
                / len(real)
            ),
            "the mean of distances is not",
        ),
        (lambda real, fake: metrics.frechet_distance(real[0], fake[0]), "first batch"),
        (lambda real, fake: metrics.frechet_distance(real[-1], fake[-1]), "last batch"),
        (
            lambda real, fake: metrics.kernel_distance(
                torch.cat(real), torch.cat(fake)
            ),
            "in batches of 240 it must be what it is all at once",
        ),
        (_of_moments, "in batches of 60 it must be what it is all at once"),
        (_cut_to_equal, "more real rows than fake ones"),
    ],
    "check_precision": [
        (
            lambda real, fake, k: (
                (torch.cdist(fake, real) <= _radii(real, k - 1)).any(1).double().mean()
            ),
            "is itself",
        ),
        (
            lambda real, fake, k: metrics.precision_recall(real, fake, k=k).recall,
            "that is recall",
        ),
        (
            lambda real, fake, k: (
                (torch.cdist(fake, real) <= _radii(real, k)).double().mean()
            ),
            "fraction of pairs",
        ),
        (
            lambda real, fake, k: (
                (torch.cdist(fake, real) <= _radii(real, k).mean())
                .any(1)
                .double()
                .mean()
            ),
            "its own radius",
        ),
        (lambda real, fake, k: 1.0, "the precision is"),
        (
            lambda real, fake, k: metrics.precision_recall(real, fake, k=3).precision,
            "value for k = 3",
        ),
        (
            lambda real, fake, k: (
                metrics.precision_recall(real[:, :2], fake[:, :2], k=k).precision
            ),
            "with k = 4 and 5 features",
        ),
    ],
    "check_coverage": [
        (
            lambda real, fake, k: metrics.precision_recall(real, fake, k=k).recall,
            "that is recall",
        ),
        (
            lambda real, fake, k: metrics.precision_recall(real, fake, k=k).precision,
            "that is precision",
        ),
        (
            lambda real, fake, k: metrics.density_coverage(real, fake, k=k).density,
            "that is density",
        ),
        (
            lambda real, fake, k: (
                (torch.cdist(real, fake) <= _radii(real, k - 1)[:, None])
                .any(1)
                .double()
                .mean()
            ),
            "is itself",
        ),
        (lambda real, fake, k: _covered(real, fake, 5), "value for k = 5"),
        (
            lambda real, fake, k: _covered(real[:, :2], fake[:, :2], k),
            "and 4 features the coverage is",
        ),
        (
            lambda real, fake, k: _covered(real, fake[: len(real) // 2 - 1], k),
            "and 2 features the coverage is",
        ),
    ],
    "check_samples_needed": [
        (lambda p, c: ceil(log(1 - c) / log(1 - p)), "missing almost surely"),
        (lambda p, c: ceil(1 / p), "one set of three"),
        (lambda p, c: ceil(log(c) / log(p)), "turn up every time"),
        (lambda p, c: log(c) / log(1 - p), "whole number"),
        (lambda p, c: 100, "it is"),
        (lambda p, c: ceil(-log(c) / p), "only for small"),
    ],
}
