"""Feedback for the exercises of chapter 02, autoencoders."""

from math import log, pi

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)


@exercise
def check_kl_to_prior(kl_to_prior):
    """KL(N(mean, std^2) || N(0, I)), one number a sample."""
    mean, std = random_numbers(5, 3), random_numbers(5, 3, seed=1).exp()
    answer = kl_to_prior(mean, std)
    expect_given(answer)
    terms = (mean**2 + std**2 - 1 - 2 * std.log()) / 2
    reject(
        answer.shape == mean.shape and close(answer, terms),
        "each dimension is right: sum over the dimensions, one number a sample",
    )
    answer = expect_tensor(answer, (5,))
    reject(
        close(answer, terms.mean(1)),
        "you average over the dimensions: independent dimensions add their nats",
    )
    reject(close(answer, 2 * terms.sum(1)), "a factor of one half is missing")
    reject(close(answer, -terms.sum(1)), "the sign is wrong: a KL is never negative")
    as_variance = (mean**2 + std - 1 - std.log()).sum(1) / 2
    reject(
        close(answer, as_variance),
        "you take std for the variance: the formula has std^2 and log(std^2)",
    )
    half_log = (mean**2 + std**2 - 1 - std.log()).sum(1) / 2
    reject(
        close(answer, half_log),
        "log(std^2) is 2 log(std): at std = 2, mean = 0 you are off by log(2) / 2",
    )
    at_prior = kl_to_prior(torch.zeros(1, 3), torch.ones(1, 3))
    expect(
        close(at_prior, torch.zeros(1)),
        f"at the prior itself (mean 0, std 1) it must be 0, not {at_prior.item():.3f}",
    )
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, std), prior).sum(1)
    expect(
        close(answer, expected),
        f"the first of five should be {expected[0]:.3f}, not {answer[0]:.3f}",
    )
    return "0 at the prior, and the values of torch.distributions"


@exercise
def check_draw(draw):
    """z = mean + exp(log_var / 2) eps, with gradients."""
    mean = torch.tensor([1.0, -2.0, 0.0]).expand(20_000, 3).clone().requires_grad_()
    log_var = torch.tensor([0.0, log(0.25), log(9.0)]).expand(20_000, 3).clone()
    log_var.requires_grad_()
    z = expect_tensor(draw(mean, log_var, torch.Generator().manual_seed(0)), mean.shape)
    spread, std = (z - mean).detach().std(0), (log_var[0] / 2).exp().detach()
    off = (z - mean).detach()
    reject(bool((off.abs() < 1e-3).all()), "this is the mean: nothing is drawn")
    eps = off / (log_var / 2).exp().detach()
    reject(
        close(eps[:, 0], eps[:, 1], 1e-3) or close(eps[0], eps[1], 1e-3),
        "the same noise serves several numbers: draw one for each, in mean's shape",
    )
    reject(
        close(spread, std**2, 0.05),
        "the noise has the spread exp(log_var), which is the variance: take its root",
    )
    reject(
        close(spread, log_var[0].detach().abs(), 0.05),
        "the noise is multiplied by log_var itself: exponentiate half of it",
    )
    expect(
        close(z.detach().mean(0), mean[0].detach(), 0.1),
        f"the draws must have the mean {mean[0].tolist()}, "
        f"not {[round(v, 2) for v in z.detach().mean(0).tolist()]}",
    )
    expect(
        close(spread, std, 0.05),
        f"the draws must have the std {[round(v, 2) for v in std.tolist()]}, "
        f"not {[round(v, 2) for v in spread.tolist()]}",
    )
    reject(
        z.grad_fn is None,
        "z has no gradient: the encoder would never learn of it. Write z as a formula "
        "of mean, log_var and noise, not as a draw from a distribution",
    )
    z.sum().backward()
    reject(
        log_var.grad is None or not bool(log_var.grad.any()),
        "mean gets a gradient and log_var gets none: was the std detached?",
    )
    expect(
        mean.grad is not None and close(mean.grad, torch.ones_like(mean)),
        "the gradient of z with respect to mean must be 1",
    )
    expect(
        close(log_var.grad, off / 2, 1e-3),
        "the gradient of z with respect to log_var must be (z - mean) / 2",
    )
    inner = (eps.abs() < 0.5).double().mean().item()
    expect(
        abs(inner - 0.383) < 0.01,
        "the noise has the right spread but is not Gaussian: within half a standard "
        f"deviation lies a fraction of {inner:.2f}, and should lie 0.38",
    )
    again = draw(mean, log_var, torch.Generator().manual_seed(0))
    expect(close(again, z), "two draws with equal seeds differ: use the generator")
    other = draw(mean, log_var, torch.Generator().manual_seed(1))
    reject(
        close(other, z),
        "two draws with different seeds are equal: use the generator that is given",
    )
    picture = random_numbers(2, 4, 3, 3)
    z = draw(picture, picture - 2, torch.Generator().manual_seed(0))
    expect_tensor(z, picture.shape)
    reject(
        torch.unique(
            ((z - picture) / (picture / 2 - 1).exp()).round(decimals=6)
        ).numel()
        < picture.numel(),
        "for codes that are pictures, (b, c, h, w), some numbers share their noise: "
        "draw it in the shape of mean",
    )
    return (
        "mean, spread, independent Gaussian noise, both gradients, and codes of any "
        "shape"
    )


