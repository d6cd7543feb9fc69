"""Trained models in all the forms they come in: weights, a run's folder, a LoRA."""

from dataclasses import replace
from os.path import isfile  # unlike a Path's, it takes names that no file can have
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_core import training
from ddpm_core.config import NetworkConfig
from ddpm_core.models import (
    DiffusionModel,
    load_autoencoder,
    load_encoder,
    load_model,
)
from ddpm_core.unet import UNetConfig
from ddpm_core.values import quoted
from ddpm_core.weights import find_weights, load_weights, read_card
from ddpm_core.workshop.folder import RunFolder, flat
from ddpm_core.workshop.lora import add_lora, apply_lora, merge_lora
from ddpm_core.workshop.muon import Muon
from ddpm_core.workshop.presets import Preset, training_of


def is_run(name: str | Path) -> bool:
    """Whether that is the folder of a run, and not of weights."""
    folder = Path(name)
    return isfile(folder / "config.json") and not isfile(folder / "card.json")


def open_model(
    name: str | Path,
    device: str | torch.device = "cpu",
    *,
    lora: str | Path = "",
    lora_scale: float = 1.0,
) -> DiffusionModel:
    """Load the model of that name, from a folder of weights, or from a run's folder.

    Of a run it takes the averaged weights of the newest checkpoint. `lora`: the folder
    of a LoRA, or the file in it, whose change is added `lora_scale` times; the folder
    of a LoRA as `name` is the model that it was made for, changed. Raises as
    `load_model` and `base_of` do, FileNotFoundError for a run without a checkpoint, and
    ValueError for a LoRA of another network, or for one beside another.
    """
    if is_run(name):
        model = model_of_run(Path(name), device)
    elif is_lora(name):
        if lora:
            raise ValueError(f"{name} is a LoRA already: name its model beside {lora}")
        return open_model(base_of(name), device, lora=name, lora_scale=lora_scale)
    else:
        model = load_model(name, device)
    return with_lora(model, lora, lora_scale) if lora else model


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same numbers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def is_lora(name: str | Path) -> bool:
    """Whether these weights are a LoRA, and no model of their own."""
    return read_card(name).get("kind") == "lora"


def base_of(name: str | Path) -> str:
    """The weights that a LoRA changes, by name.

    Raises ValueError where its card names none, leads back to it, or names weights that
    are no longer those it was trained for.
    """
    passed, at = [], name
    while not is_run(at) and is_lora(at):
        passed.append(find_weights(at).resolve())
        card, path = read_card(at), passed[-1] / "card.json"
        at = card["config"].get("base")
        if not isinstance(at, str) or not at:
            raise ValueError(f"{path}, 'config': 'base' must be text, got {quoted(at)}")
        if is_run(at):
            break
        if find_weights(at).resolve() in passed:
            raise ValueError(f"{path}, 'config': 'base' leads back to this LoRA")
        known = card["config"].get("sha256 of base")
        if known and read_card(at)["sha256"] != known:
            raise ValueError(
                f"{path.parent} was trained for other weights {at} than there are now "
                f"(sha256 {quoted(known)[:14]}...): train it again, or add it to these "
                "with --lora"
            )
    return read_card(name)["config"]["base"]


def with_lora(model: DiffusionModel, lora: str | Path, scale: float) -> DiffusionModel:
    """The model with the change of a LoRA added to its weights."""
    folder = Path(lora)
    folder = folder.parent if folder.is_file() else folder
    state, card = load_weights(find_weights(folder))
    if card.get("kind") != "lora":
        raise ValueError(f"{lora} is no LoRA but a {card.get('kind', 'model')}")
    state = {name: tensor.float() for name, tensor in state.items()}
    net = apply_lora(model.net, state, scale).to(model.device)
    return replace(model, net=net.eval().requires_grad_(False))


