"""Turns a finished run into weights that ship: measured, pictured, with a card."""

import shlex
from pathlib import Path

import torch

from ddpm_core.datasets import to_float
from ddpm_core.datasets.atomic import current_folder, written_folder
from ddpm_core.datasets.images import save_grid
from ddpm_core.datasets.packed import read_meta
from ddpm_core.datasets.toy_cars import attributes_showing, caption, draw_toy_cars
from ddpm_core.models import DiffusionModel, best_device, load_model
from ddpm_core.types import Images
from ddpm_core.weights import save_weights
from ddpm_core.workshop.cards import FILES, NEVER_SEEN, SHOWN, card_text
from ddpm_core.workshop.evaluation import (
    attribute_report,
    classifier_extractor,
    draw_samples,
    extractor,
    nearest_images,
    obedience,
    prompted_attributes,
    real_images,
    sampled_prompts,
    save_beside_nearest,
    score,
)
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.presets import Preset
from ddpm_core.workshop.run import Run

AUDITED = 16  # samples shown above their nearest training image


def export(
    folder: Path,
    out: Path,
    *,
    n: int,
    steps: int,
    t_end: int = 0,
    scale: float = 1.0,
    features: str = "",
    seed: int = 0,
) -> dict:
    """Write the run's averaged weights to `out`, measured as they are stored.

    The card holds what was trained and how, and is put into words in README.md beside
    three pictures: samples, the same above their nearest training image, the losses.
    A conditional model draws prompts of its data, with guidance of `scale`. Samples of
    photos are measured on the `features` that `evaluation.extractor` knows, if any are
    named. Returns the card. Raises ValueError for a run that has not come to its end
    and as `real_images` does, and as `written_folder` does for what stands at `out`:
    all of it before anything is sampled.
    """
    run = Run.open(folder)
    if run.step < run.steps:
        raise ValueError(
            f"{folder} stands at step {run.step} of {run.steps}: go on with --resume"
        )
    toy_cars = run.preset.data == "toy-cars"
    if features and toy_cars:
        raise ValueError(
            f"toy cars are measured on the classifier's features, not on {features}"
        )
    conditional = run.preset.model.conditional
    prompted = {"prompts": [""], "scale": scale} if conditional else {}
    run.model.check_sampling(steps, t_end=t_end, **prompted)
    from ddpm_core import plots  # an extra: better missed now than after sampling

    measure = extractor(features) if features else None
    photos = ()
    if measure:
        photos = real_images(run.preset.data, run.preset, n, run.preset.seed + 1)
    words = ["ddpm", "export", folder.as_posix(), out.as_posix(), "--n", n]
    words += ["--steps", steps]
    words += ["--t-end", t_end] if t_end else []
    words += ["--scale", scale] if conditional else []
    words += ["--features", features] if features else []
    commands = [*run.files.commands(), shlex.join(map(str, words))]
    with written_folder(out, names=FILES) as new:
        card = describe(run, out.name, commands)
        save_weights(new, run.ema.net.state_dict(), card)
        model = load_model(new, best_device())  # from here on as it is stored
        prompts = sampled_prompts(model, run.preset.data, n, seed=seed + 1, scale=scale)
        samples = draw_samples(model, n, steps=steps, t_end=t_end, seed=seed, **prompts)
        plots.use_style()
        plots.losses(read_log(folder)).savefig(new / "losses.webp", dpi=110)
        save_grid(new / "samples.webp", samples[:SHOWN])
        card["measured"] = {
            "steps": steps,
            "sampler": "ddim",
            "t_end": t_end,
            "seed": seed,
            **audit(run, samples, new / "nearest.webp"),
        }
        if toy_cars and run.preset.model.size == 32:
            card["measured"] |= measure_toy_cars(samples, 32, run.preset.seed)
        elif measure:
            card["measured"]["scores"] = str(score(measure, samples, *photos))
        if toy_cars and run.preset.model.text:
            card["measured"]["prompts"] = measure_prompts(
                model, run.preset, samples, steps, scale
            )
        save_weights(new, run.ema.net.state_dict(), card)
        (new / "README.md").write_text(card_text(card), encoding="utf-8")
    return card


def describe(run: Run, name: str, commands: list[str]) -> dict:
    """What was trained, with which command, on what, for how long."""
    training = run.preset.to_dict()
    return {
        "name": name,
        "kind": "diffusion",
        "config": training.pop("model"),
        "training": training,
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "commands": commands,
        "seed": run.preset.seed,
        "images": len(run.split.train),
        "images seen": run.steps * run.preset.batch,
        "hardware": run.hardware(),
        "seconds": round(run.seconds),
    } | margin_of(run.preset.data)


def margin_of(data: str) -> dict[str, int]:
    """The margin of the boxes to which photos were cropped; empty for whole photos."""
    meta = {} if data == "toy-cars" else read_meta(current_folder(data))
    return {"margin": meta["margin"]} if "margin" in meta else {}


def audit(run: Run, samples: Images, picture: Path) -> dict:
    """Look for copies of training images, beside held-out ones where there are some."""
    trained_on = torch.from_numpy(run.split.images[run.split.train.numpy()])
    save_beside_nearest(picture, samples[:AUDITED], trained_on)
    _, distance = nearest_images(samples[:SHOWN], trained_on)
    found = {"nearest training image, rms": rounded(distance)}
    losses = read_held_out(run.folder)
    if losses:
        held = torch.from_numpy(run.split.images[run.split.held_out.numpy()])
        _, distance = nearest_images(to_float(held[:SHOWN]), trained_on)
        found["the same of held-out images"] = rounded(distance)
        found["held-out loss"] = losses[-1]
    return found


def measure_toy_cars(samples: Images, size: int, seed: int) -> dict:
    """Measure samples of toy cars against as many that were never trained on.

    `seed`: of the cars in training; those measured against have the next two.
    """
    n = len(samples)
    real, more = (
        to_float(draw_toy_cars(n, size=size, seed=seed + i).images) for i in (1, 2)
    )
    scores = score(classifier_extractor(), samples, real, more)
    return {"scores": str(scores), "attributes": attribute_report(samples)}


def measure_prompts(
    model: DiffusionModel, trained: Preset, samples: Images, steps: int, scale: float
) -> dict:
    """How well samples show what their captions say; also what was never seen."""
    n, seed = len(samples), trained.seed + 1
    wanted = prompted_attributes(n, seed=seed)
    report = {"scale": scale, "obeyed": obedience(samples, wanted)}
    for combination in trained.absent:
        rows = attributes_showing(combination, NEVER_SEEN, seed=seed)
        prompts = [caption(row, ground=True) for row in rows]
        drawn = draw_samples(
            model, NEVER_SEEN, steps=steps, seed=seed, prompts=prompts, scale=scale
        )
        report[combination] = obedience(drawn, torch.from_numpy(rows))
    return report


def read_held_out(folder: Path) -> list[float]:
    """The held-out loss after each epoch."""
    return [row["held_out"] for row in read_log(folder) if "held_out" in row]


def rounded(distances: torch.Tensor) -> dict[str, float]:
    """The least and the mean of distances, to three digits."""
    return {
        "least": round(distances.min().item(), 4),
        "mean": round(distances.mean().item(), 4),
    }
