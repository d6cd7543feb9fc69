"""Noising, targets and the loss, against closed forms."""

import pytest
import torch
from diffusers import DDPMScheduler

from ddpm_core.diffusion import (
    EPS,
    FLOW,
    TARGETS,
    X0,
    V,
    add_noise,
    diffusion_loss,
    edm,
    make_denoiser,
    min_snr,
)
from ddpm_core.schedules import (
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    rescale_zero_terminal_snr,
)


def pair(shape, generator):
    x0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x0, torch.randn(shape, generator=generator, dtype=torch.float64)


def test_marginal_has_the_closed_form_moments(generator):
    """x_t given x0 is N(sqrt(ab) x0, (1 - ab) I): mean, variance and kurtosis."""
    schedule, n, t = linear_schedule(1000), 400_000, 300
    x0 = torch.full((n, 1), 0.7, dtype=torch.float64)
    eps = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = add_noise(schedule, x0, torch.full((n,), t), eps)
    ab = schedule.alpha_bar[t]
    assert x.mean().item() == pytest.approx((0.7 * ab.sqrt()).item(), abs=5e-3)
    assert x.var().item() == pytest.approx((1 - ab).item(), rel=1e-2)
    z = (x - x.mean()) / x.std()
    assert (z**4).mean().item() == pytest.approx(3, rel=2e-2)


def test_the_chain_composes_to_the_closed_form(generator):
    """Walking single steps gives the moments of one jump (Ho et al., eqs. 2, 4)."""
    schedule, n = linear_schedule(60, 1e-3, 0.1), 200_000
    x = torch.full((n,), 1.5, dtype=torch.float64)
    for t in range(1, 61):
        eps = torch.randn(n, generator=generator, dtype=torch.float64)
        x = schedule.alpha[t].sqrt() * x + schedule.beta[t].sqrt() * eps
    ab = schedule.alpha_bar[60]
    assert x.mean().item() == pytest.approx((1.5 * ab.sqrt()).item(), abs=6e-3)
    assert x.var().item() == pytest.approx((1 - ab).item(), rel=1e-2)


