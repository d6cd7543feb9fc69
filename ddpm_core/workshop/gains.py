"""Gains: some layers of a finished network count more, others less. Chapter 14.

    ddpm measure-gains cars-64 up.0.upsample=1.15 --out FILE
    ddpm rescale cars-64 OUT up.0.upsample=1.15

A layer's weights and bias are multiplied by a number, and so is what it puts out;
nothing is trained. Si et al. 2024 (FreeU, arXiv:2309.11497) multiply feature maps of a
finished U-Net at each call; a gain does it once, in the weights. A gain of 1 is the
layer as it was trained: a card holds the gains of its weights, and they are undone
before others are given.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from ddpm_core.datasets import PackedImages, to_float
from ddpm_core.datasets.atomic import written_folder
from ddpm_core.models import quick
from ddpm_core.types import Images
from ddpm_core.values import quoted
from ddpm_core.weights import find_weights, load_weights, read_card
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.batches import load_split
from ddpm_core.workshop.capstone import check_calls, numbers
from ddpm_core.workshop.cards import FILES
from ddpm_core.workshop.export import store
from ddpm_core.workshop.opened import is_run, open_model, trained_as
from ddpm_core.workshop.presets import Preset, training_of
from ddpm_core.workshop.tables import table_writer

RANGE = (0.1, 10.0)  # of a gain
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers that are linear in their weights and bias together."""

GAINS = "layer=gain, several with commas between"


def read_gains(text: str, net: nn.Module) -> dict[str, float]:
    """Read 'layer=gain,layer=gain'; layers are named as in the network's weights.

    Raises ValueError for a layer that the network does not have, for one that is named
    twice and for a gain outside 0.1..10.
    """
    layers = [name for name, part in net.named_modules() if isinstance(part, LAYERS)]
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in layers:
            near = ", ".join(get_close_matches(name, layers, cutoff=0.0))
            raise ValueError(
                f"gains are {GAINS}: no layer is named {quoted(name)}; nearest: {near}"
            )
        if name in found:
            raise ValueError(f"each layer takes one gain, got {name} twice")
        found[name] = _gain(name, number)
    return found


def _gain(name: str, text: str) -> float:
    low, high = RANGE
    try:
        gain = float(text)
    except ValueError:
        gain = float("nan")
    if not low <= gain <= high:
        raise ValueError(
            f"the gain of {name} must be in {low:g}..{high:g}, got {quoted(text)}"
        )
    return gain


@torch.no_grad()
def amplify(
    net: nn.Module, gains: Mapping[str, float], had: Mapping[str, float] | None = None
) -> None:
    """Give layers of the network these gains, in place; the others get 1. Chapter 14.

    `had`: the gains that are in its weights.
    """
    had = had or {}
    for name in {**had, **gains}:
        factor = gains.get(name, 1.0) / had.get(name, 1.0)
        for weights in net.get_submodule(name).parameters(recurse=False):
            weights *= factor


def gains_in(name: str, net: nn.Module) -> dict[str, float]:
    """The gains that the network of that name has in its weights; a run has none.

    Raises ValueError for a card whose gains are not those of such a network.
    """
    found = {} if is_run(name) else read_card(name).get("gains", {})
    if not isinstance(found, dict):
        raise ValueError(f"the card of {name} must have 'gains' as an object")
    text = ",".join(f"{layer}={gain}" for layer, gain in found.items())
    try:
        return read_gains(text, net) if text else {}
    except ValueError as error:
        raise ValueError(f"the card of {name} cannot be used: {error}") from None


