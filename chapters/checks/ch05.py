"""Feedback for the exercises of chapter 05, forward diffusion."""

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


def _first(condition: torch.Tensor) -> int:
    """The first time at which a condition holds."""
    return int(condition.nonzero()[0])


@exercise
def check_noise_std(noise_std):
    """b in x' = a x + b eps such that a variance of 1 stays 1."""
    for a in (0.99, 0.8, 0.3):
        b = noise_std(a)
        expect_given(b)
        b = float(b)
        reject(
            close(b, 1 - a**2),
            f"at a = {a} you return the variance 1 - a^2 of the noise; what multiplies "
            "eps is its standard deviation",
        )
        reject(
            close(b, 1 - a),
            f"at a = {a} you return 1 - a: then a + b = 1, but it is the squares that "
            "add up, because variances add and standard deviations do not",
        )
        expect(
            close(a**2 + b**2, 1),
            f"at a = {a} the variance after the step is a^2 + b^2 = {a**2 + b**2:.4f}, "
            "not 1",
        )
    expect(
        close(float(noise_std(1.0)), 0), "with a = 1 there is no room for noise: b = 0"
    )
    return "the variance stays 1 for a = 0.99, 0.8 and 0.3, and a = 1 adds no noise"


@exercise
def check_beta_from_alpha_bar(beta_from_alpha_bar):
    """beta_1..beta_T from alpha_bar_0..alpha_bar_T."""
    ab = torch.tensor([1, 0.9, 0.72, 0.36], dtype=torch.float64)
    result = beta_from_alpha_bar(ab)
    reject(
        isinstance(result, torch.Tensor) and result.shape == (4,),
        "4 times, 0 to 3, have 3 steps between them: no step leads to t = 0",
    )
    beta = expect_tensor(result, (3,))
    alpha = ab[1:] / ab[:-1]
    mistakes = {
        "this is 1 - alpha_bar_t, all the noise that is in x_t; beta_t is what step t "
        "alone adds": 1 - ab[1:],
        "these are the shares alpha_t that each step keeps; beta_t is the rest": alpha,
        "you subtract neighbours: alpha_bar is a product, so a single step is a "
        "quotient": ab[:-1] - ab[1:],
        "your fraction is upside down: alpha_bar falls, so alpha_t = alpha_bar_t / "
        "alpha_bar_{t-1} lies below 1": 1 - 1 / alpha,
        "this is the root of beta_t, which multiplies the noise; beta_t itself is its "
        "variance": (1 - alpha).sqrt(),
    }
    for hint, mistaken in mistakes.items():
        reject(close(beta, mistaken), hint)
    expect(
        close(beta, [0.1, 0.2, 0.5]),
        f"for alpha_bar = 1, 0.9, 0.72, 0.36 by hand: 0.1, 0.2, 0.5; yours: "
        f"{', '.join(f'{v:.4g}' for v in beta.tolist())}",
    )
    linear, cosine = linear_schedule(512), cosine_schedule(512)
    expect(
        close(
            expect_tensor(beta_from_alpha_bar(linear.alpha_bar), (512,)),
            linear.beta[1:],
            1e-6,
        ),
        "three steps are right, but those of the linear schedule are not: is a value "
        "rounded?",
    )
    last = beta_from_alpha_bar(cosine.alpha_bar)[-1]
    expect(
        close(last, 0.999),
        f"the last beta of the cosine schedule is its cap, 0.999, not {last:.4f}",
    )
    return "a case by hand, the linear schedule, and the cap of the cosine schedule"


@exercise
def check_add_noise(add_noise):
    """x_t from x0, alpha_bar, t and eps: the bug clinic."""
    ab = cosine_schedule(100).alpha_bar
    x0, eps = random_numbers(4, 3, 8, 8), random_numbers(4, 3, 8, 8, seed=1)
    t = torch.tensor([10, 30, 50, 80])
    zero = torch.zeros_like(x0)
    signal = expect_tensor(add_noise(x0, ab, t, zero), x0.shape)
    noise = expect_tensor(add_noise(zero, ab, t, eps), x0.shape)
    share = ab[t].view(4, 1, 1, 1)
    reject(
        close(noise, (1 - share) * eps),
        "the noise comes out with the standard deviation 1 - alpha_bar; that is its "
        "variance, and what multiplies eps is the root of it",
    )
    reject(
        close(signal, share * x0),
        "the image is multiplied by alpha_bar; take its root, for alpha_bar is a share "
        "of the variance",
    )
    reject(
        close(noise, share.sqrt() * eps),
        "image and noise have each other's factors: late times must be the noisy ones",
    )
    expect(
        close(signal, share.sqrt() * x0),
        "without noise the result must be sqrt(alpha_bar_t) x0, with each image's "
        "own t",
    )
    expect(
        close(noise, (1 - share).sqrt() * eps),
        "without an image the result must be sqrt(1 - alpha_bar_t) eps, with each "
        "image's own t",
    )
    start = torch.zeros(4, dtype=torch.long)
    expect(close(add_noise(x0, ab, start, eps), x0), "at t = 0 the result must be x0")
    return "the factors of image and noise at four times, one each image, and t = 0"


