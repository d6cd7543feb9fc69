"""Feedback for the exercises of chapter 09, fast sampling."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)
from ddpm_core.samplers import DPMSolverPP2M, ddim_step, last, sample
from ddpm_core.schedules import cosine_schedule, linear_schedule


def _untouched(tensors: list[torch.Tensor], before: list[torch.Tensor]) -> None:
    same = all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    expect(same, "your function changes a tensor that it was given: make a new one")


@exercise
def check_even_times(even_times):
    """steps + 1 whole numbers from T down to 0."""
    for T, steps in ((1000, 20), (1000, 7), (512, 50), (10, 10), (1000, 1)):
        times = even_times(T, steps)
        expect_given(times)
        where = f"for T = {T} and {steps} steps"
        try:
            times = [float(t) for t in times]
        except TypeError:
            expect(False, f"{where} return a list of numbers, not {times!r}")
        reject(
            times == sorted(times) and len(times) > 1,
            f"{where} your timesteps rise: a sampler starts at T and ends at 0",
        )
        reject(
            len(times) == steps and times[-1] != 0,
            f"{where} the last timestep is {times[-1]:g}: without the step to 0 there "
            "is still noise in the image",
        )
        reject(
            times[0] != T,
            f"{where} you start at t = {times[0]:g}, not at T: x_T is pure noise, and "
            "the network would expect less",
        )
        reject(times[-1] != 0, f"{where} the last must be 0, not {times[-1]:g}")
        reject(
            any(t != round(t) for t in times),
            f"{where} not all are whole numbers: the model knows no others",
        )
        expect(
            len(times) == steps + 1,
            f"{where} there must be {steps + 1} timesteps, you have {len(times)}: each "
            "step has two ends",
        )
        strides = [t - u for t, u in pairwise(times)]
        expect(
            max(strides) - min(strides) <= 1,
            f"{where} the strides are between {min(strides):g} and {max(strides):g}: "
            "as even as whole numbers allow, they differ by 1 at most",
        )
    return "both ends, the number of timesteps and even strides in five cases"


@exercise
def check_ddim_from_eps(ddim_from_eps):
    """x_u from x_t and eps_hat without new noise."""
    cases = ((0.1, 0.3, (2, 3, 4, 4)), (0.5, 0.9, (5,)), (0.7, 1.0, (1, 2)))
    for t, u, shape in cases:
        x0, eps = random_numbers(*shape), random_numbers(*shape, seed=1)
        ab_t, ab_u = (torch.tensor(v, dtype=torch.float64) for v in (t, u))
        x_t = ab_t.sqrt() * x0 + (1 - ab_t).sqrt() * eps
        given, before = [x_t, eps], [x_t.clone(), eps.clone()]
        result = expect_tensor(ddim_from_eps(x_t, eps, ab_t, ab_u), x0.shape)
        _untouched(given, before)
        where = f"from alpha_bar_t = {t} to alpha_bar_u = {u}"
        reject(
            close(result, x0) and u < 1,
            f"{where} you return x0_hat: the noise that belongs to u must go back on",
        )
        reject(
            close(result, ab_u.sqrt() * x0) and u < 1,
            f"{where} the noise is gone: a DDIM step draws none, so it must keep "
            "sqrt(1 - alpha_bar_u) of the old",
        )
        reject(
            close(result, ab_u.sqrt() * x0 + (1 - ab_u) * eps) and u < 1,
            f"{where} the noise has the factor 1 - alpha_bar_u, its variance: is a "
            "root missing?",
        )
        reject(
            close(result, ab_u.sqrt() * x0 + (1 - ab_t).sqrt() * eps),
            f"{where} the image has the strength of u, but the noise still that of t",
        )
        reject(
            close(result, ab_u * x0 + (1 - ab_u).sqrt() * eps) and u < 1,
            f"{where} the image has the factor alpha_bar_u, a variance: is a root "
            "missing?",
        )
        unscaled = ab_u.sqrt() * (x_t - (1 - ab_t).sqrt() * eps)
        reject(
            close(result, unscaled + (1 - ab_u).sqrt() * eps),
            f"{where} x_t without its noise is still shrunk by sqrt(alpha_bar_t): "
            "divide by it to have x0_hat",
        )
        expect(
            close(result, ab_u.sqrt() * x0 + (1 - ab_u).sqrt() * eps),
            f"{where} an exact eps_hat must lead to the image noised to u with the "
            "same noise",
        )
    return "an image noised to t goes to the same image noised to u, and to u = 0"


@exercise
def check_mixed_step(mixed_step):
    """The DDIM step for any eta: the bug clinic."""
    schedule = cosine_schedule(50)
    x, x0_hat, noise = (random_numbers(5000, 2, 2, seed=k) for k in range(3))
    given, before = [x, x0_hat, noise], [v.clone() for v in (x, x0_hat, noise)]
    zero = torch.zeros_like(x)
    for t, u in ((50, 40), (30, 25), (10, 0)):
        ab_t, ab_u = schedule.alpha_bar[t], schedule.alpha_bar[u]
        still = (1 - ab_u).sqrt() * (x - ab_t.sqrt() * x0_hat) / (1 - ab_t).sqrt()
        for eta in (0.0, 0.5, 1.0):
            where = f"from t = {t} to u = {u} of 50 with eta = {eta}"
            right = ddim_step(schedule, x, x0_hat, t, u, noise, eta=eta)
            result = mixed_step(x, x0_hat, ab_t, ab_u, eta, noise)
            result = expect_tensor(result, x.shape)
            _untouched(given, before)
            kept = mixed_step(x, x0_hat, ab_t, ab_u, eta, zero) - ab_u.sqrt() * x0_hat
            drawn = result - kept - ab_u.sqrt() * x0_hat
            if eta == 0:
                expect(
                    close(drawn, zero),
                    f"{where} the step must not depend on the noise",
                )
            reject(
                close(drawn, zero) and eta > 0 and u > 0,
                f"{where} the step draws no noise at all",
            )
            tilde = (1 - ab_u) / (1 - ab_t) * (1 - ab_t / ab_u)
            reject(
                eta > 0 and u > 0 and close(drawn, eta * tilde * noise),
                f"{where} the noise drawn has the factor eta beta-tilde, and "
                "beta-tilde is a variance: is a root missing?",
            )
            reject(
                0 < eta < 1 and u > 0 and close(drawn, (eta * tilde).sqrt() * noise),
                f"{where} you take the root of eta as well: std = eta sqrt(beta-tilde)",
            )
            reject(
                eta > 0 and u > 0 and close(kept, still),
                f"{where} the old noise is kept whole and new noise comes on top: "
                "their variances must add up to 1 - alpha_bar_u",
            )
            reject(
                eta == 0 and u > 0 and close(kept, (1 - ab_u).sqrt() * still),
                f"{where} the old noise has the factor 1 - alpha_bar_u, a variance: is "
                "a root missing?",
            )
            reject(
                0 < eta < 1 and bool(kept.square().sum() < 0.7 * still.square().sum()),
                f"{where} the step keeps too little of the old noise: what is drawn "
                "has the variance std^2, and that much is taken away, not more",
            )
            expect(
                close(result, right),
                f"{where} the step is not the one of equations (3) and (4)",
            )
    return "three steps: eta = 0 draws nothing, and each eta keeps the variance at u"


@exercise
def check_slerp(slerp):
    """Spherical interpolation between two tensors."""
    x, other = random_numbers(3, 8, 8), random_numbers(3, 8, 8, seed=1)
    for f in (0.0, 0.25, 0.5, 1.0):
        result = expect_tensor(slerp(x, other, f), x.shape)
        line = (1 - f) * x + f * other
        inside = 0 < f < 1
        where = f"at f = {f}"
        reject(
            inside and close(result, line),
            f"{where} this is the straight line: its middle is too short",
        )
        reject(
            inside
            and close(result.norm(), x.norm())
            and close(result / result.norm(), line / line.norm()),
            f"{where} you stretch the straight line to the shell: then the pace is "
            "faster in the middle than at the ends",
        )
        reject(
            close(result, (1 - f) * other + f * x) and f != 0.5,
            f"{where} the ends are swapped: f = 0 is the first",
        )
        apart = F.cosine_similarity(x.flatten(1), other.flatten(1)).acos()
        apart = apart[:, None, None]
        by_sample = ((1 - f) * apart).sin() * x + (f * apart).sin() * other
        reject(
            inside and close(result, by_sample / apart.sin()),
            f"{where} you take an angle for each entry of the first dimension, as in a "
            "batch: the two tensors are one long vector each",
        )
        rows = F.cosine_similarity(x, other, dim=-1).acos()[..., None]
        by_rows = ((1 - f) * rows).sin() * x + (f * rows).sin() * other
        reject(
            inside and close(result, by_rows / rows.sin()),
            f"{where} you take an angle for each row: the two tensors are one long "
            "vector each, with one angle between them",
        )
        quarter = torch.tensor(f * torch.pi / 2)
        reject(
            inside and close(result, quarter.cos() * x + quarter.sin() * other),
            f"{where} you take the two to be at right angles: compute the angle",
        )
        if f in (0.0, 1.0):
            end = other if f else x
            expect(close(result, end), f"{where} the result must be the end itself")
    unit = random_numbers(2, 2, seed=2)
    for angle in (0.3, 1.5, 2.8):
        turned = torch.tensor(angle, dtype=torch.float64)
        first = torch.zeros_like(unit)
        first[0, 0] = 2.0
        second = torch.zeros_like(unit)
        second[0, 0], second[1, 1] = 2 * turned.cos(), 2 * turned.sin()
        third = slerp(first, second, 1 / 3)
        expect(
            close(third.norm(), 2.0),
            f"between two vectors of length 2 at an angle of {angle} all must have "
            f"length 2, not {third.norm():.2f}",
        )
        reached = (third * first).sum() / 4
        expect(
            close(reached, (turned / 3).cos()),
            f"a third of the way along an arc of {angle} is an angle of "
            f"{angle / 3:.2f}, not {reached.clamp(-1, 1).acos():.2f}",
        )
    theta = F.cosine_similarity(x.flatten(), other.flatten(), dim=0).acos()
    right = (0.75 * theta).sin() * x + (0.25 * theta).sin() * other
    expect(
        close(slerp(x, other, 0.25), right / theta.sin()),
        "two vectors of one length are right, two of different lengths are not: "
        "equation (12) weighs both as they are",
    )
    return "both ends, the length along the way, and even pace on three arcs"


@exercise
def check_encode(encode):
    """The deterministic sampler upwards, from an image to its noise."""
    schedule = cosine_schedule(1000)
    ab, s2 = schedule.alpha_bar, 0.25

    asked = []

    def denoise(x, t, ab=ab):
        asked.append(t)
        seen = ab[t].view(-1, *[1] * (x.ndim - 1))
        return seen.sqrt() * s2 / (seen * s2 + 1 - seen) * x

    x = 0.5 * random_numbers(50, 2)
    times = list(range(1, 1001))
    before = x.clone()
    result = expect_tensor(encode(denoise, x, ab, times), x.shape)
    _untouched([x], [before])
    reject(
        close(result, x) and not asked,
        "you return the image, and the denoiser was never called: does the loop run?",
    )
    reject(
        close(result, x) and len(asked) == 1,
        "you return the image after one call of the denoiser: does each step give x a "
        "new value?",
    )
    reject(
        close(result, x),
        "you return the image, although the denoiser was called: do you take noise off "
        "and put it on with the alpha_bar of one and the same timestep? x is at t, and "
        "goes to u",
    )
    gain = (result * x).sum() / x.square().sum()
    reject(
        bool((result - gain * x).square().mean() > 0.1 * result.square().mean()),
        "the same image should have one x_T, but yours is random: no noise is "
        "drawn on the way up either, the old is kept",
    )
    reject(
        bool(gain > 10),
        f"the image has been blown up by a factor of {gain:.0f}: eps_hat is all the "
        "noise in x_t, and the step takes it for new noise. Start from x0_hat",
    )
    reject(
        close(gain, 0.5, 0.05),
        "the image has been halved, as on the way down: take `times` as they are",
    )
    reject(
        bool(gain < 0.1),
        f"the image has been scaled down by a factor of {gain:.3f}: the noise that "
        "belongs to u must be added, not only the image scaled",
    )
    expect(
        close(result, 2 * x, 0.05),
        "the spread 0.5 of this data must become the spread 1 of noise, so each number "
        f"is doubled; yours has the factor {gain:.2f}",
    )
    few = [1, *range(50, 1001, 50)]
    code, by_hand = encode(denoise, x, ab, few), x
    for t, u in pairwise(few):
        x0_hat = denoise(by_hand, torch.full((len(x),), t))
        eps_hat = (by_hand - ab[t].sqrt() * x0_hat) / (1 - ab[t]).sqrt()
        by_hand = ab[u].sqrt() * x0_hat + (1 - ab[u]).sqrt() * eps_hat
    expect(
        close(code, by_hand),
        "with 1000 steps the run arrives, with 20 it differs from equation (3): does "
        "each step call the denoiser at t, where x is, and go to u?",
    )
    other = linear_schedule(1000).alpha_bar
    code = encode(partial(denoise, ab=other), x, other, times)
    expect(
        close(code, 2 * x, 0.1),
        "under another schedule the image does not arrive at its noise: do you take "
        "alpha_bar from the argument?",
    )
    images = random_numbers(2, 3, 4, 4)
    shape = encode(denoise, images, ab, few).shape
    expect(
        shape == images.shape,
        f"two images of the shape (2, 3, 4, 4) come back as {tuple(shape)}",
    )
    step = partial(ddim_step, schedule)
    times = [*range(1000, -1, -1)]
    back = last(sample(denoise, step, result, times))
    expect(
        close(back, x, 0.05),
        "1000 steps up and 1000 down should come back to the image; yours comes back "
        f"with the factor {(back / x).mean():.2f}",
    )
    return "each number arrives at its quantile of the noise, and comes back"


@exercise
def check_second_order_step(second_order_step):
    """One step of DPM-Solver++(2M) that has a step behind it."""
    schedule = linear_schedule(200, 1e-3, 0.1)
    ab = schedule.alpha_bar
    x, x0_hat, old = (random_numbers(3, 5, seed=k) for k in range(3))
    given, copies = [x, x0_hat, old], [v.clone() for v in (x, x0_hat, old)]
    for before, t, u in ((200, 150, 90), (100, 50, 40), (60, 50, 10)):
        args = ab[before], ab[t], ab[u]
        where = f"from t = {t} to u = {u} with the step before at {before}"
        still = ddim_step(schedule, x, x0_hat, t, u, torch.zeros_like(x))
        calm = second_order_step(x, x0_hat, x0_hat, *args)
        calm = expect_tensor(calm, x.shape)
        clock = [(v / (1 - v)).log() / 2 for v in args]
        h_before, h = clock[1] - clock[0], clock[2] - clock[1]
        doubled = ((1 - ab[u]) / (1 - ab[t])).sqrt() * x
        doubled = doubled + ab[u].sqrt() * (1 - (-2 * h).exp()) * x0_hat
        reject(
            close(calm, doubled),
            f"{where} your step is twice as long: lambda is half the logarithm of the "
            "SNR",
        )
        expect(
            close(calm, still),
            f"{where}: where the answer has not moved, the step must be DDIM's",
        )
        result = expect_tensor(second_order_step(x, x0_hat, old, *args), x.shape)
        _untouched(given, copies)
        reject(
            close(result, still),
            f"{where} you do not use the old answer: this is DDIM",
        )
        factor = ab[u].sqrt() * (1 - (-h).exp())
        slope = ((result - still) / factor / (x0_hat - old)).mean()
        want = h / h_before / 2
        reject(
            close(slope, h_before / h / 2) and not close(slope, want),
            f"{where} the ratio of the step lengths is upside down: a longer step goes "
            "further along the line",
        )
        reject(
            close(slope, 2 * want),
            f"{where} you go to the end of the step: half way is its average",
        )
        reject(
            close(slope, -want),
            f"{where} you go back towards the old answer: the line goes on from the "
            "old one through the new",
        )
        in_shares = (ab[u] - ab[t]) / (ab[t] - ab[before]) / 2
        reject(
            close(slope, in_shares, 1e-6),
            f"{where} you measure the steps in alpha_bar: the clock is lambda",
        )
        reject(
            close(slope, (h / (1 - (-h).exp()) - 1) / h_before),
            f"{where} you integrate the line exactly, which is right too, but not 2M: "
            "it goes half a step along the line, equation (11)",
        )
        expect(
            close(slope, want),
            f"{where} the new answer must move on by {want:.3f} times its last move, "
            f"yours by {slope:.3f}",
        )
        solver = DPMSolverPP2M(schedule)
        solver(x, old, before, t, torch.zeros_like(x))
        library = solver(x, x0_hat, t, u, torch.zeros_like(x))
        expect(close(result, library), f"{where} the library's step is different")
    return "DDIM where nothing moves, half a step along the line, and the library"
