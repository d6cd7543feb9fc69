"""What a trained model is: its images, its process, its network. Chapter 07.

How it was trained is in `workshop.presets`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from ddpm_core import schedules
from ddpm_core.checking import quoted
from ddpm_core.diffusion import TARGETS, Target
from ddpm_core.dit import DiTConfig
from ddpm_core.options import check, from_json, one_of, option, to_json
from ddpm_core.schedules import Schedule
from ddpm_core.unet import UNetConfig
from ddpm_core.values import sides

SCHEDULES: dict[str, Callable[["ModelConfig"], Schedule]] = {
    "linear": lambda c: schedules.linear_schedule(c.T, c.beta_start, c.beta_end),
    "cosine": lambda c: schedules.cosine_schedule(c.T),
    "sigmoid": lambda c: schedules.sigmoid_schedule(c.T),
    "flow": lambda c: schedules.flow_schedule(c.T),
}

NETWORKS = {config.kind: config for config in (UNetConfig, DiTConfig)}
"""The configurations of networks by their `kind`; each builds its own network."""

NetworkConfig = UNetConfig | DiTConfig

SHARED = ("image_channels", "pooled", "context")
"""What every network's configuration has: what goes in, and what conditions it."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to use a trained model, except its weights.

    It is saved as JSON beside them. Raises ValueError for values that do not fit
    together. Chapter 07.
    """

    size: int | tuple[int, int] = option(
        "side of the images in pixels, or height x width", 32, at_least=4, at_most=4096
    )
    network: NetworkConfig = field(default_factory=UNetConfig)
    schedule: str = option(", ".join(SCHEDULES), "cosine", choices=SCHEDULES)
    T: int = option("diffusion steps", 1000, at_least=1, at_most=100_000)
    beta_start: float = option("linear schedule: beta_1", 1e-4, above=0, at_most=1)
    beta_end: float = option("linear schedule: beta_T", 0.02, above=0, at_most=1)
    zero_terminal_snr: bool = option("rescale the schedule to end in pure noise", False)
    target: str = option(
        "what the network predicts: " + ", ".join(TARGETS), "v", choices=TARGETS
    )
    text: str = option(
        "weights of the text encoder, or open_clip:ARCHITECTURE/WEIGHTS; empty: none",
        "",
    )
    classes: tuple[str, ...] = option("names of the classes it was trained on", ())
    latent: str = option("weights of the autoencoder; empty: diffusion in pixels", "")

    def __post_init__(self):
        check(self)
        if type(self.network) not in NETWORKS.values():
            raise ValueError(
                f"network must be a configuration, got {quoted(self.network)}"
            )
        if self.target == "eps" and self.make_schedule().ends_in_pure_noise:
            raise ValueError(
                "target eps cannot be learned with a schedule that ends in pure noise: "
                "choose v or x0"
            )
        if self.text and self.classes:
            raise ValueError("a model takes either text or classes, got both")
        if self.classes and self.network.pooled != len(self.classes) + 1:
            raise ValueError(
                f"{len(self.classes)} classes need a network with pooled = "
                f"{len(self.classes) + 1}, got {self.network.pooled}"
            )
        if bool(self.text or self.classes) != bool(self.network.pooled):
            raise ValueError(
                "a condition (text or classes) and a network with pooled above 0 need "
                f"each other, got text = {self.text!r} and pooled = "
                f"{self.network.pooled}"
            )
        multiple = self.network.side_multiple
        if not self.latent and any(side % multiple for side in self.sides):
            raise ValueError(
                f"size must be a multiple of {multiple} for this network, got "
                f"{self.size}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """The height and the width of the images in pixels."""
        return sides(self.size)

    @property
    def conditional(self) -> bool:
        """Whether the model takes a prompt, of text or of a class's name."""
        return bool(self.text or self.classes)

    def make_schedule(self) -> Schedule:
        """Build the noise schedule."""
        schedule = SCHEDULES[self.schedule](self)
        if self.zero_terminal_snr:
            schedule = schedules.rescale_zero_terminal_snr(schedule)
        return schedule

    def make_target(self) -> Target:
        """Return what the network predicts."""
        return TARGETS[self.target]

    def make_network(self) -> nn.Module:
        """Build the network, `net(x, t, cond=None)`, with fresh weights."""
        return self.network.build()

    def replace(self, **changes: Any) -> "ModelConfig":
        """Return a copy with fields of the model, or of its network, changed.

        `network` may be the name of another kind: its defaults, for the same images
        and condition. Raises ValueError for an option that the network does not have.
        """
        own = {f.name for f in fields(self)}
        inner = {k: changes.pop(k) for k in list(changes) if k not in own}
        network = changes.pop("network", self.network)
        if isinstance(network, str):
            kept = {name: getattr(self.network, name) for name in SHARED}
            network = NETWORKS[one_of("network", network, NETWORKS)](**kept)
        options = [f.name for f in fields(network)]
        for name in inner:
            if name not in options:
                raise ValueError(
                    f"{name} is no option of the network {network.kind}, which has: "
                    + ", ".join(options)
                )
        network = dataclasses.replace(network, **inner)
        return dataclasses.replace(self, network=network, **changes)

    def to_dict(self) -> dict:
        """Return the configuration as what JSON can hold."""
        values = to_json(self)
        values["network"] = {"kind": self.network.kind, **values["network"]}
        return values

    @classmethod
    def from_dict(cls, values: Any) -> "ModelConfig":
        """Rebuild what `to_dict` gave; ValueError names the field that does not fit."""
        network = values.get("network") if isinstance(values, dict) else None
        if not isinstance(network, dict):
            raise ValueError(
                "not the configuration of a model: it lacks a network (an older one? "
                "`ddpm migrate` rewrites it)"
            )
        options = {k: v for k, v in network.items() if k != "kind"}
        kind = NETWORKS[one_of("network", str(network.get("kind")), NETWORKS)]
        built = from_json(kind, options, "the network")
        return from_json(cls, {**values, "network": built}, "the model")
