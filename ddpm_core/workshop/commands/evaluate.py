"""`ddpm evaluate`: samples measured against real images."""

from typing import Annotated

import typer

from ddpm_core.models import best_device, quick
from ddpm_core.samplers import SPACINGS
from ddpm_core.workshop import evaluation
from ddpm_core.workshop.commands.common import (
    GUIDANCE,
    GUIDE,
    SAMPLER,
    STEPS,
    T_END,
    drawn_as,
    guided_by,
)
from ddpm_core.workshop.opened import open_model, trained_as


def evaluate(
    weights: Annotated[str, typer.Option(help="shipped weights, a folder, or a run")],
    n: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="samples, and real images")
    ] = 1000,
    steps: Annotated[int | None, STEPS] = None,
    sampler: Annotated[str | None, SAMPLER] = None,
    spacing: Annotated[
        str, typer.Option(help=f"of the timesteps: {', '.join(SPACINGS)}")
    ] = "time",
    t_end: Annotated[int | None, T_END] = None,
    features: Annotated[
        str, typer.Option(help="classifier (toy cars), imagenet or inception")
    ] = "classifier",
    data: Annotated[
        str | None, typer.Option(help="'toy-cars' or a packed folder")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="guidance by the prompts, or by --guide", min=0, max=100),
    ] = None,
    guide: Annotated[str | None, GUIDE] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="seed of all noise")] = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the network first")
    ] = False,
) -> None:
    """Measure a model's samples against real images that it need not have seen."""
    model, trained = open_model(weights, best_device()), trained_as(weights)
    data = data or trained.data
    evaluation.check_features(features, data)
    led = guided_by(guide, model, scale)
    if scale is not None and not led and not model.config.conditional:
        raise ValueError("--scale has no effect: this model takes no prompts")
    scale = GUIDANCE if scale is None else scale
    steps, sampler = drawn_as(weights, steps, sampler)
    how = {"sampler": sampler, "spacing": spacing, "t_end": t_end}
    measure = evaluation.extractor(features)
    prompts = evaluation.sampled_prompts(
        model, trained.data, n, seed=seed + 1, scale=scale
    )
    prompts |= led
    model.check_sampling(steps, **how, **prompts)
    real = evaluation.real_images(data, trained, n, seed + 1)
    samples = evaluation.draw_samples(
        quick(model, compiled=compiled), n, steps=steps, seed=seed, **how, **prompts
    )
    away = f", away from {guide} at scale {scale:g}" if led else ""
    typer.echo(f"{weights}, {steps} steps of {sampler}, seed {seed}{away}:")
    typer.echo(evaluation.score(measure, samples, *real))
    if model.config.text and data == "toy-cars":
        wanted = evaluation.prompted_attributes(n, seed=seed + 1)
        shares = evaluation.obedience(samples, wanted)
        text = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
        typer.echo(f"as the captions ask, guidance {scale:g}: {text}")
