"""Quality, coverage and copies of samples, measured on any features. Chapter 04.

Features are rows, real (n, d) and fake (m, d), of any network or the data themselves.
Only figures from the same features and the same n and m can be compared. All sums are
made in float64.
"""

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_shape,
)
from ddpm_core.types import Images

Real = Float[Tensor, "n d"]
"""Features of real images, one a row."""

Fake = Float[Tensor, "m d"]
"""Features of generated images, one a row; as many columns as the real ones."""

CHUNK = 1024
"""Rows whose distances to all others are held in memory at once."""


class PrecisionRecall(NamedTuple):
    """Two fractions, 0..1: of the fake that look real, of the real that can be made."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How many fake lie around the real (about 1 if alike); fraction covered, 0..1."""

    density: float
    coverage: float


class Neighbours(NamedTuple):
    """The k nearest references of each query, nearest first."""

    distance: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]


def frechet_distance(real: Real, fake: Fake) -> float:
    """Return the squared 2-Wasserstein distance between the Gaussians fitted to both.

    FID when the features are Inception's: Heusel et al. 2017, eq. (6); 0 at best, in
    squared units of the features. n and m are at least 2; far more than d are wanted.
    Blind beyond mean and covariance, and biased upwards: small samples look worse, so
    compare at equal n and m only. Raises ValueError for features that are too few, not
    finite or of unequal length. Chapter 04.
    """
    real, fake = _checked_pair(real, fake, 2)
    return gaussian_distance(*_moments(real), *_moments(fake))


def gaussian_distance(
    mean_1: Float[Tensor, " d"],
    cov_1: Float[Tensor, "d d"],
    mean_2: Float[Tensor, " d"],
    cov_2: Float[Tensor, "d d"],
) -> float:
    """Return the squared 2-Wasserstein distance between two Gaussians.

    `|mean_1 - mean_2|^2 + tr(cov_1 + cov_2 - 2 (cov_1^1/2 cov_2 cov_1^1/2)^1/2)`,
    Dowson and Landau 1982. The last trace is the sum of the singular values of
    `cov_1^1/2 cov_2^1/2`, which stays exact where a covariance is singular. Raises
    ValueError for other shapes, NaN and infinity. Chapter 04.
    """
    d = len(mean_1)
    for name, x, shape in (
        ("mean_1", mean_1, (d,)), ("cov_1", cov_1, (d, d)),
        ("mean_2", mean_2, (d,)), ("cov_2", cov_2, (d, d)),
    ):  # fmt: skip
        check_shape(name, x, shape)
    mean_1, cov_1 = _double(mean_1, "mean_1"), _double(cov_1, "cov_1")
    mean_2, cov_2 = _double(mean_2, "mean_2"), _double(cov_2, "cov_2")
    overlap = torch.linalg.svdvals(_root(cov_1) @ _root(cov_2)).sum()
    spread = cov_1.trace() + cov_2.trace() - 2 * overlap
    return max(0.0, ((mean_1 - mean_2).square().sum() + spread).item())


def kernel_distance(real: Real, fake: Fake, *, degree: int = 3) -> float:
    """Return the squared maximum mean discrepancy under a polynomial kernel.

    KID when the features are Inception's: mean k(x, x') + mean k(y, y')
    - 2 mean k(x, y) over pairs of distinct rows, `k(x, y) = (x . y / d + 1)^degree`,
    Binkowski et al. 2018, section 4. Unbiased at any n and m of at least 2: for the
    same distribution about 0, on both sides of it. Blind to moments above `degree`.
    Raises ValueError for a degree below 1, otherwise as `frechet_distance`. Chapter 04.
    """
    check_count("degree", degree)
    real, fake = _checked_pair(real, fake, 2)
    crossed = _kernel_sum(real, fake, degree) / (len(real) * len(fake))
    return _mean_of_pairs(real, degree) + _mean_of_pairs(fake, degree) - 2 * crossed