@exercise
def check_implied_beta(implied_beta):
    """The beta of 'mean squared error + weight KL'."""
    for weight, dimensions, variance in ((0.001, 3072, 0.02), (1.0, 784, 0.3)):
        answer = implied_beta(weight, dimensions, variance)
        expect_given(answer)
        answer = float(answer)
        right = weight * dimensions / (2 * variance)
        where = f"for weight {weight}, {dimensions} numbers, variance {variance}"
        reject(
            close(answer, weight),
            f"{where} you return the weight itself; but the two losses do not count "
            "the squared error alike",
        )
        reject(
            close(answer, weight / (2 * variance)),
            f"{where} you forget that a mean is a sum divided by the number of values",
        )
        reject(
            close(answer, weight * dimensions),
            f"{where} you forget what stands before the squared error in a Gaussian's "
            "log-density: 1 / (2 variance)",
        )
        reject(
            close(answer, 2 * right),
            f"{where} the 2 of 1 / (2 variance) is missing",
        )
        reject(
            close(answer, 1 / right),
            f"{where} it is upside down: a larger weight must give a larger beta",
        )
        expect(
            close(answer, right),
            f"{where} multiply the recipe so that its squared error becomes that of "
            f"the Gaussian: the KL then has the factor {right:.4g}, not {answer:.4g}",
        )
    return "two recipes: a weight of 0.001 was a beta of 76.8"


@exercise
def check_fixed_loss(fixed_loss):
    """|x - x_hat|^2 / (2 variance) + KL, one a sample; constants are free."""
    x, x_hat = random_numbers(4, 3, 2, 2), random_numbers(4, 3, 2, 2, seed=1)
    mean, log_var = random_numbers(4, 5, seed=2), random_numbers(4, 5, seed=3)
    zero = torch.zeros_like(mean)
    variance = 0.1
    answer = fixed_loss(x, x_hat, mean, log_var, variance)
    expect_given(answer)
    reject(
        answer.ndim == 0,
        "return one loss for each sample, (b,): the mean over the batch comes later",
    )
    expect_tensor(answer, (4,))
    errors = (x - x_hat).square().flatten(1)

    def part(a, b, m, v, variance=variance):
        """The loss less what it is when everything is perfect."""
        base = fixed_loss(a, a, torch.zeros_like(m), torch.zeros_like(v), variance)
        return fixed_loss(a, b, m, v, variance) - base

    picture = part(x, x_hat, zero, zero)
    reject(
        close(picture, errors.mean(1) / (2 * variance)),
        "still a mean over the pixels: copy the picture twice side by side, and the "
        "error must double. Sum",
    )
    reject(
        close(picture, errors.sum(1)) or close(picture, errors.sum(1) / 2),
        "the squared error does not know the decoder's variance",
    )
    reject(
        close(picture, errors.sum(1) / variance),
        "the squared error counts twice: a Gaussian has 1 / (2 variance)",
    )
    kl = (mean**2 + log_var.exp() - 1 - log_var) / 2
    codes = part(x, x, mean, log_var)
    reject(
        close(codes, kl.mean(1)),
        "the KL is averaged over the latent dimensions: their nats add",
    )
    expect(
        close(codes, kl.sum(1)),
        "the KL part is not sum (mean^2 + var - 1 - log var) / 2 of each sample",
    )
    expect(
        close(picture, errors.sum(1) / (2 * variance)),
        "the picture's part is not |x - x_hat|^2 / (2 variance) of each sample",
    )
    expect(
        close(part(x, x_hat, zero, zero, 0.5), errors.sum(1)),
        "at a variance of 0.1 all is right, but not at 0.5: use the argument",
    )
    inputs = [v.clone().requires_grad_() for v in (x_hat, mean, log_var)]
    fixed_loss(x, *inputs, variance).sum().backward()
    for name, value in zip(("x_hat", "mean", "log_var"), inputs, strict=True):
        expect(
            value.grad is not None and bool(value.grad.any()),
            f"no gradient reaches {name}: is it detached, or taken as a number?",
        )
    return (
        "both parts are sums over their dimensions, in nats, one loss a sample, for "
        "two variances, with gradients"
    )


