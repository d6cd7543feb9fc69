"""Feedback for the exercises of chapter 03, adversarial networks."""

from math import inf

import torch
from torch import nn
from torch.nn.functional import softplus

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)


@exercise
def check_best_discriminator(best_discriminator):
    """p / (p + p_G), from log-densities."""
    log_p, log_g = random_numbers(9), random_numbers(9, seed=1)
    answer = best_discriminator(log_p, log_g)
    expect_given(answer)
    expect_tensor(answer, (9,))
    p, g = log_p.exp(), log_g.exp()
    reject(
        close(answer, g / (p + g)),
        "that is the probability of *made*: D is the probability of *real*",
    )
    reject(
        close(answer, log_p - log_g),
        "that is the score f, the log-ratio: D is its sigmoid",
    )
    reject(close(answer, p / g), "that is the ratio of the densities: it can exceed 1")
    reject(
        close(answer, log_p / (log_p + log_g)),
        "you divide logarithms: equation (3) has the densities themselves",
    )
    expect(
        close(answer, p / (p + g)),
        f"where p = {p[0]:.3f} and p_G = {g[0]:.3f}, D* is "
        f"{p[0] / (p[0] + g[0]):.3f}, not {answer[0]:.3f}",
    )
    far = best_discriminator(log_p - 5000, log_g - 5000)
    expect(
        bool(far.isfinite().all()) and close(far, answer),
        "at log-densities of -5000 exp gives 0 / 0: only their difference matters",
    )
    return "p / (p + p_G), and safe where both densities underflow"


@exercise
def check_two_losses(two_losses):
    """softplus(-real) + softplus(fake), softplus(-fake)."""
    real, fake = random_numbers(8), random_numbers(8, seed=1)
    answer = two_losses(real, fake)
    expect_given(answer)
    expect(
        isinstance(answer, tuple) and len(answer) == 2,
        "return two things: the loss of D, and the loss of G",
    )
    of_d, of_g = answer
    reject(
        of_d.ndim == 0 or of_g.ndim == 0,
        "one loss a sample is asked, (b,): the mean comes later",
    )
    of_d, of_g = expect_tensor(of_d, (8,)), expect_tensor(of_g, (8,))
    right = softplus(-real) + softplus(fake)
    reject(
        close(of_d, -right),
        "D's loss has the wrong sign: V of (1) is maximised, a loss is minimised",
    )
    reject(
        close(of_d, softplus(real) + softplus(-fake)),
        "D is taught the wrong way round: it must call real samples real",
    )
    reject(
        close(of_g, -softplus(fake)),
        "G minimises log(1 - D), the game's own loss: where D is sure, that gives "
        "nothing. Flip the labels",
    )
    reject(
        close(of_g, softplus(fake)),
        "G is trained to be found out: it must call its samples *real*",
    )
    expect(
        close(of_d, right),
        f"for f = {real[0]:.2f} on a real sample and {fake[0]:.2f} on a made one D "
        f"loses {right[0]:.3f}, not {of_d[0]:.3f}",
    )
    expect(
        close(of_g, softplus(-fake)),
        f"for f = {fake[0]:.2f} on a made sample G loses "
        f"{softplus(-fake[0]):.3f}, not {of_g[0]:.3f}",
    )
    far = torch.tensor([-500.0, 500.0])
    losses = torch.stack(two_losses(far, far))
    expect(
        bool(losses.isfinite().all()) and close(losses[1], [500.0, 0.0]),
        "at a score of -500 the sigmoid is 0 and its logarithm infinite: use "
        "softplus or logsigmoid of the score",
    )
    return "both losses, and finite where D is sure"


