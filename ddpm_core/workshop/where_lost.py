"""At which noise levels does a model lose quality? Chapter 14.

Photos that it never saw are noised to t and denoised from there. What is lost up to t
is lost in the steps below t: near 0 it is fine detail, near T the whole picture.
"""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from ddpm_core import samplers
from ddpm_core.diffusion import add_noise
from ddpm_core.models import DiffusionModel
from ddpm_core.types import Images
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.opened import open_model, trained_as
from ddpm_core.workshop.tables import table_writer

TENTHS = (0, 1, 2, 4, 6, 8, 10)
CHUNK = 64


def denoised_from(
    model: DiffusionModel,
    images: Images,
    t: int,
    calls: int,
    generator: torch.Generator,
) -> Images:
    """Noise images to t; denoise them by those of DDIM's `calls` steps that lie below.

    At t = 0 they are only encoded and decoded.
    """
    x = model.latent.encode(images) if model.latent else images
    if t == 0:
        return model.decode(x)
    noise = torch.randn(x.shape, generator=generator)
    x_t = add_noise(model.schedule, x, torch.full((len(x),), t), noise)
    walk = samplers.spaced_times(model.schedule.T, calls, model.t_end)
    times = [t, *(u for u in walk if u < t)]
    step = partial(samplers.ddim_step, model.schedule)
    return model.decode(
        samplers.last(samplers.sample(model.denoiser(), step, x_t, times))
    )


def rows(name: str, n: int, calls: int, features: str, seed: int) -> Iterator[dict]:
    """Yield a row for each t."""
    model, trained = open_model(name), trained_as(name)
    real, other = evaluation.real_images(trained.data, trained, n, trained.seed + 1)
    ruler = evaluation.extractor(features)
    for tenth in TENTHS:
        t = model.schedule.T * tenth // 10
        g = torch.Generator().manual_seed(seed)
        parts = [denoised_from(model, x, t, calls, g) for x in other.split(CHUNK)]
        scores = evaluation.score(ruler, torch.cat(parts), real, other)
        yield {"t": t, "scores": asdict(scores)}


def main(
    name: Annotated[str, typer.Argument(help="shipped weights, a folder, or a run")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    n: Annotated[int, typer.Option(min=16, max=1_000_000, help="photos")] = 512,
    calls: Annotated[int, typer.Option(min=2, help="network calls from T")] = 20,
    features: Annotated[str, typer.Option(help="imagenet or inception")] = "imagenet",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="seed of the noise")] = 0,
) -> None:
    """Measure photos that a model denoises from several timesteps; write the table."""
    torch.set_num_threads(1)
    options = {"out": out, "n": n, "calls": calls, "features": features, "seed": seed}
    evaluation.check_features(features, trained_as(name).data)
    model = open_model(name)
    if model.config.conditional:
        raise ValueError(f"{name} takes prompts: name a model without")
    model.check_sampling(calls)
    with table_writer(shlex.join(["measure-where-lost", name]), options) as write:
        write(rows(name, n, calls, features, seed), {"model": name})
