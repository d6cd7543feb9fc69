"""Feedback for the exercises of chapter 13, beyond DDPM."""

from math import sqrt

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


@exercise
def check_score_from_noise(score_from_noise):
    """The score of x_t from the estimated noise."""
    eps_hat = random_numbers(5, 2)
    for ab in (0.2, 0.75):
        s = sqrt(1 - ab)
        score = expect_tensor(score_from_noise(eps_hat, ab), eps_hat.shape)
        right = close(score, -eps_hat / sqrt(1 - ab))
        reject(
            close(score, eps_hat / sqrt(1 - ab)),
            "that leads away from the data: the score points against the noise",
        )
        reject(
            close(score, -eps_hat / (1 - ab)),
            "eps has unit variance, the noise in x_t is s eps: one s is too many",
        )
        reject(
            close(score, -eps_hat / sqrt(ab)),
            "that divides by the signal's factor a: it is the noise's, s",
        )
        reject(
            close(score, -eps_hat * s),
            "that multiplies by s: the score is steeper where there is less noise",
        )
        expect(right, f"at alpha_bar = {ab} this is not equation (2)")
    return "two levels of noise"


@exercise
def check_langevin(langevin):
    """A step whose walkers keep the density whose score they follow."""
    x, score, noise = (random_numbers(400, seed=i) for i in range(3))
    for size in (0.01, 0.3):
        new = expect_tensor(langevin(x, score, size, noise), x.shape)
        right = close(new, x + size * score + sqrt(2 * size) * noise)
        reject(
            close(new, x + size * score + sqrt(size) * noise),
            "this noise has the variance `size`: the walkers end too close together",
        )
        reject(
            close(new, x + size * score + 2 * size * noise),
            "2 size is the variance of the noise: its root multiplies",
        )
        reject(
            close(new, x + size / 2 * score + sqrt(size) * noise),
            "that is a step of half the size: the score is multiplied by `size` itself",
        )
        reject(
            close(new, x - size * score + sqrt(2 * size) * noise),
            "this goes downhill: the score points to where the density grows",
        )
        reject(
            close(new, x + size * score),
            "without noise all walkers end on top of the hills",
        )
        expect(right, f"at size {size} this is not equation (3)")
    return "uphill by `size`, with noise of variance 2 `size`"


@exercise
def check_from_velocity(from_velocity):
    """Both parts of x_t from the velocity."""
    x0, eps = random_numbers(6, 3), random_numbers(6, 3, seed=1)
    for ab in (0.6, 0.3, 1.0, 0.0):
        a, s = sqrt(ab), sqrt(1 - ab)
        x_t, v = a * x0 + s * eps, a * eps - s * x0
        found = from_velocity(x_t, v, ab)
        expect_given(found)
        expect(
            isinstance(found, (tuple, list)) and len(found) == 2,
            "return a pair: x0_hat, eps_hat",
        )
        reject(
            any(not torch.as_tensor(part).isfinite().all() for part in found),
            f"at alpha_bar = {ab} there is a division by 0: a and s turn (x_t, v) back "
            "without any division",
        )
        x0_hat, eps_hat = (expect_tensor(part, x0.shape) for part in found)
        reject(
            close(x0_hat, eps) and close(eps_hat, x0) and not close(x0, eps),
            "the pair is in the wrong order: x0_hat comes first",
        )
        reject(
            close(x0_hat, a * x_t + s * v) and not close(x0_hat, x0),
            "the sign of v_hat is wrong: that turns (x_t, v) further, not back",
        )
        expect(
            close(x0_hat, x0),
            f"at alpha_bar = {ab} x0_hat is not x0: a and s turn (x0, eps) into "
            "(x_t, v) as a rotation; turn it back",
        )
        reject(
            close(eps_hat, s * x_t - a * v) and not close(eps_hat, eps),
            "x0_hat is right, but the sign of v_hat in eps_hat is not",
        )
        expect(
            close(eps_hat, eps),
            f"x0_hat is right, but eps_hat is not at alpha_bar = {ab}: no division is "
            "needed, and none by a works at alpha_bar = 0",
        )
    return "clean, twice between, and in pure noise"