@exercise
def check_support_size(support_size):
    """n (n - 1) / 2 over the number of alike pairs."""
    places = torch.arange(5, dtype=torch.float64)[:, None] * 10
    picks = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4])
    x = places[picks] + 0.01 * random_numbers(8, 1)  # 1 + 3 pairs alike
    answer = support_size(x, 1.0)
    expect_given(answer)
    answer, pairs = float(answer), 8 * 7 / 2
    reject(
        close(answer, 5),
        "you count the groups in this sample: of those that were not drawn it says "
        "nothing. Count the pairs that agree",
    )
    reject(
        close(answer, pairs / 8),
        "you count each pair twice, as (i, j) and as (j, i)",
    )
    reject(
        close(answer, pairs / 16) or close(answer, pairs / 12) or close(answer, 4),
        "a sample agrees with itself: leave out the diagonal",
    )
    reject(
        close(answer, 64 / 4) or close(answer, 32 / 4),
        "8 samples make 8 * 7 / 2 pairs: n (n - 1) / 2",
    )
    reject(close(answer, 4 / pairs), "that is 1 / N")
    expect(
        close(answer, pairs / 4),
        f"8 samples with 4 pairs alike mean N = {pairs / 4:.1f}, not {answer:.3f}",
    )
    try:
        none = float(support_size(places, 1.0))
    except ZeroDivisionError:
        none = 0.0
    expect(none == inf, "without duplicates the estimate is float('inf')")
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(50, (400, 1), generator=g).double()
    estimate = float(support_size(drawn, 0.5))
    expect(
        40 < estimate < 60,
        f"400 draws from 50 possible points: N should be near 50, not {estimate:.1f}",
    )
    return "counted by hand, no duplicates, and 50 possible points found"


class _Shift(nn.Module):
    """G: z + a."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0))

    def forward(self, z):
        return z + self.a


class _Slope(nn.Module):
    """D: b x."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x):
        return self.b * x


def _after_one(round_):
    """a, b and their gradients after one round with plain descent."""
    G, D = _Shift(), _Slope()
    x, z = random_numbers(500).float(), random_numbers(500, seed=1).float()
    of_G, of_D = (torch.optim.SGD(net.parameters(), lr=0.5) for net in (G, D))
    round_(G, D, of_G, of_D, x, z)
    return G.a.item(), D.b.item(), G.a.grad, D.b.grad


def _by_hand():
    """The right b; and a for: right, D's gradient added, the old D, and log(1 - D)."""
    x, z = random_numbers(500).float(), random_numbers(500, seed=1).float()
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    loss = softplus(-b * x).mean() + softplus(b * (z + a)).mean()
    left, slope = torch.autograd.grad(loss, [a, b])
    new_b = (b - 0.5 * slope).detach()

    def moved(loss, extra=0.0):
        return (a - 0.5 * (torch.autograd.grad(loss, a)[0] + extra)).item()

    right = moved(softplus(-new_b * (z + a)).mean())
    return new_b.item(), {
        "right": right,
        "left": moved(softplus(-new_b * (z + a)).mean(), left),
        "old": moved(softplus(-b.detach() * (z + a)).mean()),
        "saturating": moved(-softplus(new_b * (z + a)).mean()),
        "wrong way": moved(softplus(new_b * (z + a)).mean()),
    }


@exercise
def check_mended_round(mended_round):
    """D's step, then G's, each by its own loss alone."""
    new_a, new_b, grad_a, grad_b = _after_one(mended_round)
    b, a = _by_hand()
    reject(
        close(new_a, 2.0),
        "G does not move: its own half of the round needs D(G(z)) with its gradient",
    )
    reject(
        close(new_a, a["left"]),
        "G still gets the gradient of D's loss on top of its own: detach the samples "
        "in D's half, or set G's gradients to zero before G's backward",
    )
    reject(close(new_a, a["old"]) and close(new_b, b), "G plays against the old D")
    reject(
        close(new_a, a["saturating"]),
        "G minimises log(1 - D): the round was non-saturating, keep it so",
    )
    reject(
        close(new_a, a["wrong way"]),
        "G is trained to be found out: it must call its samples real",
    )
    expect(
        close(new_b, b),
        f"after the round D's slope should be {b:.3f}, not {new_b:.3f}: its loss is "
        "softplus(-D(x)) + softplus(D(fake)), and one step",
    )
    expect(
        close(new_a, a["right"]),
        f"after the round G's shift should be {a['right']:.3f}, not {new_a:.3f}",
    )
    reject(
        grad_b is not None and bool(grad_b != 0),
        "both steps are right; but G's loss has left a gradient in D, which a round "
        "that starts with backward would trip over: clear D's gradients too",
    )
    reject(
        grad_a is not None and bool(grad_a != 0),
        "both steps are right; but G keeps its gradient after the round",
    )
    return "each player moved by its own loss alone, and nothing is left behind"