def test_noising_is_that_of_diffusers(generator):
    x0, eps = pair((8, 3, 4, 4), generator)
    t = torch.randint(1, 1001, (8,), generator=generator)
    ours = add_noise(linear_schedule(1000), x0.float(), t, eps.float())
    theirs = DDPMScheduler(1000).add_noise(x0.float(), eps.float(), t - 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_time_zero_is_clean(generator):
    x0, eps = pair((2, 5), generator)
    t = torch.zeros(2, dtype=torch.long)
    assert torch.equal(add_noise(cosine_schedule(10), x0, t, eps), x0)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_targets_round_trip(target, generator):
    schedule = cosine_schedule(1000)
    x0, eps = pair((500, 3), generator)
    t = torch.randint(1, 1000, (500,), generator=generator)
    a, s = schedule.scales(t, x0)
    x_t = add_noise(schedule, x0, t, eps)
    back = target.to_clean(target.from_clean(x0, eps, a, s), x_t, a, s)
    torch.testing.assert_close(back, x0, rtol=1e-6, atol=1e-6)


def test_velocity_is_the_derivative_along_the_circle(generator):
    """With a = cos phi, s = sin phi, v = dx/dphi (Salimans and Ho 2022, app. D)."""
    x0, eps = pair((4,), generator)
    phi, h = torch.tensor(0.7, dtype=torch.float64), 1e-6

    def x(angle):
        return torch.cos(angle) * x0 + torch.sin(angle) * eps

    v = V.from_clean(x0, eps, torch.cos(phi), torch.sin(phi))
    torch.testing.assert_close(
        v, (x(phi + h) - x(phi - h)) / (2 * h), rtol=1e-6, atol=0
    )


def test_flow_is_the_speed_on_the_straight_line(generator):
    """z = (1 - u) x0 + u eps is x_t / (a + s), and dz/du is the target."""
    schedule, (x0, eps) = flow_schedule(10), pair((1, 3), generator)
    x0, eps, t = x0.expand(11, 3), eps.expand(11, 3), torch.arange(11)
    a, s = schedule.scales(t, x0)
    u = (t.double() / 10)[:, None]
    z = add_noise(schedule, x0, t, eps) / (a + s)
    torch.testing.assert_close(z, (1 - u) * x0 + u * eps)
    torch.testing.assert_close(z.diff(dim=0) * 10, FLOW.from_clean(x0, eps, a, s)[1:])


@pytest.mark.parametrize("t", [1, 200, 500, 900, 1000])
def test_edm_is_of_unit_variance_at_every_time(t, generator):
    """Data N(0, 1/4): so is c_in x_bar; and both are as Karras et al. write them."""
    schedule, n = cosine_schedule(1000), 200_000
    x0, eps = pair((n,), generator)
    x0, sigma_data = x0 / 2, 0.5
    a, s = schedule.scales(torch.full((n,), t), x0)
    F, sigma = edm(sigma_data).from_clean(x0, eps, a, s), s / a
    total = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / total.sqrt()
    x_bar = x0 + sigma * eps
    torch.testing.assert_close(F, (x0 - c_skip * x_bar) / c_out)
    assert F.var().item() == pytest.approx(1, rel=0.02)
    assert (x_bar / total.sqrt()).var().item() == pytest.approx(1, rel=0.02)


def test_edm_of_unit_data_is_minus_the_velocity(generator):
    x0, eps = pair((50, 2), generator)
    t = torch.randint(1, 1001, (50,), generator=generator)
    a, s = cosine_schedule(1000).scales(t, x0)
    torch.testing.assert_close(
        edm(1.0).from_clean(x0, eps, a, s), -V.from_clean(x0, eps, a, s)
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_weight_is_the_error_of_the_output_over_that_of_x0_hat(target, generator):
    schedule, (x_t, output) = cosine_schedule(1000), pair((40, 1), generator)
    t = torch.randint(1, 1000, (40,), generator=generator)
    a, s = schedule.scales(t, x_t)
    off = target.to_clean(output + 1, x_t, a, s) - target.to_clean(output, x_t, a, s)
    torch.testing.assert_close(1 / off.square()[:, 0], target.weight(schedule.snr[t]))


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_min_snr_weighs_x0_alike_for_all_targets(target, generator):
    """The weighted loss is min(SNR, 5) times the squared error of x0_hat."""
    schedule, (x0, eps) = cosine_schedule(1000), pair((60, 4), generator)
    t = torch.randint(1, 1000, (60,), generator=generator)

    def net(x, t, cond):
        return x.sin()

    loss = diffusion_loss(
        net, schedule, target, x0, t=t, eps=eps, weight=min_snr(target, 5.0)
    )
    x_t = add_noise(schedule, x0, t, eps)
    x0_hat = make_denoiser(net, schedule, target)(x_t, t)
    error = (x0_hat - x0).square().mean(1)
    torch.testing.assert_close(loss, schedule.snr[t].clamp(max=5) * error)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_loss_is_the_squared_error_of_each_sample(target, generator):
    schedule = cosine_schedule(100)
    x0, eps = pair((6, 2, 3), generator)
    t = torch.tensor([1, 2, 3, 50, 99, 100])

    def net(x, t, cond):
        return torch.full_like(x, 0.25)

    loss = diffusion_loss(net, schedule, target, x0, t=t, eps=eps)
    a, s = schedule.scales(t, x0)
    wanted = target.from_clean(x0, eps, a, s)
    torch.testing.assert_close(loss, ((0.25 - wanted) ** 2).mean((1, 2)))


def test_loss_is_zero_for_a_perfect_network_and_one_for_a_silent_one(generator):
    schedule = linear_schedule(1000)
    point = torch.full((4096, 2), 0.3, dtype=torch.float64)

    def perfect(x, t, cond):
        a, s = schedule.scales(t, x)
        return (x - a * 0.3) / s

    def silent(x, t, cond):
        return torch.zeros_like(x)

    known = diffusion_loss(perfect, schedule, EPS, point, generator=generator)
    assert known.max() < 1e-20
    unknown = diffusion_loss(silent, schedule, EPS, point, generator=generator)
    assert unknown.mean().item() == pytest.approx(1, abs=0.05)


def test_times_are_drawn_uniformly_from_1_to_T(generator):
    seen = []

    def net(x, t, cond):
        seen.append(t)
        return x

    schedule = linear_schedule(10)
    diffusion_loss(net, schedule, EPS, torch.zeros(50_000, 1), generator=generator)
    counts = torch.bincount(seen[0], minlength=11)
    assert counts[0] == 0 and (counts[1:] - 5000).abs().max() < 300


def test_weight_scales_the_loss_by_the_snr(generator):
    schedule = cosine_schedule(100)
    x0, eps = pair((3, 4), generator)
    t = torch.tensor([5, 50, 90])

    def net(x, t, cond):
        return x

    plain = diffusion_loss(net, schedule, V, x0, t=t, eps=eps)
    weighted = diffusion_loss(
        net, schedule, V, x0, t=t, eps=eps, weight=lambda snr: snr.clamp(max=5)
    )
    torch.testing.assert_close(weighted / plain, schedule.snr[t].clamp(max=5))


def test_the_condition_reaches_the_network():
    def net(x, t, cond):
        return x + cond

    schedule, x = cosine_schedule(10), torch.zeros(2, 3)
    t = torch.tensor([4, 4])
    assert torch.equal(make_denoiser(net, schedule, X0, 2.0)(x, t), x + 2)


def test_bad_input_is_refused_with_what_was_got():
    def net(x, t, cond):
        return x

    schedule, x0 = linear_schedule(10), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"1\.\.10, got 0\.\.3"):
        diffusion_loss(net, schedule, EPS, x0, t=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"1\.\.10, got 3\.\.11"):
        diffusion_loss(net, schedule, EPS, x0, t=torch.tensor([3, 11]))
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(2, 4\)"):
        add_noise(schedule, x0, torch.tensor([1, 2]), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"1\.\.10, got 0\.\.0"):
        make_denoiser(net, schedule, EPS)(x0, torch.tensor([0, 0]))
    pure = rescale_zero_terminal_snr(schedule)
    with pytest.raises(ValueError, match="use V or X0"):
        diffusion_loss(net, pure, EPS, x0)
    with pytest.raises(ValueError, match="where the signal is zero"):
        make_denoiser(net, pure, EPS)(x0, torch.tensor([10, 10]))
