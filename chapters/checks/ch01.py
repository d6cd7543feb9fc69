"""Feedback for the exercises of chapter 01, generative models."""

import math

import torch

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)


def _triple(value: object, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Return the three tensors of an answer, or end the check."""
    expect_given(value)
    expect(
        isinstance(value, tuple | list) and len(value) == 3,
        "the function must return three tensors: weights, means, and spreads",
    )
    return [expect_tensor(v, s) for v, s in zip(value, shapes, strict=True)]


@exercise
def check_analogy(analogy):
    """The row of the gallery nearest to c - a + b."""
    a, b, c = random_numbers(3, 8)
    gallery = torch.cat([3 * random_numbers(20, 8, seed=1), _rivals(a, b, c)])
    answer = analogy(a, b, c, gallery)
    expect_given(answer)
    row = torch.as_tensor(answer)
    expect(
        row.numel() == 1 and float(row) == int(row) and 0 <= int(row) < len(gallery),
        "the function must return the index of a row of the gallery, one whole "
        f"number, not {answer!r}",
    )
    hints = {
        21: "you walk from b to a: the step is b - a, from a to b, and starts at c",
        22: "this is the row nearest to c itself: the step b - a is missing",
        23: "this is the row nearest to b: the step must start at c",
        24: "this is the row nearest to a + b + c: one of the signs is wrong",
        25: "you take the largest dot product, which prefers long vectors; the nearest "
        "row is the one with the smallest distance",
        26: "this row points in the direction of c - a + b, but is three times as "
        "long: you take the cosine, which ignores lengths; take the Euclidean distance",
        27: "you add up absolute differences (the L1 norm): the Euclidean distance "
        "adds up squares",
        28: "you take the largest difference (the maximum norm): the Euclidean "
        "distance adds up the squares of all differences",
    }
    reject(int(row) in hints, hints.get(int(row), ""))
    reject(int(row) == 29, "this is the farthest row: argmin, not argmax")
    expect(
        int(row) == 20, "the row nearest to c - a + b is row 20, not the one you give"
    )
    expect(
        int(analogy(a, a, c, gallery)) == 22,
        "if a and b are the same, the answer must be the row nearest to c",
    )
    last = len(gallery) - 1
    expect(
        int(analogy(a, b, c, gallery.flip(0))) == last - 20,
        "with the gallery in reverse order the answer must be the same vector",
    )
    return "c - a + b among 30 vectors, nearest by Euclidean distance, and a = b"


def _rivals(a, b, c) -> torch.Tensor:
    """Ten rows: the right one first, then those that mistakes prefer."""
    point, axes = c - a + b, torch.eye(8, dtype=torch.float64)
    across = random_numbers(8, seed=2)
    across -= (across @ point) / (point @ point) * point
    across *= 0.3 * point.norm() / across.norm()
    near = 0.6 * axes[0] + 0.8 * axes[1]  # length 1; L1 1.4; maximum 0.8
    rows = [point + near, c + a - b, c, b, a + b + c]
    rows += [9 * (point + across), 3 * point]
    rows += [point + 1.2 * axes[2], point + 0.5 * axes.sum(0), -20 * point]
    return torch.stack(rows)


@exercise
def check_posterior(posterior):
    """p(y | x) from log p(x | y) and p(y)."""
    likelihood = torch.tensor([[0.2, 0.1], [0.3, 0.3], [0.01, 0.4]]).double()
    prior = torch.tensor([0.9, 0.1], dtype=torch.float64)
    joint = likelihood * prior
    result = expect_tensor(posterior(likelihood.log(), prior), (3, 2))
    reject(
        close(result, likelihood / likelihood.sum(1, keepdim=True)),
        "the prior is missing: a class that is rare must be rare here too",
    )
    reject(
        close(result, joint / joint.sum(0)),
        "your columns sum to 1; the rows must, one for each point: given x, it has "
        "some class",
    )
    reject(
        close(result, joint),
        "this is p(x, y) = p(x | y) p(y); divide by its sum over the classes",
    )
    reject(
        close(result, (likelihood.log() + prior).softmax(1)),
        "you add the prior to a logarithm: take the logarithm of the prior as well",
    )
    reject(
        close(result, (joint / joint.sum(1, keepdim=True)).log()),
        "these are logarithms of the probabilities: exponentiate at the end",
    )
    expect(
        close(result, joint / joint.sum(1, keepdim=True)),
        "with p(x | y) = 0.2 and 0.1 and the prior 0.9 and 0.1 the first row must be "
        f"0.947 and 0.053, not {', '.join(f'{v:.3f}' for v in result[0].tolist())}",
    )
    tiny = posterior(torch.tensor([[-5000.0, -5001.0]]).double(), prior)
    reject(
        bool(torch.as_tensor(tiny).isnan().any()),
        "with log p(x | y) = -5000 and -5001 you get NaN: exp(-5000) is 0, and 0 / 0 "
        "is no number. Stay with logarithms and let softmax normalise",
    )
    odds = (tiny[0, 0] / tiny[0, 1]).item()
    expect(
        close(odds, 9 * math.e),
        f"at -5000 and -5001 the odds must be 9 e = {9 * math.e:.2f}, not {odds:.2f}",
    )
    mixed = torch.tensor([[0.0, -1.0, -2.0], [-5000.0, -5001.0, -5003.0]]).double()
    prior = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    result = torch.as_tensor(posterior(mixed, prior))
    right = (mixed + prior.log()).softmax(1)
    expect(
        result.shape == right.shape,
        "two points and three classes must give the shape (2, 3), not "
        f"{tuple(result.shape)}",
    )
    reject(
        bool(result.isnan().any())
        or (close(result[0], right[0]) and not close(result[1], right[1])),
        "one point has log p(x | y) near 0, the other near -5000, and the second row "
        "is wrong: subtract each row's own maximum, not that of all rows",
    )
    expect(
        close(result, right),
        "with three classes it must be p(y) p(x | y), divided by the sum over them",
    )
    return (
        "three points by hand, rows that sum to 1, log-likelihoods of -5000, also "
        "beside one of 0, and three classes"
    )


@exercise
def check_sample_peaks(sample_peaks):
    """Samples of a mixture in one dimension: the bug clinic."""
    weights = torch.tensor([0.2, 0.8])
    means, stds = torch.tensor([-2.0, 2.0]), torch.tensor([0.2, 0.5])
    n = 20_000

    def draw(seed):
        return sample_peaks(
            weights, means, stds, n, torch.Generator().manual_seed(seed)
        )

    x = expect_tensor(draw(0), (n,)).double()
    low = (x < 0).double().mean().item()
    between = (x.abs() < 0.5).double().mean().item()
    reject(
        not 0.005 < low < 0.995 and bool(x.abs().mean() > 1.5),
        "all samples come from one component: each sample needs a choice of its own",
    )
    reject(
        between > 0.05 or bool(x.abs().mean() < 1.5),
        f"a fraction of {between:.2f} of your samples lies in the middle, where there "
        "are no data: choose one component for each sample, do not add them up",
    )
    reject(
        abs(low - 0.5) < 0.03,
        "both peaks get the same number of samples: choose with the weights",
    )
    reject(
        abs(low - 0.8) < 0.03,
        "the peaks have each other's weight: component k must have the weight k",
    )
    expect(
        abs(low - 0.2) < 0.02,
        f"a fraction of 0.2 must come from the peak at -2, but it is {low:.2f}",
    )
    for side, centre, std in ((x[x < 0], -2.0, 0.2), (x[x > 0], 2.0, 0.5)):
        spread = side.std().item()
        reject(
            abs(spread - std**2) < 0.02,
            f"around {centre:g} the standard deviation is {std**2:g}, which is the "
            "square of what it should be: multiply by the standard deviation",
        )
        expect(
            abs(side.mean().item() - centre) < 0.05 and abs(spread - std) < 0.03,
            f"around {centre:g} mean and standard deviation must be {centre:g} and "
            f"{std:g}, not {side.mean():.2f} and {spread:.2f}",
        )
        inner = ((side - centre).abs() < std / 2).double().mean().item()
        expect(
            abs(inner - 0.383) < 0.03,
            f"around {centre:g} the spread is right, but the noise is not Gaussian: "
            f"within half a standard deviation lies a fraction of {inner:.2f}, and "
            "should lie 0.38",
        )
    reject(
        bool(((x[1:] < 0) == (x[:-1] < 0)).double().mean() > 0.75),
        "the samples are sorted by component: choose anew for each sample, so that any "
        "few of them are a sample too",
    )
    _expect_generator(draw, x)
    reject(
        all(int((draw(seed) < 0).sum()) == round(0.2 * n) for seed in (1, 2)),
        "every run takes exactly 0.2 n samples from the first peak: a quota is no "
        "draw; the number must vary from run to run",
    )
    _expect_three_peaks(sample_peaks)
    return (
        "two peaks of weight 0.2 and 0.8, each with its place, its spread and Gaussian "
        "noise; three peaks; and the generator decides"
    )


def _expect_generator(draw, x) -> None:
    """End the check unless the generator, and nothing else, decides on the samples."""
    expect(
        torch.equal(draw(0).double(), x),
        "two calls with equal seeds differ: take every random number from generator",
    )
    reject(
        torch.equal(draw(1).double(), x),
        "two different seeds give the same samples: use the generator that is given",
    )


def _expect_three_peaks(sample_peaks) -> None:
    """End the check where the function is written for two components alone."""
    weights = torch.tensor([0.5, 0.2, 0.3])
    means, stds = torch.tensor([4.0, 0.0, -4.0]), torch.tensor([0.3, 0.2, 0.4])
    generator = torch.Generator().manual_seed(0)
    x = expect_tensor(sample_peaks(weights, means, stds, 10_000, generator), (10_000,))
    shares = torch.stack([((x - m).abs() < 2).double().mean() for m in means])
    expect(
        close(shares, weights, 0.02),
        "with three components, of weight 0.5, 0.2 and 0.3, the fractions are "
        f"{', '.join(f'{v:.2f}' for v in shares.tolist())}: the function must take "
        "any K",
    )


@exercise
def check_m_step(m_step):
    """Weights, means and covariances from responsibilities."""
    x = random_numbers(50, 2) * torch.tensor([1.0, 3.0]) + torch.tensor([5.0, -2.0])
    r = (2 * random_numbers(50, 3, seed=1)).softmax(1)
    mass = r.sum(0)
    shapes = ((3,), (3, 2), (3, 2, 2))
    weights, means, covs = _triple(m_step(x, r), *shapes)
    reject(
        close(weights, mass),
        "your weights sum to the number of points; divide by it, so that they sum to 1",
    )
    expect(
        close(weights, mass / 50),
        "the weight of a component is the mean of its responsibilities; yours sum to "
        f"{weights.sum():.3f}",
    )
    reject(
        close(means, r.T @ x / 50),
        "you divide the sums by n: then components of small weight have means near "
        "0. Divide by the sum of the component's own responsibilities",
    )
    hard = torch.nn.functional.one_hot(r.argmax(1), 3).to(x)
    reject(
        close(means, hard.T @ x / hard.sum(0)[:, None]),
        "you give each point to its likeliest component alone (that is k-means); EM "
        "shares it by the responsibilities",
    )
    true_means = r.T @ x / mass[:, None]
    expect(close(means, true_means), "the means must be the averages of equation (4)")
    raw = torch.einsum("nk,ni,nj->kij", r, x, x) / mass[:, None, None]
    reject(
        close(covs, raw),
        "these are second moments: subtract each component's mean before you square",
    )
    away = x - x.mean(0)
    reject(
        close(covs, torch.einsum("nk,ni,nj->kij", r, away, away) / mass[:, None, None]),
        "you measure from the mean of all points: each component has its own mean",
    )
    away = x[:, None] - true_means
    scatter = torch.einsum("nk,nki,nkj->kij", r, away, away)
    reject(
        close(covs, scatter / 50),
        "the means are right, but the covariances are divided by n: divide each by the "
        "sum of the component's responsibilities",
    )
    expect(
        close(covs, scatter / mass[:, None, None]),
        "the covariances must be the averages of (x - mean)(x - mean)^T, weighted by "
        "the responsibilities",
    )
    _, mean, cov = _triple(m_step(x, torch.ones(50, 1).to(x)), (1,), (1, 2), (1, 2, 2))
    expect(
        close(mean[0], x.mean(0)) and close(cov[0], x.T.cov(correction=0)),
        "with K = 1 it must be the mean and the covariance of all points",
    )
    x, r = random_numbers(30, 3, seed=2), random_numbers(30, 2, seed=3).softmax(1)
    _, means, covs = _triple(m_step(x, r), (2,), (2, 3), (2, 3, 3))
    away = x - means[0]
    expect(
        close(covs[0], (r[:, 0, None] * away).T @ away / r[:, 0].sum()),
        "the points may have more than two coordinates: in three dimensions the "
        "covariances are not right",
    )
    return (
        "three components by equation (4), three dimensions, and K = 1 against mean "
        "and covariance"
    )


@exercise
def check_fill_in(fill_in):
    """The mixture p(x2 | x1) from a mixture in the plane."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    covs = torch.tensor([[[1.0, 0.8], [0.8, 2.0]], [[0.5, -0.3], [-0.3, 1.0]]]).double()
    x1 = torch.tensor(0.5, dtype=torch.float64)
    w, m, s = _triple(fill_in(x1, weights, means, covs), (2,), (2,), (2,))
    m1, m2 = means.unbind(1)
    s11, s12, s22 = covs[:, 0, 0], covs[:, 0, 1], covs[:, 1, 1]
    near = weights * torch.distributions.Normal(m1, s11.sqrt()).log_prob(x1).exp()
    reject(
        close(w, weights),
        "the weights are unchanged: x1 is a clue to the component, so weigh each by "
        "how well it explains x1",
    )
    reject(
        close(w, near),
        "your weights do not sum to 1: divide them by their sum",
    )
    reject(
        close(w, near / weights / (near / weights).sum()),
        "the weights know how well each component explains x1, but not how frequent it "
        "is: multiply by the old weights",
    )
    wrong = weights * torch.distributions.Normal(m1, s11).log_prob(x1).exp()
    reject(
        close(w, wrong / wrong.sum()),
        "in the weights you take the variance s11 for a standard deviation: is a root "
        "missing?",
    )
    expect(
        close(w, near / near.sum()),
        "the weights must be proportional to w N(x1; m1, s11), here "
        f"{near[0] / near.sum():.3f} and {near[1] / near.sum():.3f}, not "
        f"{w[0]:.3f} and {w[1]:.3f}",
    )
    reject(
        close(m, m2),
        "the means are unchanged: where the coordinates go together, x1 moves x2",
    )
    reject(
        close(m, m2 + s12 / s22 * (x1 - m1)),
        "you divide s12 by s22; the slope from x1 to x2 is s12 / s11, by the variance "
        "of what is known",
    )
    expect(
        close(m, m2 + s12 / s11 * (x1 - m1)),
        "the means must be m2 + s12 / s11 (x1 - m1)",
    )
    variance = s22 - s12**2 / s11
    reject(
        close(s, s22.sqrt()),
        "the spread is unchanged: knowing x1 must make it smaller",
    )
    reject(close(s, variance), "these are variances: return standard deviations")
    expect(close(s, variance.sqrt()), "the variance must be s22 - s12^2 / s11")
    one = _triple(
        fill_in(x1 - 2, *(v[1:] for v in (weights, means, covs))), *[(1,)] * 3
    )
    expect(
        close(torch.cat(one), torch.tensor([1.0, 1.1, 0.82**0.5]).double()),
        "a single component at x1 = -1.5 must have weight 1, mean 1.1 and standard "
        "deviation 0.91: the function must take any x1 and any K",
    )
    return (
        "weights, means and standard deviations of two components at x1 = 0.5, and of "
        "one at x1 = -1.5"
    )


@exercise
def check_flow_log_density(flow_log_density):
    """log p(x) under one coupling layer in the plane."""

    def shift(x1):
        return 1 - x1**2

    def stretch(x1):
        return 0.5 * x1 - 0.4

    axis = torch.linspace(-12, 12, 481, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, 2 * axis)
    cell = 2 * (axis[1] - axis[0]).item() ** 2

    def none(x1):
        return torch.zeros_like(x1)

    plain = expect_tensor(flow_log_density(plane, none, none), (len(plane),))
    gauss = -0.5 * plane.square().sum(1)
    reject(
        close(plain, gauss),
        "with t = s = 0 it must be the Gaussian, but its factor 1 / (2 pi) is missing",
    )
    expect(
        close(plain, gauss - math.log(2 * math.pi)),
        "with t = s = 0 the layer does nothing: log p must be -|x|^2 / 2 - log(2 pi)",
    )
    points = random_numbers(40, 2)
    x1, x2 = points.unbind(1)
    got = expect_tensor(flow_log_density(points, shift, stretch), (40,))

    def by_formula(z2, volume):
        return -0.5 * (x1**2 + z2**2) - math.log(2 * math.pi) + volume

    s = stretch(x1)
    z2 = (x2 - shift(x1)) * (-s).exp()
    forward = shift(x1) + s.exp() * x2
    total = flow_log_density(plane, shift, stretch).exp().sum().item() * cell
    reject(
        close(got, by_formula(z2, 0 * s)),
        f"z is right, but the density integrates to {total:.2f}, not 1: where the "
        "layer stretches by e^s, the density thins out by e^-s",
    )
    reject(
        close(got, by_formula(z2, s)),
        f"the density integrates to {total:.2f}, not 1: the sign of s is wrong; "
        "stretching thins the density, it does not thicken it",
    )
    reject(
        close(got, by_formula(z2, -s.exp())),
        "you subtract e^s; log p loses the logarithm of the stretch, which is s",
    )
    reject(
        close(got, by_formula(forward, -s)),
        "you send x through the layer once more: solve x2 = t + e^s z2 for z2",
    )
    reject(
        close(got, by_formula(x2 * (-s).exp() - shift(x1), -s)),
        "undo the steps in reverse order: first subtract t, then divide by e^s",
    )
    expect(
        close(total, 1, 1e-3),
        f"the density must integrate to 1 over the plane, but gives {total:.3f}",
    )
    expect(close(got, by_formula(z2, -s)), "it integrates to 1, but z is not right yet")
    return "the plain Gaussian, a bent one at 40 points, and an integral of 1"
