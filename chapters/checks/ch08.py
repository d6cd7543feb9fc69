"""Feedback for the exercises of chapter 08, reverse diffusion."""

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
from ddpm_core.samplers import ancestral_step
from ddpm_core.schedules import cosine_schedule, linear_schedule


@exercise
def check_clean_from_eps(clean_from_eps):
    """x0_hat from x_t and eps_hat."""
    for shape, value in (((2, 3, 4, 5), 0.9), ((6, 2), 0.36), ((7,), 0.01)):
        x0, eps = random_numbers(*shape), random_numbers(*shape, seed=1)
        ab = torch.tensor(value, dtype=torch.float64)
        a, s = ab.sqrt(), (1 - ab).sqrt()
        x_t = a * x0 + s * eps
        given = x_t.clone(), eps.clone()
        result = expect_tensor(clean_from_eps(x_t, eps, ab), x0.shape)
        reject(
            not (torch.equal(x_t, given[0]) and torch.equal(eps, given[1])),
            "your function changes the tensors that it was given: make new ones",
        )
        where = f"at alpha_bar_t = {ab:.2g}"
        reject(
            close(result, x_t - s * eps),
            f"{where} the noise is gone, but the image is still shrunk by "
            "sqrt(alpha_bar_t): divide by it",
        )
        reject(
            close(result, (x_t - eps) / a),
            f"{where} you subtract eps_hat itself; x_t holds only "
            "sqrt(1 - alpha_bar_t) times it",
        )
        reject(
            close(result, (x_t - (1 - ab) * eps) / ab),
            f"{where} you use the variances alpha_bar_t and 1 - alpha_bar_t: image "
            "and noise are multiplied by the roots",
        )
        reject(
            close(result, (x_t - (1 - ab) * eps) / a),
            f"{where} the noise has the factor 1 - alpha_bar_t, its variance: is a "
            "root missing?",
        )
        reject(
            close(result, (x_t + s * eps) / a),
            f"{where} the noise is added once more: subtract it",
        )
        reject(
            close(result, (x_t - a * eps) / s),
            f"{where} the two factors are swapped: the noise has "
            "sqrt(1 - alpha_bar_t), the image sqrt(alpha_bar_t)",
        )
        expect(
            close(result, x0),
            f"{where} an image noised with eps must come back when eps_hat = eps",
        )
    return "images noised to three levels come back if eps_hat is exact"


@exercise
def check_step_mean(step_mean):
    """The mean of the reverse step from x_t and eps_hat, Ho et al. eq. (11)."""
    for schedule, shape in (
        (linear_schedule(200, 1e-3, 0.1), (3, 5)),
        (cosine_schedule(250), (2, 3, 4, 5)),
    ):
        _check_mean(step_mean, schedule, random_numbers(2, *shape))
    return "both factors at four timesteps of two schedules, and the library's step"


