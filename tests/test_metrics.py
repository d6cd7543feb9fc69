"""The metrics against closed forms, brute force and an independent implementation."""

import inspect
from math import prod

import pytest
import torch

from ddpm_core.metrics import (
    attribute_accuracy,
    attribute_histogram,
    density_coverage,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    nearest,
    precision_recall,
    texture,
)


def normal(n, d, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def with_moments(n, mean, root, *, seed=0):
    """Rows whose sample mean is `mean` and sample covariance `root root^T`, exactly."""
    x = normal(n, len(mean), seed=seed)
    x = x - x.mean(0)
    cholesky = torch.linalg.cholesky(x.T @ x / (n - 1))
    white = torch.linalg.solve_triangular(cholesky, x.T, upper=False).T
    return white @ root.double().T + mean


def unchecked(function):
    """The function as a user calls it, without the type checks that tests may add."""
    return inspect.unwrap(function)


# Frechet distance


def test_frechet_in_one_dimension():
    real = with_moments(50, torch.full((1,), 1.0), torch.full((1, 1), 2.0))
    fake = with_moments(70, torch.full((1,), 4.0), torch.full((1, 1), 0.5), seed=1)
    assert frechet_distance(real, fake) == pytest.approx((1 - 4) ** 2 + (2 - 0.5) ** 2)


def test_frechet_of_covariances_that_commute():
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=3))
    std_1, std_2 = torch.rand(2, 5).double() + 0.1
    mean_1, mean_2 = normal(2, 5, seed=4)
    real = with_moments(40, mean_1, rotation * std_1)
    fake = with_moments(60, mean_2, rotation * std_2, seed=1)
    expected = (mean_1 - mean_2).square().sum() + (std_1 - std_2).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_of_covariances_that_do_not_commute():
    """The trace of the root from the eigenvalues of the unsymmetric product S1 S2."""
    a, b = normal(2 * 6, 6, seed=5).view(2, 6, 6)
    cov_1, cov_2, mean = a @ a.T, b @ b.T, torch.zeros(6).double()
    overlap = torch.linalg.eigvals(cov_1 @ cov_2).real.sqrt().sum()
    expected = (cov_1.trace() + cov_2.trace() - 2 * overlap).item()
    assert gaussian_distance(mean, cov_1, mean, cov_2) == pytest.approx(expected)
    assert gaussian_distance(mean, cov_2, mean, cov_1) == pytest.approx(expected)


def test_frechet_of_a_set_to_itself_is_zero_even_where_singular():
    few = normal(10, 64)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    point = torch.ones(4, 8).double()
    assert frechet_distance(point, point) == 0
    assert frechet_distance(point, point + 2) == pytest.approx(8 * 4)


def test_frechet_is_blind_beyond_two_moments():
    """A Gaussian against four points: distance 0, though the true one is 0.81."""
    real = with_moments(2000, torch.zeros(2), torch.eye(2))
    corners = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    fake = corners.repeat(500, 1) * (1999 / 2000) ** 0.5
    assert frechet_distance(real, fake) == pytest.approx(0, abs=1e-9)
    # Each corner serves one quadrant, so the nearest corner is the optimal transport:
    # 2 E(|x| - 1)^2 = 4 - 4 sqrt(2 / pi) = 0.808.
    moved = nearest(real, fake).distance.square().mean().item()
    assert moved == pytest.approx(0.81, abs=0.05)
    assert density_coverage(real, fake).coverage < 0.2


def test_frechet_bias_falls_with_n():
    """Two draws of one law in 256 dimensions: 112 from 300 rows, 33.5 from 1000."""
    at_300 = frechet_distance(normal(300, 256, seed=1), normal(300, 256, seed=2))
    at_1000 = frechet_distance(normal(1000, 256, seed=1), normal(1000, 256, seed=2))
    assert at_300 == pytest.approx(112, rel=0.05)
    assert at_1000 == pytest.approx(33.5, rel=0.05)


# Kernel distance


@pytest.mark.parametrize("degree", [1, 3])
def test_kernel_distance_is_the_average_over_pairs(degree):
    x, y = normal(7, 3, seed=1), normal(5, 3, seed=2) + 1

    def mean_kernel(a, b, distinct):
        values = [
            (torch.dot(p, q).item() / 3 + 1) ** degree
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (distinct and i == j)
        ]
        return sum(values) / len(values)

    expected = (
        mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    )
    assert kernel_distance(x, y, degree=degree) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kernel_distance_is_unbiased_at_small_n(shift):
    """Its mean over many draws of 20 is the closed form of the law, 0 for equal laws.

    In one dimension (x y + 1)^3 = sum_i binom(3, i) x^i y^i, so the squared discrepancy
    is 3 (m_1 - m_1')^2 + 3 (m_2 - m_2')^2 + (m_3 - m_3')^2 in the raw moments.
    """
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    pairs = normal(20 * 1500, 2).split(20)
    draws = torch.tensor([kernel_distance(p[:, :1], p[:, 1:] + shift) for p in pairs])
    error = draws.std() / len(draws) ** 0.5
    assert abs(draws.mean() - expected) < 4 * error
    assert (draws < 0).any()  # unbiased and yet never negative: not for equal laws