@exercise
def check_wasserstein_1d(wasserstein_1d):
    """mean |sorted a - sorted b|."""
    a, b = random_numbers(50), 2 * random_numbers(50, seed=1) + 1
    answer = wasserstein_1d(a, b)
    expect_given(answer)
    answer = float(answer)
    gaps = a.sort().values - b.sort().values
    reject(
        close(answer, (a - b).abs().mean()),
        "you move each to the one at the same place in the list: a plan, but not the "
        "cheapest. Lowest to lowest",
    )
    reject(
        close(answer, (a.mean() - b.mean()).abs()),
        "the distance of the means: two sets with equal means would be at 0. (It is "
        "the bound (7) for f(x) = x)",
    )
    reject(
        close(answer, gaps.square().mean())
        or close(answer, gaps.square().mean() ** 0.5),
        "you take squares, which gives W_2: in (6) work is amount times distance",
    )
    reject(
        close(answer, gaps.abs().sum()),
        "a sum over the points: each carries 1/n of the earth",
    )
    reject(
        close(answer, gaps.mean()) or close(answer, -gaps.mean()),
        "distances are not negative: take the absolute value of each",
    )
    expect(
        close(answer, gaps.abs().mean()),
        f"for the first test it should be {gaps.abs().mean():.3f}, not {answer:.3f}",
    )
    shifted = float(wasserstein_1d(a, a[torch.randperm(50)] + 3))
    expect(close(shifted, 3), "a set and itself shifted by 3 are 3 apart")
    return "the cheapest plan; a shift by 3 costs 3"


@exercise
def check_slope_penalty(slope_penalty):
    """(|grad| - 1)^2, one an image, differentiable in the critic."""
    w = (0.05 * random_numbers(3, 4, 4)).requires_grad_()
    sizes = torch.linspace(0.02, 0.5, 6).view(6, 1, 1, 1)  # slopes below and above 1
    x = sizes * random_numbers(6, 3, 4, 4, seed=1)

    def score(x):
        return (w * x).flatten(1).sum(1) + x.square().flatten(1).sum(1) / 2

    slope = (w + x).detach().flatten(1)
    right = (slope.norm(dim=1) - 1).square()
    answer = slope_penalty(score, x)
    expect_given(answer)
    reject(
        answer.ndim == 0
        and (close(answer, right.mean()) or close(answer, right.sum())),
        "right, and summed up: one number an image is asked, (b,)",
    )
    reject(
        close(answer, (slope.norm() - 1).square()),
        "the norm runs over the whole batch: each image has its own slope",
    )
    reject(
        answer.shape != (6,) and answer.ndim > 1,
        "the norm must run over channels, rows and columns of an image: flatten first",
    )
    answer = expect_tensor(answer, (6,))
    reject(
        close(answer, (slope.square().sum(1) - 1).square()),
        "that is the squared length minus 1: the root is missing",
    )
    reject(
        close(answer, slope.norm(dim=1).sub(1).clamp(min=0).square()),
        "you charge only slopes above 1: (8) charges those below, too",
    )
    mean = ((slope / 6).norm(dim=1) - 1).square()
    reject(
        close(answer, mean),
        "you differentiate the mean of the scores, so that each slope is divided by "
        "the size of the batch: take their sum",
    )
    expect(
        close(answer.detach(), right),
        f"for the first image it should be {right[0]:.3f}, not {answer[0]:.3f}",
    )
    reject(
        not answer.requires_grad,
        "the critic cannot learn from it: the gradient needs create_graph=True",
    )
    answer.sum().backward()
    expect(
        w.grad is not None and bool(w.grad.abs().max() > 0),
        "the penalty must give the critic's weights a gradient",
    )
    return "one slope an image, the critic learns from it"
