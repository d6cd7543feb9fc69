"""Fine-tunes toy-cars-32 on few pictures of pink cars, on one core.

Chapter 'Fine-tuning'. Runs of one seed begin with the same pictures: five are the first
of fifteen. The seed decides on them, on the batches, the timesteps and the noise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from torch import Tensor, nn

from ddpm_core import diffusion, metrics, training
from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.datasets.toy_car_drawing import PAINT
from ddpm_core.datasets.toy_cars import attributes_showing
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.types import Images
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.ablations import cars
from ddpm_core.workshop.lora import add_lora, merge_lora
from ddpm_core.workshop.tables import table_writer

BASE = "toy-cars-32"
PINK = (246, 120, 178)
SIZES = (5, 15, 50, 200)
BATCH = 8
CALLS = 20  # network calls of a sample
TIMES = 256  # at which a loss is measured
ENOUGH = 0.02  # of a picture's pixels: so many are pink in one of a pink car
COPY = 0.5  # of the distance that unseen pictures usually have: nearer is a copy


@dataclass(frozen=True)
class Way:
    """How to fine-tune: the rate, the rank of a LoRA or 0, beside old pictures?"""

    lr: float
    rank: int = 0
    prior: bool = False


WAYS = {
    "all weights": Way(lr=2e-4),
    "LoRA, rank 4": Way(lr=2e-3, rank=4),
    "all weights + prior": Way(lr=2e-4, prior=True),
}
"""The ways of the chapter, each at its rate."""


def pink_cars(n: int, seed: int) -> Images:
    """Draw n sports cars by day in a colour that no model of toy cars has seen."""
    rows = attributes_showing("purple+sports car+day", n, seed=seed)
    with patch.dict(PAINT, purple=PINK):
        return to_float(draw_toy_cars(n, seed=seed, attributes=rows).images)


def share_pink(images: Images) -> float:
    """Return which fraction of the images shows a pink car, by its pixels."""
    red, green, blue = images.unbind(1)
    pink = (red - green > 0.5) & (blue - green > 0.25) & (red - blue > 0.2)
    return (pink.double().mean((1, 2)) > ENOUGH).double().mean().item()


def fine_tune(
    model: DiffusionModel,
    own: Images,
    old: Tensor,
    way: Way,
    *,
    steps: int,
    seed: int,
) -> None:
    """Train `model.net` in place on batches of `own`, beside as many of `old` or not.

    A LoRA is merged in the end.
    """
    g = torch.Generator().manual_seed(seed)
    net = model.net.requires_grad_(True)
    if way.rank:
        torch.manual_seed(seed)
        net = add_lora(net, way.rank)

    def loss(net: nn.Module, *parts: Tensor) -> Tensor:
        each = partial(diffusion.diffusion_loss, net, model.schedule, model.target)
        return sum(each(x0, generator=g) for x0 in parts)

    def drawn(images: Images) -> Tensor:
        return images[torch.randint(len(images), (BATCH,), generator=g)]

    sets = (own, old) if way.prior else (own,)
    batches = (tuple(map(drawn, sets)) for _ in range(steps))
    free = [p for p in net.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(free, way.lr, weight_decay=0.0, fused=True)
    lr = training.warmup_cosine(way.lr, warmup=steps // 20, total=steps)
    for _ in training.train(net, loss, batches, adam, lr=lr):
        pass
    merge_lora(net).eval().requires_grad_(False)


def loss_on(model: DiffusionModel, images: Images) -> float:
    """The mean loss on these images, at even timesteps with fixed noise."""
    images = images[torch.arange(TIMES) % len(images)]
    t = 1 + torch.arange(TIMES) * model.schedule.T // TIMES
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    losses = (
        diffusion.diffusion_loss(model.net, model.schedule, model.target, x, t=i, eps=e)
        for x, i, e in zip(*(part.split(64) for part in (images, t, eps)), strict=True)
    )
    return torch.cat(list(losses)).mean().item()


def distances(images: Images, known: Tensor) -> Tensor:
    """How far each image is from the nearest that was trained on."""
    return metrics.nearest(images.flatten(1), known.flatten(1)).distance[:, 0]


def ruler(n: int) -> Callable[[DiffusionModel, Images], dict]:
    """Return what measures a model that was fine-tuned on these pictures."""
    judge = evaluation.classifier_extractor()
    unseen, old = pink_cars(2 * n, seed=1), cars(2 * n, 32, seed=1)

    @torch.no_grad()
    def measure(model: DiffusionModel, own: Images) -> dict:
        samples = evaluation.draw_samples(model, n, steps=CALLS, seed=0)
        usual = distances(unseen[:n], own).median()
        far = distances(samples, own)
        found = {
            "loss own": loss_on(model, own),
            "loss unseen": loss_on(model, unseen),
            "loss old": loss_on(model, old),
            "frechet new": evaluation.score(judge, samples, *unseen.split(n)).frechet,
            "frechet old": evaluation.score(judge, samples, *old.split(n)).frechet,
            "pink": share_pink(samples),
            "near": (far.median() / usual).item(),
            "copies": (far < COPY * usual).double().mean().item(),
        }
        return {name: round(x, 4) for name, x in found.items()}

    return measure


def rows(*, steps: int, seeds: range, n: int) -> Iterator[dict]:
    """Yield a row for the model as it was, then one for each training."""
    measure = ruler(n)
    base = load_model(BASE)
    remembered = evaluation.draw_samples(base, 64, steps=CALLS, seed=7)
    for seed, size in product(seeds, SIZES):
        own = pink_cars(max(SIZES), seed=100 + seed)[:size]
        key = {"photos": size, "seed": seed}
        yield {**key, "way": "before", **measure(base, own)}
        for name, way in WAYS.items():
            model = load_model(BASE)
            fine_tune(model, own, remembered, way, steps=steps, seed=seed)
            yield {**key, "way": name, **measure(model, own)}


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    steps: Annotated[
        int, typer.Option(min=20, max=1_000_000, help="steps of a training")
    ] = 400,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="trainings of each")] = 3,
    n: Annotated[
        int, typer.Option(min=64, max=1_000_000, help="samples of each row")
    ] = 256,
) -> None:
    """Fine-tune on 5 to 200 pictures in three ways, and measure what came of it."""
    torch.set_num_threads(1)
    options = {"out": out, "steps": steps, "seeds": seeds, "n": n}
    with table_writer("measure-few-pictures", options) as write:
        write(rows(steps=steps, seeds=range(seeds), n=n), {"model": BASE})
