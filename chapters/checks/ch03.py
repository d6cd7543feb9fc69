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
    answer = expect_tensor(best_discriminator(log_p, log_g), (9,))
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
    _expect_same_when_both_fall(best_discriminator, log_p, log_g, answer)
    sure = best_discriminator(torch.tensor([0.0, -5000]), torch.tensor([-5000, 0.0]))
    expect(
        close(sure, [1.0, 0.0]),
        "where one density is e^5000 times the other, D* is 1 or 0, not "
        f"{sure.tolist()}",
    )
    grid = best_discriminator(log_p.view(3, 3), log_g.view(3, 3))
    expect(
        grid.shape == (3, 3) and close(grid, answer.view(3, 3)),
        "points on a grid, (3, 3), need the same answers as in a row",
    )
    return "p / (p + p_G), on rows and grids, and safe where densities underflow"


def _expect_same_when_both_fall(best_discriminator, log_p, log_g, answer):
    """D* depends on log p - log p_G alone, however far both of them fall."""
    far = best_discriminator(log_p - 5000, log_g - 5000)
    expect(
        bool(far.isfinite().all()) and close(far, answer),
        "at log-densities of -5000 exp gives 0 / 0: only their difference matters",
    )
    fall = torch.linspace(0, -8000, 9, dtype=torch.float64)
    far = best_discriminator(log_p + fall, log_g + fall)
    expect(
        bool(far.isfinite().all()) and close(far, answer),
        "where one point's log-densities are near 0 and another's near -8000, "
        "subtracting one maximum from all of them does not help: use the difference "
        "at each point",
    )


def _pair(answer, hint):
    """Return the two parts of an answer: a tuple, a list, or a tensor of two rows."""
    expect_given(answer)
    kinds = tuple, list, torch.Tensor
    expect(isinstance(answer, kinds) and len(answer) == 2, hint)
    return tuple(answer)


