"""How the attribute classifier is trained and measured, and its card written."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from tqdm import tqdm

from ddpm_core.datasets.atomic import written_folder
from ddpm_core.datasets.images import to_float
from ddpm_core.datasets.toy_cars import ATTRIBUTES, ToyCars, draw_toy_cars
from ddpm_core.metrics import attribute_accuracy, frechet_distance
from ddpm_core.neighbours.classifier import AttributeClassifier, Attributes
from ddpm_core.types import Images, PerSample
from ddpm_core.weights import command_line, hardware, save_weights
from ddpm_core.workshop.cards import FILES, card_text

FACING = list(ATTRIBUTES).index("facing")
"""The column of the one attribute that a mirror changes: 0 is left, 1 is right."""

NO_CAR = -1
"""In place of every attribute of a picture that shows no car."""


def attribute_loss(net: nn.Module, images: Images, attributes: Attributes) -> PerSample:
    """Return the cross-entropy of each image, summed over its attributes, in nats.

    A row of NO_CAR asks for doubt: its target is the uniform distribution.
    """
    total = torch.zeros(len(images), device=images.device)
    for logits, wanted in zip(net(images).values(), attributes.T, strict=True):
        log_p = logits.log_softmax(1)
        seen = log_p.gather(1, wanted.clamp(min=0)[:, None])[:, 0]
        total = total - torch.where(wanted == NO_CAR, log_p.mean(1), seen)
    return total


def training_batches(
    cars: ToyCars, *, passes: int, batch: int, seed: int
) -> Iterator[tuple[Images, Attributes]]:
    """Yield all cars `passes` times over, in batches, never twice the same.

    Half of them are mirrored, all are `disturbed`, and noise that shows NO_CAR takes
    the place of one in eight.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(passes):
        for rows in torch.randperm(len(cars), generator=generator).split(batch):
            images = to_float(cars.images[rows.numpy()])
            attributes = torch.from_numpy(cars.attributes[rows.numpy()])
            images, attributes = mirrored(images, attributes, generator)
            images, replaced = disturbed(images, generator), len(rows) // 8
            images[:replaced] = noise_images(replaced, images.shape[-1], generator)
            attributes[:replaced] = NO_CAR
            yield images, attributes


