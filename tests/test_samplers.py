"""Samplers against data whose denoiser is exact, and against diffusers."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from oracles import mixture

from ddpm_core.conditioning import clipped, guided
from ddpm_core.diffusion import EPS, make_denoiser
from ddpm_core.samplers import (
    SAMPLERS,
    SPACINGS,
    DPMSolverPP2M,
    ancestral_step,
    ddim_step,
    followed_variance,
    forward_variance,
    last,
    log_snr_times,
    posterior_variance,
    sample,
    sample_by_name,
    spaced_times,
    times_by_name,
)
from ddpm_core.schedules import (
    cosine_schedule,
    linear_schedule,
    rescale_zero_terminal_snr,
)

FLOAT = {"dtype": torch.float64}
TWO_PEAKS = [(0.3, -1.0, 0.3), (0.7, 0.8, 0.2)]

STEPS = {
    "ancestral, beta-tilde": lambda s: partial(ancestral_step, s),
    "ancestral, beta": lambda s: partial(ancestral_step, s, variance=forward_variance),
    "ddim": lambda s: partial(ddim_step, s),
    "ddim, eta 0.5": lambda s: partial(ddim_step, s, eta=0.5),
    "dpm-solver++": DPMSolverPP2M,
}
every_step = pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)


def run(data, make, steps, n, generator, x_T=None):
    if x_T is None:
        x_T = torch.randn(n, 1, generator=generator, **FLOAT)
    times = spaced_times(data.schedule.T, steps)
    step = make(data.schedule)
    return last(sample(data.denoise, step, x_T, times, generator=generator))


@every_step
@pytest.mark.parametrize(
    "components", [[(1.0, 0.4, 0.5)], TWO_PEAKS], ids=["gaussian", "mixture"]
)
def test_exact_denoiser_gives_the_data_back_to_the_fourth_moment(
    make, components, generator
):
    data = mixture(cosine_schedule(1000), *components)
    x = run(data, make, 500, 20_000, generator)
    for k in (1, 2, 3, 4):
        assert (x**k).mean().item() == pytest.approx(data.moment(k), abs=0.03), k


@pytest.mark.parametrize(
    ("variance", "ratio"),
    [
        (lambda schedule, t, u: 0.0, 0.0014),
        (posterior_variance, 0.979),
        (forward_variance, 1.004),
    ],
    ids=["none", "beta-tilde", "beta"],
)
def test_what_the_variance_does_to_a_gaussian(variance, ratio):
    """s^2 = 0.25, T = 512, linear: the variance of the samples over the target's.

    Every step is linear in x and the noise, so the variance is followed exactly.
    """
    schedule = linear_schedule(512)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    step = partial(ancestral_step, schedule, variance=variance)
    var = followed_variance(step, data.denoise, range(512, -1, -1))
    assert var / 0.25 == pytest.approx(ratio, rel=0.03)


def test_the_followed_variance_has_its_closed_forms():
    """beta-tilde keeps 1 - ab_t for a point, beta 1 for N(0, 1), DDIM's flow v_t."""
    schedule, times = cosine_schedule(1000), [900, 700, 350, 120]
    ab_t, ab_u = schedule.alpha_bar_list[900], schedule.alpha_bar_list[120]
    point, unit = (mixture(schedule, (1.0, 0.0, std)) for std in (0.0, 1.0))
    step = partial(ancestral_step, schedule)
    got = followed_variance(step, point.denoise, times, 1 - ab_t)
    assert got == pytest.approx(1 - ab_u, rel=1e-9)
    step = partial(step, variance=forward_variance)
    assert followed_variance(step, unit.denoise, times) == pytest.approx(1, rel=1e-9)
    narrow, every = mixture(schedule, (1.0, 0.0, 0.5)), range(900, 119, -1)
    step, start = partial(ddim_step, schedule), ab_t / 4 + 1 - ab_t
    got = followed_variance(step, narrow.denoise, every, start)
    assert got == pytest.approx(ab_u / 4 + 1 - ab_u, rel=0.01)