def _check_mean(step_mean, schedule, numbers):
    (x, eps), ab, zero = numbers, schedule.alpha_bar, 0 * numbers[0]
    for t in (1, 2, 100, 200):
        beta, alpha, s = schedule.beta[t], schedule.alpha[t], (1 - ab[t]).sqrt()
        kept = expect_tensor(step_mean(x, zero, ab, t), x.shape)
        whole = expect_tensor(step_mean(x, eps, ab, t), x.shape)
        removed = kept - whole
        right = close(removed, beta / s * eps / alpha.sqrt(), 1e-6)
        reject(
            close(kept, x * alpha.sqrt()) and not close(alpha, 1.0),
            f"at t = {t} you multiply x_t by sqrt(alpha_t): the forward step did that, "
            "and this one undoes it",
        )
        reject(
            close(removed, -beta / s * eps / alpha.sqrt(), 1e-6),
            f"at t = {t} the noise is added: subtract it",
        )
        reject(
            close(kept, x, 1e-7),
            f"at t = {t} you forget the factor 1 / sqrt(alpha_t), which undoes the "
            "shrinking of the step",
        )
        reject(
            close(kept, x / ab[t].sqrt()) and not close(ab[t], alpha),
            f"at t = {t} you divide by sqrt(alpha_bar_t): that goes all the way to "
            "x0_hat; one step undoes sqrt(alpha_t)",
        )
        expect(
            close(kept, x / alpha.sqrt()),
            f"at t = {t} with eps_hat = 0 the mean must be x_t / sqrt(alpha_t)",
        )
        reject(
            close(removed, beta.sqrt() * eps / alpha.sqrt()) and not right,
            f"at t = {t} you invert the forward step: sqrt(beta_t) is right for the "
            "noise of one step, but eps_hat is the noise of all. Is a bar missing?",
        )
        reject(
            close(removed, s * eps / alpha.sqrt()) and not right,
            f"at t = {t} you remove all the noise at once: a step removes "
            "beta_t / sqrt(1 - alpha_bar_t) of it",
        )
        reject(
            close(removed, beta / (1 - ab[t]) * eps / alpha.sqrt()) and not right,
            f"at t = {t} you divide by 1 - alpha_bar_t: is a root missing?",
        )
        expect(
            right,
            f"at t = {t} the factor of eps_hat must be "
            f"{beta / s / alpha.sqrt():.5f}; yours is "
            f"{(removed / eps).mean():.5f}",
        )
        x0_hat = (x - s * eps) / ab[t].sqrt()
        library = ancestral_step(schedule, x, x0_hat, t, t - 1, zero)
        expect(close(whole, library), f"at t = {t} the library's mean is different")


@exercise
def check_right_variance(right_variance):
    """Var(x_{t-1} | x_t) for data N(0, s2)."""
    for schedule in (linear_schedule(200, 1e-3, 0.1), cosine_schedule(250)):
        _check_right_variance(right_variance, schedule)
    return "both limits, and the variance of x_{t-1} for three kinds of data"


def _check_right_variance(right_variance, schedule):
    ab, beta = schedule.alpha_bar, schedule.beta
    tilde = (1 - ab[:-1]) / (1 - ab[1:]) * beta[1:]

    def at(t, s2):
        value = right_variance(ab, t, s2)
        expect_given(value)
        return float(value)

    reject(
        close(at(50, 0.25), beta[50], 1e-6),
        "with s2 = 0.25 you return beta_t, which is right only for s2 = 1",
    )
    reject(
        close(at(50, 0.25), tilde[49], 1e-6),
        "with s2 = 0.25 you return beta-tilde, which is right only for s2 = 0",
    )
    v = ab * 0.25 + 1 - ab
    reject(
        close(at(50, 0.25), v[50] / v[49] * beta[50], 1e-6),
        "your ratio is upside down: at t = 1 with s2 = 0 the past is certain, and the "
        "variance must be 0",
    )
    v = ab * 0.5 + 1 - ab
    reject(
        close(at(50, 0.25), v[49] / v[50] * beta[50], 1e-6),
        "s2 is the variance already: do not take its root",
    )
    v = ab * 0.25 + 1 - ab
    reject(
        close(at(50, 0.25), (v[49] / v[50] * beta[50]).sqrt(), 1e-6),
        "you return the standard deviation: Var(x_{t-1} | x_t) is its square",
    )
    reject(
        close(at(50, 0.25), v[49], 1e-6),
        "you return the variance of x_{t-1}: knowing x_t makes it smaller",
    )
    for t in (1, 50, 200):
        got = at(t, 0.0)
        expect(
            close(got, tilde[t - 1], 1e-6),
            f"for a single point, s2 = 0, it must be beta-tilde = {tilde[t - 1]:.5f} "
            f"at t = {t}, not {got:.5f}",
        )
        expect(
            close(at(t, 1.0), beta[t], 1e-6),
            f"for s2 = 1 it must be beta_t = {beta[t]:.5f} at t = {t}, not "
            f"{at(t, 1.0):.5f}",
        )
    for s2 in (0.04, 0.25, 4.0):
        v = ab * s2 + 1 - ab
        for t in (1, 50, 200):
            slope = schedule.alpha[t].sqrt() * v[t - 1] / v[t]
            total = slope**2 * v[t] + at(t, s2)
            expect(
                close(total, v[t - 1], 1e-6),
                f"the step from t = {t} must arrive at the variance {v[t - 1]:.4f} for "
                f"s2 = {s2}, but arrives at {total:.4f}",
            )


