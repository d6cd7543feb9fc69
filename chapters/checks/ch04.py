"""Feedback for the exercises of chapter 04, the trilemma."""

from math import ceil, log

import torch

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    random_numbers,
    reject,
)
from ddpm_core import metrics


def _number(value: object) -> float:
    """Return the answer as a number, or end the check."""
    expect_given(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        reject(True, f"the function must return a number, not {type(value).__name__}")


def _quantile_distance(a, b):
    """W_2^2 of the samples themselves, from a thousand quantiles of each."""
    at = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    return (a.quantile(at) - b.quantile(at)).square().mean()


@exercise
def check_frechet_1d(frechet_1d):
    """Equation (1) from two samples of numbers, neither of them Gaussian."""
    a = 2 * random_numbers(400).square()
    b = 3 - 0.5 * random_numbers(300, seed=1).square()
    shift = (a.mean() - b.mean()) ** 2
    spread = (a.std() - b.std()) ** 2
    result = _number(frechet_1d(a, b))
    reject(
        close(result, (shift + spread).sqrt()),
        "that is the distance: equation (1) is its square",
    )
    reject(
        close(result, shift + (a.var() - b.var()) ** 2)
        or close(result, shift + (a.var() - b.var()).abs()),
        "equation (1) compares standard deviations, not variances",
    )
    reject(close(result, shift), "two clouds with the same mean can differ in width")
    reject(close(result, spread), "two clouds of the same width can lie apart")
    reject(
        close(result, (a.mean() - b.mean()).abs() + (a.std() - b.std()).abs()),
        "both differences are squared before they are added",
    )
    middles = (a.median() - b.median()) ** 2
    reject(
        close(result, middles + spread) or close(result, middles),
        "you compare medians: the Gaussian that is fitted has the sample's mean",
    )
    reject(
        close(result, _quantile_distance(a, b), 0.05),
        "that is the distance of the samples themselves, matched by rank: equation "
        "(1) compares the Gaussians fitted to them",
    )
    every_n = (a.std(correction=0) - b.std(correction=0)) ** 2  # is as good
    expect(
        close(result, shift + spread) or close(result, shift + every_n),
        f"for these two samples equation (1) gives {shift + spread:.3f}, "
        f"your function {result:.3f}",
    )
    expect(close(_number(frechet_1d(a, a)), 0.0), "of a sample to itself it must be 0")
    expect(
        close(_number(frechet_1d(b, a)), result),
        "it must not matter which of the two comes first",
    )
    return "both terms, a sample to itself, either order, and skewed samples"


@exercise
def check_mean_kernel(mean_kernel):
    """The mean of a kernel over pairs of different rows."""
    x = random_numbers(40, 3)
    K = (x @ x.T / 3 + 1) ** 3
    off = (K.sum() - K.diagonal().sum()) / (40 * 39)
    result = _number(mean_kernel(x))
    reject(
        close(result, K.mean()),
        "it includes the pairs of a point and itself: they make small sets look alike",
    )
    reject(
        close(result, (K.sum() - K.diagonal().sum()) / 40**2),
        "the pairs of a point and itself are out of the sum, but you still divide by "
        "n * n: how many pairs are left?",
    )
    reject(
        close(result, K.triu(1).sum() / (40 * 39)),
        "the upper triangle holds each pair once: there are n (n - 1) / 2",
    )
    plain = (x @ x.T + 1) ** 3
    reject(
        close(result, (plain.sum() - plain.diagonal().sum()) / (40 * 39)),
        "in the kernel the dot product is divided by the number of features",
    )
    expect(
        close(result, off),
        f"over the pairs of different rows the mean is {off:.4f}, yours {result:.4f}",
    )
    two = random_numbers(2, 5, seed=5)
    expect(
        close(_number(mean_kernel(two)), (two[0] @ two[1] / 5 + 1) ** 3),
        "of two rows of 5 features it must be the kernel of the one with the other: "
        "is the number of features or of rows built in?",
    )
    equal = torch.cat([two, two])
    K = (equal @ equal.T / 5 + 1) ** 3
    expect(
        close(_number(mean_kernel(equal)), (K.sum() - K.diagonal().sum()) / 12),
        "two rows with equal values are two points, and their pair counts: leave out "
        "the diagonal, and nothing else",
    )
    return "40 rows by hand, two rows, which make one pair, and equal rows"


@exercise
def check_frechet_of_batches(frechet_of_batches):
    """The Frechet distance of features that come in batches."""
    real, fake = random_numbers(240, 4), 0.5 + 1.5 * random_numbers(240, 4, seed=1)
    whole = metrics.frechet_distance(real, fake)
    for size in (240, 60, 24):
        parts = list(real.split(size)), list(fake.split(size))
        result = _number(frechet_of_batches(*parts))
        pairs = list(zip(*parts, strict=True))
        averaged = sum(metrics.frechet_distance(*p) for p in pairs) / len(pairs)
        reject(
            size < 240 and close(result, averaged),
            f"in batches of {size} you get {result:.2f}, all at once {whole:.2f}: the "
            "mean of distances is not the distance of all",
        )
        reject(
            size < 240
            and close(result, metrics.frechet_distance(real[:size], fake[:size])),
            "that is the distance of the first batches alone",
        )
        reject(
            size < 240 and close(result, metrics.frechet_distance(*pairs[-1])),
            "that is the distance of the last batches alone",
        )
        expect(
            close(result, whole),
            f"in batches of {size} it must be what it is all at once, {whole:.3f}, "
            f"not {result:.3f}",
        )
    fewer = metrics.frechet_distance(real, fake[:150])
    uneven = _number(frechet_of_batches(real.split(100), fake[:150].split(37)))
    expect(
        close(uneven, fewer),
        "there may be more real rows than fake ones, in batches of other sizes, the "
        f"last ones smaller: then it is {fewer:.3f}, not {uneven:.3f}",
    )
    return "the same distance however the features are split"


def _near(a, b):
    return torch.cdist(a, b)


@exercise
def check_precision(precision):
    """The fraction of fake rows in balls of the real, by brute force."""
    for k, d in ((1, 2), (3, 2), (4, 5)):
        real, fake = random_numbers(60, d), 1.4 * random_numbers(50, d, seed=1)
        wanted = metrics.precision_recall(real, fake, k=k)
        result = _number(precision(real, fake, k))
        among = _near(real, real).sort(dim=1).values
        near = _near(fake, real)
        wrong = not close(result, wanted.precision)
        reject(
            wrong and close(result, (near <= among[:, k - 1]).any(1).double().mean()),
            f"with k = {k} your balls are too small: the nearest point to each is "
            "itself, at the distance 0",
        )
        reject(
            wrong and close(result, wanted.recall),
            "that is recall: precision has the balls around the real points",
        )
        reject(
            wrong and close(result, (near <= among[:, k]).double().mean()),
            "that is the fraction of pairs: a fake point counts once, however many "
            "balls hold it",
        )
        reject(
            wrong
            and close(result, (near <= among[:, k].mean()).any(1).double().mean()),
            "each ball has its own radius",
        )
        reject(
            wrong and close(result, (near <= among[:, [k]].T).any(0).double().mean()),
            "you count the balls that hold a fake point: count the fake points in "
            "balls",
        )
        reject(
            wrong and close(result, (near <= among[:, 3]).any(1).double().mean()),
            f"with k = {k} you get the value for k = 3: use the argument",
        )
        expect(
            not wrong,
            f"with k = {k} and {d} features the precision is {wanted.precision:.3f}, "
            f"not {result:.3f}",
        )
    expect(
        close(_number(precision(real, real[:20], 3)), 1.0),
        "copies of real points must have the precision 1",
    )
    return "k = 1, 3 and 4, two and five features, copies, and the library"


@exercise
def check_coverage(coverage):
    """The fraction of real balls that hold a fake row."""
    for k, d in ((2, 2), (5, 2), (3, 4)):
        real, fake = random_numbers(60, d), 0.4 * random_numbers(30, d, seed=1)
        wild = torch.cat([fake, 50 * random_numbers(4, d, seed=2)])
        among = _near(real, real).sort(dim=1).values
        for name, points in (("", fake), (" with four outliers", wild)):
            wanted = metrics.density_coverage(real, points, k=k)
            both = metrics.precision_recall(real, points, k=k)
            near = _near(real, points)
            result = _number(coverage(real, points, k))
            where = f"with k = {k}{name} "
            wrong = not close(result, wanted.coverage)
            reject(
                wrong and close(result, both.recall),
                where + "that is recall: the balls must be those of the real points",
            )
            reject(
                wrong and close(result, both.precision),
                where + "that is precision: count the balls that are not empty, not "
                "the points in them",
            )
            reject(
                wrong and close(result, wanted.density),
                where + "that is density: a ball counts once, however many it holds",
            )
            reject(
                wrong
                and close(result, (near <= among[:, [k - 1]]).any(1).double().mean()),
                where + "your balls are too small: the nearest point to each is itself",
            )
            reject(
                wrong and close(result, (near <= among[:, [5]]).any(1).double().mean()),
                where + "you get the value for k = 5: use the argument",
            )
            expect(
                not wrong,
                where + f"and {d} features the coverage is {wanted.coverage:.3f}, "
                f"not {result:.3f}",
            )
    return "k = 2, 3 and 5, two and four features, and outliers, which change nothing"


@exercise
def check_samples_needed(samples_needed):
    """How many samples until a missing value is no accident."""
    for share, chance in ((0.125, 0.01), (0.02, 0.01), (0.5, 0.001), (0.9, 0.5)):
        wanted = ceil(log(chance) / log(1 - share))
        result = _number(samples_needed(share, chance))
        wrong = not close(result, wanted)
        where = f"for a fraction of {share:g} and a chance of {chance:g} "
        reject(
            wrong and close(result, ceil(log(1 - chance) / log(1 - share))),
            where + "you ask for n at which the value is missing almost surely",
        )
        reject(
            wrong and close(result, ceil(1 / share)),
            where + "you return 1 / share: with so few the value is missing in one "
            "set of three",
        )
        reject(
            wrong and close(result, ceil(log(chance) / log(share))),
            where + "you let the value turn up every time: how likely is it that one "
            "sample is something else?",
        )
        reject(
            wrong and close(result, ceil(-log(chance) / share)),
            where + "you take log(1 - share) to be -share, which holds only for small "
            "shares",
        )
        reject(
            close(result, wanted - 1) or close(result, log(chance) / log(1 - share)),
            where + "the answer is a whole number, the first that is large enough",
        )
        expect(not wrong, where + f"it is {wanted}, not {result:g}")
    return "four shares, to the sample"