@exercise
def check_two_losses(two_losses):
    """softplus(-real) + softplus(fake), softplus(-fake)."""
    real, fake = random_numbers(8), random_numbers(8, seed=1)
    both = "return two things: the loss of D, and the loss of G"
    of_d, of_g = _pair(two_losses(real, fake), both)
    reject(
        of_d.ndim == 0 or of_g.ndim == 0,
        "return one loss for each sample, (b,): the mean comes later",
    )
    of_d, of_g = expect_tensor(of_d, (8,)), expect_tensor(of_g, (8,))
    right = softplus(-real) + softplus(fake)
    reject(
        close(of_d, softplus(-fake)) and close(of_g, right),
        "the losses are the wrong way round: first D's, then G's",
    )
    reject(
        close(of_d, -right),
        "D's loss has the wrong sign: V of (1) is maximised, a loss is minimised",
    )
    reject(
        close(of_d, softplus(real) + softplus(-fake)),
        "D learns the labels the wrong way round: it must call real samples real",
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
    losses = torch.stack(_pair(two_losses(far, far), both))
    expect(
        bool(losses.isfinite().all()),
        "at a score of -500 the sigmoid is 0 and its logarithm infinite: use "
        "softplus or logsigmoid of the score",
    )
    expect(
        close(losses, [[500.0, 500.0], [500.0, 0.0]]),
        "a score of -500 on a made sample costs G 500: a probability that is kept "
        "away from 0 costs less, and its gradient is lost",
    )
    _expect_gradients(two_losses, real, fake, both)
    return "both losses, finite where D is sure, and their gradients"


def _expect_gradients(two_losses, real, fake, both):
    """Both players must be able to learn from every score that they are judged by."""
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    of_d, of_g = _pair(two_losses(real, fake), both)
    cut = "the numbers are right, but no gradient passes {}: keep every step in torch"
    for loss, scores, slopes, what in (
        (of_d, real, -torch.sigmoid(-real), "from D's loss to the real scores"),
        (of_d, fake, torch.sigmoid(fake), "from D's loss to the made scores"),
        (of_g, fake, -torch.sigmoid(-fake), "from G's loss to the made scores"),
    ):
        expect(loss.requires_grad, cut.format(what))
        options = {"retain_graph": True, "allow_unused": True}
        (slope,) = torch.autograd.grad(loss.sum(), scores, **options)
        hint = cut.format(what) + ", and detach samples, not scores"
        expect(slope is not None and close(slope, slopes), hint)


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
        "you count the groups in this sample, which says nothing about those that "
        "were not drawn. Count the pairs that agree",
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
    reject(
        answer == inf,
        "you look for rows that are exactly equal: alike means nearer than the "
        "tolerance",
    )
    expect(
        close(answer, pairs / 4),
        f"8 samples with 4 pairs alike mean N = {pairs / 4:.1f}, not {answer:.3f}",
    )
    wide = float(support_size(x, 15.0))  # neighbouring places are alike, too
    expect(
        close(wide, pairs / 14),
        "with a larger tolerance more pairs are alike: use the argument",
    )
    _expect_euclid(support_size)
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
    return "counted by hand, in one and three dimensions, and 50 possible points found"


def _expect_euclid(support_size):
    """Distances run over all features, and are Euclidean."""
    corners = torch.tensor([[0.0, 0, 0], [0, 0, 9], [0, 9, 0], [0, 0.5, 0.5]])
    answer = float(support_size(corners.double(), 1.0))  # one pair, 0.71 apart
    reject(
        close(answer, 1),
        "you compare the first feature only: two samples are alike if their whole "
        "vectors are near",
    )
    reject(
        answer == inf,
        "(0, 0, 0) and (0, 0.5, 0.5) are 0.71 apart, nearer than 1: distances are "
        "Euclidean, not sums of differences",
    )
    expect(close(answer, 6), f"4 rows with one pair alike: N = 6, not {answer:.3f}")
    corners[3] = torch.tensor([0.0, 0.8, 0.8])  # 1.13 apart, and 0.8 at most in one
    corners = torch.cat([corners, corners[2:3] + 0.1])
    expect(
        close(float(support_size(corners.double(), 1.0)), 10),
        "(0, 0, 0) and (0, 0.8, 0.8) are 1.13 apart, farther than 1: distances are "
        "Euclidean, not the largest difference",
    )


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
        self.b = nn.Parameter(torch.tensor(-0.5))

    def forward(self, x):
        return self.b * x


RATES = 0.5, 0.25  # G's and D's, of plain descent


class _Game:
    """The two simplest players, their optimisers, and their data."""

    def __init__(self):
        self.G, self.D = _Shift(), _Slope()
        nets = zip((self.G, self.D), RATES, strict=True)
        self.optimisers = [torch.optim.SGD(n.parameters(), lr=r) for n, r in nets]
        self.x = random_numbers(500).float()
        self.z = random_numbers(500, seed=1).float()

    def play(self, round_):
        """Play one round and return a and b."""
        round_(self.G, self.D, *self.optimisers, self.x, self.z)
        return self.G.a.item(), self.D.b.item()

    def gradients(self):
        """Those of a and b that are left, None or 0 where there are none."""
        return self.G.a.grad, self.D.b.grad


def _by_hand(a=2.0, b=-0.5):
    """The right a and b after a round from a, b; and the a of several mistakes."""
    x, z = random_numbers(500).float(), random_numbers(500, seed=1).float()
    a = torch.tensor(a, requires_grad=True)
    b = torch.tensor(b, requires_grad=True)

    def loss_of_d(a):
        return softplus(-b * x).mean() + softplus(b * (z + a)).mean()

    def moved(loss, extra=0.0):
        return (a - RATES[0] * (torch.autograd.grad(loss, a)[0] + extra)).item()

    left, slope = torch.autograd.grad(loss_of_d(a), [a, b])
    new_b = (b - RATES[1] * slope).detach()
    old = moved(softplus(-b.detach() * (z + a)).mean())
    (late,) = torch.autograd.grad(loss_of_d(torch.tensor(old)), b)
    wrong = {
        "left": moved(softplus(-new_b * (z + a)).mean(), left),
        "old": old,
        "saturating": moved(-softplus(new_b * (z + a)).mean()),
        "wrong way": moved(softplus(new_b * (z + a)).mean()),
        "late b": (b - RATES[1] * late).item(),
    }
    return moved(softplus(-new_b * (z + a)).mean()), new_b.item(), wrong


@exercise
def check_fixed_round(fixed_round):
    """D's step, then G's, each by its own loss alone."""
    game = _Game()
    new_a, new_b = game.play(fixed_round)
    a, b, wrong = _by_hand()
    reject(
        close(new_a, 2.0),
        "G does not move: its half of the round needs D(G(z)) with its gradient, and "
        "a step of adam_G",
    )
    reject(close(new_b, -0.5), "D does not move: its half needs a step of adam_D")
    reject(
        close(new_a, wrong["left"]),
        "G still gets the gradient of D's loss on top of its own: detach the samples "
        "in D's half, or set G's gradients to zero before G's backward",
    )
    reject(
        close(new_a, wrong["old"]) and close(new_b, wrong["late b"]),
        "G moves first: the order is D, then G against the new D",
    )
    reject(close(new_a, wrong["old"]) and close(new_b, b), "G plays against the old D")
    reject(
        close(new_a, wrong["saturating"]),
        "G minimises log(1 - D): the round was non-saturating, keep it so",
    )
    reject(
        close(new_a, wrong["wrong way"]),
        "G is trained to be found out: it must call its samples real",
    )
    expect(
        close(new_b, b),
        f"after the round D's slope should be {b:.3f}, not {new_b:.3f}: its loss is "
        "softplus(-D(x)) + softplus(D(fake)), and it takes one step",
    )
    expect(
        close(new_a, a),
        f"after the round G's shift should be {a:.3f}, not {new_a:.3f}",
    )
    _expect_nothing_left(game, fixed_round, a, b)
    return "two rounds: each player moves by its own loss, and nothing is left behind"


def _expect_nothing_left(game, fixed_round, a, b):
    """A round leaves no gradient and no frozen weight, and a second one works."""
    grad_a, grad_b = game.gradients()
    reject(
        grad_b is not None and bool(grad_b != 0),
        "both steps are right; but G's loss has left a gradient in D, which would "
        "disturb a round that starts with backward: clear D's gradients too",
    )
    reject(
        grad_a is not None and bool(grad_a != 0),
        "both steps are right; but G keeps its gradient after the round",
    )
    for net, name in ((game.D, "D"), (game.G, "G")):
        expect(
            all(p.requires_grad for p in net.parameters()),
            f"both steps are right; but {name} stays frozen, and will never move "
            "again: set requires_grad back",
        )
    again = game.play(fixed_round)
    a, b, _ = _by_hand(a, b)
    expect(
        close(again, [a, b]),
        f"the first round is right, but a second one gives a = {again[0]:.3f} and "
        f"b = {again[1]:.3f} in place of {a:.3f} and {b:.3f}: what does the first "
        "one leave behind?",
    )


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
        "you move each number to the one at the same place in the list: a plan, but "
        "not the cheapest. Lowest to lowest",
    )
    reject(
        close(answer, (a.sort().values - b).abs().mean())
        or close(answer, (a - b.sort().values).abs().mean()),
        "only one of the two sets is sorted: lowest to lowest needs both",
    )
    reject(
        close(answer, (a.sort().values - b.sort().values.flip(0)).abs().mean()),
        "you send the lowest to the highest, the most expensive plan",
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
        close(answer, gaps.abs().median()),
        "a median ignores the long paths: the work is their mean",
    )
    reject(
        close(answer, gaps.mean()) or close(answer, -gaps.mean()),
        "distances are not negative: take the absolute value of each",
    )
    expect(
        close(answer, gaps.abs().mean()),
        f"for the first test it should be {gaps.abs().mean():.3f}, not {answer:.3f}",
    )
    shifted = float(wasserstein_1d(a, a.flip(0) + 3))
    expect(close(shifted, 3), "a set and itself shifted by 3 are 3 apart")
    one = float(wasserstein_1d(a[:1], a[:1] - 4))
    expect(close(one, 4), f"two single numbers 4 apart are 4 apart, not {one:.3f}")
    return "the cheapest plan; a shift by 3 costs 3, and single numbers"


