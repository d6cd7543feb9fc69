"""Formulas of the chapters that no module computes, checked against numbers.

The formula ledger (book/ledger.json) names these tests beside those of the library. All
are exact, or integrals over a fine grid; where a number is drawn, the seed is fixed.
"""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from ddpm_core import mixtures, samplers, schedules
from ddpm_core.neighbours import gan

F64 = torch.float64
GRID = torch.linspace(-12, 12, 24_001, dtype=F64)
STEP = GRID[1] - GRID[0]

close = torch.testing.assert_close


def normal(mean=0.0, std=1.0) -> Normal:
    return Normal(torch.tensor(mean, dtype=F64), torch.tensor(std, dtype=F64))


def integral(values: torch.Tensor) -> torch.Tensor:
    return values.sum() * STEP


@pytest.fixture
def table(generator) -> torch.Tensor:
    """p(x, y) for 5 values of x and 3 of y."""
    joint = torch.rand(5, 3, generator=generator, dtype=F64)
    return joint / joint.sum()


# Chapter 01 ---------------------------------------------------------------------------


def test_likelihood_falls_short_by_the_divergence(table):
    p, model = table.sum(1), table[:, 0] / table[:, 0].sum()
    divergence = kl_divergence(Categorical(p), Categorical(model))
    assert divergence > 0.01
    close((p * model.log()).sum(), (p * p.log()).sum() - divergence)


def test_joint_fit_is_the_discriminative_fit_and_the_density_of_x(table):
    given_x = table / table.sum(1, keepdim=True)
    close(table.log(), given_x.log() + table.sum(1, keepdim=True).log())


def test_bayes_rule_turns_class_densities_into_a_classifier(table):
    p_y, given_y = table.sum(0), table / table.sum(0)
    bayes = p_y * given_y / (p_y * given_y).sum(1, keepdim=True)
    close(bayes, table / table.sum(1, keepdim=True))


def two_peaks(x):
    return torch.stack(
        [
            math.log(0.3) + normal(-1.0, 0.5).log_prob(x),
            math.log(0.7) + normal(2.0, 0.8).log_prob(x),
        ]
    )


def test_responsibilities_make_jensens_bound_tight():
    logs = two_peaks(torch.tensor([-1.5, 0.3, 2.2], dtype=F64))
    evidence = logs.logsumexp(0)
    r = (logs - evidence).exp()
    close((r * (logs - r.log())).sum(0), evidence)
    worse = torch.full_like(r, 0.5)
    assert ((worse * (logs - worse.log())).sum(0) < evidence - 1e-3).all()


def test_weighted_mean_maximises_the_expected_log_likelihood():
    x = torch.tensor([-1.0, 0.2, 0.9, 3.0], dtype=F64)
    r = torch.tensor([0.9, 0.5, 0.2, 0.1], dtype=F64)
    best = (r * x).sum() / r.sum()

    def fit(mean):
        return (r * Normal(mean, torch.ones((), dtype=F64)).log_prob(x)).sum()

    mean = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(fit(mean), mean)
    close(slope, torch.zeros((), dtype=F64))
    assert fit(best) > max(fit(best + 0.1), fit(best - 0.1))


def test_a_cut_through_a_gaussian_is_its_conditional_density():
    rho, x1 = 0.8, 1.3
    covariance = torch.tensor([[1, rho], [rho, 1]], dtype=F64)
    plane = torch.distributions.MultivariateNormal(
        torch.zeros(2, dtype=F64), covariance
    )
    points = torch.stack([torch.full_like(GRID, x1), GRID], dim=1)
    cut = plane.log_prob(points).exp()
    conditional = normal(rho * x1, math.sqrt(1 - rho**2)).log_prob(GRID).exp()
    close(cut / integral(cut), conditional, atol=1e-9, rtol=0)


def test_mixing_the_data_gives_their_mean_and_covariance(generator):
    x = torch.randn(7, 3, generator=generator, dtype=F64)
    centred = x - x.mean(0)
    z_to_x = centred.T / math.sqrt(len(x) - 1)  # what multiplies independent z
    close(z_to_x @ z_to_x.T, torch.cov(x.T))


# Chapter 02 ---------------------------------------------------------------------------


