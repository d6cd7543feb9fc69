"""How the VAE and the GAN of chapter 04 are trained, and their cards written."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from torch import nn
from tqdm import tqdm

from ddpm_core import training
from ddpm_core.datasets import to_float
from ddpm_core.datasets.atomic import written_folder
from ddpm_core.datasets.images import save_grid
from ddpm_core.datasets.toy_cars import draw_toy_cars
from ddpm_core.neighbours import gan
from ddpm_core.neighbours.gan import GANConfig
from ddpm_core.neighbours.levels import Levels
from ddpm_core.neighbours.vae import VAE, VAEConfig, vae_loss
from ddpm_core.options import one_of
from ddpm_core.training import EMA, shuffled, warmup_cosine
from ddpm_core.types import Images
from ddpm_core.values import check_count
from ddpm_core.weights import command_line, hardware, save_weights
from ddpm_core.workshop.cards import FILES, SHOWN, card_text
from ddpm_core.workshop.contenders import load_contender
from ddpm_core.workshop.export import measure_toy_cars

CRITIC_STEPS = 2

Rate = Callable[[int], float]
Batches = Iterator[tuple[Images]]


Trained = tuple[nn.Module, int]
"""The averaged network that draws, and how many parameters were trained."""


def train_vae(config: VAEConfig, batches: Batches, rate: Rate, seed: int) -> Trained:
    """Minimise minus the evidence lower bound, as in chapter 02."""
    net = VAE(config)
    average = EMA(net)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0, fused=True)
    loss = partial(vae_loss, generator=torch.Generator().manual_seed(seed))
    for _ in training.train(net, loss, batches, optimizer, lr=rate, ema=average):
        pass
    return average.net, count(net)


def train_gan(config: GANConfig, batches: Batches, rate: Rate, seed: int) -> Trained:
    """Play the Wasserstein game with a gradient penalty, as in chapter 03."""
    G, D = gan.Generator(config), gan.Critic(config)
    average = EMA(G)
    adam = partial(torch.optim.Adam, betas=(0.0, 0.9), fused=True)
    optimizers = adam(G.parameters()), adam(D.parameters())

    def paced() -> Batches:
        for step, batch in enumerate(batches):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = rate(step)
            yield batch

    game = gan.train(
        G,
        D,
        paced(),
        optimizers,
        latent=config.latent,
        objective=gan.WASSERSTEIN,
        penalty=gan.gradient_penalty,
        critic_steps=CRITIC_STEPS,
        generator=torch.Generator().manual_seed(seed),
    )
    for round_ in game:
        average.update(G, round_.step - 1)
    return average.net, count(G) + count(D)


class Recipe(NamedTuple):
    """What one kind of model is made of."""

    config: Levels
    train: Callable[..., Trained]
    passes: int  # so many take about a quarter of an hour on one core


RECIPES = {
    "vae": Recipe(
        VAEConfig(channels=(48, 96, 128), latent=32),
        train_vae,
        passes=8,
    ),
    "gan": Recipe(
        GANConfig(channels=(96, 128), latent=64, patch=4),
        train_gan,
        passes=5,
    ),
}


def main(
    kind: Annotated[str, typer.Argument(help="vae or gan")],
    out: Annotated[Path, typer.Option(help="folder to write weights and card to")],
    cars: Annotated[
        int, typer.Option(min=2, max=10**7, help="toy cars drawn to train on")
    ] = 30_000,
    passes: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="passes over them")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, max=10**6, help="images a step")] = 32,
    lr: Annotated[
        float, typer.Option(min=1e-9, max=10, help="peak learning rate")
    ] = 1e-3,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of cars, weights and order")
    ] = 0,
    test: Annotated[
        int, typer.Option(min=64, max=10**6, help="samples to measure on")
    ] = 2_000,
) -> None:
    """Train a VAE or a GAN on toy cars, measure it, write its weights and card."""
    recipe = RECIPES[one_of("kind", kind, RECIPES)]
    passes = recipe.passes if passes is None else passes
    options = {"out": out, "cars": cars, "passes": passes, "batch": batch, "lr": lr}
    options |= {"seed": seed, "test": test}
    check_count("batch", batch, 1, cars)
    with written_folder(out, names=FILES) as new:
        torch.manual_seed(seed)
        images = draw_toy_cars(cars, size=recipe.config.size, seed=seed).images
        steps = passes * (len(images) // batch)
        order = shuffled(len(images), passes=passes, batch=batch, seed=seed)
        order = tqdm(order, total=steps, unit="batch", mininterval=1)
        batches = ((to_float(images[rows.numpy()]),) for rows in order)
        rate = warmup_cosine(lr, warmup=200, total=steps, end=0.02)
        start = time.perf_counter()
        net, parameters = recipe.train(recipe.config, batches, rate, seed)
        card = {
            "name": out.name,
            "kind": kind,
            "config": recipe.config.to_dict(),
            "parameters": parameters,
            "parameters that draw": count(net),
            "commands": [command_line(f"train-contender {kind}", options)],
            "seed": seed,
            "images": len(images),
            "images seen": steps * batch,
            "hardware": hardware(),
            "seconds": round(time.perf_counter() - start),
        }
        save_weights(new, net.state_dict(), card)
        samples = load_contender(new).draw(test, seed)  # from here on as it is stored
        save_grid(new / "samples.webp", samples[:SHOWN])
        card["measured"] = measure_toy_cars(samples, recipe.config.size, seed)
        save_weights(new, net.state_dict(), card)
        (new / "README.md").write_text(card_text(card), encoding="utf-8")
        print(card_text(card))


def count(net: nn.Module) -> int:
    """How many numbers of the network are trained."""
    return sum(p.numel() for p in net.parameters())
