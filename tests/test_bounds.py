"""The bounds of the loss, against closed forms."""

import pytest
import torch

from ddpm_core.diffusion import TARGETS, add_noise, diffusion_loss
from ddpm_core.schedules import cosine_schedule
from ddpm_core.workshop.bounds import Wiener, as_loss, posterior_error

SCHEDULE = cosine_schedule(100)
TIMES = torch.tensor([3, 20, 50, 80, 97])


def gaussian(n: int, stds: list[float], seed: int = 0) -> torch.Tensor:
    """Points of a Gaussian with these standard deviations, rotated."""
    g = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(stds), len(stds), generator=g).double())
    z = torch.randn(n, len(stds), generator=g, dtype=torch.float64)
    return 0.3 + z * torch.tensor(stds) @ turn


def test_on_a_gaussian_it_is_the_least_error():
    """sum of v s^2 / (a^2 v + s^2) over the axes: no denoiser has less."""
    stds = [1.0, 0.5, 0.1, 0.0]
    data = gaussian(200_000, stds)
    wiener = Wiener.of(data[:100_000])
    for t in TIMES.tolist():
        ab = SCHEDULE.alpha_bar[t]
        v = torch.tensor(stds, dtype=torch.float64).square()
        least = (v * (1 - ab) / (ab * v + 1 - ab)).mean()
        some = data[100_000:]
        found = wiener.error(SCHEDULE, some, torch.full((len(some),), t)).mean()
        torch.testing.assert_close(found, least, rtol=0.01, atol=0)


def test_the_error_is_that_of_the_filter():
    """The closed form over all noise equals the mean over drawn noise."""
    data = gaussian(500, [1.0, 0.7, 0.4, 0.2])
    wiener, x0 = Wiener.of(data, k=2), data[:1]
    for t in TIMES.tolist():
        n, ab = 40_000, SCHEDULE.alpha_bar[t]
        g = torch.Generator().manual_seed(t)
        eps = torch.randn(n, 4, generator=g, dtype=torch.float64)
        times = torch.full((n,), t)
        x_t = add_noise(SCHEDULE, x0.expand(n, -1), times, eps)
        gain = ab.sqrt() * wiener.variances / (ab * wiener.variances + 1 - ab)
        along = (x_t - ab.sqrt() * wiener.mean) @ wiener.axes.T
        across = x_t - ab.sqrt() * wiener.mean - along @ wiener.axes
        rest = ab.sqrt() * wiener.rest / (ab * wiener.rest + 1 - ab)
        guess = wiener.mean + (gain * along) @ wiener.axes + rest * across
        drawn = (guess - x0).square().mean(1)
        found = wiener.error(SCHEDULE, x0, times[:1])
        assert abs(drawn.mean() - found) < 5 * drawn.std() / n**0.5 + 1e-9
    left = torch.tensor([0.4, 0.2]).square().mean()  # of the two other directions
    assert abs(wiener.rest - left) < 0.02


def test_from_few_samples_it_has_few_axes():
    data = torch.randn(5, 3, 4, 4)
    wiener = Wiener.of(data)
    assert wiener.axes.shape == (4, 48)
    torch.testing.assert_close(wiener.axes @ wiener.axes.T, torch.eye(4))
    assert Wiener.of(data, k=2).axes.shape == (2, 48)
    with pytest.raises(ValueError, match="must be at least 2, got 1"):
        Wiener.of(data[:1])


def test_the_posterior_of_two_points_is_a_formula():
    """x0 = -1 or 1: the mean is tanh(a x_t / s^2), its error 1 - E tanh."""
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    n, t = 20_000, 60
    eps = torch.randn(n, 1, dtype=torch.float64)
    x0 = data[torch.arange(n) % 2]
    times = torch.full((n,), t)
    ab = SCHEDULE.alpha_bar[t]
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    expected = ((ab.sqrt() * x_t / (1 - ab)).tanh() - x0).square()[:, 0]
    found = posterior_error(data, SCHEDULE, x0, times, eps)
    torch.testing.assert_close(found, expected)


def test_the_posterior_is_below_the_linear_one_on_its_own_data(generator):
    data = torch.randn(64, 3, 4, 4, generator=generator).double().sign()
    t = TIMES.repeat(200)
    x0 = data[torch.arange(len(t)) % 64]
    eps = torch.randn(x0.shape, generator=generator).double()
    best = posterior_error(data, SCHEDULE, x0, t, eps).view(-1, 5).mean(0)
    linear = Wiener.of(data).error(SCHEDULE, x0, t).view(-1, 5).mean(0)
    assert (best <= linear * 1.02).all() and (best[2:4] < 0.9 * linear[2:4]).all()


def test_the_least_loss_of_a_population_lies_between_that_of_its_samples(generator):
    """On their own images n samples ask for too little, on others they give too much.

    The least loss of a Gaussian is that of its Wiener filter: both come near to it.
    """
    spread = torch.tensor([1.0, 0.3], dtype=torch.float64)
    t, gaps = torch.full((4000,), 60), []
    eps, new = torch.randn(2, 4000, 2, generator=generator).double()
    new = spread * new
    true = Wiener(torch.zeros(2).double(), torch.eye(2).double(), spread**2)
    least = true.error(SCHEDULE, new, t).mean()
    for n in (4, 400):
        data = torch.randn(4000 // n, n, 2, generator=generator).double() * spread
        known = [posterior_error(d, SCHEDULE, d, t[:n], eps[:n]) for d in data]
        below = torch.cat(known).mean()
        above = posterior_error(data[0], SCHEDULE, new, t, eps).mean()
        gaps.append((above - below).item())
        assert below < 1.03 * least and least < 1.03 * above
    assert gaps[1] < 0.3 * gaps[0]


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_an_error_becomes_the_loss_of_each_target(target):
    """A network that answers as if x0_hat were x0 + 0.1 has the error 0.01."""
    x0, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64).unbind()

    def net(x_t, t, cond):
        a, s = SCHEDULE.scales(t, like=x_t)
        return target.from_clean(x0 + 0.1, (x_t - a * (x0 + 0.1)) / s, a, s)

    loss = diffusion_loss(net, SCHEDULE, target, x0, t=TIMES, eps=eps)
    error = torch.full((5,), 0.01, dtype=torch.float64)
    torch.testing.assert_close(as_loss(target, SCHEDULE, error, TIMES), loss)
