"""Turns a finished run into weights that ship: measured, pictured, with a card."""

from pathlib import Path

import torch

from ddpm_core.datasets import to_float
from ddpm_core.datasets.images import save_grid
from ddpm_core.datasets.toy_cars import attributes_showing, caption, draw_toy_cars
from ddpm_core.models import DiffusionModel, best_device, load_model
from ddpm_core.types import Images
from ddpm_core.weights import save_weights
from ddpm_core.workshop.evaluation import (
    asked,
    attribute_report,
    classifier_extractor,
    draw_samples,
    extractor,
    nearest_images,
    obedience,
    real_images,
    save_beside_nearest,
    score,
    told_captions,
)
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.run import Run

SHOWN = 64  # samples in the card's picture
NEVER_SEEN = 128  # samples of each combination that was left out of training
AUDITED = 16  # samples shown above their nearest training image


def export(
    folder: Path,
    out: Path,
    *,
    n: int,
    steps: int,
    scale: float = 1.0,
    features: str = "",
    seed: int = 0,
) -> dict:
    """Write the run's averaged weights to `out`, measured as they are stored.

    The card holds what was trained and how, and is put into words in README.md beside
    three pictures: samples, the same above their nearest training image, the losses.
    A text model draws the captions of other cars, with guidance of `scale`. Samples of
    photos are measured on the `features` that `evaluation.extractor` knows, if any are
    named. Returns the card. Raises ValueError for a run that has not come to its end
    and as `real_images` does.
    """
    run = Run.open(folder)
    if run.step < run.steps:
        raise ValueError(
            f"{folder} stands at step {run.step} of {run.steps}: go on with --resume"
        )
    if not len(run.split.held_out):
        raise ValueError(f"{folder} holds out no images, which the card needs")
    if features and run.preset.data == "toy-cars":
        raise ValueError(
            f"toy cars are measured on the classifier's features, not on {features}"
        )
    from ddpm_core import plots  # an extra: better missed now than after sampling

    export_command = f"ddpm export {folder} {out} --n {n} --steps {steps}"
    if run.preset.text:
        export_command += f" --scale {scale}"
    if features:
        export_command += f" --features {features}"
        measure = extractor(features)
        photos = real_images(run.preset.data, run.preset, n, run.preset.seed + 1)
    card = describe(run, out.name, [*run.files.commands(), export_command])
    save_weights(out, run.ema.net.state_dict(), card)
    model = load_model(out, best_device())  # from here on as it is stored
    told = told_captions(model, n, seed=seed + 1, scale=scale)
    samples = draw_samples(model, n, steps=steps, seed=seed, **told)
    save_grid(out / "samples.webp", samples[:SHOWN])
    trained_on = torch.from_numpy(run.split.images[run.split.train.numpy()])
    save_beside_nearest(out / "nearest.webp", samples[:AUDITED], trained_on)
    _, distance = nearest_images(samples[:SHOWN], trained_on)
    held = torch.from_numpy(run.split.images[run.split.held_out.numpy()])
    _, held_distance = nearest_images(to_float(held[:SHOWN]), trained_on)
    plots.use_style()
    plots.losses(read_log(folder)).savefig(out / "losses.webp", dpi=110)
    card["measured"] = {
        "steps": steps,
        "sampler": "ddim",
        "seed": seed,
        "held-out loss": read_held_out(folder)[-1],
        "nearest training image, rms": rounded(distance),
        "the same of held-out images": rounded(held_distance),
    }
    if run.preset.data == "toy-cars":
        preset = run.preset
        card["measured"] |= measure_toy_cars(samples, preset.size, preset.seed)
    elif features:
        card["measured"]["scores"] = str(score(measure, samples, *photos))
    if told and run.preset.data == "toy-cars":
        card["measured"]["prompts"] = measure_prompts(model, samples, steps, scale)
    save_weights(out, run.ema.net.state_dict(), card)
    (out / "README.md").write_text(card_text(card))
    return card


