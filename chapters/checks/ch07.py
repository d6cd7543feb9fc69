"""Feedback for the exercises of chapter 07, training."""

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
from ddpm_core.schedules import cosine_schedule, linear_schedule
from ddpm_core.training import EMA


@exercise
def check_score_from_eps(score_from_eps):
    """The score of q(x_t) from the perfect eps_hat."""
    x = random_numbers(6, 2)
    for ab in (torch.tensor(v, dtype=torch.float64) for v in (0.9, 0.36, 0.04)):
        s = (1 - ab).sqrt()
        eps = s * x  # the perfect answer for data N(0, I), whose score is -x
        result = expect_tensor(score_from_eps(eps, ab), x.shape)
        where = f"at alpha_bar_t = {ab:.2g}"
        reject(
            close(result, x),
            f"{where} the arrows point the wrong way: noise leads away from the data, "
            "the score towards it. Is a sign missing?",
        )
        reject(
            close(result, -eps),
            f"{where} this is -eps_hat: the direction is right, but the less noise "
            "there is, the steeper the density; divide by its standard deviation",
        )
        reject(
            close(result, -eps / (1 - ab)),
            f"{where} you divide by 1 - alpha_bar_t, the variance of the noise; "
            "equation (2) has its root",
        )
        reject(
            close(result, -eps * s),
            f"{where} you multiply by sqrt(1 - alpha_bar_t): divide by it",
        )
        reject(
            close(result, -eps / ab.sqrt()),
            f"{where} you divide by the signal's factor sqrt(alpha_bar_t); it is the "
            "noise's that makes the density steep",
        )
        expect(
            close(result, -x),
            f"{where}: for data N(0, I) every x_t is N(0, I), whose score is -x",
        )
    return "for data N(0, I) the score is -x at three noise levels"


@exercise
def check_lowest_loss(lowest_loss):
    """The floor of the loss at t for data N(0, s2)."""
    ab = linear_schedule(200, 1e-3, 0.1).alpha_bar

    def at(t, s2):
        value = lowest_loss(ab, t, s2)
        expect_given(value)
        return float(value)

    a, v = ab[50], ab[50] * 0.25 + 1 - ab[50]
    got = at(50, 0.25)
    reject(
        close(got, (1 - a) * 0.25 / v, 1e-6),
        "this is the floor of the error in x_0, Var(x_0 | x_t); the loss compares the "
        "noise",
    )
    reject(
        close(got, (1 - a) / v, 1e-6),
        "this is the share of the noise that can be known; the floor is the rest of 1",
    )
    reject(
        close(got, (a * 0.25 / v) ** 0.5, 1e-6),
        "this is the root of the floor: a squared error is a variance, leave it so",
    )
    w = ab[50] * 0.0625 + 1 - ab[50]
    reject(
        close(got, a * 0.0625 / w, 1e-6),
        "s2 is the variance already: do not square it",
    )
    expect(
        close(at(50, 0.0), 0.0, 1e-9),
        f"a single point, s2 = 0, hides nothing: 0, not {at(50, 0.0):.4f}",
    )
    expect(
        close(at(50, 1.0), a, 1e-6),
        f"for s2 = 1, x_t has variance 1 and the floor is alpha_bar_t = {a:.4f}, "
        f"not {at(50, 1.0):.4f}",
    )
    for s2 in (0.04, 0.25, 4.0):
        for t in (1, 50, 200):
            x0, eps = random_numbers(20_000) * s2**0.5, random_numbers(20_000, seed=1)
            x = ab[t].sqrt() * x0 + (1 - ab[t]).sqrt() * eps
            slope = (x * eps).mean() / x.square().mean()  # the best line
            seen = (eps - slope * x).square().mean()
            expect(
                close(at(t, s2), seen, 0.03),
                f"at t = {t} with s2 = {s2} the best line through 20,000 draws has the "
                f"loss {seen:.3f}, yours is {at(t, s2):.3f}",
            )
    return "both limits, and the best line through simulated draws in nine cases"


