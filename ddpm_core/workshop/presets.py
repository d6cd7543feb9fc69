"""Presets: how a model is trained, as one frozen dataclass. Chapter 07.

What the trained model is, a preset holds in its `model`: `config.ModelConfig`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_core.checking import quoted
from ddpm_core.config import ModelConfig
from ddpm_core.datasets.toy_cars import ATTRIBUTES, NEVER_TRAINED, showing_any
from ddpm_core.options import (
    check,
    from_json,
    one_of,
    option,
    to_json,
)
from ddpm_core.unet import UNetConfig
from ddpm_core.weights import read_card

PRECISIONS = ("no", "bf16", "fp16", "auto")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class Preset:
    """The full description of a run: the model that comes out of it, and its training.

    It is saved as JSON in the run's folder. Raises ValueError for values that do not
    fit together.
    """

    model: ModelConfig
    data: str = option("'toy-cars', or the folder of a packed data set", "toy-cars")
    drawn: int = option(
        "toy cars drawn to train on", 30_000, at_least=1, at_most=10_000_000
    )
    held_out: int = option(
        "images kept out of training", 512, at_least=0, at_most=10_000_000
    )
    flip: bool = option("mirror images at random", False)
    absent: tuple[str, ...] = option(
        "toy cars never trained on, as purple+convertible+snow", ()
    )
    loose: bool = option(
        "toy cars' captions leave attributes out and vary their words", False
    )
    labels: bool = option("train on the classes of the data set", False)
    drop: float = option(
        "fraction of conditions dropped in training", 0.1, at_least=0, at_most=1
    )
    min_snr: float = option(
        "weigh the loss by min(SNR, this); 0: do not", 0.0, at_least=0
    )

    start_from: str = option(
        "weights, or a run's folder, to start from; empty: at random", ""
    )
    lora: int = option(
        "train only a change of this rank (chapter 'Fine-tuning'); 0: all weights", 0,
        at_least=0, at_most=1024,
    )  # fmt: skip

    teacher: str = option("weights of the model that is distilled; empty: none", "")
    teacher_calls: int = option(
        "network calls in which the teacher samples", 32, at_least=1, at_most=100_000
    )
    calls: int = option(
        "calls that its student makes; 0: any (rectified flow)", 0, at_least=0,
        at_most=100_000,
    )  # fmt: skip

    epochs: int = option(
        "passes over the training images", 10, at_least=1, at_most=1_000_000
    )
    batch: int = option(
        "images a step, over all processes", 32, at_least=1, at_most=1_000_000
    )
    accumulate: int = option(
        "parts in which a process takes its share of a batch", 1, at_least=1,
        at_most=1_000_000,
    )  # fmt: skip
    optimizer: str = option(
        "adamw, or muon (without weight decay)", "adamw", choices=OPTIMIZERS
    )
    lr: float = option("peak learning rate", 1e-3, above=0, at_most=10)
    lr_end: float = option("last rate, as a fraction of lr", 0.1, at_least=0, at_most=1)
    warmup: float = option("epochs of rising rate", 0.25, at_least=0)
    weight_decay: float = option("AdamW's weight decay", 0.0, at_least=0, at_most=10)
    clip: float = option("largest gradient norm", 1.0, above=0)
    ema: float = option("decay of the averaged weights", 0.999, at_least=0, below=1)
    precision: str = option(
        "no (fp32), bf16, fp16, or auto: what the GPU does best", "no",
        choices=PRECISIONS,
    )  # fmt: skip
    compile: bool = option("torch.compile the network", False)
    graphs: bool = option(
        "compiled, on a GPU: launch its kernels as CUDA graphs", False
    )
    seed: int = option("seed of everything random", 0, at_least=0, below=2**31)

    log_every: int = option(
        "steps between loss readings", 20, at_least=1, at_most=1_000_000
    )
    checkpoint_every: int = option(
        "steps between checkpoints", 400, at_least=1, at_most=100_000_000
    )
    strips: tuple[int, ...] = option(
        "epochs after which a strip is drawn", (1, 2, 5, 10), at_least=1
    )
    sample_steps: int = option(
        "DDIM steps of the strips", 50, at_least=1, at_most=100_000
    )

    def __post_init__(self):
        check(self)
        if not isinstance(self.model, ModelConfig):
            raise ValueError(f"model must be a ModelConfig, got {quoted(self.model)}")
        self._check_training()
        if self.teacher:
            self._check_lesson()
        if self.strips and self.sample_steps > self.model.T:
            raise ValueError(
                f"sample_steps must be at most T = {self.model.T}, got "
                f"{self.sample_steps}"
            )

    def _check_training(self) -> None:
        if self.lora and not self.start_from:
            raise ValueError(
                f"a LoRA (lora = {self.lora}) changes trained weights: name them with "
                "--from"
            )
        if self.start_from and self.teacher:
            raise ValueError(
                "a student starts from its teacher's weights: leave out --from"
            )
        showing_any(np.zeros((1, len(ATTRIBUTES)), np.int64), self.absent)  # its errors
        if self.warmup > self.epochs:
            raise ValueError(
                f"warmup must be at most epochs = {self.epochs}, got {self.warmup:g}"
            )
        if self.strips and max(self.strips) > self.epochs:
            raise ValueError(
                f"strips are of epochs 1..{self.epochs}, got {max(self.strips)}"
            )
        if self.graphs and (self.accumulate > 1 or not self.compile):
            raise ValueError(
                "graphs are for a compiled network and a batch in one part: their "
                "gradients do not add up; got accumulate = "
                f"{self.accumulate} and compile = {self.compile}"
            )
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                "checkpoint_every must be a multiple of log_every = "
                f"{self.log_every}, got {self.checkpoint_every}"
            )

    def _check_lesson(self) -> None:
        if self.model.conditional or self.labels:
            raise ValueError("a model with prompts cannot be distilled yet")
        if not self.calls and not self.model.make_schedule().ends_in_pure_noise:
            raise ValueError(
                "calls = 0 pairs cars with noise: the schedule must end in pure noise"
            )
        if self.calls and self.teacher_calls % self.calls:
            raise ValueError(
                f"teacher_calls must be a multiple of calls = {self.calls}, "
                f"got {self.teacher_calls}"
            )

    def replace(self, **changes: Any) -> "Preset":
        """Return a copy with fields of the preset, its model or its network changed.

        Fewer epochs leave out the strips of those that are gone.
        """
        own = {f.name: changes.pop(f.name) for f in fields(self) if f.name in changes}
        if "epochs" in own and "strips" not in own:
            own["strips"] = tuple(s for s in self.strips if s <= own["epochs"])
        if changes:
            own["model"] = own.get("model", self.model).replace(**changes)
        return dataclasses.replace(self, **own)

    def with_classes(self, names: Sequence[str]) -> "Preset":
        """Return the preset of a model that takes these classes as prompts."""
        return self.replace(classes=tuple(names), pooled=len(names) + 1, context=0)

    def to_dict(self) -> dict:
        """Return the preset as what JSON can hold."""
        return {**to_json(self), "model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> "Preset":
        """Rebuild what `to_dict` gave; ValueError names the field that does not fit."""
        if isinstance(values, dict) and "model" in values:
            values = {**values, "model": ModelConfig.from_dict(values["model"])}
        elif isinstance(values, dict) and "unet" in values:
            raise ValueError("an older configuration: `ddpm migrate` rewrites it")
        return from_json(cls, values, "the configuration of a run")


PLAIN = Preset(ModelConfig())
"""The defaults, from which all presets are made."""

SMALL_UNET = UNetConfig(
    channels=(48, 96), attention=(False, True), blocks=1, groups=8, dropout=0.0, patch=2
)
"""1.3 million parameters, for 32x32 on a CPU: it works at 16x16 and 8x8 inside."""

LATENTS = {"patch": 1, "image_channels": 4}
"""What a network for latents of 4 channels has of its own."""

CARS64 = PLAIN.replace(
    data="data/stanford-cars-64",
    size=64,
    held_out=2048,
    flip=True,
    epochs=300,
    batch=64,
    precision="auto",
    compile=True,
    log_every=100,
    checkpoint_every=5000,
    strips=(1, 5, 10, 100, 200, 300),
)
"""What the presets for photos of 64x64 have in common, made for a GPU. Chapter 14."""

VIEW = PLAIN.replace(
    data="toy-cars",
    network=SMALL_UNET,
    epochs=17,
    batch=128,
    lr=2e-3,
    lr_end=0.02,
    log_every=100,
    checkpoint_every=2000,
    strips=(17,),
)
"""What the views of chapter 13 have in common: half a million images, large batches."""

LINEAR = VIEW.replace(schedule="linear", T=512, epochs=9, strips=(9,))
"""The schedule of the article, on which chapter 13 measures brightness."""

STUDENT = VIEW.replace(
    drawn=8000,
    epochs=3,
    batch=32,
    lr=5e-4,
    ema=0.995,
    log_every=50,
    checkpoint_every=250,
    strips=(),
)
"""What the students of chapter 13 have in common: minutes on one core of a CPU."""

BETTER = {
    "channels": (128, 256, 512),
    "attention": (False, True, True),
    "blocks": 1,
    "patch": 2,
    "batch": 128,
    "lr": 4e-4,
    "warmup": 5,
}
"""Wider layers on fewer positions, half the FLOP of the article's; larger batches."""

