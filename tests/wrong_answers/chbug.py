"""Wrong answers to the exercises of the bug clinic, and their hints."""

import copy

import torch


def named(**changed):
    """The right names, some of them changed."""
    right = {"A": "range", "B": "root", "C": "rand", "D": "skipping"}
    return lambda: right | changed


def average_all(average, net, decay):
    with torch.no_grad():
        for name, value in average.state_dict().items():
            mixed = decay * value + (1 - decay) * net.state_dict()[name]
            value.copy_(mixed)


def average_of(kept, *, buffers=True, into=False):
    """An update whose factor of the old weights is kept(decay)."""

    def update(average, net, decay):
        target = net if into else average
        with torch.no_grad():
            pairs = zip(
                target.parameters(), average.parameters(), net.parameters(), strict=True
            )
            for place, old, new in pairs:
                place.copy_(kept(decay) * old + (1 - kept(decay)) * new)
            for old, new in zip(average.buffers(), net.buffers(), strict=True):
                if buffers:
                    old.copy_(new)

    return update


def average_a_copy(average, net, decay):
    average_of(lambda d: d)(copy.deepcopy(average), net, decay)
    for old, new in zip(average.buffers(), net.buffers(), strict=True):
        old.copy_(new)


def average_in_a_graph(average, net, decay):
    for name, old in list(average.named_parameters()):
        mixed = decay * old + (1 - decay) * dict(net.named_parameters())[name]
        del average._parameters[name]
        average._parameters[name] = mixed


def average_by_state(average, net, decay):
    mixed = net.state_dict()
    for name, old in average.named_parameters():
        mixed[name] = decay * old.detach() + (1 - decay) * mixed[name]
    average.load_state_dict(mixed)


@torch.no_grad()
def average_by_lerp(average, net, decay):
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
    for name, value in net.named_buffers():
        average.get_buffer(name).copy_(value)


def freeze_the_network(average, net, decay):
    average_of(lambda d: d)(average, net.requires_grad_(False), decay)


def step(
    *,
    low=1,
    extra=0,
    draw=torch.randn,
    one_t=False,
    image=torch.sqrt,
    noise=torch.sqrt,
    shape=lambda x0: x0.shape,
    target=lambda x0, eps: eps,
    reduce=torch.mean,
    clear=True,
    move=True,
    late=False,
    fixed=False,
    given=True,
    hard=False,
):
    """A training step with one thing changed."""

    def training_step(net, x0, alpha_bar, optimizer, generator):
        g = torch.Generator().manual_seed(0) if fixed else generator
        options = {"generator": g} if given else {}
        count = 1 if one_t else len(x0)
        t = torch.randint(low, len(alpha_bar) + extra, (count,), **options)
        t = t.expand(len(x0)) if not one_t else t
        ab = alpha_bar[t].view(-1, *[1] * (2 if hard else x0.ndim - 1))
        eps = draw(shape(x0), **options).expand(x0.shape)
        answer = net(image(ab) * x0 + noise(1 - ab) * eps, t)
        loss = reduce((answer - target(x0, eps)).square())
        if clear and not late:
            optimizer.zero_grad()
        (loss.mean() if loss.ndim else loss).backward()
        if late:
            optimizer.zero_grad()
        if move:
            optimizer.step()
        return loss.detach()

    return training_step


def scaled_uniform(shape, generator=None):
    return 12**0.5 * (torch.rand(shape, generator=generator) - 0.5)


def as_a_float(net, x0, alpha_bar, optimizer, generator):
    """Right, written in another way: zero_grad at the end, and a float."""
    t = 1 + torch.randint(len(alpha_bar) - 1, (len(x0),), generator=generator)
    eps = torch.zeros_like(x0).normal_(generator=generator)
    a, s = alpha_bar[t] ** 0.5, (1 - alpha_bar[t]) ** 0.5
    x_t = torch.einsum("b,b...->b...", a, x0) + torch.einsum("b,b...->b...", s, eps)
    loss = torch.nn.functional.mse_loss(net(x_t, t), eps)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def noised(noising, t, n=20_000, image=None):
    x0 = torch.randn(n, dtype=torch.float64) if image is None else image.expand(n)
    eps = torch.randn(n, dtype=torch.float64)
    return noising(x0, torch.full((n,), t), eps)


ONE = torch.ones((), dtype=torch.float64)


