"""What a teacher makes for its student, against denoisers that are exactly known."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from oracles import mixture

from ddpm_core.diffusion import FLOW, TARGETS, V, add_noise, make_denoiser
from ddpm_core.distillation import (
    consistency,
    consistency_step,
    follow,
    progressive,
    reflow,
    shortcut,
)
from ddpm_core.samplers import ddim_step, last, sample, spaced_times
from ddpm_core.schedules import cosine_schedule, flow_schedule, linear_schedule

FLOAT = {"dtype": torch.float64}


def column(*times: int) -> torch.Tensor:
    return torch.tensor(times)[:, None]


def test_following_is_ddim_with_times_for_each_sample(generator):
    data = mixture(cosine_schedule(100), (0.3, -1.0, 0.3), (0.7, 0.8, 0.2))
    x = torch.randn(2, 1, generator=generator, **FLOAT)
    paths = torch.tensor([[90, 60], [50, 30], [20, 0]])
    together = follow(data.denoise, data.schedule, x, paths)
    for i in range(2):
        alone = x[i : i + 1]
        for t, u in pairwise(paths[:, i].tolist()):
            x0_hat = data.denoise(alone, torch.tensor([t]))
            alone = ddim_step(data.schedule, alone, x0_hat, t, u, torch.zeros(1, 1))
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("end", [30, 0])
def test_one_step_on_the_shortcut_goes_where_the_teacher_goes(end, generator):
    data = mixture(cosine_schedule(100), (0.3, -1.0, 0.3), (0.7, 0.8, 0.2))
    x = torch.randn(50, 1, generator=generator, **FLOAT)
    times = column(80, 60, 45, end).expand(-1, 50)
    x0, eps = shortcut(data.denoise, data.schedule, x, times)
    torch.testing.assert_close(add_noise(data.schedule, x0, times[0], eps), x)
    there = ddim_step(data.schedule, x, x0, 80, end, torch.zeros(50, 1))
    torch.testing.assert_close(there, follow(data.denoise, data.schedule, x, times))


def linear_student(denoise, schedule, calls, teacher_calls):
    """The perfect student of a linear teacher: it multiplies x_t by one number a t."""
    lesson = progressive(denoise, schedule, calls=calls, teacher_calls=teacher_calls)
    factor = {}
    for t in spaced_times(schedule.T, calls)[:-1]:
        x0, when, eps = lesson(torch.ones(1, 1, **FLOAT), torch.tensor([t]), EPS_ONE)
        assert when.item() == t
        factor[t] = x0 / add_noise(schedule, x0, when, eps)
    return lambda x, t: torch.stack([factor[int(i)][0] for i in t]) * x


EPS_ONE = torch.full((1, 1), 0.3, **FLOAT)


def test_halving_a_linear_teacher_down_to_one_call_loses_nothing():
    """Data N(0, 1/4): all steps are linear, so each student can be perfect."""
    schedule = cosine_schedule(1024)
    denoise = mixture(schedule, (1.0, 0.0, 0.5)).denoise
    x_T = torch.ones(1, 1, **FLOAT)
    step = partial(ddim_step, schedule)
    wanted = last(sample(denoise, step, x_T, spaced_times(1024, 64))).item()
    for calls in (32, 16, 8, 4, 2, 1):
        denoise = linear_student(denoise, schedule, calls, 2 * calls)
        got = last(sample(denoise, step, x_T, spaced_times(1024, calls))).item()
        assert got == pytest.approx(wanted, rel=1e-9), calls
    assert wanted == pytest.approx(0.5, rel=0.03)  # the ODE's own way: std 1 to 1/2


def test_every_time_falls_into_the_students_step_that_holds_it(generator):
    schedule = linear_schedule(100)
    lesson = progressive(lambda x, t: 0 * x, schedule, calls=4, teacher_calls=8)
    t = torch.tensor([1, 25, 26, 50, 51, 75, 76, 100])
    x0 = torch.randn(8, 2, generator=generator, **FLOAT)
    _, when, _ = lesson(x0, t, torch.zeros_like(x0))
    assert when.tolist() == [25, 25, 50, 50, 75, 75, 100, 100]


def test_a_perfect_student_has_no_loss_and_the_data_are_forgotten(generator):
    """A network that answers x0 = 0.3 always: the lesson says so, whatever x0 was."""
    schedule = cosine_schedule(100)
    x0 = torch.randn(32, 3, generator=generator, **FLOAT)
    eps = torch.randn(32, 3, generator=generator, **FLOAT)
    t = torch.randint(1, 101, (32,), generator=generator)
    lesson = progressive(
        lambda x, t: torch.full_like(x, 0.3), schedule, calls=5, teacher_calls=20
    )
    clean, when, noise = lesson(x0, t, eps)
    torch.testing.assert_close(clean, torch.full_like(x0, 0.3), rtol=0, atol=1e-5)
    a, s = schedule.scales(when, x0)
    torch.testing.assert_close(
        V.from_clean(clean, noise, a, s), V.from_clean(0.3 + 0 * x0, noise, a, s)
    )


def test_reflow_pairs_noise_with_what_the_teacher_makes_of_it(generator):
    data = mixture(flow_schedule(100), (0.3, -1.0, 0.3), (0.7, 0.8, 0.2))
    eps = torch.randn(40, 1, generator=generator, **FLOAT)
    t = torch.randint(1, 101, (40,), generator=generator)
    lesson = reflow(data.denoise, data.schedule, teacher_calls=20)
    x0, when, same = lesson(torch.zeros_like(eps), t, eps)
    step = partial(ddim_step, data.schedule)
    made = last(sample(data.denoise, step, eps, spaced_times(100, 20)))
    torch.testing.assert_close(x0, made)
    assert torch.equal(when, t) and torch.equal(same, eps)


def test_after_reflow_a_gaussian_needs_one_call(generator):
    """The coupling of N(0, 1) with N(0, 1/4) is x0 = eps / 2, a straight way.

    The flow of that coupling, E[eps - x0 | x_t] = x_t / 2 over x_t's share, is known:
    one step of it gives what a hundred of the teacher give.
    """
    schedule = flow_schedule(1000)
    data = mixture(schedule, (1.0, 0.0, 0.5))
    eps = torch.randn(100, 1, generator=generator, **FLOAT)
    lesson = reflow(data.denoise, schedule, teacher_calls=1000)
    x0, _, _ = lesson(eps, torch.full((100,), 500), eps)
    torch.testing.assert_close(x0, eps / 2, rtol=2e-2, atol=0)

    def net(x, t, cond):  # x = a eps / 2 + s eps, and the target is eps - eps / 2
        a, s = schedule.scales(t, x)
        return x / (a / 2 + s) / 2

    denoise = make_denoiser(net, schedule, FLOW)
    once = last(sample(denoise, partial(ddim_step, schedule), eps, [1000, 0]))
    torch.testing.assert_close(once, eps / 2)


GAUSSIAN = (1.0, 0.4, 0.5)  # weight, mean and standard deviation of the data


def end_of_curve(schedule, x, t, mean=0.4, std=0.5):
    """Where the exact curve through x at time t ends, for data N(mean, std^2)."""
    a, s = schedule.scales(t, x)
    return mean + std * (x - a * mean) / (a.square() * std**2 + s.square()).sqrt()


def test_the_map_to_the_ends_of_the_curves_is_what_consistency_asks_for(generator):
    """Its answers agree with the lesson up to the error of DDIM: first order."""
    schedule = cosine_schedule(1024)
    data = mixture(schedule, GAUSSIAN)
    x0 = 0.4 + 0.5 * torch.randn(500, 1, generator=generator, **FLOAT)
    eps = torch.randn(500, 1, generator=generator, **FLOAT)
    t = torch.randint(1, 1025, (500,), generator=generator)
    exact = partial(end_of_curve, schedule)
    errors = []
    for steps in (16, 32, 64):
        lesson = consistency(data.denoise, exact, schedule, steps=steps)
        wanted, when, noise = lesson(x0, t, eps)
        assert ((when >= t) & (when - t < 1024 // steps)).all()
        x_t = add_noise(schedule, x0, when, eps)
        torch.testing.assert_close(add_noise(schedule, wanted, when, noise), x_t)
        errors.append((wanted - exact(x_t, when)).abs().mean().item() * steps)
    assert errors[0] < 0.2  # the sum over all steps of one curve
    assert errors[2] < errors[1] / 1.7 < errors[0] / 1.7**2


def test_learned_step_by_step_one_call_goes_where_the_teacher_goes_in_all(generator):
    """Data N(0, 1/4): the student multiplies x by one number at each time."""
    schedule, steps = cosine_schedule(1024), 16
    denoise = mixture(schedule, (1.0, 0.0, 0.5)).denoise
    factor = {}

    def student(x, t):
        return torch.stack([factor.get(int(i), torch.zeros(1)) for i in t]) * x

    lesson = consistency(denoise, student, schedule, steps=steps)
    for t in reversed(spaced_times(1024, steps)[:-1]):
        x0, when, eps = lesson(torch.ones(1, 1, **FLOAT), torch.tensor([t]), EPS_ONE)
        factor[t] = (x0 / add_noise(schedule, x0, when, eps))[0]
    x_T = torch.randn(20, 1, generator=generator, **FLOAT)
    step = partial(ddim_step, schedule)
    wanted = last(sample(denoise, step, x_T, spaced_times(1024, steps)))
    torch.testing.assert_close(last(sample(student, step, x_T, [1024, 0])), wanted)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_curve_ends_in_itself_for_all_targets_but_x0(target, generator):
    x, output = torch.randn(2, 20, 1, generator=generator, **FLOAT)
    one = torch.ones(1, 1, **FLOAT)
    at_the_end = target.to_clean(output, x, one, 0 * one)
    torch.testing.assert_close(at_the_end, output if target.name == "x0" else x)


def test_no_gradient_flows_into_what_the_student_sees(generator):
    weight = torch.ones(1, **FLOAT, requires_grad=True)
    lesson = consistency(
        lambda x, t: 0 * x, lambda x, t: weight * x, cosine_schedule(100), steps=4
    )
    x0 = torch.randn(8, 2, generator=generator, **FLOAT)
    clean, _, eps = lesson(x0, torch.arange(1, 9), x0)
    assert not clean.requires_grad and not eps.requires_grad


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_new_noise_keeps_the_distribution_for_any_number_of_calls(calls, generator):
    schedule = cosine_schedule(1024)
    x_T = torch.randn(100_000, 1, generator=generator, **FLOAT)
    exact, step = partial(end_of_curve, schedule), partial(consistency_step, schedule)
    times = spaced_times(1024, calls)
    x = last(sample(exact, step, x_T, times, generator=generator))
    assert x.mean().item() == pytest.approx(0.4, abs=0.01)
    assert x.std().item() == pytest.approx(0.5, abs=0.01)


def test_a_step_of_new_noise_takes_nothing_from_x(generator):
    schedule = cosine_schedule(100)
    x, x0_hat, noise = torch.randn(3, 10, 2, generator=generator, **FLOAT)
    got = consistency_step(schedule, x, x0_hat, 80, 30, noise)
    wanted = add_noise(schedule, x0_hat, torch.full((10,), 30), noise)
    torch.testing.assert_close(got, wanted)
    assert torch.equal(consistency_step(schedule, x, x0_hat, 30, 0, noise), x0_hat)