@exercise
def check_clipped_step(clipped_step):
    """A step that clips x0_hat and nothing else: the bug clinic."""
    schedule = cosine_schedule(50)
    ab = schedule.alpha_bar
    x, x0_hat, noise = (random_numbers(1000, seed=k) for k in range(3))
    library = ancestral_step(schedule, x, x0_hat.clamp(-1, 1), 40, 39, noise)
    free = ancestral_step(schedule, x, x0_hat, 40, 39, noise)
    given = x.clone(), x0_hat.clone(), noise.clone()
    result = expect_tensor(clipped_step(x, x0_hat, ab, 40, noise), x.shape)
    for name, now, before in zip(
        ("x", "x0_hat", "noise"), (x, x0_hat, noise), given, strict=True
    ):
        reject(
            not torch.equal(now, before),
            f"your step changes the {name} that it was given: use clamp, not clamp_, "
            "and no += on an argument",
        )
    quiet = clipped_step(x, x0_hat, ab, 40, 0 * noise)
    reject(
        not close(quiet, clipped_step(x, x0_hat, ab, 40, 0 * noise)),
        "two calls with the same arguments differ: use the argument `noise`, and draw "
        "none",
    )
    reject(
        close(result, quiet),
        "your step ignores `noise`: without it the samples collapse",
    )
    reject(
        bool(result.abs().max() <= 1),
        "no x_t lies outside [-1, 1]: you still clip the noisy state, whose noise must "
        "reach beyond. Which of the tensors is clean?",
    )
    reject(
        close(result, free),
        "nothing is clipped: at t = 40 an x0_hat beyond 1 goes through unchanged",
    )
    clipped_input = ancestral_step(
        schedule, x.clamp(-1, 1), x0_hat.clamp(-1, 1), 40, 39, noise
    )
    reject(
        close(result, clipped_input),
        "you clip the x that comes in: it is as noisy as the one that goes out",
    )
    wide = x0_hat.clamp(0, 1)
    reject(
        close(result, ancestral_step(schedule, x, wide, 40, 39, noise)),
        "you clip x0_hat to [0, 1]: images lie in [-1, 1]",
    )
    reject(
        close(result - quiet, schedule.beta[40].sqrt() * noise),
        "the noise has the variance beta_t; the broken step has beta-tilde, and only "
        "the clipping is to change",
    )
    expect(
        close(result, library),
        "at t = 40 the step is not the one of equations (3) and (4) with x0_hat "
        "clipped",
    )
    end = clipped_step(x, x0_hat, ab, 1, noise)
    expect(
        close(end, x0_hat.clamp(-1, 1)),
        "the step from t = 1 must end on the clipped x0_hat, without noise",
    )
    pictures = [random_numbers(2, 3, 4, 5, seed=k) for k in range(3)]
    expect_tensor(clipped_step(*pictures[:2], ab, 40, pictures[2]), pictures[0].shape)
    walk = random_numbers(4000, seed=3)
    for t in range(50, 0, -1):
        v = ab[t] * 0.04 + 1 - ab[t]
        z = random_numbers(4000, seed=100 + t)
        walk = clipped_step(walk, ab[t].sqrt() * 0.04 / v * walk, ab, t, z)
        if t == 26:
            want = (ab[25] * 0.04 + 1 - ab[25]).sqrt()
            expect(
                close(walk.std(), want, 0.1),
                f"half way the states' spread is {walk.std():.2f}, not {want:.2f}",
            )
    expect(bool(walk.abs().max() <= 1), "a finished sample lies outside [-1, 1]")
    return (
        "one step, the last step, and a whole run: noisy states reach beyond [-1, 1], "
        "images do not"
    )