@exercise
def check_velocity_weight(velocity_weight):
    """The factor of the v-loss that makes it min(SNR, gamma) on x0_hat."""
    snr = torch.tensor([0.0, 0.1, 1.0, 5.0, 80.0, 1e4], dtype=torch.float64)
    for gamma in (5.0, 0.5):
        weight = expect_tensor(velocity_weight(snr, gamma), snr.shape)
        capped = snr.clamp(max=gamma)
        reject(
            close(weight, capped),
            "that is the weight of x0_hat's error; the v-loss has 1 + SNR already",
        )
        reject(
            close(weight[1:], (capped / snr)[1:]),
            "that is the factor for eps, whose loss has the weight SNR by itself",
        )
        reject(
            close(weight, (snr / (1 + snr)).clamp(max=gamma)),
            "SNR / (1 + SNR) never exceeds 1, so that nothing is capped: cap SNR, "
            "then divide",
        )
        reject(
            close(weight, snr.clamp(min=gamma) / (1 + snr)),
            "the smaller of the two is wanted, this takes the larger",
        )
        expect(close(weight, capped / (1 + snr)), "the weight of x0_hat is not right")
    return "six ratios, from no signal to hardly any noise"


@exercise
def check_on_the_line(on_the_line):
    """From x_t to the point of the straight line, and how far along it is."""
    x0, eps = random_numbers(6, 3), random_numbers(6, 3, seed=1)
    for ab in (1.0, 0.8, 0.3, 0.0):
        a, s = sqrt(ab), sqrt(1 - ab)
        found = on_the_line(a * x0 + s * eps, ab)
        expect_given(found)
        expect(
            isinstance(found, (tuple, list)) and len(found) == 2,
            "return a pair: the point, and the fraction of the line",
        )
        point, share = expect_tensor(found[0], x0.shape), float(found[1])
        reject(
            close(share, 1 - ab) and 0 < ab < 1,
            "1 - alpha_bar is the noise's part of the variance, not of the line",
        )
        reject(
            close(share, s) and 0 < ab < 1,
            "s and a do not add up to 1: divide both by their sum",
        )
        expect(
            close(share, s / (a + s)), f"at alpha_bar = {ab} the fraction is not right"
        )
        expect(
            close(point, (1 - share) * x0 + share * eps),
            "the fraction is right, the point is not: scale x_t by the same sum",
        )
    return "the fraction of the noise, and the point, at four levels"


@exercise
def check_preconditioning(preconditioning):
    """Karras' three factors, as functions of sigma."""
    for sigma, sigma_data in ((0.1, 0.5), (2.0, 0.5), (1.0, 1.0)):
        found = preconditioning(sigma, sigma_data)
        expect_given(found)
        expect(
            hasattr(found, "__len__") and len(found) == 3,
            "return three numbers: c_skip, c_out, c_in",
        )
        c_skip, c_out, c_in = (float(c) for c in found)
        total = sigma**2 + sigma_data**2
        reject(
            close(c_in, 1 / total),
            "c_in makes a variance 1: divide by the standard deviation, not by it",
        )
        expect(close(c_in, 1 / sqrt(total)), "c_in must make c_in x_bar of variance 1")
        off = (1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2
        reject(
            close(c_skip, sigma**2 / total) and not close(sigma, sigma_data),
            "that fraction is the noise's: at small sigma x_bar is nearly x0, c_skip 1",
        )
        expect(
            close(c_skip, sigma_data**2 / total),
            "what c_skip leaves over for the network is not as small as it can be",
        )
        expect(
            close(c_out, sqrt(off)),
            "c_out must be the spread of what c_skip leaves over, so that F has 1",
        )
    return "unit input, unit target, and the smallest rest, at three levels"


@exercise
def check_shortcut(shortcut):
    """The x0 for which one DDIM step leads from x_t to a given x_u."""
    x_t, x_u = random_numbers(6, 3), random_numbers(6, 3, seed=1)
    for ab_t, ab_u in ((0.2, 0.7), (0.0, 0.5), (0.4, 1.0)):
        x0 = expect_tensor(shortcut(x_t, x_u, ab_t, ab_u), x_t.shape)
        reject(
            close(x0, x_u) and ab_u < 1,
            "x_u still holds noise: x0 lies further along the line",
        )
        naive = (x_u - sqrt(1 - ab_u) * x_t) / sqrt(ab_u)
        reject(
            close(x0, naive) and ab_t > 0 and ab_u < 1,
            "that takes x_t for pure noise: at t it holds some signal",
        )
        (a_t, s_t), (a_u, s_u) = ((sqrt(ab), sqrt(1 - ab)) for ab in (ab_t, ab_u))
        below = s_t * a_u + s_u * a_t
        reject(
            close(x0, (s_t * x_u + s_u * x_t) / below) and ab_u < 1,
            "a sign is wrong: the noise that x_t and x_u share must cancel",
        )
        eps = (x_t - sqrt(ab_t) * x0) / sqrt(1 - ab_t)
        there = sqrt(ab_u) * x0 + sqrt(1 - ab_u) * eps
        expect(
            close(there, x_u),
            f"from alpha_bar = {ab_t} to {ab_u} a DDIM step with this x0 does not "
            "end in x_u",
        )
    return "DDIM's step goes there: from noise, between, and to the end"