def keeps_variance(noising, T, times=(0.01, 0.1, 0.3, 0.5, 0.7, 1.0)):
    spread = [noised(noising, max(1, int(f * T))).var() for f in times]
    return all(abs(v - 1) < 0.06 for v in spread)


def forgets(noising, T):
    return bool(noised(noising, T, image=ONE).mean().abs() < 0.05)


def two_asserts(noising, T):
    """Right, and in the form of the page: it returns nothing."""
    assert keeps_variance(noising, T)
    assert forgets(noising, T)


def too_strict(noising, T):
    return all(abs(noised(noising, t, n=1000).var() - 1) < 1e-3 for t in (1, T // 2, T))


def forgets_somewhere(noising, T):
    means = [noised(noising, t, image=ONE).mean() for t in (1, T // 2, T)]
    return keeps_variance(noising, T) and bool(min(map(abs, means)) < 0.12)


def of_one_length(noising, T):
    return keeps_variance(noising, 1000) and forgets(noising, 1000)


WRONG = {
    "check_diagnose": [
        (named(A="alpha"), "not run A: alpha for alpha-bar"),
        (named(A="rand"), "not run A: with rand"),
        (named(B="skipping", D="root"), "not run B: naive skipping"),
        (named(B="last noise"), "not run B: noise in the last step"),
        (named(C="range"), "not run C: data in the wrong range"),
        (named(C="eval"), "not run C: a missing eval"),
        (named(D="buffers"), "not run D: averaged buffers"),
        (named(D="a bug"), "is none of root, alpha"),
        (lambda: {"A": "range", "B": "root", "C": "rand"}, "run D has no name"),
        (lambda: ["range", "root"], "return a name for each run"),
        (lambda: None, "return"),
    ],
    "check_update_average": [
        (average_all, "`scale` is averaged"),
        (average_of(lambda d: d, buffers=False), "`scale` is forgotten"),
        (average_of(lambda d: 1 - d), "fraction of the average that is kept"),
        (average_of(lambda d: d, into=True), "must stay as it is"),
        (average_of(lambda d: d**2), "at decay 0.9"),
        (average_a_copy, "has not moved"),
        (average_in_a_graph, "torch.no_grad()"),
        (freeze_the_network, "must stay trainable"),
    ],
    "check_training_step": [
        (step(low=0), "t = 0 is drawn"),
        (step(extra=-1), "is never drawn: randint"),
        (step(low=2), "t = 1 is never drawn"),
        (step(one_t=True), "each sample has its own t"),
        (step(draw=torch.rand), "has the mean 0.5"),
        (step(draw=scaled_uniform), "the noise is not Gaussian"),
        (step(noise=lambda v: v), "at t = 1 the noise has 0.10"),
        (step(image=lambda v: v), "another multiple of x0"),
        (step(target=lambda x0, eps: x0), "it must predict the noise"),
        (step(target=lambda x0, eps: -eps), "between the network's answer"),
        (step(shape=lambda x0: (1, *x0.shape[1:])), "samples share"),
        (step(shape=lambda x0: (len(x0), 1, 2)), "rows share"),
        (step(shape=lambda x0: (*x0.shape[:2], 1)), "columns share"),
        (step(reduce=torch.sum), "added up"),
        (step(reduce=lambda e: e.flatten(1).mean(1)), "return one number"),
        (step(clear=False), "old gradients are still there"),
        (step(move=False), "optimizer.step missing"),
        (step(fixed=True), "the same noise"),
        (step(given=False), "pass generator= to both"),
        (step(hard=True), "as many dimensions as x0 has"),
    ],
    "check_noising_is_healthy": [
        (lambda noising, T: True, "before the noise passes"),
        (lambda noising, T: keeps_variance(noising, T), "alpha for alpha-bar passes"),
        (forgets_somewhere, "swapped factors pass"),
        (of_one_length, "t must lie in 0..400"),
        (too_strict, "healthy code fails"),
    ],
}

RIGHT = {
    "check_diagnose": [
        lambda: ["range", "root", "rand", "skipping"],
        lambda: ("Range", "ROOT", "rand ", "skipping"),
        lambda: {"D": "skipping", "C": "rand", "B": "root", "A": "range"},
    ],
    "check_update_average": [
        average_of(lambda d: d),
        average_by_state,
        average_by_lerp,
    ],
    "check_training_step": [step(), as_a_float],
    "check_noising_is_healthy": [
        two_asserts,
        lambda noising, T: keeps_variance(noising, T) and forgets(noising, T),
    ],
}