@exercise
def check_walk_to_one_point(walk_to_one_point):
    """The whole run for a data set of one image, with variance beta."""
    shape = 20, 3, 8, 9
    c = random_numbers(1, *shape[1:]).clamp(-1, 1).expand(shape)
    x_T = random_numbers(*shape, seed=1)
    for schedule in (cosine_schedule(20), linear_schedule(30, 0.01, 0.4)):
        generator = torch.Generator().manual_seed(0)
        states = walk_to_one_point(x_T, c, schedule.alpha_bar, generator)
        expect_given(states)
        states, T = list(states), schedule.T
        expect(
            len(states) == T + 1,
            f"with T = {T} there are {T + 1} states, x_T and x_0 included; you return "
            f"{len(states)}",
        )
        states = [expect_tensor(x, shape) for x in states]
        _check_ends(states, x_T, c, schedule)
        _check_steps(states, c, schedule)
        off = (states[-1] - c).std()
        expect(
            close(states[-1], c, 1e-8),
            f"the sample is {off:.3f} away from c; at t = 1 the step must land on c",
        )
        _check_generator(walk_to_one_point, states, (x_T, c), schedule, generator)
    return (
        "two schedules: each step but the last draws new noise of variance beta_t "
        "from the generator, and the last lands on c"
    )


def _check_ends(states, x_T, c, schedule):
    reject(
        close(states[0], c, 1e-8) and close(states[-1], x_T),
        "your states go from x_0 to x_T: return them in the order in which they are "
        "made, x_T first",
    )
    reject(
        close(states[-1], x_T) or not close(states[0], x_T),
        "the first state must be x_T, and the last the finished image",
    )
    off = (states[-1] - c).std()
    reject(
        close(off, schedule.beta[1].sqrt(), 0.02) and off > 0.01,
        f"the sample is c plus noise of standard deviation {off:.3f} = sqrt(beta_1): "
        "the last step must add none",
    )


def _check_steps(states, c, schedule):
    """Each step from the state before it: the mean, and the noise that was drawn."""
    ab, T, drawn = schedule.alpha_bar, schedule.T, []
    for t in range(T, 1, -1):
        beta, where = schedule.beta[t], f"from t = {t} to {t - 1}"
        mean = ancestral_step(schedule, states[T - t], c, t, t - 1, 0 * c)
        drawn.append(states[T - t + 1] - mean)
        ratio, tilde = drawn[-1].var() / beta, (1 - ab[t - 1]) / (1 - ab[t])
        std = drawn[-1].std()
        reject(
            close(drawn[-1], 0 * c),
            f"{where} no noise is drawn: every step but the last adds some",
        )
        reject(
            close(std, beta, 0.01) and not close(beta, 1.0, 0.1),
            f"{where} the noise has the standard deviation beta_t: what multiplies "
            "noise is the root of a variance",
        )
        reject(
            bool(tilde < 0.8) and bool((ratio - tilde).abs() < 0.08),
            f"{where} the noise has the variance beta-tilde: the exercise wants "
            "beta_t, which makes the last step matter",
        )
        expect(
            close(ratio, 1.0, 0.15),
            f"{where} x is {std:.3f} away from the mean of equation (4) with x_0 = c, "
            f"not sqrt(beta_t) = {beta.sqrt():.3f}",
        )
        reject(
            drawn[-1][0].std() > 0 and close(drawn[-1][0], drawn[-1][1]),
            f"{where} all images of the batch get the same noise: draw it in the shape "
            "of x_T",
        )
    alike = torch.corrcoef(torch.stack([z.flatten() for z in drawn]))
    reject(
        len(drawn) > 1 and bool(alike[0, 1:].abs().max() > 0.5),
        "the same noise is used in several steps: draw new noise in each",
    )


