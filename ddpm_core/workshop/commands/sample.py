"""`ddpm sample`: images from trained weights, in one picture."""

from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.clip import CLIP
from ddpm_core.datasets.atomic import written_file
from ddpm_core.datasets.images import (
    check_picture,
    grid_columns,
    save_grid,
    save_strip,
    zoom_for,
)
from ddpm_core.models import DiffusionModel, Prompted, best_device
from ddpm_core.samplers import SPACINGS
from ddpm_core.workshop.commands.common import (
    GUIDANCE,
    GUIDE,
    SAMPLER,
    STEPS,
    T_END,
    TEXT_MODEL,
    drawn_as,
    guided_by,
)
from ddpm_core.workshop.evaluation import draw_samples, draw_strips
from ddpm_core.workshop.opened import is_lora, is_run, open_model
from ddpm_core.workshop.wording import check_words

STAGES = 9  # of a strip


def sample(
    weights: Annotated[
        str, typer.Option(help="shipped weights, a folder, or a run")
    ] = TEXT_MODEL,
    n: Annotated[int, typer.Option(min=1, max=100_000, help="images")] = 16,
    steps: Annotated[int | None, STEPS] = None,
    sampler: Annotated[str | None, SAMPLER] = None,
    spacing: Annotated[
        str, typer.Option(help=f"of the timesteps: {', '.join(SPACINGS)}")
    ] = "time",
    t_end: Annotated[int | None, T_END] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="seed of all noise")] = 0,
    prompt: Annotated[
        list[str] | None, typer.Option(help="what to draw; give several to draw each")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="class to draw; give several to draw each")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help="guidance: 0 ignores the prompt, 1 follows it", min=0, max=100
        ),
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="what to keep away from; with a scale above 1")
    ] = None,
    guide: Annotated[str | None, GUIDE] = None,
    lora: Annotated[
        Path | None, typer.Option(help="a LoRA that is added to the weights")
    ] = None,
    lora_scale: Annotated[
        float | None,
        typer.Option(help="how much of it: 0 is none, 1 all", min=-10, max=10),
    ] = None,
    zoom: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="enlarge; left out: to 512 pixels in width at least"
        ),
    ] = None,
    strip: Annotated[
        bool, typer.Option(help="9 stages of each, not the last one")
    ] = False,
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path(
        "samples.png"
    ),
) -> None:
    """Generate images and save them as one picture.

    A conditional model draws its `--prompt`s or `--label`s in turn; without one it
    chooses by itself.
    """
    check_picture(out)
    changed = lora or (not is_run(weights) and is_lora(weights))
    if lora_scale is not None and not changed:
        raise ValueError("--lora-scale has no effect without --lora")
    part = 1.0 if lora_scale is None else lora_scale
    model = open_model(weights, best_device(), lora=lora or "", lora_scale=part)
    led = guided_by(guide, model, scale)
    prompted = requested(model, n, prompt, label, scale, negative, led)
    steps, sampler = drawn_as(weights, steps, sampler)
    how = {"sampler": sampler, "spacing": spacing, "t_end": t_end}
    model.check_sampling(steps, **how, **prompted)
    save = save_strip if strip else save_grid
    draw = partial(draw_strips, stages=STAGES) if strip else draw_samples
    zoom = zoom or zoom_for(model.config.sides[1], STAGES if strip else grid_columns(n))
    with written_file(out) as new:
        images = draw(model, n, steps=steps, seed=seed, **how, **prompted)
        save(new, images, zoom=zoom)
    typer.echo(f"{n} images in {out}")


def requested(
    model: DiffusionModel,
    n: int,
    prompt: list[str] | None,
    label: list[str] | None,
    scale: float | None,
    negative: str | None,
    led: Prompted,
) -> Prompted:
    """A prompt for each of n images, and its guidance; `led` is that by a worse model.

    Raises ValueError for an option that has no effect.

    A model of captions takes prompts, one of classes labels, another neither.
    """
    config = model.config
    kinds = {"--prompt": (prompt, config.text), "--label": (label, config.classes)}
    for flag, (given, fits) in kinds.items():
        if given and not fits:
            takes = "captions" if config.text else "classes" if config.classes else ""
            kind = (
                f"was trained on {takes}" if takes else "was trained without captions"
            )
            raise ValueError(f"{flag} has no effect: this model {kind}")
    texts = prompt or label or []
    if isinstance(model.encoder, CLIP):
        check_words([*texts, negative or ""], model.encoder.tokenizer.words)
    if not config.conditional:
        alone = {} if led else {"--scale": scale}
        for flag, given in (alone | {"--negative": negative}).items():
            if given is not None:
                raise ValueError(f"{flag} has no effect: this model takes no prompts")
        return led
    if len(texts) > n:
        raise ValueError(f"{len(texts)} prompts need --n {len(texts)}, got {n}")
    scale = GUIDANCE if scale is None else scale
    if negative and scale in (0, 1):
        raise ValueError(
            f"--negative has no effect with --scale {scale:g}: take one above 1"
        )
    if texts and scale == 0:
        raise ValueError("--scale 0 ignores the prompts: leave them out, or take 1")
    prompts = list(islice(cycle(texts or [""]), n))
    guidance: Prompted = {"scale": scale, "negative": negative or ""}
    return {"prompts": prompts, **guidance, **led}
