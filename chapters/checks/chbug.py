"""Feedback for the exercises of the bug clinic."""

import copy
from functools import partial

import torch
from torch import nn

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    random_numbers,
    reject,
)
from ddpm_core.diffusion import add_noise
from ddpm_core.schedules import Schedule, cosine_schedule, linear_schedule

# What tells each run of exercise 1 apart: what its picture or its loss shows.
RUNS = {
    "A": ("range", "its loss starts at 1, and its points lie to one side"),
    "B": (
        "root",
        "its loss is the healthy one, and its points huddle inside the crosses",
    ),
    "C": ("rand", "its very first loss is a third, where a new network has 1"),
    "D": ("skipping", "its loss is the healthy one, and its points are a wide cloud"),
}
BUGS = {
    "root": "a missing root lets points huddle together",
    "alpha": "alpha for alpha-bar leaves the data visible at T",
    "rand": "with rand the first loss is a third",
    "eval": "a missing eval gives the same start another result each time",
    "buffers": "averaged buffers spoil the average, not the loss",
    "range": "data in the wrong range are smaller, and at one side of 0",
    "skipping": "naive skipping leaves noise everywhere",
    "last noise": "noise in the last step is a fine grain over good samples",
}


@exercise
def check_diagnose(diagnose):
    """Which bug each of four runs has."""
    named = diagnose()
    expect_given(named)
    if not isinstance(named, dict):
        expect(
            isinstance(named, (list, tuple)) and len(named) == len(RUNS),
            "return a name for each run: {'A': ..., 'B': ..., 'C': ..., 'D': ...}",
        )
        named = dict(zip(RUNS, named, strict=True))
    for run, (bug, sign) in RUNS.items():
        expect(run in named, f"run {run} has no name")
        name = str(named[run]).strip().lower().replace("-", " ").replace("_", " ")
        expect(
            name in BUGS,
            f"run {run}: {named[run]!r} is none of {', '.join(BUGS)}",
        )
        expect(name == bug, f"not run {run}: {BUGS[name]}. Look at {run} again: {sign}")
    return "four runs, each by its points or by the beginning of its loss"


class Averaged(nn.Module):
    """A network with weights, a fitted scale and a counter."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(random_numbers(3, 2, seed=seed))
        self.bias = nn.Parameter(random_numbers(2, seed=seed + 1))
        self.register_buffer("scale", random_numbers(1, seed=seed + 2))
        self.register_buffer("count", torch.tensor(100 * seed))


@exercise
def check_update_average(update_average):
    """One step of an average of the weights, in place; buffers are copied."""
    for decay in (0.9, 0.5, 1.0, 0.0):
        average, net = Averaged(1), Averaged(2)
        before, now = copy.deepcopy(average), copy.deepcopy(net)
        update_average(average, net, decay)
        _check_average(average, net, before, now, decay)
        expect(
            all(p.requires_grad for p in net.parameters()),
            "the trained network must stay trainable",
        )
    return "weights averaged, buffers copied, an integer among them, at four decays"


def _check_average(average, net, before, now, decay):
    for name, value in now.state_dict().items():
        expect(
            torch.equal(net.state_dict()[name], value),
            "the trained network must stay as it is: change only the average",
        )
    for name, theirs in now.named_parameters():
        mine, old = dict(average.named_parameters())[name], getattr(before, name)
        expect(
            mine.grad_fn is None,
            "the average is part of a graph: update it under torch.no_grad()",
        )
        right = decay * old + (1 - decay) * theirs
        reject(
            close(mine, old) and not close(right, old),
            "the average has not moved: write into its tensors, as with copy_ or lerp_",
        )
        reject(
            close(mine, (1 - decay) * old + decay * theirs) and not close(mine, right),
            "decay is the fraction of the average that is kept, not of the new weights",
        )
        expect(close(mine, right), f"at decay {decay} the weights' average is wrong")
    for name, theirs in now.named_buffers():
        mine, old = getattr(average, name), getattr(before, name)
        reject(
            torch.equal(mine, old) and not torch.equal(mine, theirs),
            f"the buffer `{name}` is forgotten: it must be that of the network",
        )
        expect(
            torch.equal(mine, theirs),
            f"the buffer `{name}` is averaged: copy it, it is not trained",
        )


class Probe(nn.Module):
    """A network of one number that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.seen = []

    def forward(self, x, t):
        self.seen.append((x.detach(), torch.as_tensor(t)))
        return self.scale * x


