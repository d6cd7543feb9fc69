"""Reads body, colour, facing, time and ground off a picture of a toy car. Chapter 04.

The judge of generated toy cars: its answers make quality and coverage countable, and
its features are those on which `metrics` compares drawn and generated cars.
`ddpm train-classifier --out FOLDER` trains it anew, measures it and writes its weights
and card.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm_core.checking import check_count
from ddpm_core.datasets.images import check_images
from ddpm_core.datasets.toy_cars import ATTRIBUTES
from ddpm_core.options import check
from ddpm_core.types import Features, Images
from ddpm_core.weights import fit_weights, load_weights, read_config

Attributes = Int[Tensor, "b a"]
"""One row an image, one column an attribute: the number of its value in ATTRIBUTES."""


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of an `AttributeClassifier`: side of its images, widths, what it reads.

    `widths`: channels at a half, a quarter and an eighth of the side; the last are the
    features. `attributes`: the values of each, in the order of the answers. Raises
    ValueError for sizes that do not fit together. Chapter 04.
    """

    size: int = 32
    widths: tuple[int, int, int] = (48, 96, 96)
    attributes: dict[str, tuple[str, ...]] = field(default_factory=lambda: ATTRIBUTES)

    def __post_init__(self):
        check(self)
        if self.size < 8 or self.size % 8:
            raise ValueError(f"size must be a multiple of 8, got {self.size}")
        if len(self.widths) != 3 or any(w < 16 or w % 16 for w in self.widths):
            raise ValueError(f"widths must be three multiples of 16, got {self.widths}")

    @classmethod
    def from_dict(cls, values: dict) -> "ClassifierConfig":
        """Rebuild it from JSON; raise ValueError for fields unknown or missing."""
        try:
            names = {name: tuple(v) for name, v in values["attributes"].items()}
            widths = tuple(values["widths"])
            return cls(**{**values, "widths": widths, "attributes": names})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"not the configuration of a classifier: {error}"
            ) from error


class Prediction(NamedTuple):
    """What is seen, and the probability (0..1) that the network gives it."""

    attributes: Attributes
    confidence: Float[Tensor, "b a"]


class AttributeClassifier(nn.Module):
    """A small convolutional network with one answer for each attribute.

    (b, 3, size, size) in [-1, 1] -> for each attribute's name, logits (b, values).
    Raises ValueError for images of another shape. Chapter 04.
    """

    def __init__(self, config: ClassifierConfig | None = None):
        super().__init__()
        self.config = config or ClassifierConfig()
        self.trunk = convolutions(self.config.widths)
        width, attributes = self.config.widths[-1], self.config.attributes
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, len(v)) for name, v in attributes.items()}
        )

    def forward(self, images: Images) -> dict[str, Float[Tensor, "b _"]]:
        features = self._extract(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def features(self, images: Images, *, chunk: int = 512) -> Features:
        """Return what the answers are read from, (b, widths[-1]), for `metrics`.

        `images` in [-1, 1], taken `chunk` at a time. Raises ValueError for images of
        another shape or range. Chapter 04.
        """
        check_count("chunk", chunk)
        check_images(images)
        return torch.cat([self._extract(part) for part in images.split(chunk)])

    @torch.no_grad()
    def predict(self, images: Images, *, chunk: int = 512) -> Prediction:
        """Return the likeliest value of each attribute, and its probability.

        `images` in [-1, 1], taken `chunk` at a time. It was trained to doubt blobs and
        noise; other pictures without a car it may read with confidence. Raises
        ValueError for images of another shape or range. Chapter 04.
        """
        features = self.features(images, chunk=chunk)
        best = [head(features).softmax(1).max(1) for head in self.heads.values()]
        return Prediction(
            attributes=torch.stack([b.indices for b in best], dim=1),
            confidence=torch.stack([b.values for b in best], dim=1),
        )

    def _extract(self, images: Tensor) -> Tensor:
        size = self.config.size
        if images.shape[1:] != (3, size, size):
            raise ValueError(
                f"this classifier reads images of shape (b, 3, {size}, {size}), "
                f"got {tuple(images.shape)}"
            )
        return self.trunk(images)


def convolutions(widths: tuple[int, int, int]) -> nn.Sequential:
    """Images (b, 3, h, w) -> features (b, widths[-1]): means at an eighth of the side.

    `widths` as in `ClassifierConfig`. Chapters 04 and 10.
    """
    half, quarter, eighth = widths
    return nn.Sequential(
        _stage(3, half // 2, kernel=4, stride=2),
        _stage(half // 2, half),
        _stage(half, quarter, stride=2),
        _stage(quarter, quarter),
        _stage(quarter, eighth, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _stage(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def load_classifier(
    name: str | Path = "toy-cars-classifier-32", device: str | torch.device = "cpu"
) -> AttributeClassifier:
    """Load the classifier that ships with the book, or one from a folder of weights.

    Raises as `load_weights` does, and ValueError for weights that do not fit their card
    or were trained for attributes that are no longer drawn. Chapter 04.
    """
    state, card = load_weights(name)
    config = read_config(name, card, ClassifierConfig.from_dict)
    if list(config.attributes.items()) != list(ATTRIBUTES.items()):
        raise ValueError(
            f"{name} reads {config.attributes}, but toy cars now have {ATTRIBUTES}; "
            "train it anew: ddpm train-classifier"
        )
    net = AttributeClassifier(config)
    fit_weights(net, state, name)
    return net.to(device).eval().requires_grad_(False)