def test_kernel_distance_sees_what_the_frechet_distance_does_not():
    """Equal mean and variance, third moments 0 and 1.5: the discrepancy is 1.5^2."""
    real = with_moments(4000, torch.zeros(1), torch.eye(1))
    skewed = torch.tensor([2, -0.5, -0.5, -0.5, -0.5]).double().repeat(800)[:, None]
    assert frechet_distance(real, skewed) == pytest.approx(0, abs=1e-6)
    assert kernel_distance(real, skewed) == pytest.approx(1.5**2, rel=0.1)


# Precision, recall, density, coverage


def test_disjoint_sets_share_nothing():
    real, fake = normal(100, 4), normal(80, 4, seed=1) + 100
    assert precision_recall(real, fake) == (0, 0)
    assert density_coverage(real, fake) == (0, 0)


def test_identical_sets_share_everything():
    real = normal(1500, 4)  # more than one block of rows
    assert precision_recall(real, real.clone()) == (1, 1)
    assert density_coverage(real, real.clone(), k=4) == ((4 + 1) / 4, 1)


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision():
    mode = normal(300, 2)
    real = torch.cat([mode, mode + 50])
    fake = normal(600, 2, seed=1)
    precision, recall = precision_recall(real, fake)
    assert precision > 0.95
    assert 0.45 < recall <= 0.5
    assert 0.47 < density_coverage(real, fake).coverage <= 0.5
    assert precision_recall(fake, real) == (recall, precision)


@pytest.mark.parametrize("m", [600, 1200, 2400])
def test_density_and_coverage_of_one_law(m):
    """Density is 1 at any n and m; the expected coverage is known exactly.

    A ball is empty if, of the n - 1 + m other rows, the k nearest to its centre are all
    real (Naeem et al. 2020, section 3, for n = m).
    """
    n, k = 1200, 5
    expected = 1 - prod((n - i) / (n + m - i) for i in range(1, k + 1))
    density, coverage = density_coverage(normal(n, 3), normal(m, 3, seed=1), k=k)
    assert coverage == pytest.approx(expected, abs=0.02)
    assert density == pytest.approx(1, abs=0.08)


def test_a_common_offset_changes_no_neighbours():
    real, fake = normal(150, 3), normal(120, 3, seed=1) * 1.5
    far = precision_recall(real + 1e7, fake + 1e7)
    assert far == precision_recall(real, fake)
    assert 0 < far.recall < 1


def test_precision_recall_against_brute_force():
    real, fake, k = normal(60, 3), normal(45, 3, seed=1) * 1.5, 2

    def share(points, centres):
        hits = 0
        for p in points:
            for c in centres:
                radius = (centres - c).norm(dim=1).sort().values[k]
                if (p - c).norm() <= radius:
                    hits += 1
                    break
        return hits / len(points)

    got = precision_recall(real, fake, k=k)
    assert got == pytest.approx((share(fake, real), share(real, fake)))
    assert 0 < got.recall < 1 and 0 < got.precision < 1


def test_copies_of_one_point_are_precise_and_cover_only_it():
    """Balls of radius 0 hold their own centre."""
    real = normal(200, 8)
    fake = real[:1].repeat(50, 1)
    precision, recall = precision_recall(real, fake)
    assert (precision, recall) == (1, 1 / 200)


# Nearest neighbours


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_nearest_against_brute_force(chunk):
    queries, references = normal(20, 12), normal(64, 12, seed=1)
    distances = (queries[:, None] - references).norm(dim=2)
    expected, rows = distances.sort(dim=1)
    got = nearest(queries, references, k=3, chunk=chunk)
    assert torch.equal(got.index, rows[:, :3])
    torch.testing.assert_close(got.distance.double(), expected[:, :3])


def test_nearest_finds_a_copy_at_distance_zero():
    references = torch.rand(300, 3 * 16 * 16) * 2 - 1
    queries = references[[123, 7]].clone()
    queries[1, 0] += 0.01
    distance, index = nearest(queries, references)
    assert index.flatten().tolist() == [123, 7]
    assert distance[0] == 0
    assert distance[1].item() == pytest.approx(0.01, rel=1e-4)