@exercise
def check_log_evidence(log_evidence):
    """log (1/k) sum_k p(x, z_k) / q(z_k | x)."""
    log_joint, log_q = random_numbers(7, 4) - 3, random_numbers(7, 4, seed=1) - 1
    answer = expect_tensor(log_evidence(log_joint, log_q), (4,))
    log_w = log_joint - log_q
    right = log_w.logsumexp(0) - log(7)
    reject(
        close(answer, log_w.mean(0)),
        "this is the mean of the logarithms, the ELBO once more: average first, take "
        "the logarithm afterwards",
    )
    reject(
        close(answer, log_w.logsumexp(0)),
        "a sum instead of a mean: with k draws you are too high by log k",
    )
    reject(
        close(answer, log_joint.logsumexp(0) - log(7)),
        "the draws come from q, not from the prior: divide by q(z | x)",
    )
    reject(
        close(answer, (-log_w).logsumexp(0) - log(7)),
        "the weight is upside down: p(x, z) over q(z | x)",
    )
    expect(close(answer, right), f"expected {right.tolist()}, got {answer.tolist()}")
    far = log_evidence(log_joint - 5000, log_q)
    expect_given(far)
    expect(
        bool(far.isfinite().all()) and close(far, right - 5000),
        "at -5000 nats, usual for images, exp underflows to 0: use logsumexp",
    )
    apart = torch.tensor([0.0, -5000.0, -9000.0, 200.0], dtype=torch.float64)
    far = log_evidence(log_joint + apart, log_q)
    expect(
        bool(far.isfinite().all()) and close(far, right + apart),
        "one picture of the batch is 5000 nats less likely than another, and its "
        "result is wrong: subtract each column's own maximum, not that of the batch",
    )
    far = log_evidence(log_joint + apart, log_q + apart)
    expect(
        bool(far.isfinite().all()) and close(far, right),
        "where log q is large too, the result is wrong: it is the difference "
        "log_joint - log_q whose maximum must be taken out before exp",
    )
    weight, x, noise = random_numbers(3, 1), random_numbers(4, 3, seed=4), 0.5
    eye = torch.eye(3, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(3).double(), weight @ weight.T + noise * eye)
    z = random_numbers(20_000, 4, 1, seed=5) * 1.5
    joint = Normal(z @ weight.T, noise**0.5).log_prob(x).sum(2)
    joint = joint + Normal(0, 1).log_prob(z[..., 0])
    estimate = log_evidence(joint, Normal(0, 1.5).log_prob(z[..., 0]))
    expect(
        close(estimate, exact.log_prob(x), 0.05),
        "it does not reach the exact evidence of a linear model",
    )
    return "a mean before the logarithm, safe far out, and an exact evidence is reached"


@exercise
def check_strength(strength):
    """w^2 of the best linear beta-VAE, for each eigenvalue."""
    eigenvalues = torch.tensor([1.0, 4.0, 0.05, 0.3], dtype=torch.float64)
    for variance, beta in ((0.1, 1.0), (0.1, 4.0), (0.02, 0.5)):
        answer = strength(eigenvalues, variance, beta)
        expect_given(answer)
        where = f"for variance {variance} and beta {beta}"
        threshold = beta * variance
        reject(
            answer.dtype == torch.bool,
            "you return which directions live; return how strong they are, w^2",
        )
        answer = expect_tensor(answer, (4,))
        reject(
            bool((answer < 0).any()),
            f"{where} a w^2 is negative: there the optimum is w = 0, a dead direction",
        )
        right = (eigenvalues - threshold).clamp(min=0)
        reject(
            beta != 1 and close(answer, (eigenvalues - variance).clamp(min=0)),
            f"{where} the result does not depend on beta; divide the loss by it first",
        )
        reject(
            close(answer, (eigenvalues - beta).clamp(min=0)),
            f"{where} the threshold must have the unit of a variance",
        )
        reject(
            beta != 1 and close(answer, (eigenvalues - variance / beta).clamp(min=0)),
            f"{where} beta acts the wrong way: a larger one must kill directions",
        )
        reject(
            close(answer, right.sqrt()),
            f"{where} you return w; the answer is w^2",
        )

        def loss(w2, t=threshold):
            return (w2 + t).log() + eigenvalues / (w2 + t)

        for off in (0.99, 1.01):
            worse = loss((off * right).clamp(min=0)) - loss(answer.clamp(min=0))
            expect(
                bool((worse > -1e-9).all()),
                f"{where} another w^2 has a smaller loss: set the derivative of "
                "log v + lambda / v to 0, v = w^2 + beta variance",
            )
        expect(close(answer, right), f"{where} expected {right.tolist()}")
    return "three settings: no other w^2 does better, and weak directions are dead"