@exercise
def check_bound_weight(bound_weight):
    """The factor of |eps - eps_theta|^2 in the bound with sigma^2 = beta-tilde."""
    schedule = cosine_schedule(100)
    ab = schedule.alpha_bar
    for t in (2, 50, 90):
        ab_t, ab_u = ab[t], ab[t - 1]
        alpha = ab_t / ab_u
        beta = 1 - alpha
        tilde = (1 - ab_u) / (1 - ab_t) * beta
        right = beta**2 / (2 * tilde * alpha * (1 - ab_t))
        value = bound_weight(ab, t)
        expect_given(value)
        got = float(value)
        where = f"at t = {t}"
        reject(
            close(got, 2 * right, 1e-6),
            f"{where} you return twice the weight: the 1/2 of the Gaussian is missing",
        )
        reject(
            close(got, beta / (2 * alpha * (1 - ab_t)), 1e-6),
            f"{where} this is the weight for sigma^2 = beta; here sigma^2 is "
            "beta-tilde",
        )
        reject(
            close(got, right * alpha, 1e-6),
            f"{where} alpha_t is missing: the mean has the factor 1 / sqrt(alpha_t)",
        )
        reject(
            close(got, beta**2 / (2 * tilde * ab_t * (1 - ab_t)), 1e-6),
            f"{where} you have alpha_bar_t where equation (8) has alpha_t: one bar "
            "too many",
        )
        reject(
            close(got, beta / (2 * tilde * alpha * (1 - ab_t)), 1e-6),
            f"{where} beta_t must be squared: the coefficient of the noise is squared",
        )
        snr = ab / (1 - ab)
        reject(
            close(got, (snr[t - 1] - snr[t]) / 2, 1e-6),
            f"{where} this is the weight of the error in x0_hat; an error in eps_hat "
            "is smaller by sqrt(SNR), divide by the SNR at t",
        )
        expect(
            close(got, right, 1e-6),
            f"{where} the weight must be {right:.5f}, yours is {got:.5f}",
        )
        expect(
            close(got * snr[t], (snr[t - 1] - snr[t]) / 2, 1e-6),
            f"{where} times the SNR it must be half the fall of the SNR in the step",
        )
    return "equation (8) at three times, and half the fall of the SNR in each step"


@exercise
def check_fair_loss(fair_loss):
    """A loss that draws Gaussian noise and every time alike: the bug clinic."""
    schedule = linear_schedule(20, 0.01, 0.4)
    ab, n = schedule.alpha_bar.float(), 20_000
    seen = {}

    def spy(x_t, t):
        seen["x_t"], seen["t"] = x_t, t
        return torch.zeros_like(x_t)

    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros(n, 2)
    result = fair_loss(spy, ab, zero, generator)
    expect_given(result)
    expect("t" in seen, "your function never calls the network")
    result = expect_tensor(result, (n,))
    t, x_t = seen["t"], seen["x_t"]
    expect(
        t.shape == (n,), f"t must be one time a sample, ({n},), not {tuple(t.shape)}"
    )
    expect(not t.is_floating_point(), "t must be whole numbers")
    reject(
        t.unique().numel() == 1,
        f"all samples of the batch share the time {t[0].item()}: draw one for each",
    )
    reject(
        t.min() == 0,
        "t = 0 is drawn: a clean image holds no noise to predict; times start at 1",
    )
    reject(
        t.max() == 19,
        "the last time, T = 20, is never drawn: the sampler starts there, and asks a "
        "network that has never seen it (randint leaves out its upper end)",
    )
    expect(
        set(t.tolist()) == set(range(1, 21)),
        f"times must cover 1..20, yours go from {t.min()} to {t.max()}",
    )
    noise = x_t / (1 - ab[t])[:, None].sqrt()
    reject(
        bool(noise.min() >= 0) and bool(noise.max() <= 1.01),
        "the noise lies in [0, 1]: torch.rand is uniform, the game is about randn",
    )
    reject(
        close(noise.mean(), 0, 0.05) and bool(noise.abs().max() < 2),
        "the noise is centred but has no tails: it is uniform, not Gaussian",
    )
    expect(
        close(noise.std(), 1, 0.03) and close(noise.mean(), 0, 0.03),
        f"with x0 = 0, x_t / sqrt(1 - alpha_bar_t) must have mean 0 and standard "
        f"deviation 1, yours {noise.mean():.2f} and {noise.std():.2f}",
    )
    expect(
        close(result.mean(), 1, 0.03),
        f"a network that answers 0 must have the loss 1 on average, yours has "
        f"{result.mean():.2f}",
    )
    again = (fair_loss(lambda x, t: 0 * x, ab, zero[:4], g) for g in _twins())
    expect(
        torch.equal(*again),
        "two generators with one seed give two losses: something is drawn without "
        "`generator`, so that no run can be repeated",
    )
    one = torch.ones(n, 2)

    def knows(x_t, t):  # the perfect answer if every x0 is 1
        a, s = ab[t].sqrt()[:, None], (1 - ab[t]).sqrt()[:, None]
        return (x_t - a) / s

    left = fair_loss(knows, ab, one, generator)
    expect(
        close(left.mean(), 0, 1e-4),
        f"on a data set of one point the perfect answer must have the loss 0, yours "
        f"leaves {left.mean():.3f}",
    )
    return "Gaussian noise, all times 1..T, loss 1 for a zero answer, 0 on one point"


def _twins() -> tuple[torch.Generator, torch.Generator]:
    """Two generators with the same seed."""
    return torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)