def test_nearest_takes_bytes():
    references = torch.tensor([[0, 0], [255, 255]], dtype=torch.uint8)
    queries = torch.tensor([[3, 4], [255, 0]], dtype=torch.uint8)
    assert nearest(queries, references).distance.tolist() == [[5], [255]]


# Attributes


def test_texture_of_a_ramp_is_the_mean_of_its_slopes():
    across, down = 0.02, -0.06
    column, row = torch.arange(8.0), torch.arange(6.0)[:, None]
    ramp = (across * column + down * row).expand(2, 3, 6, 8)
    assert texture(ramp) == pytest.approx(0.04, rel=1e-5)
    assert texture(ramp + 0.3) == pytest.approx(texture(ramp), rel=1e-5)
    assert texture(torch.zeros(1, 3, 4, 4)) == 0


def test_attribute_accuracy_counts_each_column():
    wanted = torch.tensor([[0, 1], [2, 1], [3, 0], [1, 1]])
    predicted = torch.tensor([[0, 1], [2, 0], [0, 1], [1, 0]])
    assert attribute_accuracy(predicted, wanted).tolist() == [0.75, 0.25]


def test_attribute_histogram_shows_the_missing():
    values = torch.tensor([3, 0, 3, 1])
    assert attribute_histogram(values, 5).tolist() == [1, 1, 0, 2, 0]


# Bad input

ON_PAIRS = [frechet_distance, kernel_distance, precision_recall, density_coverage]


@pytest.mark.parametrize("metric", ON_PAIRS)
def test_bad_features_are_refused(metric):
    good, broken = normal(20, 3), normal(20, 3)
    broken[4, 1] = float("nan")
    with pytest.raises(ValueError, match=r"\(20, 3\) and \(20,\)"):
        unchecked(metric)(good, good[:, 0])
    with pytest.raises(ValueError, match=r"\(20, 3\) and \(20, 2\)"):
        unchecked(metric)(good, good[:, :2])
    with pytest.raises(ValueError, match="fake features must be finite"):
        metric(good, broken)
    with pytest.raises(ValueError, match="at least .* rows each, got 20 and 1"):
        metric(good, good[:1])


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
def test_too_few_rows_for_k(metric):
    with pytest.raises(ValueError, match="at least 9 rows each, got 8 and 20"):
        metric(normal(8, 2), normal(20, 2), k=8)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        metric(normal(8, 2), normal(20, 2), k=0)


def test_bad_neighbour_searches_are_refused():
    rows = normal(5, 2)
    with pytest.raises(ValueError, match=r"k must lie in 1..5 \(references\), got 6"):
        nearest(rows, rows, k=6)
    with pytest.raises(ValueError, match="both be floating or both be bytes"):
        nearest(rows, torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(5, 1\)"):
        unchecked(nearest)(rows, rows[:, :1])
    with pytest.raises(ValueError, match="references must be finite"):
        nearest(rows, rows / 0)


def test_bad_attributes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        unchecked(attribute_accuracy)(torch.zeros(3, 2).int(), torch.zeros(4, 2).int())
    with pytest.raises(ValueError, match="0..2, got 0 to 3"):
        attribute_histogram(torch.tensor([0, 3]), 3)


# An independent implementation


class Flat(torch.nn.Module):
    """Takes the pixels themselves as features."""

    num_features = 12

    def forward(self, images):
        return images.flatten(1)


@pytest.fixture
def pixel_pair():
    real, fake = torch.rand(2, 100, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return real, fake**1.5


def test_frechet_agrees_with_torchmetrics(pixel_pair):
    module = pytest.importorskip("torchmetrics.image.fid")
    fid = module.FrechetInceptionDistance(Flat(), normalize=True)
    fid.set_dtype(torch.float64)
    for images, is_real in zip(pixel_pair, (True, False), strict=True):
        fid.update(images, real=is_real)
    ours = frechet_distance(*(images.flatten(1) for images in pixel_pair))
    assert ours == pytest.approx(fid.compute().item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel:UserWarning")
def test_kernel_distance_agrees_with_torchmetrics(pixel_pair):
    module = pytest.importorskip("torchmetrics.image.kid")
    kid = module.KernelInceptionDistance(
        Flat(), subsets=1, subset_size=100, normalize=True
    )
    for images, is_real in zip(pixel_pair, (True, False), strict=True):
        kid.update(images, real=is_real)
    ours = kernel_distance(*(images.flatten(1) for images in pixel_pair))
    assert ours == pytest.approx(kid.compute()[0].item(), rel=1e-3)
