"""Feedback for the exercises of chapter 11, latent diffusion."""

from math import floor, sqrt

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
from ddpm_core.latent import perceptual_distance


def _pair(value: object, what: str) -> tuple:
    """Return the two parts of an answer, or end the check."""
    expect_given(value)
    expect(
        isinstance(value, (tuple, list)) and len(value) == 2,
        f"return two things, {what}",
    )
    return tuple(value)


@exercise
def check_compression(compression):
    """Positions and values of a few autoencoders."""
    for size, f, c in ((512, 8, 4), (256, 4, 3), (512, 8, 16), (32, 4, 4), (96, 4, 5)):
        positions, values = _pair(compression(size, f, c), "positions and values")
        right = close(positions, f * f), close(values, 3 * f * f / c)
        where = f"for size = {size}, f = {f}, c = {c} "
        reject(
            not right[0] and close(positions, f),
            where + "the side shrinks f times; positions lie on a square",
        )
        reject(
            not any(right) and close(positions, 3 * f * f / c),
            where + "positions come first, then values",
        )
        reject(
            not right[1] and close(values, 3 * f * f // c),
            where + f"it is {3 * f * f / c:g}: the ratio need not be a whole number",
        )
        for mistake, hint in (
            (f * f, "you forget the channels: 3 before, c after"),
            (f * f / c, "pixels have 3 channels each, which is part of the saving"),
            (c * f * f / 3, "channels are upside down: more channels save less"),
        ):
            reject(not right[1] and close(values, mistake), where + hint)
        expect(right[0], where + f"positions are {f * f} times fewer")
        expect(right[1], where + f"values are {3 * f * f / c:g} times fewer")
    return (
        "Stable Diffusion 1 and 3, the first latent models, ours, and a ratio that is "
        "no whole number"
    )


@exercise
def check_channel_scales(channel_scales):
    """Mean and standard deviation of each channel."""
    size = torch.tensor([1.0, 4.0, 0.5]).view(3, 1, 1)
    own = random_numbers(40, 3, 1, 1, seed=1)  # what the positions of an image share
    z = (random_numbers(40, 3, 4, 5) + own) * size
    z = z + torch.tensor([0.0, -2.0, 7.0]).view(3, 1, 1)
    mean, std = _pair(channel_scales(z), "mean and standard deviation")
    reject(
        isinstance(mean, torch.Tensor) and mean.shape == (3, 4, 5),
        "that is one mean a position: a channel has the same scale everywhere",
    )
    reject(
        isinstance(mean, torch.Tensor) and mean.ndim == 0,
        "that is one number for all channels, as in Stable Diffusion: take one each",
    )
    reject(
        isinstance(mean, torch.Tensor) and mean.shape == (40, 3),
        "that is one mean a picture: the scale belongs to the data set",
    )
    mean, std = expect_tensor(mean, (3,)), expect_tensor(std, (3,))
    reject(
        close(std, z.var((0, 2, 3)), 0.01),
        "the second is a variance: is a root missing?",
    )
    within = z.var((2, 3)).mean(0).sqrt(), z.std((2, 3)).mean(0)
    reject(
        any(close(std, inside, 0.02) for inside in within),
        "that is the spread inside an image: images differ from each other, too, so "
        "take it over images and positions at once",
    )
    reject(
        close(std, z.mean((2, 3)).std(0), 0.02),
        "that is the spread of the images' means: positions differ, too",
    )
    expect(close(mean, z.mean((0, 2, 3))), "the means are not those of the channels")
    expect(
        close(std, z.std((0, 2, 3)), 0.01),
        "the standard deviations are not those of the channels",
    )
    return "three channels of different size, in images that differ"


@exercise
def check_round_trip(round_trip):
    """There and back with scales, and the scaled latents on the way."""
    x = 3 + 2 * random_numbers(60, 3, 2, 3)  # as wide as it has channels
    mean = torch.tensor([0.5, -4.0, 2.0], dtype=torch.float64)
    std = torch.tensor([2.0, 0.25, 1.5], dtype=torch.float64)
    out, z = _pair(
        round_trip(x, lambda v: 5 * v, lambda v: v / 5 + 1, mean, std),
        "the picture and the scaled latents",
    )
    out, z = expect_tensor(out, tuple(x.shape)), expect_tensor(z, tuple(x.shape))
    m, s = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
    right = (5 * x - m) / s
    reject(
        close(z, (5 * x - mean) / std),
        "mean and std belong to channels, axis 1: without a `view` they meet the last "
        "axis",
    )
    reject(
        close(out, right * s / 5 + 1),
        "what comes back is shifted: on the way back the mean must be added again",
    )
    reject(
        close(out, (right + m) * s / 5 + 1),
        "on the way back the mean is added after the factor, not before",
    )
    reject(close(out, x), "what comes back was not decoded: this decoder adds 1")
    reject(
        close(out, right / 5 + 1),
        "the decoder was given scaled latents: undo the scaling first",
    )
    reject(close(z, 5 * x / s - m), "take the mean away first, then divide")
    reject(
        close(z, (5 * x - m) * s),
        "scaled latents have variance 1: divide by the standard deviation",
    )
    reject(close(z, 5 * x), "the latents that you return are not scaled")
    expect(close(z, right), "the scaled latents must be (encode(x) - mean) / std")
    expect(
        close(out, x + 1),
        "what comes back must be decode(encode(x)), for the scaling is undone",
    )
    return "three channels of different scales, there and back"


@exercise
def check_effective_alpha_bar(effective_alpha_bar):
    """The alpha_bar of unit data that has the same signal-to-noise ratio."""
    for ab in (0.9, 0.5, 0.02):
        for sigma in (1.0, 5.0, 0.2):
            result = float(effective_alpha_bar(ab, sigma))
            wanted = sigma**2 * ab / (sigma**2 * ab + 1 - ab)
            wrong = not close(result, wanted)
            where = f"for alpha_bar = {ab:g} and sigma = {sigma:g} "
            reject(
                wrong and close(result, sigma**2 * ab / (1 - ab)),
                where + "that is the ratio of signal to noise: which alpha_bar has it?",
            )
            reject(
                wrong and close(result, sigma**2 * ab),
                where + "that can leave 0..1: signal and noise must sum to 1",
            )
            reject(
                wrong and close(result, sigma * ab / (sigma * ab + 1 - ab)),
                where + "the ratio is one of variances: sigma enters squared",
            )
            reject(
                wrong and close(result, ab / (ab + sigma**2 * (1 - ab))),
                where + "larger latents hold more signal, not less",
            )
            reject(
                wrong and close(result, sqrt(wanted)),
                where + "that is its root, by which the signal is multiplied",
            )
            expect(not wrong, where + f"it is {wanted:.4f}, not {result:.4f}")
    return "three timesteps, latents too large, too small, and just right"


@exercise
def check_stage_distance(stage_distance):
    """The perceptual distance of one stage."""
    a, b = random_numbers(5, 6, 3, 4), random_numbers(5, 6, 3, 4, seed=1)
    result = expect_tensor(stage_distance(a, b), (5,))
    unit = [v / v.norm(dim=1, keepdim=True) for v in (a, b)]
    off = (unit[0] - unit[1]).square()
    reject(
        close(result, (a - b).square().sum(1).mean((1, 2))),
        "strong features drown the others: bring each position's vector to length 1",
    )
    reject(
        close(result, off.sum((1, 2, 3))),
        "the sum over positions makes larger pictures more different: take their mean",
    )
    reject(
        close(result, off.mean((1, 2, 3))),
        "over channels the squares are summed, only over positions averaged",
    )
    reject(
        close(result, off.sum(1).sqrt().mean((1, 2))),
        "the difference is squared, and no root is taken",
    )
    reject(
        close(result, off.sum(1).mean((1, 2)) / 2),
        "1 - cos is half of it: unit vectors differ by |a|^2 + |b|^2 - 2 cos",
    )
    for axes, what in (
        ((2, 3), "each channel's map: it is the vector of channels at each position"),
        ((1, 2, 3), "the whole map: each position has a vector of its own"),
    ):
        u, v = (x / x.square().sum(axes, keepdim=True).sqrt() for x in (a, b))
        reject(
            any(close(result, d) for d in _reductions((u - v).square())),
            "you bring to length 1 " + what,
        )
    scaled = a * torch.tensor([3.0, 0.5, 2.0, 5.0])  # another factor at each column
    expect(
        close(stage_distance(a, scaled), 0.0),
        "a factor at a position does not change what is seen there: the distance must "
        "be 0",
    )
    expect(
        close(result, perceptual_distance([torch.nn.Identity()], a, b)),
        "this is not the squared difference of the unit vectors, summed over channels "
        "and averaged over positions",
    )
    return "factors do not matter, and the library with one stage"


def _reductions(squares: torch.Tensor) -> tuple:
    return squares.sum(1).mean((1, 2)), squares.mean((1, 2, 3)), squares.sum((1, 2, 3))


@exercise
def check_pays_from(pays_from):
    """The first step count at which latents are cheaper."""
    for pixel, latent, trained, encoded in (
        (3.0, 2.0, 10.0, 0.5),
        (0.25, 0.125, 1000.0, 100.0),
        (1.0, 0.25, 6.0, 0.0),
    ):
        fixed = trained + encoded
        result = pays_from(pixel, latent, trained, encoded)
        expect_given(result)
        wanted = floor(fixed / (pixel - latent)) + 1
        where = f"for steps of {pixel:g} s and {latent:g} s, and {fixed:g} s before, "
        reject(
            result == floor(trained / (pixel - latent)) + 1 != wanted,
            where + "the encoding is missing",
        )
        reject(
            result == floor(fixed / pixel) + 1,
            where + "latent steps cost something, too: what is saved is the difference",
        )
        steps = float(result)
        reject(
            steps == fixed / (pixel - latent) == int(steps),
            where + f"after {steps:g} steps both cost the same: one more is needed",
        )
        reject(
            not latent * steps + fixed < pixel * steps,
            where + f"after {steps:g} steps latents are not cheaper yet",
        )
        reject(steps != int(steps), where + "the answer is a whole number of steps")
        expect(
            not latent * (steps - 1) + fixed < pixel * (steps - 1) - 1e-9,
            where + f"they are cheaper before {steps:g} steps already",
        )
        expect(result == wanted, where + f"it pays from step {wanted} on")
    never = pays_from(1.0, 1.5, 10.0, 0.0)
    expect(never is None, "where latent steps cost more it never pays: return None")
    try:
        equal = pays_from(1.0, 1.0, 10.0, 0.0)
    except ZeroDivisionError:
        equal = 0
    expect(
        equal is None,
        "where both steps cost the same nothing is saved: return None, do not divide",
    )
    return "three machines, to the step, and two where it never pays"