def precision_recall(real: Real, fake: Fake, *, k: int = 3) -> PrecisionRecall:
    """Return the fraction of fake among the real, and of real among the fake.

    Around each point of a set lies a ball that reaches its k-th neighbour in that set;
    precision is the fraction of fake in any ball of the real, recall that of real in
    any ball of the fake. Kynkaanniemi et al. 2019, eqs. (1) and (2). Blind to how much
    lies where, and an outlier's large ball flatters both. Raises ValueError as
    `frechet_distance`, and unless `1 <= k < n`, m. Chapter 04.
    """
    real, fake = _checked_pair(real, fake, _neighbours_needed(k))
    precision, recall = _share_in_balls(fake, real, k), _share_in_balls(real, fake, k)
    return PrecisionRecall(precision, recall)


def density_coverage(real: Real, fake: Fake, *, k: int = 5) -> DensityCoverage:
    """Return how many fake the balls of the real hold, and the fraction not empty.

    density = (memberships of fake in balls of the real) / (k m), about 1 for the same
    distribution; coverage = the fraction of real whose ball holds a fake, then about
    `1 - 2^-k` if `n = m`. Naeem et al. 2020, section 3. A fake outlier cannot flatter
    them as it can recall; but coverage grows with m, and density with samples that
    crowd where the real are dense. Raises ValueError as `precision_recall`. Chapter 04.
    """
    real, fake = _checked_pair(real, fake, _neighbours_needed(k))
    held = torch.cat([inside.sum(1) for inside in _in_balls(fake, real, k)])
    density = held.sum().item() / (k * len(fake))
    return DensityCoverage(density, (held > 0).double().mean().item())


def nearest(
    queries: Num[Tensor, "n d"],
    references: Num[Tensor, "m d"],
    *,
    k: int = 1,
    chunk: int = 4096,
) -> Neighbours:
    """Find the k nearest references of each query: the audit for copies.

    Euclidean distances (n, k) in the units of the input, rising, and their rows (n, k)
    in `references`, of which `chunk` are turned into float64 at a time. Images come
    flattened, both floating or both uint8. A copy has the distance 0; a copy shifted by
    one pixel may not be near at all. Raises ValueError for rows of unequal length or
    kind, not finite, or fewer references than k. Chapter 04.
    """
    check_count("chunk", chunk)
    check_count("k", k, low=-inf)
    _check_rows(queries, references, "queries and references")
    if queries.is_floating_point() != references.is_floating_point():
        raise ValueError(
            "queries and references must both be floating or both be bytes, "
            f"got {queries.dtype} and {references.dtype}"
        )
    if not 1 <= k <= len(references):
        raise ValueError(f"k must lie in 1..{len(references)} (references), got {k}")
    queries, device = _double(queries, "queries"), queries.device
    squared = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), chunk):
        block = _double(references[start : start + chunk], "references")
        rows = torch.arange(start, start + len(block), device=block.device)
        squared = torch.cat([squared, _squared_distances(queries, block)], dim=1)
        index = torch.cat([index, rows.expand(len(queries), -1)], dim=1)
        squared, best = squared.topk(min(k, squared.shape[1]), dim=1, largest=False)
        index = index.gather(1, best)
    return Neighbours(squared.sqrt().to(device, torch.float32), index.to(device))


def texture(images: Images) -> float:
    """Return the mean difference between neighbouring pixels, across and down.

    Low for smooth images, high for grainy ones; only that of real images tells what
    is right. Raises ValueError for images of a single row or column, NaN and infinity.
    Chapters 08 and 09.
    """
    check_floating("images", images, "(b, c, h, w)")
    if not len(images) or min(images.shape[-2:]) < 2:
        raise ValueError(
            f"images need two rows and two columns, got {tuple(images.shape)}"
        )
    images = _double(images, "images")
    across, down = (images.diff(dim=dim).abs().mean() for dim in (-1, -2))
    return (across + down).item() / 2