def _bowl(x, w):
    """A score whose slope at x is w + x."""
    return (w * x).flatten(1).sum(1) + x.square().flatten(1).sum(1) / 2


@exercise
def check_slope_penalty(slope_penalty):
    """(|grad| - 1)^2, one an image, differentiable in the critic."""
    w = (0.05 * random_numbers(3, 4, 4)).requires_grad_()
    sizes = torch.linspace(0.02, 0.5, 6).view(6, 1, 1, 1)  # slopes below and above 1
    x = sizes * random_numbers(6, 3, 4, 4, seed=1)

    slope = (w + x).detach().flatten(1)
    right = (slope.norm(dim=1) - 1).square()
    answer = slope_penalty(lambda x: _bowl(x, w), x)
    expect_given(answer)
    reject(
        answer.ndim == 0
        and (close(answer, right.mean()) or close(answer, right.sum())),
        "right, but summed up: return one number for each image, (b,)",
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
        "you charge only slopes above 1: (8) also charges those below",
    )
    mean = ((slope / 6).norm(dim=1) - 1).square()
    reject(
        close(answer, mean),
        "you differentiate the mean of the scores, so that each slope is divided by "
        "the size of the batch: take their sum",
    )
    reject(close(answer, 10 * right), "the weight lambda is not part of it")
    expect(
        close(answer.detach(), right),
        f"for the first image it should be {right[0]:.3f}, not {answer[0]:.3f}",
    )
    reject(
        not answer.requires_grad,
        "the critic cannot learn from it: the gradient needs create_graph=True",
    )
    _expect_slope_of_penalty(answer, w, x)
    _expect_other_images(slope_penalty)
    return "one slope an image, images of two shapes, and the critic learns from it"


