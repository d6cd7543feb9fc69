"""Trained models on disk: weights, their card, and what they make. Chapters 07 and 08.

A folder of weights holds `weights.safetensors` (data only, fp16), `card.json` (the
configuration, the hash of the weights, how they were made and what was measured) and
the same card to read, `README.md`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ddpm_core.conditioning import clipped
from ddpm_core.diffusion import make_denoiser
from ddpm_core.presets import Preset, one_of
from ddpm_core.samplers import (
    DPMSolverPP2M,
    State,
    Step,
    ancestral_step,
    ddim_step,
    sample,
    spaced_times,
)
from ddpm_core.schedules import Schedule
from ddpm_core.types import Denoise, Images
from ddpm_core.unet import UNet

WEIGHTS = Path(__file__).parents[1] / "data" / "weights"
"""Where the weights lie that ship with the book."""

SAMPLERS: dict[str, Callable[[Schedule], Step]] = {
    "ddim": lambda schedule: partial(ddim_step, schedule),
    "ancestral": lambda schedule: partial(ancestral_step, schedule),
    "dpm-solver++": DPMSolverPP2M,
}
"""The samplers that the command line knows: each makes the step for one run."""


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A trained network with the schedule and the target it was trained for."""

    net: nn.Module
    preset: Preset

    def __post_init__(self):
        object.__setattr__(self, "schedule", self.preset.make_schedule())

    def denoiser(self) -> Denoise:
        """Return (x_t, t) -> x0_hat, clipped to the range of images."""
        return clipped(make_denoiser(self.net, self.schedule, self.preset.make_target))

    def noise(self, n: int, generator: torch.Generator | None = None) -> Images:
        """Draw n starting points x_T ~ N(0, I), on the network's device."""
        device = next(self.net.parameters()).device
        side = self.preset.size
        shape = (n, self.preset.unet.image_channels, side, side)
        x = torch.randn(shape, generator=generator)  # the same noise on every device
        return x.to(device, memory_format=torch.channels_last)

    def sample(
        self,
        x_T: Images,
        steps: int,
        sampler: str = "ddim",
        generator: torch.Generator | None = None,
    ) -> Iterator[State]:
        """Sample from x_T in that many network calls; yields as `samplers.sample`."""
        step = SAMPLERS[one_of("sampler", sampler, SAMPLERS)](self.schedule)
        times = spaced_times(self.schedule.T, steps)
        return sample(self.denoiser(), step, x_T, times, generator=generator)


def step_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the generator of the steps' noise: never that which drew x_T."""
    return torch.Generator(device).manual_seed(seed + 2**31)


def best_device() -> torch.device:
    """The device to sample on: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(name: str | Path, device: str | torch.device = "cpu") -> DiffusionModel:
    """Load a diffusion model that ships with the book, or from a folder of weights.

    Raises as `load_weights` does, and ValueError for weights that do not fit the card.
    """
    state, card = load_weights(name)
    preset = Preset.from_dict(card["config"])
    net = UNet(preset.unet)
    fit_weights(net, state, name)
    net = net.eval().requires_grad_(False)
    return DiffusionModel(net.to(device, memory_format=torch.channels_last), preset)


def fit_weights(net: nn.Module, state: dict[str, Tensor], name: object) -> None:
    """Load `state` into `net`; raise ValueError that says what does not fit."""
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in state.items()}
    differing = sorted(k for k in wanted | got if wanted.get(k) != got.get(k))
    if differing:
        first = differing[0]
        raise ValueError(
            f"the weights of {name} do not fit their card: {len(differing)} tensors "
            f"differ; the first, {first}, is {got.get(first, 'missing')}, the card "
            f"needs {wanted.get(first, 'none')}"
        )
    net.load_state_dict({k: v.float() for k, v in state.items()})


def save_weights(folder: Path, state: dict[str, Tensor], card: dict) -> None:
    """Write weights as fp16 safetensors and their card, with the hash, as JSON.

    `card` holds at least 'name' and 'config'; `config` is what builds the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in state.items()}
    data = to_bytes(state)
    (folder / "weights.safetensors").write_bytes(data)
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def load_weights(name: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read the weights and the card of that name (or in that folder).

    Only safetensors are read, never pickles. Raises FileNotFoundError that lists the
    names there are, and ValueError for a file that is not what its card says.
    """
    folder = find_weights(name)
    card = json.loads((folder / "card.json").read_text())
    data = (folder / "weights.safetensors").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card.get("sha256"):
        raise ValueError(
            f"{folder / 'weights.safetensors'} is not the file of its card: "
            f"sha256 {found[:12]}..., not {str(card.get('sha256'))[:12]}..."
        )
    try:
        return load_bytes(data), card
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no readable safetensors: {error}") from error


def find_weights(name: str | Path) -> Path:
    """Return the folder of the weights of that name, or that folder itself."""
    for folder in (WEIGHTS / name, Path(name)):
        if (folder / "card.json").is_file():
            return folder
    there = sorted(p.parent.name for p in WEIGHTS.glob("*/card.json"))
    raise FileNotFoundError(
        f"no weights named {str(name)!r}; there is: {', '.join(there) or 'none'} "
        "(or give a folder that holds a card.json)"
    )
