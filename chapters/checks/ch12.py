"""Feedback for the exercises of chapter 12, editing."""

from math import sqrt

import torch

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_tensor,
    random_numbers,
    reject,
)


@exercise
def check_start(start):
    """An image noised to the starting timestep."""
    x0, eps = random_numbers(2, 3, 4, 4), random_numbers(2, 3, 4, 4, seed=1)
    for ab in (0.64, 0.09, 1.0):
        x = expect_tensor(start(x0, ab, eps), x0.shape)
        right = close(x, sqrt(ab) * x0 + sqrt(1 - ab) * eps)
        reject(
            close(x, x0 + sqrt(1 - ab) * eps) and not right,
            "the image keeps its full strength: x_t has less of it",
        )
        reject(
            close(x, sqrt(ab) * x0 + (1 - ab) * eps) and not right,
            "the noise has the wrong size: is its root missing?",
        )
        reject(
            close(x, sqrt(ab) * x0) and not right,
            "there is no noise in it: eps is not used",
        )
        reject(
            close(x, ab * x0 + (1 - ab) * eps) and not right,
            "variances are mixed by alpha_bar, values by its root",
        )
        reject(
            close(x, sqrt(1 - ab) * x0 + sqrt(ab) * eps) and not right,
            "image and noise have changed places",
        )
        again = close(x, start(x0, ab, eps))
        reject(not again, "two calls differ: take the noise eps, draw none of your own")
        expect(right, f"at alpha_bar = {ab} this is not x_t of equation (1)")
    return "three levels of noise, of which one is none"


@exercise
def check_put_back(put_back):
    """The known part, noised to time u, beside what was drawn."""
    x_u, x0, noise = (random_numbers(2, 3, 4, 4, seed=i) for i in range(3))
    columns = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    columns[..., :2] = True
    own = random_numbers(2, 1, 4, 4, seed=3) > 0  # each image has a mask of its own
    for ab, keep in ((0.36, columns), (0.9, own), (1.0, columns)):
        x = expect_tensor(put_back(x_u, x0, keep, ab, noise), x0.shape)
        known = sqrt(ab) * x0 + sqrt(1 - ab) * noise
        right = close(x, torch.where(keep, known, x_u))
        reject(
            close(x, torch.where(keep, x0, x_u)) and not right,
            "the known part is clean while its neighbours are noisy: noise it to u",
        )
        reject(
            close(x, torch.where(keep, x_u, known)),
            "`keep` is true where the image is known: it is used upside down",
        )
        mixed = sqrt(ab) * x0 + (1 - ab) * noise, ab * x0 + (1 - ab) * noise
        reject(
            any(close(x, torch.where(keep, m, x_u)) for m in mixed) and not right,
            "variances are mixed by alpha_bar_u, values by its root",
        )
        reject(
            close(x, sqrt(ab) * torch.where(keep, x0, x_u) + sqrt(1 - ab) * noise)
            and not right,
            "what was drawn is at the noise level of u already: noise x0 alone",
        )
        reject(close(x, known), "the whole image comes back: what was drawn is lost")
        expect(right, f"at alpha_bar_u = {ab} this is not equation (2)")
    return "three levels of noise, on both sides of two masks"


@exercise
def check_seam(seam):
    """The mean step of brightness across the border of a mask."""
    keep = torch.ones(6, 7, dtype=torch.bool)
    keep[1:4, 2:4] = False  # a hole, with a border on each of its four sides
    x = random_numbers(2, 3, 6, 7)
    up = (x[..., 1:, :] - x[..., :-1, :])[..., keep[1:] != keep[:-1]]
    side = (x[..., 1:] - x[..., :-1])[..., keep[:, 1:] != keep[:, :-1]]
    signed, rows, columns = torch.cat([up, side], -1), up.abs(), side.abs()
    right = signed.abs().mean()
    value = torch.as_tensor(seam(x, keep), dtype=torch.float64)
    expect(value.ndim == 0, "the seam is one number, the mean over all")
    reject(
        close(value, rows.mean()),
        "you look at neighbours above each other only: the border has vertical parts",
    )
    reject(
        close(value, columns.mean()),
        "you look at neighbours beside each other only: the border has level parts",
    )
    every = torch.cat(
        [
            (x[..., 1:, :] - x[..., :-1, :]).abs().flatten(),
            (x[..., 1:] - x[..., :-1]).abs().flatten(),
        ]
    ).mean()
    reject(
        close(value, every),
        "these are all neighbours: take pairs of which one is known",
    )
    for sign in (1, -1):
        down = (x[..., 1:, :] - x[..., :-1, :])[..., _falls(keep, sign)]
        right_ = (x[..., 1:] - x[..., :-1])[..., _falls(keep.T, sign).T]
        one_way = torch.cat([down, right_], -1).abs().mean()
        reject(
            close(value, one_way),
            "these are pairs whose first pixel is known, or whose second is: a hole "
            "has a border on both sides",
        )
    reject(
        close(value, signed.mean()), "steps up and down cancel: take their size first"
    )
    reject(
        close(value, (rows.mean() + columns.mean()) / 2),
        "the mean of two means counts the shorter part of the border too much: take "
        "one mean over all pairs",
    )
    reject(
        close(value, signed.square().mean()),
        "these are squared steps: take their absolute size",
    )
    expect(close(value, right), f"on random pixels it must be {right:.3f}")
    return "a hole with a border on each of its four sides"