def model_of_run(folder: Path, device: str | torch.device = "cpu") -> DiffusionModel:
    """The model of a run as its newest checkpoint has it; its data are not read."""
    files = RunFolder(folder)
    preset, checkpoints = files.preset(), files.checkpoints()
    if not checkpoints:
        raise FileNotFoundError(
            f"{folder} holds no checkpoint yet: one is written every "
            f"{files.preset().checkpoint_every} steps"
        )
    net = add_lora_if(preset, preset.model.make_network())
    ema = training.EMA(net, preset.ema)
    optimizer = make_optimizer(net, preset)
    training.load_checkpoint(checkpoints[-1], net, ema, optimizer)
    net = merge_lora(ema.net).to(device, memory_format=torch.channels_last)
    config = preset.model
    parts = load_encoder(config, device), load_autoencoder(config, device)
    return DiffusionModel(net.eval().requires_grad_(False), config, *parts)


def trained_as(name: str | Path) -> Preset:
    """How that model was trained; raises as `training_of` does."""
    if is_run(name):
        return RunFolder(Path(name)).preset()
    if not is_lora(name):
        return training_of(name)
    card = read_card(name)
    model = trained_as(base_of(name)).model
    return Preset.from_dict({**card["training"], "model": model.to_dict()})


def add_lora_if(preset: Preset, net: nn.Module) -> nn.Module:
    """Put the LoRA of the preset into its network, if it has one."""
    return add_lora(net, preset.lora) if preset.lora else net


def make_optimizer(net: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """The optimiser that the preset names, for what is trained of `net`."""
    trained = [p for p in net.parameters() if p.requires_grad]
    if preset.optimizer == "muon":
        return Muon(trained, preset.lr)
    return torch.optim.AdamW(
        trained,
        lr=preset.lr,
        weight_decay=preset.weight_decay,
        fused=trained[0].device.type in ("cpu", "cuda"),
    )


def start_of(preset: Preset) -> dict[str, Tensor]:
    """The weights that a run of this preset starts from.

    A U-Net may have more blocks and more attention than the one it starts from: what is
    new begins as the identity. Raises ValueError for weights of a model that differs in
    more than that and the size of its images. Latents that are small images are images,
    too.
    """
    model = open_model(preset.start_from)
    latent = load_autoencoder(preset.model, "cpu")
    free = {"size", "latent"} if latent and latent.in_range else {"size"}
    grows = deepens(model.net.config, preset.model.network)
    free |= {"blocks", "attention"} if grows else set()
    ours, theirs = flat(preset.model.to_dict()), flat(model.config.to_dict())
    differing = [k for k in theirs if k not in free and ours.get(k) != theirs[k]]
    if differing:
        raise ValueError(
            f"a run that starts from {preset.start_from} is built as it is, which "
            "differs in " + ", ".join(f"{k} ({theirs[k]})" for k in differing)
        )
    return (
        deepened(model.net, preset.model.network) if grows else model.net.state_dict()
    )


def deepens(theirs: NetworkConfig, ours: NetworkConfig) -> bool:
    """Whether ours is a U-Net with all blocks and attention of theirs, or more."""
    if not isinstance(theirs, UNetConfig) or not isinstance(ours, UNetConfig):
        return False
    levels = zip(theirs.attention, ours.attention, strict=False)
    return ours.blocks >= theirs.blocks and all(new or not old for old, new in levels)


def deepened(net: nn.Module, config: UNetConfig) -> dict[str, Tensor]:
    """Weights of a deeper U-Net that computes what `net` does.

    A fresh block or attention adds nothing to its input. One on the way up also has
    the channels of a skip to pass on: it leaves them out. Chen et al. 2016, Net2Net.
    Chapter 14.
    """
    deeper = config.build()
    more = config.blocks - net.config.blocks
    for level in deeper.up:
        for block in level.residuals[:more]:
            nn.init.dirac_(block.skip.weight)
            nn.init.zeros_(block.skip.bias)
    weights = deeper.state_dict()
    for name, weight in net.state_dict().items():
        parts = name.split(".")
        if parts[0] == "up" and parts[2] in ("residuals", "attentions", "readers"):
            parts[3] = str(int(parts[3]) + more)
        weights[".".join(parts)] = weight
    return weights