def _check_generator(walk_to_one_point, states, images, schedule, used):
    """The noise comes from the generator, T - 1 times, and the seed decides it."""
    ab, x_T = schedule.alpha_bar, images[0]
    once = torch.Generator().manual_seed(0)
    again = list(walk_to_one_point(*images, ab, once))
    expect(
        all(close(x, y, 1e-12) for x, y in zip(states, again, strict=True)),
        "two generators with one seed give two runs: draw the noise from `generator`",
    )
    other = list(walk_to_one_point(*images, ab, torch.Generator().manual_seed(1)))
    reject(
        close(other[1], states[1]),
        "two seeds give the same noise: draw it from `generator`",
    )
    full = torch.Generator().manual_seed(0)
    for _ in range(schedule.T):
        torch.randn(x_T.shape, generator=full, dtype=x_T.dtype)
    reject(
        torch.equal(used.get_state(), full.get_state()),
        f"noise is drawn T = {schedule.T} times: the last step, from t = 1, must draw "
        "none, also where c or a factor of 0 hides it afterwards",
    )


@exercise
def check_posterior(posterior):
    """to_clean, to_noisy and the variance of q(x_u | x_t, x_0)."""
    schedule = linear_schedule(200, 1e-3, 0.1)
    ab = schedule.alpha_bar
    for t, u in ((100, 99), (100, 40), (200, 10), (7, 3)):
        clean, noisy, variance = _three_numbers(posterior(ab, t, u))
        where = f"from t = {t} to u = {u}"
        beta = schedule.beta[t]
        one_step = (1 - ab[t - 1]) / (1 - ab[t]) * beta
        reject(
            u < t - 1 and close(variance, one_step, 1e-6),
            f"{where} you return the variance of a single step; alpha_t becomes "
            "alpha_bar_t / alpha_bar_u",
        )
        reject(
            u < t - 1 and close(variance, (1 - ab[u]) / (1 - ab[t]) * beta, 1e-6),
            f"{where} beta_t is the noise of the last step alone; from u to "
            "t it is 1 - alpha_bar_t / alpha_bar_u",
        )
        true = (1 - ab[u]) / (1 - ab[t]) * (1 - ab[t] / ab[u])
        reject(
            close(variance, true.sqrt(), 1e-6),
            f"{where} you return the standard deviation: return the variance",
        )
        reject(
            close(variance, 1 - ab[t] / ab[u], 1e-6),
            f"{where} you return the forward variance, which does not know x_0",
        )
        signal = clean + noisy * ab[t].sqrt()
        expect(
            close(signal, ab[u].sqrt(), 1e-6),
            f"{where} the image must arrive with the factor sqrt(alpha_bar_u) = "
            f"{ab[u].sqrt():.4f}, but has {signal:.4f}",
        )
        total = noisy**2 * (1 - ab[t]) + variance
        expect(
            close(total, 1 - ab[u], 1e-6),
            f"{where} the noise must arrive with the variance {1 - ab[u]:.4f}, but has "
            f"{total:.4f}",
        )
        expect(
            close(variance, true, 1e-6),
            f"{where} signal and noise arrive right, but the step adds the variance "
            f"{variance:.4f}; Bayes' rule gives {true:.4f}",
        )
    end = list(_three_numbers(posterior(ab, 50, 0)))
    expect(
        close(end, [1.0, 0.0, 0.0]),
        f"to u = 0 the step must land on x_0: 1, 0, 0, not {end}",
    )
    return "one step and two longer ones arrive at q(x_u | x_0); u = 0 lands on x_0"


def _three_numbers(answer):
    expect_given(answer)
    hint = "return three numbers: to_clean, to_noisy, variance"
    expect(torch.is_tensor(answer) or isinstance(answer, tuple | list), hint)
    numbers = answer.flatten() if torch.is_tensor(answer) else answer
    expect(len(numbers) == 3, hint)
    return tuple(float(v) for v in numbers)