def _expect_slope_of_penalty(answer, w, x):
    """The critic's weights get the whole gradient of the penalty."""
    answer.sum().backward()
    known = w.detach().clone().requires_grad_()
    norms = (known + x).flatten(1).norm(dim=1)
    (wanted,) = torch.autograd.grad((norms - 1).square().sum(), known)
    expect(
        w.grad is not None and bool(w.grad.abs().max() > 0),
        "the penalty must give the critic's weights a gradient",
    )
    reject(
        close(w.grad, wanted / 2),
        "the critic's weights get half of their gradient: one of the two factors of "
        "the square is detached",
    )
    expect(
        close(w.grad, wanted),
        "the numbers are right, but the critic's weights get another gradient than "
        "that of (|slope| - 1)^2: is a part of it detached?",
    )


def _expect_other_images(slope_penalty):
    """Two grey images that are not square."""
    w, x = random_numbers(1, 2, 5), random_numbers(2, 1, 2, 5, seed=1)
    w.requires_grad_()
    answer = expect_tensor(slope_penalty(lambda x: _bowl(x, w), x), (2,))
    right = ((w + x).flatten(1).norm(dim=1) - 1).square()
    expect(
        close(answer.detach(), right.detach()),
        "for two images of shape (1, 2, 5) it is wrong: no size may be built in",
    )


ISLANDS = torch.tensor([[1.0, 1.0], [4.0, 2.0], [2.0, -2.0]])
SPREAD = 0.2


class _Islands:
    """Data for a GAN: points on three islands. Counts how often it is asked."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.calls = 0

    def __call__(self, n):
        self.calls += 1
        which = torch.randint(3, (n,), generator=self.generator)
        noise = torch.randn(n, 2, generator=self.generator)
        return ISLANDS[which] + SPREAD * noise


@exercise
def check_train_gan(train_gan):
    """A generator whose samples lie on all three islands."""
    draw = _Islands()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        G = train_gan(draw)
        expect_given(G)
        expect(
            callable(G),
            f"return the generator, a network or function, not a {type(G).__name__}",
        )
        points = _samples(G)
    expect(draw.calls > 0, "you never call draw: without data, what is real?")
    _expect_spread(points)
    nearest, on_it = _place(points)
    fraction, shares = on_it.float().mean(), nearest[on_it].bincount(minlength=3)
    expect(
        bool(fraction >= 0.5),
        f"only {fraction:.0%} of the samples lie on an island: train for longer, or "
        "let D keep up with G",
    )
    shares = shares / shares.sum()
    told = ", ".join(f"{share:.0%}" for share in shares.tolist())
    expect(
        bool(shares.min() >= 1 / 9),
        f"mode collapse: of the samples on islands, the three have {told}. Give D "
        "more steps for each step of G",
    )
    return f"{fraction:.0%} of the samples lie on islands, and the three have {told}"


@torch.no_grad()
def _samples(G):
    """A thousand samples, after the tests of what kind of function G is."""
    z = random_numbers(1000, 2).float()
    points = expect_tensor(G(z), (1000, 2))
    expect(
        close(G(z), points),
        "the same z gives other points at the second call: G must be a function of "
        "z alone. It may keep no data, and draw nothing itself",
    )
    expect(
        close(G(z[:7]), points[:7], 1e-3),
        "seven of the z give other points than among the thousand: what G makes of "
        "a z must not depend on the rest of the batch",
    )
    return points


def _place(points):
    distance, nearest = torch.cdist(points, ISLANDS).min(1)
    return nearest, distance < 4 * SPREAD


def _expect_spread(points):
    """Tell apart the ways in which samples miss every island."""
    reject(
        bool((points.std(0) < 0.02).all()),
        "all samples are the same point: does G use its z?",
    )
    reject(
        bool(points.norm(dim=1).median() > 10),
        "the samples have run away from the data: G must *raise* D's score of its "
        "samples",
    )
    reject(
        bool(points.norm(dim=1).median() < 0.8),
        "the samples lie around the origin, where a fresh network puts them: does "
        "G's loss reach G, and does G's optimiser step?",
    )
    centre = (points - ISLANDS.mean(0)).norm(dim=1)
    reject(
        bool(centre.median() < 0.8),
        "the samples lie in the middle between the islands, at the mean of the data: "
        "your loss compares a sample with one data point",
    )
