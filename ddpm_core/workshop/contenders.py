"""Models of any kind, to be compared: a VAE, a GAN, diffusion. Chapter 04.

`load_contender` loads one of them, whatever its kind. `ddpm train-contender` trains the
VAE and the GAN (`side.vae_and_gan`), `ddpm train` the diffusion model; `ddpm measure`
measures models side by side (`tables`), also for chapters 11 and 13, `ddpm
measure-guidance` the text models over the scale of their guidance, for chapter 10
(`guidance`), and `ddpm measure-samplers` the samplers of chapter 09 (`solvers`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.neighbours import gan, vae
from ddpm_core.types import Images
from ddpm_core.weights import WEIGHTS, fit_weights, load_weights, read_config
from ddpm_core.workshop.evaluation import draw_samples, sampled_prompts
from ddpm_core.workshop.presets import training_of

RESULTS = WEIGHTS.parent / "results"
"""Where the tables are that were measured with the models that ship."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Contender:
    """One way to draw images.

    `draw(n, seed)` returns n of them, in [-1, 1]. `calls`: how often the network runs
    for each. `parameters`: of all that was trained, also of what is not needed to draw.
    `device`: where it runs.
    """

    name: str
    kind: str
    calls: int
    parameters: int
    draw: Callable[[int, int], Images]
    device: torch.device = CPU


def load_contender(
    name: str | Path,
    *,
    steps: int = 50,
    sampler: str = "ddim",
    device: torch.device = CPU,
) -> Contender:
    """Load weights that ship with the book, or from a folder, as what they are.

    `steps`, `sampler` and `device` are for diffusion models: the others ignore them and
    stay on the CPU. Raises as `load_weights` does, and ValueError for weights that do
    not fit their card.
    """
    state, card = load_weights(name)
    kind = card.get("kind", "diffusion")
    if kind == "vae":
        net = vae.VAE(read_config(name, card, vae.VAEConfig.from_dict))
        draw = _in_one_call(_ready(net, state, name), vae.sample)
    elif kind == "gan":
        net = gan.Generator(read_config(name, card, gan.GANConfig.from_dict))
        draw = _in_one_call(_ready(net, state, name), gan.sample)
    else:
        data = training_of(name).data
        draw = _in_steps(load_model(name, device), data, steps, sampler)
        return Contender(card["name"], kind, steps, card["parameters"], draw, device)
    return Contender(card["name"], kind, 1, card["parameters"], draw)


def load_table(name: str = "trilemma") -> dict:
    """Read a measured table: its command, its hardware, what holds for all rows, rows.

    Each row is what `measure` of `measuring` or of `guidance` returns.
    """
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _ready(net: nn.Module, state: dict[str, Tensor], name: object) -> nn.Module:
    fit_weights(net, state, name)
    return net.eval().requires_grad_(False)


def _in_one_call(net: nn.Module, sample: Callable[..., Images], chunk: int = 128):
    def draw(n: int, seed: int) -> Images:
        g = torch.Generator().manual_seed(seed)
        parts = [min(chunk, n - i) for i in range(0, n, chunk)]
        return torch.cat([sample(net, part, generator=g) for part in parts])

    return draw


def _in_steps(model: DiffusionModel, data: str, steps: int, sampler: str):
    def draw(n: int, seed: int) -> Images:
        prompts = sampled_prompts(model, data, n, seed=seed, scale=1.0)
        return draw_samples(
            model, n, steps=steps, sampler=sampler, seed=seed, **prompts
        )

    return draw