def attribute_accuracy(
    predicted: Int[Tensor, "n a"], wanted: Int[Tensor, "n a"]
) -> Float[Tensor, " a"]:
    """Return, for each of the a attributes, the fraction of images that have it right.

    In 0..1, and as good as the classifier that predicts, no better: state its accuracy
    on real images beside it. Raises ValueError for unequal shapes or no image.
    Chapters 04 and 10.
    """
    check_integers("predicted", predicted, "(n, a)")
    check_integers("wanted", wanted, "(n, a)")
    if predicted.shape != wanted.shape or predicted.ndim != 2 or not len(predicted):
        raise ValueError(
            "predicted and wanted must have one shape (n, attributes), n >= 1, "
            f"got {tuple(predicted.shape)} and {tuple(wanted.shape)}"
        )
    return (predicted == wanted).float().mean(0)


def attribute_histogram(values: Int[Tensor, " n"], count: int) -> Int[Tensor, " count"]:
    """Count how often each value 0..count-1 of one attribute occurs: which are missing?

    Divided by n these are fractions. Says nothing about variety within a value. Raises
    ValueError for values outside 0..count-1. Chapter 04.
    """
    check_integers("values", values, "(n,)")
    check_count("count", count)
    if len(values) and not (values.min() >= 0 and values.max() < count):
        raise ValueError(
            f"values must lie in 0..{count - 1}, got {values.min().item()} to "
            f"{values.max().item()}"
        )
    return torch.bincount(values, minlength=count)


def _check_rows(a: Tensor, b: Tensor, what: str) -> None:
    for x in (a, b):
        if not isinstance(x, Tensor):
            raise TypeError(f"{what} must be tensors, got {type(x).__name__}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{what} must be rows of one length, (n, d) and (m, d), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def _checked_pair(real: Tensor, fake: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    """Check both sets of features and return them in float64."""
    _check_rows(real, fake, "real and fake features")
    if min(len(real), len(fake)) < at_least:
        raise ValueError(
            f"real and fake need at least {at_least} rows each, "
            f"got {len(real)} and {len(fake)}"
        )
    return _double(real, "real features"), _double(fake, "fake features")


def _double(features: Tensor, what: str) -> Tensor:
    """Turn into float64 (on the CPU where the device has none); refuse NaN and inf."""
    if features.device.type == "mps":
        features = features.cpu()
    features = features.detach().double()
    if not features.isfinite().all():
        raise ValueError(f"{what} must be finite, got NaN or infinity")
    return features


def _neighbours_needed(k: int) -> int:
    check_count("k", k)
    return k + 1


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def _root(cov: Tensor) -> Tensor:
    """The symmetric square root of a covariance, through its eigenvalues."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _kernel_sum(a: Tensor, b: Tensor, degree: int) -> float:
    blocks = a.split(CHUNK)
    return sum(((x @ b.T / a.shape[1] + 1) ** degree).sum().item() for x in blocks)


def _mean_of_pairs(a: Tensor, degree: int) -> float:
    """The kernel's mean over all pairs of two different rows."""
    with_itself = ((a.square().mean(1) + 1) ** degree).sum().item()
    return (_kernel_sum(a, a, degree) - with_itself) / (len(a) * (len(a) - 1))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`|a_i - b_j|^2` by one matrix product; of equal rows it is exactly 0."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    scale = a.square().sum(1, keepdim=True) + b.square().sum(1)
    squared = scale - 2 * a @ b.T
    return squared.where(squared > 1e-12 * scale, 0.0)


def _in_balls(points: Tensor, centres: Tensor, k: int) -> Iterator[Tensor]:
    """Yield, for blocks of centres, which points (block, points) lie in their balls.

    A ball's rim belongs to it, so that a copy is inside even where the radius is 0.
    """
    for block in centres.split(CHUNK):
        among = _squared_distances(block, centres)
        radius = among.kthvalue(k + 1, dim=1, keepdim=True).values  # the 1st is itself
        yield _squared_distances(block, points) <= radius * (1 + 1e-9)


def _share_in_balls(points: Tensor, centres: Tensor, k: int) -> float:
    inside = torch.stack([block.any(0) for block in _in_balls(points, centres, k)])
    return inside.any(0).double().mean().item()
