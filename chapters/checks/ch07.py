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
    for shape, value in (((6, 2), 0.9), ((2, 3, 4, 5), 0.36), ((7,), 0.04)):
        x, ab = random_numbers(*shape), torch.tensor(value, dtype=torch.float64)
        s = (1 - ab).sqrt()
        eps = s * x  # the perfect answer for data N(0, I), whose score is -x
        given = eps.clone()
        result = expect_tensor(score_from_eps(eps, ab), x.shape)
        where = f"at alpha_bar_t = {ab:.2g}"
        reject(
            not torch.equal(eps, given),
            "your function changes the eps_hat that it was given: make a new tensor",
        )
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
        reject(
            close(result, -eps / (1 - ab.sqrt())),
            f"{where} you divide by 1 - sqrt(alpha_bar_t); the root goes over the "
            "whole difference, sqrt(1 - alpha_bar_t)",
        )
        expect(
            close(result, -x),
            f"{where}: for data N(0, I) every x_t is N(0, I), whose score is -x",
        )
    return "for data N(0, I) the score is -x, at three noise levels and shapes"


@exercise
def check_lowest_loss(lowest_loss):
    """The floor of the loss at t for data N(0, s2)."""
    ab = linear_schedule(200, 1e-3, 0.1).alpha_bar

    def at(t, s2, ab=ab):
        value = lowest_loss(ab, t, s2)
        expect_given(value)
        return float(value)

    a, v = ab[50], ab[50] * 0.25 + 1 - ab[50]
    got = at(50, 0.25)
    reject(
        got == at(50, 0.25, cosine_schedule(300).alpha_bar),
        "two schedules give the same floor: use the argument `alpha_bar`",
    )
    reject(
        close(got, (1 - a) * 0.25 / v, 1e-6),
        "this is the floor of the error in x_0, Var(x_0 | x_t); the loss compares the "
        "noise",
    )
    reject(
        close(got, (1 - a) / v, 1e-6),
        "this is the fraction of the noise that can be known; the floor is the rest, 1 "
        "minus it",
    )
    reject(
        close(got, (a * 0.25 / v) ** 0.5, 1e-6),
        "this is the root of the floor: a squared error is a variance, so leave it",
    )
    w = ab[50] * 0.0625 + 1 - ab[50]
    reject(
        close(got, a * 0.0625 / w, 1e-6),
        "s2 is already the variance: do not square it",
    )
    reject(
        close(got, a * 0.25, 1e-6),
        "this is the variance of the signal in x_t: divide it by the variance of x_t",
    )
    root = 0.5 * a / (0.5 * a + 1 - a)
    reject(
        close(got, root, 1e-6),
        "s2 is already the variance: do not take its root",
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
    for schedule in (linear_schedule(200, 1e-3, 0.1), cosine_schedule(300)):
        table = schedule.alpha_bar
        for s2 in (0.04, 0.25, 4.0):
            for t in (1, 50, 200):
                x0 = random_numbers(20_000) * s2**0.5
                eps = random_numbers(20_000, seed=1)
                x = table[t].sqrt() * x0 + (1 - table[t]).sqrt() * eps
                slope = (x * eps).mean() / x.square().mean()  # the best line
                seen = (eps - slope * x).square().mean()
                mine = at(t, s2, table)
                expect(
                    close(mine, seen, 0.03),
                    f"at t = {t} with s2 = {s2} the best line through 20,000 draws has "
                    f"the loss {seen:.3f}, yours is {mine:.3f}",
                )
    return "both limits, and the best line through simulated draws in 18 cases"


@exercise
def check_bound_weight(bound_weight):
    """The factor of |eps - eps_theta|^2 in the bound with sigma^2 = beta-tilde."""
    for schedule in (cosine_schedule(100), linear_schedule(120, 1e-3, 0.1)):
        ab = schedule.alpha_bar
        for t in (2, 50, 90):
            _check_weight(bound_weight(ab, t), ab, t)
    return "equation (8) at six timesteps, and half the drop of the SNR in each step"


def _check_weight(value, ab, t):
    expect_given(value)
    alpha = ab[t] / ab[t - 1]
    beta, ab_t = 1 - alpha, ab[t]
    tilde = (1 - ab[t - 1]) / (1 - ab_t) * beta
    right = beta**2 / (2 * tilde * alpha * (1 - ab_t))
    got, where = float(value), f"at t = {t}"
    reject(
        close(got, 2 * right, 1e-6),
        f"{where} you return twice the weight: the 1/2 of the Gaussian is missing",
    )
    reject(
        close(got, beta / (2 * alpha * (1 - ab_t)), 1e-6),
        f"{where} this is the weight for sigma^2 = beta; here sigma^2 is beta-tilde",
    )
    reject(
        close(got, right * alpha, 1e-6),
        f"{where} alpha_t is missing: the mean has the factor 1 / sqrt(alpha_t)",
    )
    reject(
        close(got, beta**2 / (2 * tilde * ab_t * (1 - ab_t)), 1e-6),
        f"{where} you have alpha_bar_t where equation (8) has alpha_t: one bar too "
        "many",
    )
    reject(
        close(got, beta / (2 * tilde * alpha * (1 - ab_t)), 1e-6),
        f"{where} beta_t must be squared: the coefficient of the noise is squared",
    )
    reject(
        close(got, beta**2 / (2 * tilde**2 * alpha * (1 - ab_t)), 1e-6),
        f"{where} you divide by the square of beta-tilde, which is already a variance: "
        "sigma_t^2 = beta-tilde",
    )
    reject(
        close(got, beta**2 / (2 * tilde * alpha), 1e-6),
        f"{where} the factor 1 / (1 - alpha_bar_t) is missing: the noise in equation "
        "(5) of chapter 08 is divided by its root",
    )
    snr = ab / (1 - ab)
    drop = (snr[t - 1] - snr[t]) / 2
    reject(
        close(got, drop, 1e-6),
        f"{where} this is the weight of the error in x0_hat; an error in eps_hat is "
        "smaller by sqrt(SNR), so divide by the SNR at t",
    )
    reject(
        t + 1 < len(ab) and close(got, (snr[t] - snr[t + 1]) / (2 * snr[t + 1]), 1e-6),
        f"{where} you return the weight at t + 1: alpha_bar[0] is 1, so the step from "
        "t to t - 1 uses alpha_bar[t] and alpha_bar[t - 1]",
    )
    expect(
        close(got, right, 1e-6),
        f"{where} the weight must be {right:.5f}, yours is {got:.5f}",
    )
    expect(
        close(got * snr[t], drop, 1e-6),
        f"{where} times the SNR it must be half the drop of the SNR in the step",
    )


@exercise
def check_fair_loss(fair_loss):
    """A loss that draws Gaussian noise and every timestep alike: the bug clinic."""
    for schedule, n in (
        (linear_schedule(20, 0.01, 0.4), 20_000),
        (cosine_schedule(7), 12_000),
    ):
        ab = schedule.alpha_bar.float()
        seen, result = _spied_loss(fair_loss, ab, n)
        _check_times(seen["t"], seen["x_t"], ab, n)
        _check_noise(seen["x_t"], seen["t"], ab)
        reject(
            close(result.mean(), 2, 0.06),
            "a network that answers 0 has the loss 2 on points of the plane: take the "
            "mean over the dimensions of a sample, not the sum",
        )
        expect(
            close(result.mean(), 1, 0.03),
            f"a network that answers 0 must have the loss 1 on average, yours has "
            f"{result.mean():.2f}",
        )
    _check_draws(fair_loss, ab)
    _check_trains(fair_loss, ab)
    _check_one_point(fair_loss, ab)
    return (
        "independent Gaussian noise, all timesteps 1..T, loss 1 for a zero answer, 0 "
        "on one point, and a gradient for the network"
    )


def _spied_loss(fair_loss, ab, n):
    """What the network was given where every x0 is 0, and the losses."""
    seen = {}

    def spy(x_t, t):
        seen["x_t"], seen["t"] = x_t, t
        return torch.zeros_like(x_t)

    generator = torch.Generator().manual_seed(0)
    result = fair_loss(spy, ab, torch.zeros(n, 2), generator)
    expect_given(result)
    expect("t" in seen, "your function never calls the network")
    return seen, expect_tensor(result, (n,))


def _check_times(t, x_t, ab, n):
    T = len(ab) - 1
    expect(
        t.shape == (n,),
        f"t must be one timestep a sample, ({n},), not {tuple(t.shape)}",
    )
    expect(not t.is_floating_point(), "t must be whole numbers")
    reject(
        t.unique().numel() == 1,
        f"all samples of the batch share t = {t[0].item()}: draw one for each",
    )
    reject(
        t.min() == 0 and bool(x_t[t == 0].abs().max() > 0),
        "where the network is given t = 0, x_t has the noise of another timestep: you "
        "draw t correctly, but give the network t - 1",
    )
    reject(
        t.min() == 0,
        "t = 0 is drawn: a clean image holds no noise to predict; timesteps start at 1",
    )
    reject(
        t.max() == T - 1,
        f"the last timestep, T = {T}, is never drawn: the sampler starts there, and "
        "calls a network that has never seen it (randint leaves out its upper end)",
    )
    expect(
        set(t.tolist()) == set(range(1, T + 1)),
        f"timesteps must cover 1..{T}, yours go from {t.min()} to {t.max()}",
    )
    least, most = (t.bincount()[1:].min(), t.bincount().max())
    expect(
        bool(most < 1.3 * least),
        "some timesteps are drawn more often than others: they must be uniform in 1..T",
    )


def _check_noise(x_t, t, ab):
    noise = x_t / (1 - ab[t])[:, None].sqrt()
    reject(
        bool(noise.min() >= 0) and bool(noise.max() <= 1.01),
        "the noise lies in [0, 1]: torch.rand is uniform; Gaussian noise comes from "
        "torch.randn",
    )
    reject(
        close(noise.mean(), 0, 0.05) and bool(noise.abs().max() < 2),
        "the noise is centred but has no tails: it is uniform, not Gaussian",
    )
    reject(
        close(noise[0], noise[1]) or noise[:, 0].unique().numel() < len(noise) // 2,
        "samples share their noise: draw one for each sample, in the shape of x0",
    )
    reject(
        close(noise[:, 0], noise[:, 1], 1e-3),
        "both dimensions of a point get the same noise: draw it in the shape of x0",
    )
    reject(
        close((x_t / ab[t].sqrt()[:, None]).std(), 1, 0.03),
        "the noise has the factor sqrt(alpha_bar_t): that is the image's; the noise "
        "has sqrt(1 - alpha_bar_t)",
    )
    expect(
        close(noise.std(), 1, 0.03) and close(noise.mean(), 0, 0.03),
        f"with x0 = 0, x_t / sqrt(1 - alpha_bar_t) must have mean 0 and standard "
        f"deviation 1, yours {noise.mean():.2f} and {noise.std():.2f}",
    )
    for k in t.unique().tolist():
        spread = noise[t == k].std()
        expect(
            close(spread, 1, 0.1),
            f"with x0 = 0, x_t at t = {k} must have the standard deviation "
            f"sqrt(1 - alpha_bar_t); yours has {spread:.2f} times it",
        )


def _check_draws(fair_loss, ab):
    """The same seed gives the same loss, another seed another."""
    zero = torch.zeros(4, 2)
    seeds = (7, 7, 8)
    losses = [
        fair_loss(lambda x, t: 0 * x, ab, zero, torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    expect(
        torch.equal(losses[0], losses[1]),
        "two generators with one seed give two losses: something is drawn without "
        "`generator`, so that no run can be repeated",
    )
    reject(
        torch.equal(losses[0], losses[2]),
        "two seeds give the same loss: draw t and the noise from `generator`",
    )


def _check_trains(fair_loss, ab):
    net = torch.nn.Linear(2, 2)
    result = fair_loss(
        lambda x, t: net(x), ab, random_numbers(8, 2).float(), torch.Generator()
    )
    reject(
        not result.requires_grad,
        "no gradient reaches the network: it cannot be trained with this loss. Is "
        "there a no_grad or a detach?",
    )
    result.mean().backward()
    reject(
        net.weight.grad is None or not bool(net.weight.grad.abs().sum() > 0),
        "no gradient reaches the network's weights: is its answer detached?",
    )


def _check_one_point(fair_loss, ab):
    c = torch.tensor([0.5, -0.3])

    def knows(x_t, t):  # the perfect answer if every x0 is c
        a, s = ab[t].sqrt()[:, None], (1 - ab[t]).sqrt()[:, None]
        return (x_t - a * c) / s

    left = fair_loss(knows, ab, c.expand(2000, 2), torch.Generator().manual_seed(0))
    expect(
        close(left.mean(), 0, 1e-4),
        f"on a data set of one point the perfect answer must have the loss 0, yours "
        f"leaves {left.mean():.3f}: the noise, the timestep and x_t must belong "
        "together",
    )


@exercise
def check_update_average(update_average):
    """One EMA update of a list of tensors, in place."""
    average, weights = _random_weights()
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
        "you return new tensors, but the averages that you were given are as before: "
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
    _check_updated(average, before, given)
    for _ in range(99):
        update_average(average, weights, 0.9)
    expect(
        all(close(a, g, 1e-3) for a, g in zip(average, given, strict=True)),
        "after 100 updates towards the same weights the average must have arrived",
    )
    reject(
        any(
            a.data_ptr() == w.data_ptr() for a, w in zip(average, weights, strict=True)
        ),
        "the averages share their memory with the weights, and will move with them: "
        "copy values, not tensors",
    )
    net, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ema = EMA(net, decay=0.5)
    mine = [p.detach().clone() for p in net.parameters()]
    start = [p.clone() for p in mine]
    ema.update(target, 1000)
    update_average(mine, list(target.parameters()), 0.5)
    reject(
        all(
            close(a, 0.9 * b + 0.1 * p.detach(), 1e-5)
            for a, b, p in zip(mine, start, target.parameters(), strict=True)
        ),
        "with decay 0.5 you still move by a tenth: use the argument `decay`",
    )
    expect(
        all(close(a, p, 1e-5) for a, p in zip(mine, ema.net.parameters(), strict=True)),
        "with decay 0.5 the library's EMA arrives elsewhere",
    )
    return "one step, a hundred steps, untouched weights, and the library's EMA"


def _random_weights():
    """Averages and weights of a network with a matrix, a vector and one number."""
    shapes = (3, 4), (5,), ()
    average = [random_numbers(*shape).float() for shape in shapes]
    weights = [random_numbers(*shape, seed=k + 1) for k, shape in enumerate(shapes)]
    return average, [w.float().requires_grad_() for w in weights]


def _check_updated(average, before, given):
    groups = list(zip(average, before, given, strict=True))
    reject(
        all(close(a, 0.1 * b + 0.9 * g) for a, b, g in groups),
        "the decay is the other way round: 0.9 of the OLD average stays",
    )
    right = [close(a, 0.9 * b + 0.1 * g) for a, b, g in groups]
    reject(
        any(right) and not all(right),
        f"only {sum(right)} of {len(right)} averages have moved as they should: each "
        "tensor of the list needs its update",
    )
    expect(
        all(right),
        "with decay 0.9 the average must become 0.9 average + 0.1 weights",
    )


@exercise
def check_copied_share(copied_share):
    """The fraction of samples nearer to training data than held-out images are."""
    training = random_numbers(300, 3, 4, 5)
    held_out = random_numbers(2000, 3, 4, 5, seed=1)
    fresh = random_numbers(2000, 3, 4, 5, seed=2)
    copies = training[:250]
    before = [v.clone() for v in (copies, training, held_out)]

    def share(samples):
        value = copied_share(samples, training, held_out)
        expect_given(value)
        reject(
            value > 1,
            f"{float(value):g} is a count or a percentage: return a fraction of the "
            "samples",
        )
        return float(value)

    all_copied, none = share(copies), share(fresh)
    after = (copies, training, held_out)
    expect(
        all(torch.equal(a, b) for a, b in zip(after, before, strict=True)),
        "your function changes the images that it was given",
    )
    reject(
        all_copied < 0.01 and none > 0.9,
        "copies give 0 and fresh samples 1: you return the fraction that is not copied",
    )
    reject(
        none > 0.5,
        f"of fresh samples {none:.0%} are called copies: the limit is too far. "
        "Take the 1 % quantile of the held-out distances, not their mean or maximum",
    )
    reject(
        share(held_out[:300]) > 0.5,
        "held-out images themselves are called copies: compare samples with the "
        "training images; the held-out ones only tell what distance is normal",
    )
    reject(
        close(all_copied, 0) and close(none, 0),
        "not even exact copies are found: do you compare each training image with "
        "itself, or take the largest distance in place of the nearest?",
    )
    expect(
        close(all_copied, 1),
        f"250 exact copies: the fraction must be 1, yours is {all_copied:.2f}",
    )
    half = torch.cat([copies[:150], fresh[:150]])
    expect(
        0.49 <= share(half) <= 0.56,
        f"of 150 copies and 150 fresh samples, half are copies; yours: "
        f"{share(half):.2f}",
    )
    near = copies + 0.02 * fresh[:250]
    expect(
        share(near) > 0.95,
        "copies with a little noise on them must be found too: a distance of 0 is not "
        "the test",
    )
    reject(
        share(held_out[:300]) == 0 and none < 0.003,
        "hardly any held-out image falls below your limit: it is their minimum, which "
        "one odd image can set to 0. Take the 1 % quantile",
    )
    expect(
        none <= 0.03,
        f"about 1 % of fresh samples lie nearer than 99 % of the held-out images; "
        f"yours: {none:.1%}. Is your limit another quantile, such as 5 %?",
    )
    return "copies, noisy copies, half of each, and fresh samples from the same source"