def test_the_followed_variance_is_that_of_samples(generator):
    data, times = mixture(cosine_schedule(100), (1.0, 0.0, 0.5)), [100, 60, 30, 0]
    step = partial(ddim_step, data.schedule, eta=0.7)
    x = torch.randn(200_000, 1, generator=generator, **FLOAT)
    x = last(sample(data.denoise, step, x, times, generator=generator))
    got = followed_variance(step, data.denoise, times)
    assert x.var().item() == pytest.approx(got, rel=0.02)


def test_ddim_keeps_the_variance_of_a_gaussian():
    """The same data by DDIM: 0.996 of the target's variance."""
    schedule = linear_schedule(512)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    x = torch.ones(1, 1, **FLOAT)
    step = partial(ddim_step, schedule)
    gain = last(sample(data.denoise, step, x, spaced_times(512, 512))).item()
    assert gain**2 / 0.25 == pytest.approx(0.996, abs=2e-3)


def ode_error(make, steps: int) -> float:
    """The error in following a Gaussian's probability-flow ODE, t = 0.8 T to 0.2 T.

    Its exact solution scales x with the standard deviation of x_t.
    """
    schedule = linear_schedule(40_000, 2.5e-6, 5e-4)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    std = (schedule.alpha_bar * 0.25 + 1 - schedule.alpha_bar).sqrt()
    x, step, noise = (
        torch.ones(1, 1, **FLOAT),
        make(schedule),
        torch.zeros(1, 1, **FLOAT),
    )
    times = np.linspace(32_000, 8_000, steps + 1).round().astype(int).tolist()
    for t, u in zip(times[:-1], times[1:], strict=True):
        x = step(x, data.denoise(x, torch.tensor([t])), t, u, noise)
    return abs(x.item() - (std[8_000] / std[32_000]).item())


@pytest.mark.parametrize(
    ("make", "order"),
    [(STEPS["ddim"], 1), (DPMSolverPP2M, 2)],
    ids=["ddim", "dpm-solver++"],
)
def test_solvers_converge_at_their_order(make, order):
    errors = [ode_error(make, steps) for steps in (40, 80, 160)]
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("variance", [posterior_variance, forward_variance])
def test_ancestral_variance_converges_at_first_order(variance):
    """The samples' variance on a Gaussian, followed exactly as the steps grow."""
    schedule = cosine_schedule(20_000)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    step, errors = partial(ancestral_step, schedule, variance=variance), []
    for steps in (100, 200, 400):
        times = spaced_times(20_000, steps)
        var = followed_variance(step, data.denoise, times[:-1])
        ab = schedule.alpha_bar[times[-2]].item()
        errors.append(abs(var - (ab * 0.25 + 1 - ab)))
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 0.7 < np.log2(coarse / fine) < 1.4


@every_step
def test_the_last_step_returns_x0_hat(make):
    x, x0_hat, noise = torch.randn(3, 2, 5, **FLOAT).unbind()
    step = make(cosine_schedule(10))
    step(x, x0_hat + 1, 7, 3, noise)
    torch.testing.assert_close(step(x, x0_hat, 3, 0, noise), x0_hat)


def test_ddim_with_eta_one_is_ancestral():
    schedule = linear_schedule(1000)
    x, x0_hat, noise = torch.randn(3, 4, 5, **FLOAT).unbind()
    for t, u in [(1000, 999), (500, 300), (2, 1), (20, 0)]:
        ours = ddim_step(schedule, x, x0_hat, t, u, noise, eta=1.0)
        torch.testing.assert_close(
            ours, ancestral_step(schedule, x, x0_hat, t, u, noise)
        )


def test_a_step_of_several_composes_marginals(generator):
    """Given x_t ~ q(x_t | x0) and the true x0, x_u ~ q(x_u | x0) for any u < t."""
    schedule, n, x0 = linear_schedule(1000), 200_000, torch.tensor(0.6, **FLOAT)
    eps, noise = torch.randn(2, n, generator=generator, **FLOAT).unbind()
    for step in (ancestral_step, partial(ddim_step, eta=0.3)):
        a, s = (
            f(schedule.alpha_bar[700]) for f in (torch.sqrt, lambda v: (1 - v).sqrt())
        )
        x = step(schedule, a * x0 + s * eps, x0.expand(n), 700, 250, noise)
        ab = schedule.alpha_bar[250]
        assert x.mean().item() == pytest.approx((ab.sqrt() * x0).item(), abs=5e-3)
        assert x.var().item() == pytest.approx((1 - ab).item(), rel=1e-2)