def describe(run: Run, name: str, commands: list[str]) -> dict:
    """What was trained, with which command, on what, for how long."""
    return {
        "name": name,
        "config": run.preset.to_dict(),
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "commands": commands,
        "seed": run.preset.seed,
        "images": len(run.split.train),
        "images seen": run.steps * run.preset.batch,
        "hardware": run.hardware(),
        "seconds": round(run.seconds),
    }


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
    model: DiffusionModel, samples: Images, steps: int, scale: float
) -> dict:
    """How well samples show what their captions asked for; also what was never seen."""
    n, seed = len(samples), model.preset.seed + 1
    report = {"scale": scale, "obeyed": obedience(samples, asked(n, seed=seed))}
    for combination in model.preset.absent:
        rows = attributes_showing(combination, NEVER_SEEN, seed=seed)
        told = {"prompts": [caption(row, ground=True) for row in rows], "scale": scale}
        drawn = draw_samples(model, NEVER_SEEN, steps=steps, seed=seed, **told)
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


def card_text(card: dict) -> str:
    """Put the card into words, for people."""
    measured, config = card["measured"], card["config"]
    near, held = (
        measured["nearest training image, rms"],
        measured["the same of held-out images"],
    )
    commands = "\n".join(card["commands"])
    told = "without labels or captions"
    if config.get("text"):
        told = f"with captions, which {config['text']} encodes"
    if config.get("latent"):
        told += f",\nin the latents of {config['latent']}"
    if config.get("teacher"):
        told += f",\nas a student of {config['teacher']}"
    text = f"""# {card["name"]}

A denoising U-Net of {card["parameters"]:,} parameters for images of {config["size"]}x\
{config["size"]} pixels, trained on {config["data"]} {told}.

![64 samples](samples.webp)

- Predicts: {predicted(config)}
- Made by:

```
{commands}
```

- Hardware and time: {card["hardware"]}, {card["seconds"] / 60:.0f} minutes of training.
- Images: {card["images"]:,}; {card["images seen"]:,} were seen in training, each
  {card["images seen"] / card["images"]:.1f} times; seed {card["seed"]}.
- Stored: averaged weights (decay {config["ema"]}) in fp16; configuration and hash in
  `card.json`.

![Losses of the run](losses.webp)

## Measured

With {measured["steps"]} steps of {measured["sampler"].upper()}, seed \
{measured["seed"]}, from the stored weights:

- Held-out loss: {measured["held-out loss"]:.4f}.
"""
    if "scores" in measured:
        text += scores_text(measured)
    if "prompts" in measured:
        text += prompts_text(measured["prompts"])
    return f"""{text}
## Copies?

Below each sample its nearest training image, by root mean squared difference in units
of [-1, 1]: {near["mean"]} on average over {SHOWN} samples, {near["least"]} at the \
least; for held-out images {held["mean"]} and {held["least"]}.

![Samples above their nearest training images](nearest.webp)
"""


def predicted(config: dict) -> str:
    """Put into words what the network predicts, and what it was taught in training."""
    text = f"{config['target']}; {config['schedule']} schedule, T = {config['T']}"
    if config["zero_terminal_snr"]:
        text += ", rescaled to end in pure noise"
    if config.get("min_snr"):
        text += f"; loss weighed by min(SNR, {config['min_snr']:g})"
    if config.get("teacher"):
        kept = config["calls"] or "straight ways for any number"
        text += f";\n  distilled from {config['teacher_calls']} calls to {kept}"
    return text + "."


def scores_text(measured: dict) -> str:
    """Put into words how close samples come, and what is read off those of toy cars."""
    text = f"- {measured['scores'][0].upper()}{measured['scores'][1:]}.\n"
    if "attributes" not in measured:
        return text
    text += "\n| attribute | confidence | shares |\n| --- | --- | --- |\n"
    for name, values in measured["attributes"].items():
        shares = ", ".join(f"{k} {v:.1%}" for k, v in list(values.items())[1:])
        text += f"| {name} | {values['confidence']:.3f} | {shares} |\n"
    return text


def prompts_text(prompts: dict) -> str:
    """Put into words how well prompts were followed."""
    kinds = ("body", "colour", "time", "all")
    lines = [
        f"\nRead off samples of other captions, guidance {prompts['scale']:g}; the "
        f"last rows ({NEVER_SEEN} samples each) were left out of training:\n",
        f"| asked for | {' | '.join(kinds)} |",
        "| --- " * 5 + "|",
    ]
    for row, shares in prompts.items():
        if row != "scale":
            name = "captions at random" if row == "obeyed" else row
            figures = " | ".join(f"{shares[kind]:.1%}" for kind in kinds)
            lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"
