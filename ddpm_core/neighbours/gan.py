"""The adversarial game: two networks, their losses, their steps. Chapters 03 and 04."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_number,
    check_output,
    check_shape,
)
from ddpm_core.neighbours.levels import Levels, Residual, conv, draw_rows, normalised
from ddpm_core.types import Images, PerSample, Samples

Latents = Float[Tensor, "b d"]
"""A row for each sample: `z ~ N(0, I)`, from which the generator makes it."""

Labels = Int[Tensor, "b a"]
"""For each sample the number of the value that each attribute has."""


# What the players want ----------------------------------------------------------------


class Objective(NamedTuple):
    """The losses of both players, functions of the critic's scores, each (b,).

    This is the only place where the variants of the game differ. `critic(real, fake)`
    and `generator(fake)` return one loss a sample. Chapter 03.
    """

    name: str
    critic: Callable[[PerSample, PerSample], PerSample]
    generator: Callable[[PerSample], PerSample]


def _cross_entropy(real: PerSample, fake: PerSample) -> PerSample:
    """-log D(real) - log(1 - D(fake)) where D = sigmoid(score)."""
    return F.softplus(-real) + F.softplus(fake)


MINIMAX = Objective("minimax", _cross_entropy, lambda fake: -F.softplus(fake))
"""The generator gets log(1 - D): Goodfellow et al. 2014, eq. (1)."""

NON_SATURATING = Objective(
    "non-saturating", _cross_entropy, lambda fake: F.softplus(-fake)
)
"""The generator gets -log D, the flipped label: Goodfellow et al. 2014, section 3."""

WASSERSTEIN = Objective(
    "wasserstein", lambda real, fake: fake - real, lambda fake: -fake
)
"""The difference of the mean scores: Arjovsky et al. 2017, eq. (2). Needs a penalty."""


# What keeps the critic smooth ---------------------------------------------------------

Penalty = Callable[[Callable[[Tensor], PerSample], Samples, Samples], PerSample]
"""(score, real, fake) -> one number a sample, to be added to the critic's loss."""


def gradient_penalty(
    score: Callable[[Tensor], PerSample],
    real: Samples,
    fake: Samples,
    *,
    weight: float = 10.0,
    generator: torch.Generator | None = None,
) -> PerSample:
    """Return `weight (|grad score(x)| - 1)^2`, one a sample, x between real and fake.

    `x = mix real + (1 - mix) fake`, with one `mix ~ U(0, 1)` a sample: Gulrajani et al.
    2017, eq. (3). Raises ValueError for unequal shapes, for scores that are not (b,),
    and for a weight below 0. Chapter 03.
    """
    check_floating("real", real)
    check_shape("fake", fake, real.shape, of="real")
    check_number("weight", weight, 0)
    one_each = (len(real), *[1] * (real.ndim - 1))
    mix = torch.rand(
        one_each, generator=generator, dtype=real.dtype, device=real.device
    )
    x = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    scores = score(x)
    check_shape("the scores", scores, (len(x),))
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    norm = gradient.flatten(1).norm(dim=1)
    return weight * (norm - 1).square()


# The game -----------------------------------------------------------------------------


class GANStep(NamedTuple):
    """One round, as `train` yields it; the numbers are means over its last batch."""

    step: int  # rounds done so far
    critic_loss: Tensor  # without the penalty
    generator_loss: Tensor
    real: Tensor  # the critic's scores, before its step
    fake: Tensor


def train(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    *,
    latent: int,
    objective: Objective = NON_SATURATING,
    penalty: Penalty | None = None,
    critic_steps: int = 1,
    generator: torch.Generator | None = None,
) -> Iterator[GANStep]:
    """Play the game and yield after each step of G.

    `G(z, *labels)` makes samples of `z ~ N(0, I)`, (b, latent), `D(x, *labels)` scores
    them, (b,). Each batch, (x,) or (x, labels), serves one step of D; after
    `critic_steps` of them G takes its own. `optimizers`: those of G and of D.
    Goodfellow et al. 2014, algorithm 1. Raises ValueError for samples and scores of
    another shape. Chapter 03.
    """
    check_count("latent", latent)
    check_count("critic_steps", critic_steps)
    of_G, of_D = optimizers
    for k, (x, *labels) in enumerate(batches, 1):
        z = _noise(len(x), latent, x, generator)
        with torch.no_grad():  # a step of D leaves G alone
            made = G(z, *labels)
        check_output("G", made, x, "the batch")
        real, fake = D(x, *labels), D(made, *labels)
        check_shape("the critic's scores", real, (len(x),))  # (b, 1) would broadcast
        check_shape("the critic's scores", fake, (len(x),))
        loss = objective.critic(real, fake).mean()
        total = loss
        if penalty is not None:
            total = loss + penalty(lambda x: D(x, *labels), x, made).mean()  # noqa: B023
        of_D.zero_grad()
        total.backward()
        of_D.step()
        if k % critic_steps:
            continue
        D.requires_grad_(False)  # and a step of G leaves D alone
        z = _noise(len(x), latent, x, generator)
        wish = objective.generator(D(G(z, *labels), *labels)).mean()
        of_G.zero_grad()
        wish.backward()
        of_G.step()
        D.requires_grad_(True)
        yield GANStep(
            k // critic_steps,
            *(v.detach() for v in (loss, wish, real.mean(), fake.mean())),
        )


# Two networks -------------------------------------------------------------------------