def _falls(keep: torch.Tensor, sign: int) -> torch.Tensor:
    """Where a known pixel stands above an unknown one; for -1, below."""
    known = keep.int()
    return (known[:-1] - known[1:]) == sign


@exercise
def check_renoise(renoise):
    """Back from x_u to x_t, u < t: the forward chain over several steps."""
    x_u, noise = random_numbers(2, 3, 4, 4), random_numbers(2, 3, 4, 4, seed=1)
    for ab_t, ab_u in ((0.2, 0.5), (0.1, 0.9)):
        x = expect_tensor(renoise(x_u, ab_t, ab_u, noise), x_u.shape)
        ratio = ab_t / ab_u
        reject(
            close(x, sqrt(ab_t) * x_u + sqrt(1 - ab_t) * noise),
            "that noises a clean picture; x_u is noisy already",
        )
        reject(
            close(x, ratio * x_u + (1 - ratio) * noise),
            "variances are mixed by the ratio, values by its root",
        )
        reject(
            close(x, x_u + sqrt(1 - ratio) * noise),
            "x_u must shrink, or the variance grows with each round",
        )
        reject(
            close(x, sqrt(ratio) * x_u + sqrt(ab_u - ab_t) * noise),
            "the noise of x_u shrinks with it: more is missing than the difference of "
            "the two variances",
        )
        expect(
            close(x, sqrt(ratio) * x_u + sqrt(1 - ratio) * noise),
            "the signal left of x0 must be sqrt(ab_t), the variance in all 1",
        )
    return "signal and variance at t, for two pairs of timesteps"


@exercise
def check_step_up(step_up):
    """One step of DDIM's inversion, from x_u to x_t, with a given noise."""
    x0, eps = random_numbers(2, 3, 4, 4), random_numbers(2, 3, 4, 4, seed=1)
    for ab_u, ab_t in ((1.0, 0.8), (0.7, 0.3)):
        x_u = sqrt(ab_u) * x0 + sqrt(1 - ab_u) * eps
        x = expect_tensor(step_up(x_u, eps, ab_u, ab_t), x_u.shape)
        wanted = sqrt(ab_t) * x0 + sqrt(1 - ab_t) * eps
        reject(
            close(x, sqrt(ab_t) * x_u + sqrt(1 - ab_t) * eps) and ab_u < 1,
            "that takes x_u for a clean picture: take its noise away first",
        )
        down = (x_u - sqrt(1 - ab_t) * eps) / sqrt(ab_t)
        reject(
            close(x, sqrt(ab_u) * down + sqrt(1 - ab_u) * eps),
            "this step goes down, from t to u",
        )
        reject(
            close(x, sqrt(ab_t / ab_u) * x_u + sqrt(1 - ab_t / ab_u) * eps)
            and ab_u < 1,
            "that adds new noise to the old: here it is one and the same, eps_hat",
        )
        undivided = sqrt(ab_t) * (x_u - sqrt(1 - ab_u) * eps) + sqrt(1 - ab_t) * eps
        reject(
            close(x, undivided) and ab_u < 1,
            "without its noise x_u is sqrt(ab_u) x0, not x0",
        )
        expect(close(x, wanted), "with the true noise the step must hit x_t exactly")
    return "from a clean picture and from a noisy one"