@exercise
def check_training_step(training_step):
    """One step of algorithm 1 of Ho et al. 2020, and what it does to the weights."""
    for schedule, shape in (
        (linear_schedule(12, 1e-2, 0.5), (64, 3, 2)),
        (cosine_schedule(9), (64, 7)),
    ):
        x0 = random_numbers(*shape)
        net, generator = Probe(), torch.Generator().manual_seed(3)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        scales, losses = [net.scale.item()], []
        for step in range(12):
            loss = training_step(net, x0, schedule.alpha_bar, sgd, generator)
            expect(len(net.seen) == step + 1, "the network must be called once a step")
            losses.append(loss)
            scales.append(net.scale.item())
        eps = torch.stack([_noise_of(x0, *seen, schedule) for seen in net.seen])
        t = torch.stack([t for _, t in net.seen])
        _check_times(t, schedule.T)
        _check_noise(eps, t, x0)
        for step in range(12):
            x_t = net.seen[step][0]
            error = scales[step] * x_t - eps[step]
            _check_loss(losses[step], error, scales[step] * x_t - x0)
            gradient = (2 * error * x_t).mean().item()
            _check_move(scales[step] - scales[step + 1], 0.1 * gradient, step)
    _check_generator(training_step, x0, schedule)
    return "timesteps, noise, loss, gradient and generator, in 12 steps on 2 schedules"


def _noise_of(x0, x_t, t, schedule):
    """The noise in x_t, if it was made as it must be."""
    expect(
        t.shape == (len(x0),),
        f"each sample has its own t: the shape must be ({len(x0)},), not "
        f"{tuple(t.shape)}",
    )
    expect(not t.is_floating_point(), "t must be whole numbers")
    reject(bool((t < 1).any()), "t = 0 is drawn: there is no noise at 0, start at 1")
    reject(bool((t > schedule.T).any()), "a t above T is drawn")
    expect(
        x_t.shape == x0.shape,
        f"for x0 of {tuple(x0.shape)} your x_t is {tuple(x_t.shape)}: give "
        "alpha_bar[t] as many dimensions as x0 has",
    )
    a, s = schedule.scales(t, like=x0)
    return (x_t - a * x0) / s


def _check_times(t, T):
    missing = set(range(1, T + 1)) - set(t.flatten().tolist())
    reject(missing == {T}, f"t = T = {T} is never drawn: randint leaves its end out")
    reject(bool(missing), f"t = {min(missing, default=0)} is never drawn")


def _check_noise(eps, t, x0):
    reject(
        abs((eps * x0).mean()) > 0.1,
        "x_t holds another multiple of x0 than sqrt(alpha_bar[t])",
    )
    reject(close(eps[0], eps[1]), "each step has the same noise: draw it anew")
    for axis, shared in enumerate(("samples", "rows", "columns")[: x0.ndim], 1):
        first = eps.narrow(axis, 0, 1).expand_as(eps)
        reject(close(eps, first), f"{shared} share their noise: draw a number for each")
    mean, std = eps.mean(), eps.std()
    reject(
        abs(mean) > 0.2,
        f"the noise in x_t has the mean {mean:.1f}, and it must have 0: is it randn?",
    )
    at_one = eps[t == 1].std()
    reject(
        at_one < 0.5,
        f"at t = 1 the noise has {at_one:.2f} times its size: its factor is the root "
        "of 1 - alpha_bar[t]",
    )
    expect(abs(std - 1) < 0.1, f"the noise has the spread {std:.2f} instead of 1")
    reject(
        (eps**4).mean() < 2.4,
        "the noise is not Gaussian, even if its mean and spread are right: use randn",
    )


