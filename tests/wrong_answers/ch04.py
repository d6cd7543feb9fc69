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
        (lambda a, b: (a.mean() - b.mean()) ** 2, "differ in their width"),
        (lambda a, b: (a.std() - b.std()) ** 2, "can lie apart"),
        (
            lambda a, b: (a.mean() - b.mean()).abs() + (a.std() - b.std()).abs(),
            "squared before",
        ),
        (lambda a, b: (a.mean() - b.mean()) ** 2 + a.std() * b.std(), "gives"),
        (lambda a, b: a.sort().values, "must return a number"),
    ],
    "check_mean_kernel": [
        (lambda x: _kernel(x).mean(), "a point and itself are in it"),
        (lambda x: _off_diagonal(_kernel(x)) / len(x) ** 2, "how many pairs are left"),
        (
            lambda x: _kernel(x).triu(1).sum() / (len(x) * (len(x) - 1)),
            "upper triangle once",
        ),
        (
            lambda x: _off_diagonal((x @ x.T + 1) ** 3) / (len(x) * (len(x) - 1)),
            "divided by the number of features",
        ),
        (lambda x: _off_diagonal(x @ x.T) / (len(x) * (len(x) - 1)), "the mean is"),
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
            "it must be what it is all at once",
        ),
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
            "share of pairs",
        ),
        (
            lambda real, fake, k: (
                (torch.cdist(fake, real) <= _radii(real, k).mean())
                .any(1)
                .double()
                .mean()
            ),
            "a radius of its own",
        ),
        (lambda real, fake, k: 1.0, "the precision is"),
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
            "the coverage is",
        ),
    ],
    "check_samples_needed": [
        (lambda p, c: ceil(log(1 - c) / log(1 - p)), "missing almost surely"),
        (lambda p, c: ceil(1 / p), "one set of three"),
        (lambda p, c: ceil(log(c) / log(p)), "turn up every time"),
        (lambda p, c: log(c) / log(1 - p), "whole number"),
        (lambda p, c: 100, "it is"),
    ],
}