TEXT = PLAIN.replace(
    data="toy-cars",
    absent=NEVER_TRAINED,
    text="toy-cars-clip-uniform-32",
    network=SMALL_UNET,
    pooled=64,
    context=64,
    batch=16,
    lr_end=0.02,
)
"""What the presets with captions have in common. Chapter 10."""

PRESETS = {
    "toy-cars-32": PLAIN.replace(
        data="toy-cars",
        network=SMALL_UNET,
        epochs=18,
        batch=16,
        lr_end=0.02,
        strips=(1, 2, 5, 10, 18),
    ),
    "toy-cars-text-32": TEXT.replace(
        text="toy-cars-clip-32", loose=True, epochs=14, strips=(1, 2, 5, 14)
    ),
    "toy-cars-text-uniform-32": TEXT.replace(epochs=18, strips=(1, 2, 5, 10, 18)),
    "toy-cars-text-latent-32": TEXT.replace(
        text="toy-cars-clip-32",
        loose=True,
        latent="toy-cars-autoencoder-32",
        network=dataclasses.replace(
            SMALL_UNET, channels=(64, 128), attention=(True, True), **LATENTS
        ),
        pooled=64,
        context=64,
        epochs=12,
        strips=(1, 2, 5, 12),
    ),
    "toy-cars-eps-32": VIEW.replace(target="eps"),
    "toy-cars-v-32": VIEW,
    "toy-cars-edm-32": VIEW.replace(target="edm"),
    "toy-cars-flow-32": VIEW.replace(schedule="flow", target="flow"),
    "toy-cars-min-snr-32": VIEW.replace(target="eps", min_snr=5.0),
    "toy-cars-leaky-32": LINEAR.replace(target="eps"),
    "toy-cars-zero-snr-32": LINEAR.replace(zero_terminal_snr=True),
    "toy-cars-student-32": STUDENT.replace(
        teacher="data/exported/toy-cars-v-32", teacher_calls=16, calls=4
    ),
    "toy-cars-reflow-32": STUDENT.replace(
        teacher="toy-cars-flow-32",
        teacher_calls=8,
        schedule="flow",
        target="flow",
        epochs=2,
    ),
    "photos-32": PLAIN.replace(
        data="data/stanford-cars-32",
        network=SMALL_UNET,
        held_out=2048,
        flip=True,
        min_snr=5.0,
        epochs=60,
        lr_end=0.02,
        strips=(1, 3, 10, 30, 60),
    ),
    "cars-64": PLAIN.replace(
        data="data/stanford-cars-64",
        size=64,
        latent="cars-64-decoder",
        network=dataclasses.replace(SMALL_UNET, blocks=2),
        held_out=2048,
        flip=True,
        min_snr=5.0,
        epochs=100,
        batch=64,
        optimizer="muon",
        lr=4e-3,
        lr_end=0.02,
        log_every=50,
        checkpoint_every=500,
        strips=(1, 5, 10, 30, 100),
    ),
    "cars-64-latents": PLAIN.replace(
        data="data/stanford-cars-64",
        size=64,
        latent="cars-64-autoencoder",
        network=dataclasses.replace(SMALL_UNET, channels=(64, 128), **LATENTS),
        held_out=2048,
        flip=True,
        min_snr=5.0,
        epochs=300,
        lr_end=0.02,
        log_every=50,
        checkpoint_every=500,
        strips=(1, 5, 10, 100, 200, 300),
    ),
    "cars64-article": CARS64.replace(
        schedule="linear",
        T=512,
        target="eps",
        lr=1e-4,
        warmup=10,
        ema=0.9999,
        sample_steps=512,
    ),
    "cars64": CARS64.replace(**BETTER, min_snr=5.0),
    "cars64-text": CARS64.replace(
        **BETTER,
        min_snr=5.0,
        text="open_clip:ViT-B-32/laion2b_s34b_b79k",
        pooled=512,
        context=512,
    ),
    "cars64-latent": CARS64.replace(
        latent="data/weights/cars64-autoencoder",
        image_channels=4,
        channels=(256, 512),
        attention=(True, True),
        blocks=1,
        batch=128,
        lr=4e-4,
        warmup=5,
    ),
}
"""The presets that `ddpm train` knows; its options change every field."""


def preset(name: str) -> Preset:
    """Return the preset of that name; raise ValueError that lists the names."""
    return PRESETS[one_of("preset", name, PRESETS)]


def training_of(name: str | Path) -> Preset:
    """Return how the weights of that name, or in that folder, were trained.

    Raises as `read_card` does, and ValueError for a card that does not say it.
    """
    card = read_card(name)
    try:
        return Preset.from_dict({**card["training"], "model": card["config"]})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the card of {name} says nothing of its training: {error}"
        ) from error