def test_evidence_is_an_average_under_any_code_density():
    """z ~ N(0, 1), and x is 2 z with noise of variance 1/4, so p(x) is known."""
    x, prior, likelihood = 1.7, normal(), Normal(2 * GRID, 0.5)
    joint = prior.log_prob(GRID) + likelihood.log_prob(torch.tensor(x, dtype=F64))
    evidence = normal(0.0, math.sqrt(4.25)).log_prob(torch.tensor(x, dtype=F64))
    close(integral(joint.exp()).log(), evidence)
    q = normal(0.5, 0.6).log_prob(GRID)
    close(integral(q.exp() * (joint - q).exp()).log(), evidence)
    bound = integral(q.exp() * (joint - q))
    posterior = normal(2 * x / 4.25, math.sqrt(0.25 / 4.25))
    gap = kl_divergence(normal(0.5, 0.6), posterior)
    assert bound < evidence
    close(bound, evidence - gap)
    copy = integral(q.exp() * likelihood.log_prob(torch.tensor(x, dtype=F64)))
    close(bound, copy - kl_divergence(normal(0.5, 0.6), prior))


def test_reparameterised_slopes_are_those_of_the_mean():
    """E f(mu + sigma eps) for f = sin is sin(mu) exp(-sigma^2 / 2)."""
    mu, sigma = 0.7, 0.9
    density = normal().log_prob(GRID).exp()
    slope = torch.cos(mu + sigma * GRID)
    value = math.exp(-(sigma**2) / 2)
    close(integral(density * slope).item(), math.cos(mu) * value)
    by_sigma = integral(density * slope * GRID).item()
    close(by_sigma, -sigma * math.sin(mu) * value)


def test_price_of_codes_is_information_and_the_price_of_the_cloud():
    codes = [normal(-1.0, 0.5), normal(0.2, 0.3), normal(2.0, 0.7)]
    densities = torch.stack([q.log_prob(GRID).exp() for q in codes])
    cloud, prior = densities.mean(0), normal().log_prob(GRID)
    price = sum(kl_divergence(q, normal()) for q in codes) / 3

    def divergence(p, log_q):
        return integral(p * ((p + 1e-300).log() - log_q))

    information = sum(divergence(p, (cloud + 1e-300).log()) for p in densities) / 3
    of_cloud = divergence(cloud, prior)
    assert 0 < information < math.log(3)
    close(price, information + of_cloud)

    mean = integral(cloud * GRID)
    fitted = Normal(mean, integral(cloud * (GRID - mean) ** 2).sqrt())
    holes = divergence(cloud, fitted.log_prob(GRID))
    assert holes > 0.01
    close(of_cloud, holes + kl_divergence(fitted, normal()))


def test_the_conditional_mean_has_the_least_error(table):
    x = torch.arange(5, dtype=F64)
    given_z = table / table.sum(0)
    best = x @ given_z

    def error(guess):
        return (table * (x[:, None] - guess) ** 2).sum()

    for z in range(3):
        for off in (-0.05, 0.05):
            worse = best.clone()
            worse[z] += off
            assert error(worse) > error(best)


@pytest.mark.parametrize("variance", [0.4, 1.3, 2.0])
def test_strength_of_a_linear_decoder_is_what_exceeds_the_noise(variance):
    """`variance` is beta s^2; the data have the variance 1.3 along the direction."""
    found = torch.linspace(0, 2, 200_001, dtype=F64)
    v = found**2 + variance
    best = found[(v.log() + 1.3 / v).argmin()]
    assert best**2 == pytest.approx(max(1.3 - variance, 0), abs=1e-4)


# Chapter 03 ---------------------------------------------------------------------------


def test_transport_and_its_dual_agree_on_a_line():
    a = torch.tensor([0.0, 1.0, 5.0], dtype=F64)
    b = torch.tensor([2.0, 2.5, 4.0], dtype=F64)
    orders = torch.cartesian_prod(*[torch.arange(3)] * 3)
    plans = [p for p in orders if len(set(p.tolist())) == 3]
    work = min((a - b[p]).abs().mean() for p in plans)
    ends = torch.cat([a, b]).sort().values
    gaps = ends.diff()
    middles = (ends[1:] + ends[:-1]) / 2
    shares = (a[:, None] > middles).double().mean(0) - (
        b[:, None] > middles
    ).double().mean(0)
    slopes = shares.sign()  # the steepest function of slope at most 1
    f = dict(
        zip(ends.tolist(), [0.0, *(slopes * gaps).cumsum(0).tolist()], strict=True)
    )
    reached = sum(f[v] for v in a.tolist()) / 3 - sum(f[v] for v in b.tolist()) / 3
    assert work == pytest.approx(reached) and work > 1