def mirrored(
    images: Images, attributes: Attributes, generator: torch.Generator
) -> tuple[Images, Attributes]:
    """Mirror each image with probability 1/2; such a car faces the other way."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    attributes = attributes.clone()
    attributes[flip, FACING] = 1 - attributes[flip, FACING]
    return images, attributes


def disturbed(images: Images, generator: torch.Generator) -> Images:
    """Blur each image a little, and add noise of a std of up to 0.1, in [-1, 1].

    Generated images have such faults, drawn ones have not.
    """
    blur, std = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    smooth = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    noise = torch.randn(images.shape, generator=generator)
    return (images.lerp(smooth, blur) + 0.1 * std * noise).clamp(-1, 1)


def noise_images(n: int, size: int, generator: torch.Generator) -> Images:
    """Draw images that show no car: noise of every coarseness, from pixels to blobs."""
    images = torch.empty(n, 3, size, size)
    for i in range(n):
        coarse = 2 ** int(torch.randint(1, 6, (), generator=generator))
        noise = torch.randn(1, 3, coarse, coarse, generator=generator)
        std, shift = torch.rand(2, generator=generator)
        noise = F.interpolate(noise, size, mode="bicubic")[0]
        images[i] = 1.5 * std * noise + 2 * shift - 1
    return images.clamp(-1, 1)


def train_classifier(
    net: AttributeClassifier,
    batches: Iterable[tuple[Images, Attributes]],
    steps: int,
    *,
    lr: float = 4e-3,
) -> AttributeClassifier:
    """Train on the batches, `steps` in number, with one cycle of rates up to `lr`.

    Shows a progress bar in a terminal. Returns the network, ready to predict.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    net.train()
    for images, attributes in tqdm(batches, total=steps, unit="step", disable=None):
        loss = attribute_loss(net, images, attributes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def measure(net: AttributeClassifier, *, n: int, seed: int) -> dict[str, object]:
    """Measure the classifier on n toy cars of a seed it was not trained on.

    Returns what its card says: the accuracy of each attribute on clean cars and on
    disturbed ones, its confidence, the pairs it confuses, and the Frechet distance
    between two halves of the cars: no generator can be told from drawing below that.
    """
    drawn = draw_toy_cars(n, size=net.config.size, seed=seed)
    images, wanted = to_float(drawn.images), torch.from_numpy(drawn.attributes)
    generator = torch.Generator().manual_seed(seed)
    seen, confidence = net.predict(images)
    harder = net.predict(disturbed(images, generator)).attributes
    noise = net.predict(noise_images(1000, net.config.size, generator)).confidence
    half_1, half_2 = net.features(images).chunk(2)
    return {
        "images": n,
        "seed": seed,
        "accuracy": _by_name(net, attribute_accuracy(seen, wanted)),
        "accuracy, disturbed": _by_name(net, attribute_accuracy(harder, wanted)),
        "mean confidence": _by_name(net, confidence.mean(0)),
        "mean confidence on noise": _by_name(net, noise.mean(0)),
        "confused": _confused(net, seen, wanted),
        "frechet distance of halves": round(frechet_distance(half_1, half_2), 4),
    }


def _by_name(net: AttributeClassifier, values: Tensor) -> dict[str, float]:
    names = net.config.attributes
    return {k: round(v, 5) for k, v in zip(names, values.tolist(), strict=True)}


def _confused(net: AttributeClassifier, seen: Tensor, wanted: Tensor) -> dict[str, int]:
    """The pairs of values taken for each other most often, and how often."""
    pairs = Counter()
    for column, values in enumerate(net.config.attributes.values()):
        for got, right in torch.stack([seen, wanted], 2)[:, column].tolist():
            if got != right:
                pairs[f"{values[right]} read as {values[got]}"] += 1
    return dict(pairs.most_common(5))


def main(
    out: Annotated[Path, typer.Option(help="folder to write weights and card to")],
    cars: Annotated[
        int, typer.Option(min=2, max=10**7, help="cars drawn to train on")
    ] = 20_000,
    passes: Annotated[int, typer.Option(min=1, max=10**6, help="passes over them")] = 6,
    batch: Annotated[int, typer.Option(min=2, max=10**6, help="images a step")] = 64,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of cars, weights and noise")
    ] = 0,
    test: Annotated[
        int, typer.Option(min=64, max=10**6, help="held-out cars to measure on")
    ] = 10_000,
) -> None:
    """Train the classifier on toy cars, measure it, and write weights and card."""
    options = dict(locals())
    with written_folder(out, names=FILES) as new:
        torch.manual_seed(seed)
        net, start = AttributeClassifier(), time.perf_counter()
        drawn = draw_toy_cars(cars, size=net.config.size, seed=seed)
        batches = training_batches(drawn, passes=passes, batch=batch, seed=seed)
        steps = passes * ceil(cars / batch)
        train_classifier(net, batches, steps)
        seconds = round(time.perf_counter() - start)
        net.half().float()  # from here on as it is stored
        card = {
            "name": out.name,
            "kind": "classifier",
            "config": asdict(net.config),
            "parameters": sum(p.numel() for p in net.parameters()),
            "commands": [command_line("train-classifier", options)],
            "seed": seed,
            "images": cars,
            "images seen": passes * cars,
            "hardware": hardware(),
            "seconds": seconds,
            "measured": measure(net, n=test, seed=seed + 1),
        }
        save_weights(new, net.state_dict(), card)
        (new / "README.md").write_text(card_text(card), encoding="utf-8")
        print(card_text(card))