@every_step
def test_pure_noise_at_T_is_no_trouble(make, generator):
    data = mixture(rescale_zero_terminal_snr(linear_schedule(200)), *TWO_PEAKS)
    x = run(data, make, 50, 4_000, generator)
    assert x.isfinite().all()
    assert x.mean().item() == pytest.approx(data.moment(1), abs=0.08)


# --- diffusers as the second opinion: their index is t - 1, their noise is injected ---


def net(x, t, cond=None):
    return torch.tanh(0.7 * x) * 0.8


def in_double(scheduler, schedule):
    """Give their scheduler the schedule in float64: theirs is rounded to float32."""
    scheduler.alphas_cumprod = schedule.alpha_bar[1:].clone()
    scheduler.betas = schedule.beta[1:].clone()
    scheduler.alphas = schedule.alpha[1:].clone()
    return scheduler


def noises(generator):
    return torch.randn(1000, 2, 3, 4, 4, generator=generator, **FLOAT)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ancestral_is_that_of_diffusers(variance, generator, monkeypatch):
    recorded, schedule = noises(generator), linear_schedule(1000)
    theirs = in_double(
        DDPMScheduler(1000, variance_type=variance, clip_sample=False), schedule
    )
    chosen = posterior_variance if variance == "fixed_small" else forward_variance
    denoise = make_denoiser(net, schedule, EPS)
    x = torch.randn(2, 3, 4, 4, generator=generator, **FLOAT)
    for t in [1000, 999, 500, 37, 2, 1]:
        noise = recorded[t - 1]
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor",
            lambda *a, n=noise, **k: n,
        )
        want = theirs.step(net(x, t), t - 1, x).prev_sample
        x0_hat = denoise(x, torch.tensor([t, t]))
        ours = ancestral_step(schedule, x, x0_hat, t, t - 1, noise, variance=chosen)
        torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_that_of_diffusers(eta, generator):
    recorded, schedule = noises(generator), linear_schedule(1000)
    theirs = in_double(
        DDIMScheduler(1000, clip_sample=False, timestep_spacing="trailing"), schedule
    )
    theirs.set_timesteps(20)
    denoise = make_denoiser(net, schedule, EPS)
    x = want = torch.randn(2, 3, 4, 4, generator=generator, **FLOAT)
    times = spaced_times(1000, 20)
    assert [t - 1 for t in times[:-1]] == theirs.timesteps.tolist()
    for t, u in zip(times[:-1], times[1:], strict=True):
        if u == 0:
            break  # theirs takes alpha_bar_1 for the end of the chain, ours 1
        noise = recorded[t - 1]
        out = net(want, t)
        want = theirs.step(out, t - 1, want, eta=eta, variance_noise=noise).prev_sample
        x = ddim_step(
            schedule, x, denoise(x, torch.tensor([t, t])), t, u, noise, eta=eta
        )
        torch.testing.assert_close(x, want, rtol=1e-5, atol=1e-5)


def test_dpm_solver_is_that_of_diffusers(generator):
    schedule = linear_schedule(1000)
    theirs = in_double(
        DPMSolverMultistepScheduler(
            1000, timestep_spacing="trailing", final_sigmas_type="zero"
        ),
        schedule,
    )
    theirs.set_timesteps(25)
    denoise = make_denoiser(net, schedule, EPS)
    x = want = torch.randn(2, 3, 4, 4, generator=generator, **FLOAT)
    times, step = spaced_times(1000, 25), DPMSolverPP2M(schedule)
    assert [t - 1 for t in times[:-1]] == theirs.timesteps.tolist()
    for t, u in zip(times[:-1], times[1:], strict=True):
        want = theirs.step(net(want, t), t - 1, want).prev_sample
        x = step(x, denoise(x, torch.tensor([t, t])), t, u, torch.zeros_like(x))
        torch.testing.assert_close(x, want, rtol=1e-5, atol=1e-5)


# --- the loop ---