@exercise
def check_train_vae(train_vae):
    """Encoder, decoder and loop: the bound must come close to a known evidence."""
    variance, latent = 0.05, 2
    weight = torch.tensor([[1.5, 0.0], [1.0, 1.0], [-1.0, 0.5]])
    weight = torch.cat([weight, weight.flip(1)])  # (6, 2)
    z = random_numbers(3000, latent).float()
    x = z @ weight.T + variance**0.5 * random_numbers(3000, 6, seed=1).float()
    cov = weight @ weight.T + variance * torch.eye(6)
    train, test = x[:2500], x[2500:]
    evidence = MultivariateNormal(torch.zeros(6), cov).log_prob(test).mean().item()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _networks(train_vae, train[:, :4], 1, variance, steps=2)
        torch.manual_seed(0)
        begun = _networks(train_vae, train, latent, variance, steps=1)
        torch.manual_seed(0)
        networks = _networks(train_vae, train, latent, variance, steps=800)
    with torch.no_grad():
        _expect_trained(begun, networks, test, latent)
        bound = _bound(*networks, test, variance, cov)
    expect(
        bound < evidence + 0.5,
        f"the bound, {bound:.1f} nats, lies above the evidence, {evidence:.1f}: decode "
        "must see z alone",
    )
    expect(
        bound > evidence - 1,
        f"on new data the bound is {bound:.1f} nats, but log p(x) is {evidence:.1f}: "
        "the two must come within 1. Is the loss |x - x_hat|^2 / (2 variance) + KL, "
        "with sums over the numbers and log_var a logarithm of a variance?",
    )
    return (
        f"the bound on new data, {bound:.1f} nats, is within 1 of the evidence, "
        f"{evidence:.1f}"
    )


def _networks(train_vae, x, latent, variance, steps):
    """Return the reader's encoder and decoder, or end the check."""
    pair = train_vae(x, latent, variance, steps)
    expect_given(pair)
    expect(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(map(callable, pair)),
        "the function must return two functions or networks: encode and decode",
    )
    encode, decode = pair
    code = encode(x[:7])
    expect(
        isinstance(code, tuple | list) and len(code) == 2,
        "encode must return two tensors: mean and log_var",
    )
    mean, _ = (expect_tensor(part, (7, latent)) for part in code)
    expect_tensor(decode(mean), (7, x.shape[1]))
    return encode, decode


def _expect_trained(begun, networks, x, latent) -> None:
    """End the check if a network is after all steps what it was after the first."""
    z = random_numbers(100, latent).float()
    encoder = torch.equal(begun[0](x)[0], networks[0](x)[0])
    decoder = torch.equal(begun[1](z), networks[1](z))
    reject(
        encoder and decoder,
        "800 steps leave both networks as they were after one: does each step call "
        "backward and step?",
    )
    reject(
        encoder or decoder,
        f"800 steps leave the {'encoder' if encoder else 'decoder'} as it was after "
        "one: are its parameters in the optimizer?",
    )


def _bound(encode, decode, x, variance, cov) -> float:
    """The mean ELBO in nats with one draw for each x, or the end of the check."""
    mean, log_var = encode(x)
    std = (log_var / 2).exp()
    error = (x - decode(mean)).square().sum(1).mean().item()
    spread = (x - x.mean(0)).square().sum(1).mean().item()
    nats = ((mean**2 + std**2 - 1 - log_var).sum(1) / 2).mean().item()
    reject(
        error > 0.5 * spread and nats < 0.1,
        "the KL is 0 and all copies are alike: the posterior has collapsed. Sum the "
        "squared error over the numbers of x, and divide it by 2 variance",
    )
    reject(
        error > 0.5 * spread,
        "the copies of new data are hardly better than their mean: are the parameters "
        "of both networks in the optimizer, and does each step call backward and step?",
    )
    expected = x.shape[1] * variance
    reject(
        error > 3 * expected,
        f"the copies have a squared error of {error / x.shape[1]:.2f} a number, where "
        f"the variance is {variance}: the error counts too little beside the KL. Sum "
        "it over the numbers of x, and divide by 2 variance",
    )
    enough = (cov / variance).logdet().item() / 2  # I(x; z) of the model
    reject(
        nats > enough + 1,
        f"the codes outrun their noise: the KL is {nats:.1f} nats, where {enough:.1f} "
        "do. Is the KL in the loss?",
    )
    eps = random_numbers(*mean.shape, seed=2).float()
    drawn = (x - decode(mean + std * eps)).square().sum(1)
    reject(
        drawn.mean().item() > 5 * expected > error,
        "copies from the mean are good, and from a draw they are bad: in training the "
        "decoder must see mean + std * eps",
    )
    normal = x.shape[1] / 2 * log(2 * pi * variance)
    return -(drawn.mean().item() / (2 * variance) + normal + nats)
