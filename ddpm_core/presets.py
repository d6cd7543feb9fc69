"""Presets: all that a training run is made of, as one frozen dataclass. Chapter 07."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from ddpm_core import schedules
from ddpm_core.datasets.toy_cars import NEVER_TRAINED
from ddpm_core.diffusion import TARGETS, Target
from ddpm_core.schedules import Schedule
from ddpm_core.unet import UNetConfig

SCHEDULES: dict[str, Callable[["Preset"], Schedule]] = {
    "linear": lambda p: schedules.linear_schedule(p.T, p.beta_start, p.beta_end),
    "cosine": lambda p: schedules.cosine_schedule(p.T),
    "sigmoid": lambda p: schedules.sigmoid_schedule(p.T),
    "flow": lambda p: schedules.flow_schedule(p.T),
}


PRECISIONS = ("no", "bf16", "fp16", "auto")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class Preset:
    """The full description of a run and of the model that comes out of it.

    It is saved as JSON beside the weights. Raises ValueError for values that cannot be.
    """

    data: str = field(
        metadata={"help": "'toy-cars', or the folder of a packed data set"}
    )
    size: int = field(default=32, metadata={"help": "side of the images in pixels"})
    drawn: int = field(default=30_000, metadata={"help": "toy cars drawn to train on"})
    held_out: int = field(default=512, metadata={"help": "images kept out of training"})
    flip: bool = field(default=False, metadata={"help": "mirror images at random"})
    absent: tuple[str, ...] = field(
        default=(),
        metadata={"help": "toy cars never trained on, as purple+convertible+snow"},
    )

    text: str = field(
        default="",
        metadata={
            "help": "weights of the text encoder, or open_clip:ARCHITECTURE/WEIGHTS; "
            "empty: no captions"
        },
    )
    drop: float = field(
        default=0.1, metadata={"help": "share of captions dropped in training"}
    )

    latent: str = field(
        default="",
        metadata={"help": "weights of the autoencoder; empty: diffusion in pixels"},
    )

    unet: UNetConfig = field(default_factory=UNetConfig)
    schedule: str = field(default="cosine", metadata={"help": ", ".join(SCHEDULES)})
    T: int = field(default=1000, metadata={"help": "diffusion steps"})
    beta_start: float = field(
        default=1e-4, metadata={"help": "linear schedule: beta_1"}
    )
    beta_end: float = field(default=0.02, metadata={"help": "linear schedule: beta_T"})
    zero_terminal_snr: bool = field(
        default=False, metadata={"help": "rescale the schedule to end in pure noise"}
    )
    target: str = field(
        default="v",
        metadata={"help": "what the network predicts: " + ", ".join(TARGETS)},
    )
    min_snr: float = field(
        default=0.0, metadata={"help": "weigh the loss by min(SNR, this); 0: do not"}
    )

    teacher: str = field(
        default="",
        metadata={"help": "weights of the model that is distilled; empty: none"},
    )
    teacher_calls: int = field(
        default=32, metadata={"help": "network calls in which the teacher samples"}
    )
    calls: int = field(
        default=0,
        metadata={"help": "calls that its student makes; 0: any (rectified flow)"},
    )

    epochs: int = field(
        default=10, metadata={"help": "passes over the training images"}
    )
    batch: int = field(
        default=32, metadata={"help": "images a step, over all processes"}
    )
    accumulate: int = field(
        default=1,
        metadata={"help": "parts in which a process takes its share of a batch"},
    )
    optimizer: str = field(
        default="adamw",
        metadata={"help": "adamw, or muon (without weight decay)"},
    )
    lr: float = field(default=1e-3, metadata={"help": "peak learning rate"})
    lr_end: float = field(default=0.1, metadata={"help": "last rate, as a share of lr"})
    warmup: float = field(default=0.25, metadata={"help": "epochs of rising rate"})
    weight_decay: float = field(default=0.0, metadata={"help": "AdamW's weight decay"})
    clip: float = field(default=1.0, metadata={"help": "largest gradient norm"})
    ema: float = field(
        default=0.999, metadata={"help": "decay of the averaged weights"}
    )
    precision: str = field(
        default="no",
        metadata={"help": "no (fp32), bf16, fp16, or auto: what the GPU does best"},
    )
    compile: bool = field(default=False, metadata={"help": "torch.compile the network"})
    graphs: bool = field(
        default=False,
        metadata={"help": "compiled, on a GPU: launch its kernels as CUDA graphs"},
    )
    seed: int = field(default=0, metadata={"help": "seed of everything random"})

    log_every: int = field(default=20, metadata={"help": "steps between loss readings"})
    checkpoint_every: int = field(
        default=400, metadata={"help": "steps between checkpoints"}
    )
    strips: tuple[int, ...] = field(
        default=(1, 2, 5, 10),
        metadata={"help": "epochs after which a strip is drawn"},
    )
    sample_steps: int = field(default=50, metadata={"help": "DDIM steps of the strips"})

    def __post_init__(self):
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("target", self.target, TARGETS)
        one_of("precision", self.precision, PRECISIONS)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        above_zero = "size drawn T epochs batch accumulate lr clip log_every"
        for name in (*above_zero.split(), "checkpoint_every", "sample_steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in "held_out seed warmup weight_decay min_snr calls".split():
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")
        schedule = self.make_schedule()
        if self.target == "eps" and schedule.ends_in_pure_noise:
            raise ValueError(
                "target eps cannot be learned with zero_terminal_snr: take v or x0"
            )
        if self.teacher:
            self._check_lesson(schedule)
        if self.strips and self.sample_steps > self.T:
            raise ValueError(
                f"sample_steps must be at most T = {self.T}, got {self.sample_steps}"
            )
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop must lie in [0, 1], got {self.drop}")
        if bool(self.text) != bool(self.unet.pooled):
            raise ValueError(
                "a text encoder and a network with pooled above 0 need each other, got "
                f"text = {self.text!r} and pooled = {self.unet.pooled}"
            )
        if self.graphs and (self.accumulate > 1 or not self.compile):
            raise ValueError(
                "graphs are for a compiled network and a batch in one part: their "
                "gradients do not add up; got accumulate = "
                f"{self.accumulate} and compile = {self.compile}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")
        if not self.latent and self.size % self.unet.side_multiple:
            raise ValueError(
                f"size must be a multiple of {self.unet.side_multiple} for this "
                f"network, got {self.size}"
            )
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                "checkpoint_every must be a multiple of log_every = "
                f"{self.log_every}, got {self.checkpoint_every}"
            )

    def _check_lesson(self, schedule: Schedule) -> None:
        if self.text:
            raise ValueError("a model with captions cannot be distilled yet")
        if not self.calls and not schedule.ends_in_pure_noise:
            raise ValueError(
                "calls = 0 pairs cars with noise: the schedule must end in pure noise"
            )
        if self.teacher_calls < 1 or (self.calls and self.teacher_calls % self.calls):
            raise ValueError(
                f"teacher_calls must be a multiple of calls = {self.calls}, "
                f"got {self.teacher_calls}"
            )

    def make_schedule(self) -> Schedule:
        """Build the noise schedule."""
        schedule = SCHEDULES[self.schedule](self)
        if self.zero_terminal_snr:
            schedule = schedules.rescale_zero_terminal_snr(schedule)
        return schedule

    @property
    def make_target(self) -> Target:
        """What the network predicts."""
        return TARGETS[self.target]

    def replace(self, **changes: object) -> "Preset":
        """Return a copy with fields of the preset, or of its network, changed."""
        of_network = {f.name for f in fields(UNetConfig)} & changes.keys()
        inner = {name: changes.pop(name) for name in of_network}
        unet = dataclasses.replace(self.unet, **inner)
        return dataclasses.replace(self, unet=unet, **changes)

    def to_dict(self) -> dict:
        """Return the preset as what JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> "Preset":
        """Rebuild what `to_dict` gave; ValueError for fields unknown or missing."""
        try:
            unet = UNetConfig(**_tuples(values["unet"]))
            return cls(**_tuples({**values, "unet": unet}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the configuration of a model: {error}") from error


def _tuples(values: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def one_of(what: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known; otherwise raise ValueError that lists what is."""
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; there is: {', '.join(known)}")
    return name


SMALL_UNET = UNetConfig(
    channels=(48, 96), attention=(False, True), blocks=1, groups=8, dropout=0.0, patch=2
)
"""1.3 million parameters, for 32x32 on a CPU: it works at 16x16 and 8x8 inside."""

LATENTS = {"patch": 1, "image_channels": 4}
"""What a network for latents of 4 channels has of its own."""

CARS64 = Preset(
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

VIEW = Preset(
    data="toy-cars",
    unet=SMALL_UNET,
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

PRESETS = {
    "toy-cars-32": Preset(
        data="toy-cars",
        unet=SMALL_UNET,
        epochs=18,
        batch=16,
        lr_end=0.02,
        strips=(1, 2, 5, 10, 18),
    ),
    "toy-cars-text-32": Preset(
        data="toy-cars",
        absent=NEVER_TRAINED,
        text="toy-cars-clip-32",
        unet=dataclasses.replace(SMALL_UNET, pooled=64, context=64),
        epochs=18,
        batch=16,
        lr_end=0.02,
        strips=(1, 2, 5, 10, 18),
    ),
    "toy-cars-text-latent-32": Preset(
        data="toy-cars",
        absent=NEVER_TRAINED,
        text="toy-cars-clip-32",
        latent="toy-cars-autoencoder-32",
        unet=UNetConfig(
            image_channels=4,
            channels=(64, 128),
            attention=(True, True),
            blocks=1,
            groups=8,
            dropout=0.0,
            pooled=64,
            context=64,
        ),
        epochs=12,
        batch=16,
        lr_end=0.02,
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
    "photos-32": Preset(
        data="data/stanford-cars-32",
        unet=SMALL_UNET,
        held_out=2048,
        flip=True,
        min_snr=5.0,
        epochs=60,
        lr_end=0.02,
        strips=(1, 3, 10, 30, 60),
    ),
    "cars-64": Preset(
        data="data/stanford-cars-64",
        size=64,
        latent="cars-64-autoencoder",
        unet=dataclasses.replace(SMALL_UNET, channels=(64, 128), **LATENTS),
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