def test_states_pair_x_with_what_is_seen_in_it(generator):
    data = mixture(cosine_schedule(100), *TWO_PEAKS)
    x_T = torch.randn(5, 1, generator=generator, **FLOAT)
    step = partial(ddim_step, data.schedule)
    states = list(sample(data.denoise, step, x_T, [100, 60, 20, 0]))
    assert [state.t for state in states] == [100, 60, 20, 0]
    assert torch.equal(states[0].x, x_T)
    for state in states[:-1]:
        seen = data.denoise(state.x, torch.full((5,), state.t))
        torch.testing.assert_close(state.x0_hat, seen)
    assert torch.equal(states[-1].x, states[-1].x0_hat)


def test_sampling_repeats_from_its_generator_alone():
    data = mixture(cosine_schedule(100), *TWO_PEAKS)

    def once():
        g = torch.Generator().manual_seed(3)
        return run(data, STEPS["ancestral, beta"], 50, 100, g)

    first = once()
    torch.randn(7)
    assert torch.equal(first, once())


def test_sampling_leaves_no_graph_and_the_callers_grad_mode():
    data = mixture(cosine_schedule(10), *TWO_PEAKS)
    x_T = torch.zeros(1, 1, requires_grad=True, **FLOAT)
    for state in sample(data.denoise, partial(ddim_step, data.schedule), x_T, [10, 0]):
        assert torch.is_grad_enabled()
        assert not state.x0_hat.requires_grad


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 999, 1000])
def test_spaced_times_fall_evenly_from_T_to_0(steps):
    times = np.array(spaced_times(1000, steps))
    assert times[0] == 1000 and times[-1] == 0 and len(times) == steps + 1
    gaps = -np.diff(times)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("steps", "t_end"), [(2, 999), (2, 1), (20, 100), (901, 100)])
def test_spaced_times_can_end_early_and_go_to_0_at_once(steps, t_end):
    *times, last_time = spaced_times(1000, steps, t_end)
    assert (times[0], times[-1], last_time) == (1000, t_end, 0) and len(times) == steps
    gaps = -np.diff(times)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("steps", "t_end"), [(1, 5), (10, 2), (3, 10), (3, -1)])
def test_an_early_end_must_leave_the_steps(steps, t_end):
    with pytest.raises(ValueError, match=rf"leave {steps} steps.*got {t_end}"):
        spaced_times(10, steps, t_end)


@pytest.mark.parametrize("t_end", [100, 500])
def test_an_early_end_leaves_out_what_was_still_uncertain(t_end):
    """Of N(0, 1) DDIM keeps the variance, and x0_hat = a x_t alpha_bar of it."""
    data, x = mixture(cosine_schedule(1000), (1.0, 0.0, 1.0)), torch.ones(1, 1, **FLOAT)
    times = spaced_times(1000, 400, t_end)
    x = last(sample(data.denoise, partial(ddim_step, data.schedule), x, times))
    left = data.schedule.alpha_bar[t_end].item()
    assert x.item() ** 2 == pytest.approx(left, rel=0.01) and left < 0.98


def test_an_eta_outside_its_range_is_refused():
    schedule, x = cosine_schedule(10), torch.zeros(1, 1, **FLOAT)
    for eta in (-1.0, 1.5):
        with pytest.raises(ValueError, match=rf"eta must lie in \[0, 1\], got {eta}"):
            ddim_step(schedule, x, x, 5, 3, x, eta=eta)


def test_bad_times_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.1000, got 2000"):
        spaced_times(1000, 2000)
    data = mixture(cosine_schedule(10), *TWO_PEAKS)
    x_T = torch.zeros(1, 1, **FLOAT)
    for times in ([10, 10, 0], [5, 7, 0], [10, 5], [0]):
        with pytest.raises(ValueError, match="fall strictly and end at 0"):
            last(sample(data.denoise, partial(ddim_step, data.schedule), x_T, times))
    with pytest.raises(ValueError, match="got t = 11, u = 5"):
        ddim_step(data.schedule, x_T, x_T, 11, 5, x_T)


# --- wrappers ---


def test_guidance_at_0_1_and_2():
    def constant(value):
        return lambda x, t: torch.full_like(x, value)

    cond, uncond = constant(3.0), constant(1.0)
    x, t = torch.zeros(2, 1), torch.tensor([4, 4])
    for scale, want in [(0, 1.0), (1, 3.0), (2, 5.0), (0.5, 2.0)]:
        assert (guided(cond, uncond, scale)(x, t) == want).all()


