"""Feedback for the exercises of chapter 05, forward diffusion."""

from collections.abc import Callable

import torch
from torch import Tensor

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)
from ddpm_core.schedules import (
    cosine_schedule,
    linear_schedule,
    rescale_zero_terminal_snr,
)


def _first(condition: Tensor) -> int:
    """The first timestep at which a condition holds."""
    return int(condition.nonzero()[0])


def _number(value: object) -> float:
    """Return a number, or a tensor with one number in it, as a float."""
    expect_given(value)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
    return expect(False, f"the function must return one number, not a {kind}")


def _tensor(value: object, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of that shape; a list or tuple of numbers is one, too."""
    if isinstance(value, list | tuple):
        value = torch.as_tensor([float(v) for v in value], dtype=torch.float64)
    return expect_tensor(value, shape)


def _expect_untouched(before: Tensor, after: Tensor, name: str) -> None:
    """End the check if the function has changed its argument."""
    expect(
        torch.equal(before, after),
        f"your function changes its argument {name}: compute a new tensor instead of "
        "changing the given one in place",
    )


def _expect_given_noise(draw: Callable[[Tensor], Tensor], eps: Tensor) -> None:
    """End the check unless draw(eps) depends on eps and on no other randomness."""
    reject(
        not close(draw(eps), draw(eps)),
        "two calls with the same arguments give different results: the noise is given "
        "as eps, so do not draw any inside the function",
    )
    reject(
        close(draw(eps), draw(-eps)),
        "eps makes no difference to your result: it is the noise to add",
    )


@exercise
def check_noise_std(noise_std):
    """b in x' = a x + b eps such that a variance of 1 stays 1."""
    for a in (0.99, 0.8, 0.3):
        b = _number(noise_std(a))
        reject(
            close(b, 1 - a**2),
            f"at a = {a} you return the variance 1 - a^2 of the noise; eps is "
            "multiplied by its standard deviation",
        )
        reject(
            close(b, 1 - a),
            f"at a = {a} you return 1 - a, so that a + b = 1; but variances add, and "
            "standard deviations do not: a^2 + b^2 must be 1",
        )
        reject(
            close(b, (1 - a) ** 0.5),
            f"at a = {a} you return sqrt(1 - a), as if a were the fraction of the "
            "variance that is kept; a multiplies the image, so that fraction is a^2",
        )
        reject(
            close(b, -((1 - a**2) ** 0.5)),
            "the size is right, but a standard deviation is never negative",
        )
        expect(
            close(a**2 + b**2, 1),
            f"at a = {a} the variance after the step is a^2 + b^2 = {a**2 + b**2:.4f}, "
            "not 1",
        )
    expect(
        close(_number(noise_std(1.0)), 0),
        "with a = 1 there is no room for noise: b = 0",
    )
    expect(
        close(_number(noise_std(0.0)), 1),
        "with a = 0 nothing of the image is left, and all the variance is noise: b = 1",
    )
    return "the variance stays 1 for a = 0.99, 0.8 and 0.3, and at both ends, 0 and 1"


@exercise
def check_beta_from_alpha_bar(beta_from_alpha_bar):
    """beta_1..beta_T from alpha_bar_0..alpha_bar_T."""
    ab = torch.tensor([1, 0.9, 0.72, 0.36], dtype=torch.float64)
    given = ab.clone()
    result = beta_from_alpha_bar(given)
    expect_given(result)
    _expect_untouched(ab, given, "alpha_bar")
    reject(
        hasattr(result, "__len__") and len(result) == 4,
        "the 4 timesteps 0 to 3 have 3 steps between them: no step leads to t = 0",
    )
    beta = _tensor(result, (3,))
    alpha = ab[1:] / ab[:-1]
    mistakes = {
        "this is 1 - alpha_bar_t, all the noise that is in x_t; beta_t is what step t "
        "alone adds": 1 - ab[1:],
        "these are the alpha_t, the fraction of the variance that each step keeps; "
        "beta_t is the remainder, 1 - alpha_t": alpha,
        "you subtract neighbours: alpha_bar is a product, so a single step is a "
        "quotient": ab[:-1] - ab[1:],
        "your fraction is upside down: alpha_bar falls, so alpha_t = alpha_bar_t / "
        "alpha_bar_{t-1} lies below 1": 1 - 1 / alpha,
        "this is the root of beta_t, which multiplies the noise; beta_t itself is its "
        "variance": (1 - alpha).sqrt(),
        "you take the root of alpha_t first: beta_t = 1 - alpha_t, without a root": 1
        - alpha.sqrt(),
        "this is -log(alpha_t), which agrees with beta_t only while beta_t is small: "
        "beta_t = 1 - alpha_t": -alpha.log(),
        "the values are right, but in reverse order: beta_1 comes first": (
            1 - alpha
        ).flip(0),
    }
    for hint, mistaken in mistakes.items():
        reject(close(beta, mistaken), hint)
    expect(
        close(beta, 1 - alpha),
        f"for alpha_bar = 1, 0.9, 0.72, 0.36 by hand: 0.1, 0.2, 0.5; yours: "
        f"{', '.join(f'{v:.4g}' for v in beta.tolist())}",
    )
    linear, cosine = linear_schedule(512), cosine_schedule(512)
    expect(
        close(
            _tensor(beta_from_alpha_bar(linear.alpha_bar), (512,)),
            linear.beta[1:],
            1e-6,
        ),
        "three steps are right, but those of the linear schedule are not: is a value "
        "rounded?",
    )
    last = _tensor(beta_from_alpha_bar(cosine.alpha_bar), (512,))[-1]
    expect(
        close(last, 0.999),
        f"the last beta of the cosine schedule is its cap, 0.999, not {last:.4f}",
    )
    zero = rescale_zero_terminal_snr(linear)
    last = _tensor(beta_from_alpha_bar(zero.alpha_bar), (512,))[-1]
    expect(
        close(last, 1.0, 1e-6),
        f"where alpha_bar ends at 0 the last beta is 1, not {last:.4f}: nothing is cut "
        "off, because the last step replaces the image by noise",
    )
    return "a case by hand, the linear schedule, and the ends of cosine and of SNR 0"


@exercise
def check_add_noise(add_noise):
    """x_t from x0, alpha_bar, t and eps: the bug clinic."""
    cases = (
        ((4, 3, 8, 8), cosine_schedule(100), [10, 30, 50, 80]),
        ((2, 1, 6, 4), linear_schedule(60, 1e-3, 0.2), [59, 7]),
    )
    for shape, schedule, timesteps in cases:
        _check_noised(add_noise, shape, schedule.alpha_bar, torch.tensor(timesteps))
    return "the factors of image and noise, each image's own t, t = 0 and two shapes"


def _check_noised(add_noise, shape: tuple[int, ...], ab: Tensor, t: Tensor) -> None:
    x0, eps = random_numbers(*shape), random_numbers(*shape, seed=1)
    zero, given = torch.zeros_like(x0), x0.clone()
    noised = expect_tensor(add_noise(given, ab, t, eps), shape)
    _expect_untouched(x0, given, "x0")
    _expect_given_noise(
        lambda eps: expect_tensor(add_noise(x0, ab, t, eps), shape), eps
    )
    signal = expect_tensor(add_noise(x0, ab, t, zero), shape)
    noise = expect_tensor(add_noise(zero, ab, t, eps), shape)
    kept, before = (ab[i].view(-1, 1, 1, 1) for i in (t, t - 1))
    mistakes = (
        (
            noise,
            (1 - kept) * eps,
            "the noise comes out with the standard deviation 1 - alpha_bar; that is "
            "its variance, and eps is multiplied by the root of it",
        ),
        (
            noise,
            (1 - kept.sqrt()) * eps,
            "you multiply eps by 1 - sqrt(alpha_bar): subtract first, then take the "
            "root, because variances add up to 1",
        ),
        (
            signal,
            kept * x0,
            "the image is multiplied by alpha_bar; take its root, because alpha_bar "
            "is a fraction of the variance",
        ),
        (
            noise,
            kept.sqrt() * eps,
            "image and noise have each other's factors: late timesteps must be the "
            "noisy ones",
        ),
        (
            signal,
            ab[t[0]].sqrt() * x0,
            "all images get the timestep of the first: each has its own in t",
        ),
        (
            signal,
            before.sqrt() * x0,
            "you read alpha_bar at t - 1: the tensor begins with t = 0, so that "
            "alpha_bar[t] is the one of timestep t",
        ),
        (
            signal,
            (kept / before).sqrt() * x0,
            "you make one step of the chain, with alpha_t; from x_0 to x_t the factor "
            "is the root of the product, alpha_bar_t",
        ),
    )
    for seen, mistaken, hint in mistakes:
        reject(close(seen, mistaken), hint)
    expect(
        close(signal, kept.sqrt() * x0),
        "without noise the result must be sqrt(alpha_bar_t) x0, with each image's "
        "own t",
    )
    expect(
        close(noise, (1 - kept).sqrt() * eps),
        "without an image the result must be sqrt(1 - alpha_bar_t) eps, with each "
        "image's own t",
    )
    expect(
        close(noised, signal + noise),
        "image and noise are right by themselves, but not together: x_t is their sum, "
        "neither clipped nor scaled",
    )
    start = torch.zeros(len(t), dtype=torch.long)
    expect(close(add_noise(x0, ab, start, eps), x0), "at t = 0 the result must be x0")


@exercise
def check_jump(jump):
    """x_t from x_s, for 0 <= s < t, in one go."""
    cases = (
        (linear_schedule(100, 1e-3, 0.1), ((20, 50), (49, 50), (0, 50))),
        (cosine_schedule(40), ((5, 30),)),
    )
    for schedule, pairs in cases:
        for s, t in pairs:
            _check_jumped(jump, schedule.alpha_bar, s, t)
    _check_images(jump, linear_schedule(100, 1e-3, 0.1).alpha_bar)
    return "signal and noise of x_t from s = 20, from one step before, and from x0"


def _check_jumped(jump, ab: Tensor, s: int, t: int) -> None:
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    where = f"from s = {s} to t = {t}"
    result = jump(one, ab, s, t, none)
    reject(
        isinstance(result, Tensor) and bool(result.isnan().any()),
        f"{where} the result is NaN, the root of a negative number: alpha_bar falls, "
        "so the fraction alpha_bar_t / alpha_bar_s is the one below 1",
    )
    expect_tensor(result, (1,))
    _expect_given_noise(lambda eps: expect_tensor(jump(none, ab, s, t, eps), (1,)), one)
    kept = result.item()
    added = jump(none, ab, s, t, one).item()
    reject(
        s > 0 and close(kept, ab[t].sqrt()),
        f"{where} you scale by sqrt(alpha_bar_t), as if x_s were clean; it has "
        "been scaled by sqrt(alpha_bar_s) already",
    )
    reject(
        close(kept, ab[t] / ab[s]),
        f"{where} you scale the image by alpha_bar_t / alpha_bar_s, a fraction of the "
        "variance; the image is multiplied by its root",
    )
    reject(
        t > s + 1 and close(kept, (ab[t] / ab[t - 1]).sqrt()),
        f"{where} you make one step only, with alpha_t; the jump has the product of "
        "alpha_{s+1} to alpha_t",
    )
    expect(
        close(kept * ab[s].sqrt(), ab[t].sqrt()),
        f"{where} the image must end with the factor sqrt(alpha_bar_t) = "
        f"{ab[t].sqrt():.4f}, but has {kept * ab[s].sqrt():.4f}",
    )
    reject(
        s > 0 and close(added**2, ab[s] - ab[t]),
        f"{where} you add the variance alpha_bar_s - alpha_bar_t; but the noise "
        "that x_s has shrinks too, so there is room for more",
    )
    reject(
        close(added, 1 - ab[t] / ab[s]),
        f"{where} you multiply eps by a variance: is a root missing?",
    )
    reject(
        s > 0 and close(added**2, 1 - ab[t]),
        f"{where} you add the variance 1 - alpha_bar_t, as if x_s had no noise yet: "
        "together they have too much",
    )
    total = kept**2 * (1 - ab[s]) + added**2
    expect(
        close(total, 1 - ab[t]),
        f"{where} the noise must end with the variance 1 - alpha_bar_t = "
        f"{1 - ab[t]:.4f}, but has {total:.4f}",
    )
    expect(added > 0, f"{where} eps is subtracted: a standard deviation is positive")


def _check_images(jump, ab: Tensor) -> None:
    x, eps = random_numbers(2, 3, 4, 6), random_numbers(2, 3, 4, 6, seed=1)
    given, kept = x.clone(), ab[50] / ab[20]
    result = expect_tensor(jump(given, ab, 20, 50, eps), x.shape)
    _expect_untouched(x, given, "x_s")
    expect(
        close(result, kept.sqrt() * x + (1 - kept).sqrt() * eps),
        "single numbers come out right, but a batch of images does not",
    )


@exercise
def check_time_at_snr(time_at_snr):
    """The first t at which the SNR has fallen to so many decibels or below."""
    for schedule, levels in (
        (cosine_schedule(1000), (-2.0, 20.0, 0.0, -20.0)),
        (linear_schedule(300, 1e-3, 0.05), (15.0, -5.0)),
    ):
        for level in levels:
            _check_timestep(time_at_snr, schedule.alpha_bar, level)
    exact = torch.tensor([1, 0.9, 0.5, 0.1], dtype=torch.float64)
    t = _number(time_at_snr(exact, 0.0))
    expect(
        t == 2,
        f"with alpha_bar = 1, 0.9, 0.5, 0.1 the SNR is exactly 0 dB at t = 2, and that "
        f"counts: the level or less; you return {t:g}",
    )
    return "20, 0 and -20 dB on a cosine schedule, two on a linear one, a level exactly"


def _check_timestep(time_at_snr, ab: Tensor, level: float) -> None:
    snr = ab / (1 - ab)
    decibels = 10 * snr.log10()
    mistakes = {
        "you take 20 log10: that is for amplitudes, but SNR is a ratio of variances "
        "and needs 10 log10": 20 * snr.log10(),
        "you leave out the factor 10: ten decibels are one power of ten": snr.log10(),
        "you take the natural logarithm: decibels count powers of ten": 10 * snr.log(),
        "you measure alpha_bar itself: SNR is alpha_bar / (1 - alpha_bar)": 10
        * ab.log10(),
        "your ratio is upside down: the signal's variance, alpha_bar, is on top": -10
        * snr.log10(),
    }
    first = _first(decibels <= level)
    try:
        t = time_at_snr(ab, level)
    except IndexError:
        t = torch.tensor([])
    expect_given(t)
    reject(
        torch.as_tensor(t).numel() == 0,
        f"at {level:g} dB you find no timestep at all: have you compared the ratio "
        "itself with the level? In decibels it falls below 0",
    )
    n = torch.as_tensor(t).numel()
    expect(n == 1, f"return one timestep, the first, not {n} of them")
    t = _number(t)
    expect(t == round(t), f"a timestep is a whole number, not {t:g}")
    for hint, mistaken in mistakes.items():
        hits = (mistaken <= level).nonzero()
        reject(len(hits) > 0 and t == int(hits[0]) != first, hint)
    reject(
        t == first - 1,
        f"at {level:g} dB you return t = {t:g}, one too early: the SNR there is "
        f"still {decibels[first - 1]:.3f} dB. Does your count start at t = 1, or "
        "is it the nearest timestep?",
    )
    reject(
        t == first + 1,
        f"at {level:g} dB you return t = {t:g}, one too late: the SNR is at "
        f"{decibels[first]:.3f} dB already at t = {first}",
    )
    expect(
        t == first,
        f"at {level:g} dB the first timestep is t = {first}, where the SNR is "
        f"{decibels[first]:.3f} dB; you return t = {t:g}",
    )


@exercise
def check_shift_for_resolution(shift_for_resolution):
    """alpha_bar whose SNR is divided by factor^2 at every t."""
    for schedule in (cosine_schedule(50), linear_schedule(50, 2e-3, 0.4)):
        for factor in (2, 3):
            _check_shifted(shift_for_resolution, schedule.alpha_bar, factor)
        ab = schedule.alpha_bar
        expect(
            close(_tensor(shift_for_resolution(ab, 1), ab.shape), ab),
            "with factor = 1 nothing must change",
        )
    zero = rescale_zero_terminal_snr(linear_schedule(50, 2e-3, 0.4)).alpha_bar
    last = _tensor(shift_for_resolution(zero, 2), zero.shape)[-1]
    expect(
        abs(last) < 1e-9,
        f"a schedule that ends at alpha_bar_T = 0 must still end there, not at "
        f"{last:.3g}",
    )
    return (
        "the SNR falls to 1/4 and 1/9 at every t, both ends stay in place, and "
        "factor = 1 changes nothing"
    )


def _check_shifted(shift_for_resolution, ab: Tensor, factor: int) -> None:
    given, f2 = ab.clone(), factor**2
    shifted = shift_for_resolution(given, factor)
    _expect_untouched(ab, given, "alpha_bar")
    reject(
        isinstance(shifted, Tensor) and bool(shifted.isnan().any()),
        "the result holds NaN: at t = 0 the SNR is infinite. Solve for the "
        "new alpha_bar on paper first, then the SNR cancels",
    )
    shifted = _tensor(shifted, ab.shape)
    reject(
        shifted.min() < 0,
        "alpha_bar becomes negative: if only the noise's part is multiplied by "
        "factor^2, the two parts no longer add up to 1. Divide by their sum",
    )
    expect(
        close(shifted[0], 1.0, 1e-9),
        f"alpha_bar_0 must stay 1, not {shifted[0]:.4f}: the clean image has no "
        "noise at any size. Change the odds alpha_bar : (1 - alpha_bar) instead",
    )
    ratio = (shifted / (1 - shifted) / (ab / (1 - ab)))[1:]
    mistakes = {
        f"you divide the SNR by {factor}: a pixel of the small image is the mean of "
        f"{factor} x {factor}, and the mean of {f2} noises has 1/{f2} of the "
        "variance": 1 / factor,
        f"you divide the SNR by 2 * factor = {2 * factor}: a block has factor^2 "
        "pixels": 1 / (2 * factor),
        f"you multiply the SNR by {f2}: the large image needs more noise, not less": f2,
        f"you divide the SNR by factor^4 = {f2**2}: it is a ratio of variances "
        "already, so square the factor once": 1 / f2**2,
    }
    for hint, mistaken in mistakes.items():
        wrong = not close(mistaken, 1 / f2)
        reject(wrong and close(ratio, torch.full_like(ratio, mistaken)), hint)
    expect(
        close(ratio, torch.full_like(ratio, 1 / f2)),
        f"with factor = {factor} the SNR must be divided by {f2} at every t; yours is "
        f"divided by {1 / ratio.max():.4g} to {1 / ratio.min():.4g}",
    )
