"""A small CLIP: images and captions in one space, by contrast. Chapter 10.

Its text tower conditions a U-Net on a prompt. `ddpm train-clip --out FOLDER` trains it
on captioned toy cars, measures it and writes its weights and card.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddpm_core.checking import (
    check_count,
    check_floating,
    check_integers,
    check_shape,
)
from ddpm_core.neighbours.classifier import convolutions
from ddpm_core.options import check
from ddpm_core.tokens import END, PAD, Tokenizer, Tokens
from ddpm_core.types import Condition, Images
from ddpm_core.weights import fit_weights, load_weights, read_config

Embeddings = Float[Tensor, "b d"]
"""Unit vectors; their products are cosines."""

LARGEST_SCALE = 100.0  # the bound of Radford et al. 2021, section 2.5


@dataclass(frozen=True)
class CLIPConfig:
    """The shape of a `CLIP`: its vocabulary, its text tower, its image tower.

    `length` counts the tokens of a caption, begin and end included; `embedding` is the
    width of the space that images and captions share. Raises ValueError for sizes that
    do not fit together. Chapter 10.
    """

    words: tuple[str, ...]
    length: int = 16
    width: int = 64
    layers: int = 2
    heads: int = 4
    embedding: int = 64
    image_widths: tuple[int, int, int] = (32, 64, 96)

    def __post_init__(self):
        check(self)
        for name in ("width", "layers", "heads", "embedding"):
            check_count(name, getattr(self, name))
        check_count("length", self.length, 3)  # begin, a word, end
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads = {self.heads}, got {self.width}"
            )

    def to_dict(self) -> dict:
        """Return the configuration as what JSON can hold."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict) -> "CLIPConfig":
        """Rebuild what `to_dict` gave; ValueError for fields unknown or missing."""
        try:
            lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            return cls(**{**values, **lists})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not the configuration of a CLIP: {error}") from error


class TextTower(nn.Module):
    """A transformer over the words of a caption, each of which sees those before it.

    Tokens (b, length) -> a condition: its words are the last states (b, length, width),
    its vector is the state at the end of the caption, which has seen it all. Radford et
    al. 2021, section 2.4. Chapter 10.
    """

    def __init__(self, tokens: int, config: CLIPConfig):
        super().__init__()
        length, width = config.length, config.width
        self.words = nn.Embedding(tokens, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        later = torch.ones(length, length).triu(1).bool()
        self.register_buffer("later", later, persistent=False)

    def forward(self, tokens: Tokens) -> Condition:
        x = self.words(tokens) + self.places
        states = self.layers(x, mask=self.later, is_causal=True)
        end = (tokens == END).int().argmax(1)
        return Condition(states[torch.arange(len(end)), end], states, tokens != PAD)


class CLIP(nn.Module):
    """Two towers that map images and captions to unit vectors, close where they match.

    Radford et al. 2021, figure 3. Chapter 10.
    """

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.words, config.length)
        self.text = TextTower(self.tokenizer.size, config)
        self.image = convolutions(config.image_widths)
        self.from_text = nn.Linear(config.width, config.embedding, bias=False)
        self.from_image = nn.Linear(
            config.image_widths[-1], config.embedding, bias=False
        )
        self.log_scale = nn.Parameter(torch.tensor(log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """The inverse of the temperature, a factor of the cosines; at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of what `encode` gives: of the pooled vector and of a word."""
        return self.config.width, self.config.width

    def embed_images(self, images: Images) -> Embeddings:
        """Images (b, 3, h, w) in [-1, 1] -> unit vectors."""
        check_floating("images", images, "(b, c, h, w)")
        return F.normalize(self.from_image(self.image(images)), dim=1)

    def embed_tokens(self, tokens: Tokens) -> Embeddings:
        """Tokens (b, length) -> unit vectors."""
        check_integers("tokens", tokens, "(b, l)")
        check_shape("tokens", tokens, (len(tokens), self.config.length))
        return F.normalize(self.from_text(self.text(tokens).pooled), dim=1)

    def embed_captions(self, captions: Sequence[str]) -> Embeddings:
        """Captions -> unit vectors; raises as `Tokenizer` does."""
        return self.embed_tokens(self.tokenizer(captions).to(self.log_scale.device))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Condition:
        """The condition of a U-Net for these captions; raises as `Tokenizer` does."""
        return self.text(self.tokenizer(captions).to(self.log_scale.device))


def contrastive_loss(
    images: Embeddings, texts: Embeddings, scale: Tensor | float
) -> Tensor:
    """The cross-entropy of finding each image's caption, and each caption's image.

    Unit vectors (b, d) of b pairs; the mean of both directions, in nats: log b where
    nothing is known. Radford et al. 2021, figure 3. Raises ValueError for
    unequal shapes. Chapter 10.
    """
    check_floating("images", images, "(b, d)")
    check_shape("texts", texts, images.shape, of="images")
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def load_clip(
    name: str | Path = "toy-cars-clip-32", device: str | torch.device = "cpu"
) -> CLIP:
    """Load the CLIP that ships with the book, or one from a folder of weights.

    Raises as `load_weights` does, and ValueError for weights that do not fit the card.
    """
    state, card = load_weights(name)
    net = CLIP(read_config(name, card, CLIPConfig.from_dict))
    fit_weights(net, state, name)
    return net.to(device).eval().requires_grad_(False)