def rescale(
    weights: Annotated[str, typer.Argument(help="shipped weights, or a folder")],
    out: Annotated[Path, typer.Argument(help="folder to write them to")],
    gains: Annotated[str, typer.Argument(help=GAINS)],
) -> None:
    """Give layers of exported weights a gain; `ddpm remeasure` then measures them."""
    state, card = load_weights(weights)
    if card.get("kind", "diffusion") != "diffusion":
        raise ValueError(f"{weights} is no diffusion model, but: {card['kind']}")
    training_of(weights)  # a card that does not say it is refused
    net = open_model(weights, "cpu").net
    chosen = read_gains(gains, net)
    losses = (find_weights(weights) / "losses.webp").read_bytes()
    amplify(net, chosen, gains_in(weights, net))
    command = shlex.join(["ddpm", "rescale", weights, out.as_posix(), gains])
    card |= {
        "name": out.name,
        "commands": [*card["commands"], command],
        "gains": chosen,
        "measured": {},  # all of it was of other weights
    }
    with written_folder(out, names=FILES) as new:
        (new / "losses.webp").write_bytes(losses)
        store(new, {name: net.state_dict()[name] for name in state}, card)
    typer.echo(f"{out}: weights.safetensors, card.json, README.md")


def images_to_choose_on(trained: Preset, n: int) -> tuple[Images, Images]:
    """Two lots of n images to choose gains on.

    They are not those by which `evaluation.real_images` judges the model: of the photos
    held out the last ones, where it takes the first; or toy cars of another seed.
    Raises ValueError where fewer photos were held out.
    """
    if trained.data == "toy-cars":
        return evaluation.real_images(trained.data, trained, n, trained.seed + 3)
    if trained.held_out < 2 * n:
        raise ValueError(
            f"--n must be at most {trained.held_out // 2}, half of the photos held "
            f"out, got {n}"
        )
    rows = load_split(trained).held_out[-2 * n :].numpy()
    return to_float(PackedImages.open(trained.data).images[rows]).split(n)[::-1]


def rows(
    name: str,
    gains: Sequence[Mapping[str, float]],
    seeds: Sequence[int],
    n: int,
    calls: int,
    features: str,
) -> Iterator[dict]:
    """Yield rows of the network as it was trained, and with each of the gains."""
    real, other = images_to_choose_on(trained_as(name), n)
    ruler = evaluation.extractor(features)
    for chosen in ({}, *gains):
        model = open_model(name)
        amplify(model.net, chosen, gains_in(name, model.net))
        for seed in seeds:
            samples = evaluation.draw_samples(quick(model), n, steps=calls, seed=seed)
            scores = asdict(evaluation.score(ruler, samples, real, other))
            contrast = {"deviation": samples.std().item()}
            yield {"gains": dict(chosen), "seed": seed, **scores, **contrast}


def main(
    name: Annotated[str, typer.Argument(help="shipped weights, a folder, or a run")],
    gains: Annotated[list[str], typer.Argument(help=f"{GAINS}; a row for each")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    seeds: Annotated[str, typer.Option(help="seeds of the samples' noise")] = "1,2,3",
    n: Annotated[int, typer.Option(min=16, max=1_000_000, help="samples")] = 512,
    calls: Annotated[int, typer.Option(min=2, help="network calls a sample")] = 10,
    features: Annotated[str, typer.Option(help="imagenet or inception")] = "imagenet",
) -> None:
    """Measure a model with gains on some of its layers; write the table."""
    torch.set_num_threads(1)
    model, trained = open_model(name), trained_as(name)
    if model.config.conditional:
        raise ValueError(f"{name} takes prompts: name a model without")
    check_calls(model.config, [calls], model.t_end)
    evaluation.check_features(features, trained.data)
    found = [read_gains(text, model.net) for text in gains]
    noises = numbers("seeds", seeds, int, 0, 2**31)
    options = {
        "out": out, "seeds": seeds, "n": n, "calls": calls, "features": features,
    }  # fmt: skip
    command = shlex.join(["measure-gains", name, *gains])
    with table_writer(command, options) as write:
        real, _ = images_to_choose_on(trained, n)
        facts = {"model": name, "calls": calls, "deviation": real.std().item()}
        write(rows(name, found, noises, n, calls, features), facts)
