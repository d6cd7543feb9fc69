"""How the small CLIP is trained and measured, and its card written. Chapter 10."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from ddpm_core.clip import CLIP, CLIPConfig, Embeddings, contrastive_loss
from ddpm_core.datasets.atomic import written_folder
from ddpm_core.datasets.images import to_float
from ddpm_core.datasets.toy_cars import (
    ATTRIBUTES,
    NEVER_TRAINED,
    ToyCars,
    caption,
    draw_toy_cars,
    showing_any,
)
from ddpm_core.tokens import Tokenizer, Tokens
from ddpm_core.training import shuffled, train, warmup_cosine
from ddpm_core.types import Images
from ddpm_core.values import check_count
from ddpm_core.weights import command_line, hardware, save_weights
from ddpm_core.workshop.cards import AMONG, FILES, FIRST, card_text


def clip_loss(net: CLIP, images: Images, tokens: Tokens) -> Tensor:
    """The contrastive loss of a batch, for `training.train`."""
    return contrastive_loss(
        net.embed_images(images), net.embed_tokens(tokens), net.scale
    )


def found(
    queries: Embeddings, answers: Embeddings, captions: Sequence[str], first: int
) -> Bool[Tensor, " b"]:
    """Whether the right answer to each query is among the `first` nearest ones.

    Answers with the query's own caption are all right: no search can tell them apart.
    """
    nearest = (queries @ answers.T).topk(first, dim=1).indices
    numbers = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    number = torch.tensor([numbers[text] for text in captions])
    return (number[nearest] == number[:, None]).any(1)


@torch.no_grad()
def measure(net: CLIP, *, n: int, seed: int) -> dict[str, object]:
    """Measure it on n toy cars of a seed that it was not trained on.

    Returns the share of searches that succeed, from captions to images and back, and
    the share of cars for which it prefers the true body, colour or time of day to all
    others in a caption that is otherwise true.
    """
    cars = draw_toy_cars(n, seed=seed)
    images = torch.cat([net.embed_images(to_float(x)) for x in split(cars.images)])
    texts = torch.cat([net.embed_captions(c) for c in split(cars.captions)])
    hits = {"caption to image": [], "image to caption": []}
    for i in range(0, n - AMONG + 1, AMONG):
        part = slice(i, i + AMONG)
        pair, names = (images[part], texts[part]), cars.captions[part]
        hits["image to caption"].append(found(*pair, names, FIRST))
        hits["caption to image"].append(found(*pair[::-1], names, FIRST))
    return {
        "images": n,
        "seed": seed,
        "retrieval": {name: share(torch.cat(h)) for name, h in hits.items()},
        "preferred": {
            name: share(preferred(net, images, cars, name))
            for name in ("body", "colour", "time")
        },
    }


def preferred(
    net: CLIP, images: Embeddings, cars: ToyCars, name: str
) -> Bool[Tensor, " n"]:
    """Whether each image's true value of an attribute fits it best of all values."""
    column, values = list(ATTRIBUTES).index(name), ATTRIBUTES[name]
    scores = []
    for value in range(len(values)):
        rows = cars.attributes.copy()
        rows[:, column] = value
        texts = [net.embed_captions([caption(r) for r in part]) for part in split(rows)]
        scores.append((images * torch.cat(texts)).sum(1))
    return torch.stack(scores, 1).argmax(1) == torch.from_numpy(
        cars.attributes[:, column]
    )


def split(
    rows: Sequence | np.ndarray, size: int = 512
) -> Iterator[Sequence | np.ndarray]:
    """Yield the rows some at a time."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def share(hits: Bool[Tensor, " n"]) -> float:
    """The share that is true."""
    return round(hits.double().mean().item(), 4)


def main(
    out: Annotated[Path, typer.Option(help="folder to write weights and card to")],
    cars: Annotated[
        int, typer.Option(min=2, max=10**7, help="captioned cars drawn to train on")
    ] = 30_000,
    passes: Annotated[
        int, typer.Option(min=1, max=10**6, help="passes over them")
    ] = 10,
    batch: Annotated[
        int, typer.Option(min=2, max=10**6, help="pairs a step, told from each other")
    ] = 256,
    lr: Annotated[
        float, typer.Option(min=1e-9, max=10, help="peak learning rate")
    ] = 2e-3,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of cars, weights and order")
    ] = 0,
    test: Annotated[
        int, typer.Option(min=64, max=10**6, help="held-out cars to measure on")
    ] = 5_120,
    loose: Annotated[
        bool, typer.Option("--loose", help="leave attributes out, vary the words")
    ] = False,
) -> None:
    """Train the CLIP on captioned toy cars, measure it, write weights and card."""
    options = dict(locals())
    check_count("batch", batch, 1, cars)
    with written_folder(out, names=FILES) as new:
        torch.manual_seed(seed)
        drawn, start = draw_toy_cars(cars, seed=seed), time.perf_counter()
        seen = np.flatnonzero(~showing_any(drawn.attributes, NEVER_TRAINED))
        all_captions = drawn.loose_captions(seed) if loose else drawn.captions
        images, captions = drawn.images[seen], list(np.array(all_captions)[seen])
        length = CLIPConfig.__dataclass_fields__["length"].default
        tokenizer = Tokenizer.of(captions, length)
        tokens = tokenizer(captions)
        net = CLIP(CLIPConfig(tokenizer.words))
        steps = passes * (len(images) // batch)
        order = shuffled(len(images), passes=passes, batch=batch, seed=seed)
        training = train(
            net,
            clip_loss,
            ((to_float(images[rows.numpy()]), tokens[rows]) for rows in order),
            torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01, fused=True),
            lr=warmup_cosine(lr, warmup=steps // 20, total=steps, end=0.01),
        )
        bar = tqdm(training, total=steps, unit="step")
        for done in bar:
            if done.step % 10 == 0:
                bar.set_postfix(loss=f"{done.loss.item():.3f}")
        seconds = round(time.perf_counter() - start)
        net.eval().half().float()  # from here on as it is stored
        card = {
            "name": out.name,
            "kind": "clip",
            "config": net.config.to_dict(),
            "parameters": sum(p.numel() for p in net.parameters()),
            "commands": [command_line("train-clip", options)],
            "seed": seed,
            "images": len(images),
            "images seen": steps * batch,
            "hardware": hardware(),
            "seconds": seconds,
            "measured": measure(net, n=test, seed=seed + 1),
        }
        save_weights(new, net.state_dict(), card)
        (new / "README.md").write_text(card_text(card), encoding="utf-8")
        print(card_text(card))