def test_penalised_critic_reads_too_far_by_a_known_amount():
    distance, weight = 1.7, 10.0
    s = torch.tensor(1.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(s * distance - weight * (s - 1) ** 2, s)
    best = 1 + slope / (2 * weight)  # one step of Newton's, exact for a parabola
    close((best * distance).item(), distance + distance**2 / (2 * weight))


def test_conditional_critic_adds_an_inner_product(generator):
    torch.manual_seed(0)
    critic = gan.Critic(gan.GANConfig(16, (8, 16), values=(3,))).eval()
    x = torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1
    labels = torch.tensor([[0], [1], [2], [1]])
    with torch.no_grad():
        h = critic.layers(x)
        w, b = critic.score.weight[0], critic.score.bias
        e = critic.label.tables[0].weight[labels[:, 0]]
        close(critic(x, labels), h @ w + (e * h).sum(1) + b)


# Chapter 04 ---------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_its_standard_error(generator):
    x = torch.randn(12, generator=generator, dtype=F64)
    k = len(x)
    left_out = torch.stack([x[torch.arange(k) != i].mean() for i in range(k)])
    s = ((k - 1) / k * (left_out - left_out.mean()).square().sum()).sqrt()
    close(s, x.std() / math.sqrt(k))


# Chapter 07 ---------------------------------------------------------------------------

LINEAR = schedules.linear_schedule(1000)
SPREAD = 0.6


def test_loss_is_the_distance_to_the_perfect_answer_and_a_floor():
    """For x_0 ~ N(0, 0.36) the perfect answer is linear in x_t, and so is f here."""
    a, s = (v.item() for v in (LINEAR.alpha_bar[300].sqrt(),
                               (1 - LINEAR.alpha_bar[300]).sqrt()))  # fmt: skip
    var = a**2 * SPREAD**2 + s**2
    perfect, other = s / var, 0.4
    loss = 1 - 2 * other * s + other**2 * var  # E (eps - other x_t)^2
    floor = 1 - 2 * perfect * s + perfect**2 * var
    assert loss == pytest.approx((other - perfect) ** 2 * var + floor)
    assert floor == pytest.approx(1 - s**2 / var)


def test_divergence_of_gaussians():
    for mean, v, other, w in [(0.3, 0.5, -0.2, 0.9), (1, 2, 1, 2), (0, 1, 3, 0.1)]:
        formula = (mean - other) ** 2 / (2 * w) + (v / w - 1 - math.log(v / w)) / 2
        p, q = normal(float(mean), v**0.5), normal(float(other), w**0.5)
        assert kl_divergence(p, q).item() == pytest.approx(formula, abs=1e-12)


def reverse_coefficients(schedule, t):
    """The mean of q(x_{t-1} | x_t, x_0) is `clean` x_0 + `noisy` x_t; its variance."""
    ab, before, beta = (
        schedule.alpha_bar[t],
        schedule.alpha_bar[t - 1],
        schedule.beta[t],
    )
    clean = before.sqrt() * beta / (1 - ab)
    noisy = (1 - beta).sqrt() * (1 - before) / (1 - ab)
    return clean, noisy, (1 - before) / (1 - ab) * beta


@pytest.mark.parametrize("t", [1, 2, 500, 1000])
def test_error_of_the_mean_is_the_weighted_error_of_the_noise(t, generator):
    ab, beta = LINEAR.alpha_bar[t], LINEAR.beta[t]
    clean, noisy, _ = reverse_coefficients(LINEAR, t)
    x_t, eps, guess = torch.randn(3, 5, generator=generator, dtype=F64)

    def mean(noise):
        return clean * (x_t - (1 - ab).sqrt() * noise) / ab.sqrt() + noisy * x_t

    short = (x_t - beta / (1 - ab).sqrt() * eps) / (1 - beta).sqrt()
    close(mean(eps), short)
    weight = beta**2 / ((1 - beta) * (1 - ab))
    close((mean(eps) - mean(guess)) ** 2, weight * (eps - guess) ** 2)


def bound_and_truth(T: int) -> tuple[float, float]:
    """The bound of a perfect denoiser of N(0, 0.36), with beta-tilde, and -log p."""
    schedule, data = schedules.cosine_schedule(T), SPREAD**2
    ab = schedule.alpha_bar
    last = (1 - ab[T]).item()
    bound = (ab[T].item() * data + last - 1 - math.log(last)) / 2
    for t in range(1, T + 1):
        clean, _, variance = (v.item() for v in reverse_coefficients(schedule, t))
        unknown = data * (1 - ab[t]) / (ab[t] * data + 1 - ab[t])  # Var(x_0 | x_t)
        if t > 1:
            bound += clean**2 * unknown.item() / (2 * variance)
        else:  # x_0 given x_1, with the variance that is right there
            bound += math.log(2 * math.pi * math.e * unknown.item()) / 2
    return bound, math.log(2 * math.pi * math.e * data) / 2


def test_bound_lies_above_the_truth_and_comes_near():
    (few, truth), (many, _) = bound_and_truth(20), bound_and_truth(400)
    assert truth < many < few
    assert many - truth < 0.6 * (few - truth)


# Chapter 08 ---------------------------------------------------------------------------


@pytest.mark.parametrize("t", [2, 100, 1000])
def test_reverse_step_is_bayes_rule(t):
    """q(x_{t-1} | x_t, x_0) on a grid, from the two noising densities."""
    x_0, x_t = 0.5, -0.4
    ab, beta = LINEAR.alpha_bar[t - 1].item(), LINEAR.beta[t].item()
    clean, noisy, variance = (v.item() for v in reverse_coefficients(LINEAR, t))
    middle = clean * x_0 + noisy * x_t
    grid = middle + math.sqrt(variance) * GRID
    logs = normal(math.sqrt(ab) * x_0, math.sqrt(1 - ab)).log_prob(grid)
    step = Normal(math.sqrt(1 - beta) * grid, math.sqrt(beta))
    logs = logs + step.log_prob(torch.tensor(x_t, dtype=F64))
    p = (logs - logs.max()).exp()
    p /= p.sum()
    mean = (p * grid).sum()
    assert mean.item() == pytest.approx(middle, abs=1e-9)
    assert (p * (grid - mean) ** 2).sum().item() == pytest.approx(variance, rel=1e-6)


def test_inverting_the_noising_step_takes_away_too_much():
    """From the true x_t, the inverted step leaves far less than the true variance."""
    t = 500
    ab, beta = LINEAR.alpha_bar[t].item(), LINEAR.beta[t].item()
    var = ab * SPREAD**2 + 1 - ab
    gain = (1 - math.sqrt(beta) * math.sqrt(1 - ab) / var) / math.sqrt(1 - beta)
    before = LINEAR.alpha_bar[t - 1].item()
    assert gain**2 * var < 0.9 * (before * SPREAD**2 + 1 - before)


@pytest.mark.parametrize("t", [2, 500, 1000])
def test_variance_of_a_step_has_two_parts_and_a_closed_form(t):
    ab, beta = LINEAR.alpha_bar[t].item(), LINEAR.beta[t].item()
    before = LINEAR.alpha_bar[t - 1].item()
    clean, _, tilde = (v.item() for v in reverse_coefficients(LINEAR, t))
    data = SPREAD**2
    unknown = data * (1 - ab) / (ab * data + 1 - ab)
    v_t, v_u = ab * data + 1 - ab, before * data + 1 - before
    total = tilde + clean**2 * unknown
    assert total == pytest.approx(v_u / v_t * beta)
    assert total == pytest.approx(v_u - (1 - beta) * v_u**2 / v_t)


def test_mixed_log_variance_lies_between_the_two():
    for t in (2, 500):
        _, _, tilde = reverse_coefficients(LINEAR, t)
        beta = LINEAR.beta[t]
        mixed = torch.tensor([0, 0.5, 1], dtype=F64)
        found = (mixed * beta.log() + (1 - mixed) * tilde.log()).exp()
        close(found, torch.stack([tilde, (tilde * beta).sqrt(), beta]))


# Chapter 09 ---------------------------------------------------------------------------

COSINE = schedules.cosine_schedule(1000)


def test_ddim_is_eulers_step_between_noise_levels(generator):
    t, u = 700, 400
    (a_t, s_t), (a_u, s_u) = (
        (COSINE.alpha_bar[k].sqrt(), (1 - COSINE.alpha_bar[k]).sqrt()) for k in (t, u)
    )
    x, x0_hat = torch.randn(2, 6, 1, generator=generator, dtype=F64)
    step = samplers.ddim_step(COSINE, x, x0_hat, t, u, torch.zeros_like(x))
    eps_hat = (x - a_t * x0_hat) / s_t
    close(step / a_u, x / a_t + (s_u / a_u - s_t / a_t) * eps_hat)
    h = (a_u / s_u).log() - (a_t / s_t).log()
    close(step, s_u / s_t * x + a_u * (1 - (-h).exp()) * x0_hat)
    close(eps_hat, (x / a_t - x0_hat) / (s_t / a_t))  # the slope, as equation (6)


def test_slope_of_the_film_moves_its_density():
    """For N(0, 0.36) blurred by sigma the flow stretches x as its width grows."""
    low, high, x = 0.8, 0.800001, 1.1
    width = [math.sqrt(SPREAD**2 + sigma**2) for sigma in (low, high)]
    flow = (x * width[1] / width[0] - x) / (high - low)
    score = -x / width[0] ** 2
    assert flow == pytest.approx(-low * score, rel=1e-5)


@pytest.mark.parametrize("t_end", [400, 10])
def test_the_exact_integral_over_log_snr_is_the_flow(t_end):
    """For N(0, 0.36) both x and x0_hat on the way are known."""
    t = 700
    (a_t, s_t), (a_u, s_u) = (
        (COSINE.alpha_bar[k].sqrt().item(), (1 - COSINE.alpha_bar[k]).sqrt().item())
        for k in (t, t_end)
    )
    data, x_t = SPREAD**2, 0.9

    def width(a, s):
        return (a**2 * data + s**2) ** 0.5

    x_u = x_t * width(a_u, s_u) / width(a_t, s_t)
    lam = torch.linspace(math.log(a_t / s_t), math.log(a_u / s_u), 20_001, dtype=F64)
    a, s = torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
    on_the_way = x_t * width(a, s) / width(a_t, s_t)
    x0_hat = a * data / (a**2 * data + s**2) * on_the_way
    whole = torch.trapezoid(lam.exp() * x0_hat, lam).item()
    assert x_u / s_u == pytest.approx(x_t / s_t + whole, rel=1e-6)


# Chapter 10 ---------------------------------------------------------------------------


def test_scores_of_a_condition_add_up():
    x = torch.tensor([-0.7, 0.4, 1.8], dtype=F64, requires_grad=True)
    logs = two_peaks(x)

    def slope(value):
        return torch.autograd.grad(value.sum(), x, retain_graph=True)[0]

    given = logs[1] - math.log(0.7)
    plain, cond = slope(logs.logsumexp(0)), slope(given)
    push = slope(logs[1] - logs.logsumexp(0))
    close(cond, plain + push)
    close(plain + 2.5 * push, (1 - 2.5) * plain + 2.5 * cond)


def test_guiding_noise_is_guiding_the_estimate(generator):
    a, s = 0.6, 0.8
    x, cond, plain = torch.randn(3, 4, generator=generator, dtype=F64)
    eps = [(x - a * x0) / s for x0 in (cond, plain)]
    guided = eps[1] + 3 * (eps[0] - eps[1])
    close((x - s * guided) / a, plain + 3 * (cond - plain))
    scores = [-e / s for e in eps]
    close(-guided / s, (1 - 3) * scores[1] + 3 * scores[0])


# Chapters 11 and 13 ------------------------------------------------------------------


def test_wider_latents_have_a_larger_signal(generator):
    ab, sigma = COSINE.alpha_bar[500], 5.0
    z = torch.randn(200_000, generator=generator, dtype=F64) * sigma
    ratio = (ab.sqrt() * z).var() / (1 - ab)
    assert ratio.item() == pytest.approx((sigma**2 * ab / (1 - ab)).item(), rel=0.02)


def test_shrinking_and_noising_make_the_variance_of_the_schedule():
    """dx = -beta x / 2 dt + sqrt(beta) dW, by its moments in small steps."""
    steps, rate, var, mean = 5_000, 3.0, SPREAD**2, 1.0
    dt = 1 / steps
    for _ in range(steps):
        mean *= 1 - rate * dt / 2
        var = (1 - rate * dt / 2) ** 2 * var + rate * dt
    ab = math.exp(-rate)
    assert mean == pytest.approx(math.sqrt(ab), rel=1e-3)
    assert var == pytest.approx(ab * SPREAD**2 + 1 - ab, rel=1e-3)


def test_best_guess_for_one_gaussian_is_the_librarys(generator):
    """E[x_0 | x_t] of one Gaussian off the origin, as the chapters write it."""
    data = mixtures.blobs(torch.tensor([[1.5]], dtype=F64), SPREAD)
    x_t = torch.randn(9, 1, generator=generator, dtype=F64)
    for t in (1, 400, 1000):
        ab = LINEAR.alpha_bar[t]
        gain = ab.sqrt() * SPREAD**2 / (ab * SPREAD**2 + 1 - ab)
        wanted = 1.5 + gain * (x_t - ab.sqrt() * 1.5)
        close(data.denoiser(LINEAR)(x_t, torch.full((9,), t)), wanted)