def _check_loss(loss, error, error_of_x0):
    expect_given(loss)
    loss, squared = torch.as_tensor(loss).detach().double(), error.square()
    reject(loss.numel() > 1, "return one number, the mean of all squared errors")
    reject(
        close(loss, squared.sum()) or close(loss, squared.sum() / len(error)),
        "the squared errors are added up: take their mean",
    )
    reject(
        close(loss, error_of_x0.square().mean()),
        "you compare the network's answer with x0: it must predict the noise",
    )
    expect(
        close(loss, squared.mean()),
        "the loss must be the mean squared error between the network's answer and the "
        "noise that is in x_t",
    )


def _check_move(moved, right, step):
    reject(
        close(moved, 0, 1e-12),
        "the weights do not move: is optimizer.step missing, or does zero_grad come "
        "between backward and step?",
    )
    reject(
        step > 0 and not close(moved, right, 1e-6),
        "the step is not that of this batch alone: old gradients are still there, as "
        "without optimizer.zero_grad",
    )
    expect(
        close(moved, right, 1e-6),
        "the step does not follow the gradient of the mean squared error",
    )


def _check_generator(training_step, x0, schedule):
    seen = []
    for other in (1, 2):
        net, generator = Probe(), torch.Generator().manual_seed(7)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        torch.manual_seed(other)
        training_step(net, x0, schedule.alpha_bar, sgd, generator)
        seen.append(net.seen[0])
    (x, t), (again, t_again) = seen
    expect(
        torch.equal(x, again) and torch.equal(t, t_again),
        "the same generator must give the same t and noise: pass generator= to both",
    )


# Exercise 4: a test is tested on code that is healthy, and on code that is not. -------


def _scaled(schedule: Schedule, image, noise):
    """Noising with other factors: functions of alpha_bar_t."""

    def noising(x0, t, eps):
        ab = schedule.alpha_bar[t].view(-1, *[1] * (x0.ndim - 1)).to(x0)
        return image(ab) * x0 + noise(ab) * eps

    return noising


def _by_alpha(schedule: Schedule):
    def noising(x0, t, eps):
        alpha = schedule.alpha[t].view(-1, *[1] * (x0.ndim - 1)).to(x0)
        return alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps

    return noising


def _broken(schedule: Schedule):
    """Noisings with one bug each, and the hint for a test that lets it pass."""
    root, rest = torch.sqrt, lambda ab: (1 - ab).sqrt()
    last = schedule.alpha_bar[-1]
    yield (
        _scaled(schedule, root, lambda ab: 1 - ab),
        "a missing root before the noise passes: data of variance 1 must keep it at "
        "every t, not only at the ends",
    )
    yield (
        _scaled(schedule, lambda ab: ab, rest),
        "a missing root before the image passes: data of variance 1 must keep it at "
        "every t",
    )
    yield (
        _by_alpha(schedule),
        "alpha for alpha-bar passes: it keeps the variance, but the data are still "
        "there at T",
    )
    yield (
        _scaled(schedule, rest, root),
        "swapped factors pass: at small t it must be the image that is left",
    )
    yield (
        _scaled(schedule, root, lambda ab: rest(last)),
        "noise of one size for all t passes: look at small t, too",
    )


@exercise
def check_noising_is_healthy(noising_is_healthy):
    """A test of code that noises: it passes what is healthy and finds five bugs."""
    for schedule in (linear_schedule(1000), linear_schedule(400, 1e-3, 0.05)):
        for seed in (0, 1, 2):
            torch.manual_seed(seed)
            said = _verdict(noising_is_healthy, partial(add_noise, schedule), schedule)
            expect(
                said,
                f"healthy code fails (T = {schedule.T}): leave room for chance, or "
                "draw more numbers",
            )
        for noising, hint in _broken(schedule):
            reject(_verdict(noising_is_healthy, noising, schedule), hint)
    return "healthy code on two schedules, with three seeds; five bugs found on each"


def _verdict(test, noising, schedule: Schedule) -> bool:
    try:
        said = test(noising, schedule.T)
    except AssertionError:
        return False
    return said is None or bool(said)