@exercise
def check_update_average(update_average):
    """One EMA update of a list of tensors, in place."""

    def lists():
        return [random_numbers(3, 4).float(), random_numbers(5).float()], [
            random_numbers(3, 4, seed=1).float().requires_grad_(),
            random_numbers(5, seed=2).float().requires_grad_(),
        ]

    average, weights = lists()
    before, given = (
        [v.detach().clone() for v in average],
        [v.detach().clone() for v in weights],
    )
    handed_in = list(average)
    returned = update_average(average, weights, 0.9)
    untouched = all(torch.equal(a, b) for a, b in zip(handed_in, before, strict=True))
    reject(
        untouched and any(a is not b for a, b in zip(average, handed_in, strict=True)),
        "you put new tensors into the list, and those of the network are as before: "
        "change them in place (lerp_, mul_, add_, copy_)",
    )
    reject(
        untouched and returned is not None,
        "you return new tensors, but the averages that were handed in are as before: "
        "change them in place (lerp_, mul_, add_, copy_)",
    )
    reject(
        untouched,
        "the averages are as before: `average = ...` in a loop gives a name to a new "
        "tensor and leaves the old one; change it in place (lerp_, mul_, add_, copy_)",
    )
    moved = [v.detach() for v in weights]
    reject(
        any(not torch.equal(v, g) for v, g in zip(moved, given, strict=True)),
        "you change the weights that are being trained: only the average may move",
    )
    reject(
        any(a.requires_grad for a in average),
        "the averages carry a gradient now: work under torch.no_grad()",
    )
    reject(
        all(
            close(a, 0.1 * b + 0.9 * g)
            for a, b, g in zip(average, before, given, strict=True)
        ),
        "the decay is the other way round: 0.9 of the OLD average stays",
    )
    expect(
        all(
            close(a, 0.9 * b + 0.1 * g)
            for a, b, g in zip(average, before, given, strict=True)
        ),
        "with decay 0.9 the average must become 0.9 average + 0.1 weights",
    )
    for _ in range(99):
        update_average(average, weights, 0.9)
    expect(
        all(close(a, g, 1e-3) for a, g in zip(average, given, strict=True)),
        "after 100 updates towards the same weights the average must have arrived",
    )
    net, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ema = EMA(net, decay=0.5)
    mine = [p.detach().clone() for p in net.parameters()]
    ema.update(target, 1000)
    update_average(mine, list(target.parameters()), 0.5)
    expect(
        all(close(a, p, 1e-5) for a, p in zip(mine, ema.net.parameters(), strict=True)),
        "the library's EMA arrives elsewhere",
    )
    return "one step, a hundred steps, untouched weights, and the library's EMA"


@exercise
def check_copied_share(copied_share):
    """The share of samples that lie nearer to training data than held-out ones do."""
    training = random_numbers(400, 3, 4, 4)
    held_out = random_numbers(500, 3, 4, 4, seed=1)
    fresh = random_numbers(300, 3, 4, 4, seed=2)
    copies = training[:300]
    before = [v.clone() for v in (copies, training, held_out)]

    def share(samples):
        value = copied_share(samples, training, held_out)
        expect_given(value)
        reject(value > 1, f"{float(value):g} is a count: return a share of the samples")
        return float(value)

    all_copied, none = share(copies), share(fresh)
    after = (copies, training, held_out)
    expect(
        all(torch.equal(a, b) for a, b in zip(after, before, strict=True)),
        "your function changes the images it was given",
    )
    reject(
        none > 0.3,
        f"of fresh samples {none:.0%} are called copies: the yardstick is too long. "
        "Take the 1 % quantile of the held-out distances, not their mean or maximum",
    )
    reject(
        share(held_out[:300]) > 0.5,
        "held-out images themselves are called copies: samples must be compared with "
        "the training images; the held-out ones only tell what distance is normal",
    )
    reject(
        close(all_copied, 0) and close(none, 0),
        "even exact copies are not found: do you compare each training image with "
        "itself, or take the largest distance in place of the nearest?",
    )
    expect(
        close(all_copied, 1),
        f"300 exact copies: the share must be 1, yours is {all_copied:.2f}",
    )
    half = torch.cat([copies[:150], fresh[:150]])
    expect(
        0.49 <= share(half) <= 0.56,
        f"of 150 copies and 150 fresh samples, a half are copies; yours: "
        f"{share(half):.2f}",
    )
    reject(
        share(held_out[:300]) == 0 and none == 0,
        "no held-out image ever falls below the yardstick: it is their minimum, which "
        "one odd image can set to 0. Take the 1 % quantile",
    )
    near = copies + 0.02 * fresh
    expect(
        share(near) > 0.95,
        "copies with a little noise on them must be found too: a distance of 0 is not "
        "the test",
    )
    expect(
        none <= 0.06,
        f"of fresh samples of the same law about 1 % may be called copies, not "
        f"{none:.0%}",
    )
    return "copies, noisy copies, a half of each, and fresh samples of the same law"