def test_clipping_keeps_what_is_inside():
    x, t = torch.tensor([[-2.0, -1.0, 0.3, 1.0, 5.0]]), torch.tensor([1])
    clip = clipped(lambda x, t: x)
    assert clip(x, t).tolist() == [[-1, -1, pytest.approx(0.3), 1, 1]]


# --- by name: Heun's method, spacings, and what a call is ---


def k_diffusion_heun(data, x, sigmas, x_hat):
    """Heun's method as k-diffusion's sample_heun writes it, in sigma = s / a."""
    for sigma, low in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - x_hat(x, sigma)) / sigma
        if low == 0:
            return x + d * (low - sigma)
        there = x + d * (low - sigma)
        d_2 = (there - x_hat(there, low)) / low
        x = x + (d + d_2) / 2 * (low - sigma)
    return x


def test_heun_is_that_of_k_diffusion(generator):
    schedule = linear_schedule(1000, 1e-4, 0.014)  # sigma stays below LARGEST_SIGMA
    data = mixture(schedule, *TWO_PEAKS)
    x_T = torch.randn(50, 1, generator=generator, **FLOAT)
    ours = last(sample_by_name("heun", schedule, data.denoise, x_T, 19))
    times = spaced_times(1000, 10)
    ab = schedule.alpha_bar[times]
    sigmas = ((1 - ab) / ab).sqrt().tolist()

    def x_hat(x, sigma):
        i = min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - sigma))
        t = torch.full((len(x),), times[i])
        return data.denoise(x * ab[i].sqrt(), t)

    theirs = k_diffusion_heun(data, x_T / ab[0].sqrt(), sigmas, x_hat)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "schedule",
    [
        cosine_schedule(100),
        linear_schedule(100, 1e-4, 0.1),
        rescale_zero_terminal_snr(linear_schedule(50)),
    ],
    ids=["cosine", "linear", "zero-snr"],
)
def test_steps_are_network_calls(name, spacing, schedule):
    for calls in (1, 2, 3, 8, 9, 30):
        made = []

        def denoise(x, t, made=made):
            made.append(int(t[0]))
            return x / 2

        x = torch.ones(2, 1, **FLOAT)
        x = last(sample_by_name(name, schedule, denoise, x, calls, spacing=spacing))
        assert len(made) == calls and made[0] == schedule.T and x.isfinite().all()


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("dpm-solver++", 2), ("heun", 2)]
)
def test_named_samplers_converge_at_their_order(name, order):
    """To the exact flow of a Gaussian, in even steps of the log-SNR."""
    schedule = cosine_schedule(40_000)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    ab = schedule.alpha_bar[-1].item()
    exact = (0.25 / (0.25 * ab + 1 - ab)) ** 0.5
    one = torch.ones(1, 1, **FLOAT)
    errors = [
        last(
            sample_by_name(name, schedule, data.denoise, one, calls, spacing="log-snr")
        ).item()
        / exact
        - 1
        for calls in (65, 129)
    ]
    assert abs(errors[0] / errors[1]) == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("t_end", [0, 20])
def test_log_snr_spacing_is_even_in_the_log_snr(t_end):
    schedule = linear_schedule(1000, 1e-4, 0.014)
    times = log_snr_times(schedule, 8, t_end)
    assert times[0] == 1000 and times[-2:] == [t_end or 1, 0] and len(times) == 9
    steps = schedule.snr[times[:-1]].log().diff()
    assert (steps / steps.mean() - 1).abs().max() < 0.2  # as even as integers allow
    assert (times[0] - times[1]) > 3 * (times[-3] - times[-2])


def test_unknown_names_and_calls_are_refused():
    schedule = cosine_schedule(50)
    with pytest.raises(ValueError, match="unknown sampler 'euler'; there is: ddim, a"):
        times_by_name("euler", schedule, 5)
    with pytest.raises(ValueError, match="unknown spacing 'sigma'; there is: time, "):
        times_by_name("ddim", schedule, 5, spacing="sigma")
    with pytest.raises(ValueError, match=r"steps must lie in 1\.\.50, got 0"):
        times_by_name("heun", schedule, 0)