@dataclass(frozen=True)
class GANConfig(Levels):
    """The shape of a `Generator` and its `Critic`: `Levels`, and what is asked for.

    `values`: for each attribute that can be requested, how many values it has; () for
    none. Raises ValueError as `Levels` does, and for an attribute of fewer than two
    values. Chapter 03.
    """

    values: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if any(n < 2 for n in self.values):
            raise ValueError(f"an attribute has at least 2 values, got {self.values}")


class Generator(nn.Module):
    """G: (z, labels) -> images in [-1, 1], (b, c, size, size).

    The labels' vectors are joined to z. Goodfellow et al. 2014; with labels Mirza and
    Osindero 2014. Chapter 03.
    """

    def __init__(self, config: GANConfig | None = None):
        super().__init__()
        self.config = config = config or GANConfig()
        widths, groups = config.channels, config.groups

        def residuals(width: int) -> list[nn.Module]:
            blocks = range(config.blocks)
            return [Residual(width, normalised(width, groups)) for _ in blocks]

        self.label = _Labels(config.values, config.latent)
        inputs = config.latent * (2 if config.values else 1)
        layers: list[nn.Module] = [nn.Linear(inputs, _size(config.last))]
        layers += [nn.Unflatten(1, config.last)]
        layers += residuals(widths[-1])
        for below, above in pairwise(widths[::-1]):
            layers += [nn.ConvTranspose2d(below, above, 4, stride=2, padding=1)]
            layers += residuals(above)
        pixels = config.image_channels * config.patch**2
        layers += [*normalised(widths[0], groups), conv(widths[0], pixels)]
        self.layers = nn.Sequential(*layers, nn.PixelShuffle(config.patch), nn.Tanh())

    def forward(self, z: Latents, labels: Labels | None = None) -> Images:
        check_floating("z", z, "(b, d)")
        if z.shape[1] != self.config.latent:
            raise ValueError(
                f"z must have the shape (b, {self.config.latent}), got {tuple(z.shape)}"
            )
        self.label.check(labels, len(z))
        if self.config.values:
            z = torch.cat([z, self.label(labels)], dim=1)
        return self.layers(z)


class Critic(nn.Module):
    """D: (images, labels) -> scores, (b,), higher for what looks real.

    Labels are compared with what is seen by an inner product, the projection of Miyato
    and Koyama 2018, eq. (3). No layer mixes the samples of a batch, so that a penalty
    on each gradient means what it says. Chapter 03.
    """

    def __init__(self, config: GANConfig | None = None):
        super().__init__()
        self.config = config = config or GANConfig()
        widths = config.channels

        def residuals(width: int) -> list[nn.Module]:
            return [Residual(width, nn.LeakyReLU(0.2)) for _ in range(config.blocks)]

        pixels = config.image_channels * config.patch**2
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.patch)]
        layers += [conv(pixels, widths[0]), *residuals(widths[0])]
        for above, below in pairwise(widths):
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(above, below, 4, 2, padding=1)]
            layers += residuals(below)
        layers += [nn.LeakyReLU(0.2), nn.Flatten()]
        layers += [nn.Linear(_size(config.last), config.channels[-1])]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.score = nn.Linear(config.channels[-1], 1)
        self.label = _Labels(config.values, config.channels[-1])

    def forward(self, x: Images, labels: Labels | None = None) -> PerSample:
        check_floating("images", x, "(b, c, h, w)")
        shape = (self.config.image_channels, *[self.config.size] * 2)
        check_shape("images", x, (len(x), *shape))
        self.label.check(labels, len(x))
        h = self.layers(x)
        score = self.score(h)[:, 0]
        if self.config.values:
            score = score + (self.label(labels) * h).sum(1)
        return score


@torch.no_grad()
def sample(
    G: Generator,
    n: int,
    labels: Labels | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Images:
    """Draw n images from G, with the requested labels. Chapter 03."""
    z = draw_rows(n, (G.config.latent,), next(G.parameters()), generator)
    return G(z, labels)


class _Labels(nn.Module):
    """Labels (b, a) -> the sum of their vectors, (b, width)."""

    def __init__(self, values: tuple[int, ...], width: int):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(n, width) for n in values])

    def check(self, labels: Labels | None, samples: int) -> None:
        """Raise ValueError unless each sample has one label for each attribute."""
        wanted = len(self.tables)
        if labels is None:
            if wanted:
                raise ValueError(f"labels of shape (b, {wanted}) are needed, got none")
            return
        if not wanted:
            raise ValueError(
                f"this network takes no labels, got shape {tuple(labels.shape)}"
            )
        check_integers("labels", labels, "(b, a)")
        if labels.shape != (samples, wanted):
            raise ValueError(
                f"labels of shape (b, {wanted}) are needed for {samples} samples, "
                f"got shape {tuple(labels.shape)}"
            )
        for table, column in zip(self.tables, labels.T, strict=True):
            highest, on_cpu = table.num_embeddings - 1, labels.device.type == "cpu"
            if on_cpu and samples and not 0 <= column.min() <= column.max() <= highest:
                raise ValueError(
                    f"labels of this attribute lie in 0..{highest}, "
                    f"got {column.min()}..{column.max()}"
                )

    def forward(self, labels: Labels) -> Tensor:
        columns = zip(self.tables, labels.T, strict=True)
        return sum(table(column) for table, column in columns)


def _noise(
    n: int, width: int, like: Tensor, generator: torch.Generator | None
) -> Latents:
    return torch.randn(
        (n, width), generator=generator, dtype=like.dtype, device=like.device
    )


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