@exercise
def check_jump(jump):
    """x_t from x_s, for 0 <= s < t, in one go."""
    schedule = linear_schedule(100, 1e-3, 0.1)
    ab = schedule.alpha_bar
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for s, t in ((20, 50), (49, 50), (0, 50)):
        kept = expect_tensor(jump(one, ab, s, t, none), (1,)).item()
        added = expect_tensor(jump(none, ab, s, t, one), (1,)).item()
        where = f"from s = {s} to t = {t}"
        reject(
            s > 0 and close(kept, ab[t].sqrt()),
            f"{where} you scale by sqrt(alpha_bar_t), as if x_s were clean; it has "
            "been scaled by sqrt(alpha_bar_s) already",
        )
        expect(
            close(kept * ab[s].sqrt(), ab[t].sqrt()),
            f"{where} the image must end with the factor sqrt(alpha_bar_t) = "
            f"{ab[t].sqrt():.4f}, but has {kept * ab[s].sqrt():.4f}",
        )
        reject(
            s > 0 and close(added**2, ab[s] - ab[t]),
            f"{where} you add the variance alpha_bar_s - alpha_bar_t; but the noise "
            "that x_s has shrinks on the way, so there is room for more",
        )
        reject(
            s > 0 and close(added, 1 - ab[t] / ab[s]),
            f"{where} you multiply eps by a variance: is a root missing?",
        )
        total = kept**2 * (1 - ab[s]) + added**2
        expect(
            close(total, 1 - ab[t]),
            f"{where} the noise must end with the variance 1 - alpha_bar_t = "
            f"{1 - ab[t]:.4f}, but has {total:.4f}",
        )
    return "signal and noise of x_t from s = 20, from one step before, and from x0"


@exercise
def check_time_at_snr(time_at_snr):
    """The first t at which the SNR has fallen to so many decibels or below."""
    ab = cosine_schedule(1000).alpha_bar
    snr = ab / (1 - ab)
    decibels = 10 * snr.log10()
    mistakes = {
        "you take 20 log10: that is for amplitudes, but SNR is a ratio of variances "
        "and needs 10 log10": 20 * snr.log10(),
        "you take the natural logarithm: decibels count powers of ten": 10 * snr.log(),
        "you measure alpha_bar itself: SNR is alpha_bar / (1 - alpha_bar)": 10
        * ab.log10(),
    }
    for level in (20.0, 0.0, -20.0):
        t, first = time_at_snr(ab, level), _first(decibels <= level)
        expect_given(t)
        expect(
            torch.as_tensor(t).numel() == 1,
            f"return one time, the first, and not {torch.as_tensor(t).numel()} of them",
        )
        for hint, mistaken in mistakes.items():
            reject(int(t) == _first(mistaken <= level) != first, hint)
        reject(
            int(t) == first - 1,
            f"at {level:g} dB you give t = {int(t)}, one too early: the SNR there is "
            f"still {decibels[first - 1]:.3f} dB. Does your count start at t = 1, or "
            "is it the nearest time?",
        )
        expect(
            int(t) == first,
            f"at {level:g} dB the first time is t = {first}, where the SNR is "
            f"{decibels[first]:.3f} dB; you give t = {int(t)}",
        )
    return "the times of 20, 0 and -20 dB on a cosine schedule"


@exercise
def check_shift_for_resolution(shift_for_resolution):
    """alpha_bar whose SNR is divided by factor^2 at every t."""
    for schedule in (cosine_schedule(50), linear_schedule(50, 2e-3, 0.4)):
        ab = schedule.alpha_bar
        shifted = shift_for_resolution(ab, 2)
        reject(
            isinstance(shifted, torch.Tensor) and bool(shifted.isnan().any()),
            "the result holds NaN: at t = 0 the SNR is infinite. Solve for the "
            "new alpha_bar on paper first, then the SNR cancels",
        )
        shifted = expect_tensor(shifted, ab.shape)
        reject(
            shifted.min() < 0,
            "alpha_bar becomes negative: multiply the noise's part by factor^2 and the "
            "two parts no longer add up to 1. Divide by their sum",
        )
        expect(
            shifted[0] == 1,
            f"alpha_bar_0 must stay 1, not {shifted[0]:.4f}: the clean image has no "
            "noise at any size. Change the odds alpha_bar : (1 - alpha_bar) instead",
        )
        ratio = (shifted / (1 - shifted) / (ab / (1 - ab)))[1:]
        reject(
            close(ratio, torch.full_like(ratio, 1 / 2)),
            "you divide the SNR by 2: a pixel of the small image is the mean of 2 x 2, "
            "and the mean of 4 noises has a quarter of the variance",
        )
        reject(
            close(ratio, torch.full_like(ratio, 4.0)),
            "you multiply the SNR by 4: the large image needs more noise, not less",
        )
        expect(
            close(ratio, torch.full_like(ratio, 1 / 4)),
            "the SNR must be divided by 4 at every t; yours by "
            f"{1 / ratio.max():.4g} to {1 / ratio.min():.4g}",
        )
        expect(
            close(shift_for_resolution(ab, 1), ab),
            "with factor = 1 nothing must change",
        )
    return "the SNR falls to a quarter at every t, t = 0 stays clean, 1 changes nothing"
