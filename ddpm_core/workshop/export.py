"""Turns a finished run into weights that ship: measured, pictured, with a card."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ddpm_core.datasets import to_float
from ddpm_core.datasets.atomic import current_folder, written_folder
from ddpm_core.datasets.images import save_grid
from ddpm_core.datasets.packed import read_meta
from ddpm_core.datasets.toy_cars import attributes_showing, caption, draw_toy_cars
from ddpm_core.models import DiffusionModel, Prompted, best_device
from ddpm_core.types import Images
from ddpm_core.weights import find_weights, load_weights, read_card, save_weights
from ddpm_core.workshop.batches import Split, load_split
from ddpm_core.workshop.cards import FILES, NEVER_SEEN, SHOWN, card_text
from ddpm_core.workshop.estimate import sampling_seconds, spell
from ddpm_core.workshop.evaluation import (
    attribute_report,
    check_features,
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
from ddpm_core.workshop.lora import lora_state
from ddpm_core.workshop.opened import is_run, open_model
from ddpm_core.workshop.presets import Preset, training_of
from ddpm_core.workshop.run import Run

AUDITED = 16  # samples shown above their nearest training image
MEASURED = 2000  # samples that are measured, where there is enough to measure them on


def export(
    folder: Path,
    out: Path,
    *,
    n: int | None = None,
    steps: int,
    sampler: str = "ddim",
    t_end: int | None = None,
    scale: float = 1.0,
    features: str = "",
    measure: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict:
    """Write the run's averaged weights to `out`, measured as they are stored.

    The card holds what was trained and how, and is put into words in README.md beside
    three pictures: samples, the same above their nearest training image, the losses. Of
    a run with a LoRA only the change is written. Without `measure`, nothing is sampled:
    weights, card and losses. Without `n`, the data decide how many; `say` is told in
    advance what is done and how long it takes.

    A conditional model draws prompts of its data, with guidance of `scale`. Samples of
    photos are measured on the `features` that `evaluation.extractor` knows, if any are
    named. Returns the card. Raises ValueError for a run that has not ended, and as
    `real_images` does, and as `written_folder` does for what stands at `out`: all of it
    before anything is sampled.
    """
    run = Run.open(folder)
    if run.step < run.steps:
        raise ValueError(
            f"{folder} is at step {run.step} of {run.steps}: go on with --resume"
        )
    toy_cars = run.preset.data == "toy-cars"
    if features and toy_cars:
        raise ValueError(
            f"toy cars are measured on the classifier's features, not on {features}"
        )
    conditional = run.preset.model.conditional
    prompted = {"prompts": [""], "scale": scale} if conditional else {}
    run.model.check_sampling(steps, sampler, t_end=t_end, **prompted)
    # An extra: better missed now than after sampling.
    from ddpm_core.display import plots

    if measure:
        n = n or enough_samples(run, features)
        asked = Asked(n, steps, sampler, t_end, scale, features, seed)
        measuring = Measuring(run.preset, run.split, asked)
    options = measuring.options if measure else ["--no-measure"]
    words = ["ddpm", "export", folder.as_posix(), out.as_posix(), *options]
    commands = [*run.files.commands(), shlex.join(words)]
    with written_folder(out, names=FILES) as new:
        card, state = describe(run, out.name, commands), stored_state(run)
        plots.use_style()
        plots.losses(read_log(folder)).savefig(new / "losses.webp", dpi=110)
        if not measure:
            say(f"writes the weights of step {run.step:,}; nothing is sampled")
            card["measured"] = {}
        else:
            save_weights(new, state, card)
            model = open_model(new, best_device())  # from here on as it is stored
            card["measured"] = measuring.of(model, new, read_held_out(folder), say)
        store(new, state, card)
    return card


def remeasure(
    name: str,
    out: Path,
    *,
    n: int,
    steps: int,
    sampler: str = "ddim",
    t_end: int | None = None,
    scale: float = 1.0,
    features: str = "",
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure exported weights again, when what they are measured with has changed.

    That may be the decoder of their latents, a sampler or a judge. Writes them to `out`
    with a new card, as `export` does: the weights and the losses of their training stay
    what they were. Returns the card; raises as `export` does.
    """
    state, card = load_weights(name)
    _check_card(name, card)
    preset, model = training_of(name), open_model(name, best_device())
    prompted = {"prompts": [""], "scale": scale} if preset.model.conditional else {}
    model.check_sampling(steps, sampler, t_end=t_end, **prompted)
    losses = (find_weights(name) / "losses.webp").read_bytes()
    asked = Asked(n, steps, sampler, t_end, scale, features, seed)
    measuring = Measuring(preset, load_split(preset), asked)
    words = ["ddpm", "remeasure", name, out.as_posix(), *measuring.options]
    card |= {"name": out.name, "commands": [*card["commands"], shlex.join(words)]}
    held_out = card["measured"].get("held-out loss")
    with written_folder(out, names=FILES) as new:
        (new / "losses.webp").write_bytes(losses)
        known = [] if held_out is None else [held_out]
        card["measured"] = measuring.of(model, new, known, say)
        store(new, state, card)
    return card


def _check_card(name: str, card: dict) -> None:
    """Raise ValueError for a card without what a new measurement adds to."""
    for field, kind in (("commands", list), ("measured", dict)):
        if not isinstance(card.get(field), kind):
            raise ValueError(
                f"{find_weights(name) / 'card.json'} must have {field!r}, "
                f"{'a list' if kind is list else 'an object'}: export the run again"
            )


def store(folder: Path, state: dict[str, torch.Tensor], card: dict) -> None:
    """Write weights, card, and the card in words."""
    save_weights(folder, state, card)
    (folder / "README.md").write_text(card_text(card), encoding="utf-8")


class Asked(NamedTuple):
    """How weights are to be measured, as the options of a command say it."""

    n: int
    steps: int
    sampler: str
    t_end: int | None
    scale: float
    features: str
    seed: int

    @property
    def walk(self) -> dict[str, int | str | None]:
        """The options of the sampler."""
        return {"steps": self.steps, "sampler": self.sampler, "t_end": self.t_end}


class Measuring:
    """What weights are measured on; prepared, and refused, before anything is drawn."""

    def __init__(self, preset: Preset, split: Split, asked: Asked):
        self.preset, self.split, self.asked = preset, split, asked
        if asked.features:
            check_features(asked.features, preset.data)
        self.ruler = extractor(asked.features) if asked.features else None
        self.photos = ()
        if self.ruler:
            seed = preset.seed + 1
            self.photos = real_images(preset.data, preset, asked.n, seed)

    @property
    def options(self) -> list[str]:
        """The words of a command that measures so."""
        asked = self.asked
        words = ["--n", asked.n, "--steps", asked.steps]
        words += [] if asked.sampler == "ddim" else ["--sampler", asked.sampler]
        words += [] if asked.t_end is None else ["--t-end", asked.t_end]
        words += ["--scale", asked.scale] if self.preset.model.conditional else []
        words += ["--features", asked.features] if asked.features else []
        return list(map(str, words))

    def of(
        self,
        model: DiffusionModel,
        folder: Path,
        held_out: Sequence[float],
        say: Callable[[str], None],
    ) -> dict:
        """Draw samples and measure them; their pictures go into `folder`.

        `held_out`: the held-out loss after each epoch of the training, where known.
        """
        asked, n, preset = self.asked, self.asked.n, self.preset
        toy_cars = preset.data == "toy-cars"
        prompted = {"seed": asked.seed + 1, "scale": asked.scale}
        prompts = sampled_prompts(model, preset.data, n, **prompted)
        say(plan(model, n, asked.steps, self.ruler or toy_cars, prompts))
        samples = draw_samples(model, n, **asked.walk, seed=asked.seed, **prompts)
        say("drawn; now compared with the nearest training images and measured")
        save_grid(folder / "samples.webp", samples[:SHOWN])
        found = {
            **asked.walk,
            "t_end": model.t_end if asked.t_end is None else asked.t_end,
            "seed": asked.seed,
            **audit(self.split, samples, folder / "nearest.webp", held_out),
        }
        if toy_cars and preset.model.size == 32:
            found |= measure_toy_cars(samples, 32, preset.seed)
        elif self.ruler:
            found["scores"] = str(score(self.ruler, samples, *self.photos))
        if toy_cars and preset.model.text:
            found["prompts"] = measure_prompts(model, preset, samples, asked)
        return found


def enough_samples(run: Run, features: str) -> int:
    """How many samples to measure: as many as the data allow, up to MEASURED.

    Raises ValueError where too few images were held out to measure anything on.
    """
    if run.preset.data == "toy-cars":
        return MEASURED
    if not features:
        return SHOWN  # for the picture and the search for copies
    n = min(MEASURED, len(run.split.held_out), len(run.split.images) // 2)
    if n < SHOWN:
        raise ValueError(
            f"{run.preset.held_out} images were held out, {SHOWN} are needed to "
            "measure on: train with a larger --held-out, or leave out --features"
        )
    return n


def plan(
    model: DiffusionModel, n: int, steps: int, scored: object, prompts: Prompted
) -> str:
    """Say what export is about to do here, and how long the sampling takes."""
    seconds = spell(sampling_seconds(model, n, steps, prompts))
    then = "score" if scored else "look for copies (--features would score them)"
    return (
        f"draws {n:,} samples of {steps} steps each to {then}: about {seconds}; "
        "--no-measure leaves that out"
    )


def stored_state(run: Run) -> dict[str, torch.Tensor]:
    """What is written: the averaged weights, or a LoRA's averaged change alone."""
    return lora_state(run.ema.net) if run.preset.lora else run.ema.net.state_dict()


def described_model(run: Run) -> dict:
    """The parts of a card that say what was trained: a model, or a LoRA for one."""
    preset, training = run.preset, run.preset.to_dict()
    kind, config = "diffusion", training.pop("model")
    if preset.lora:
        base = preset.start_from
        kind = "lora"
        config = {"base": base, "rank": preset.lora, "size": preset.model.size}
        config["sha256 of base"] = "" if is_run(base) else read_card(base)["sha256"]
    return {"kind": kind, "config": config, "training": training}


def describe(run: Run, name: str, commands: list[str]) -> dict:
    """What was trained, with which command, on what, for how long."""
    return {
        "name": name,
        **described_model(run),
        "parameters": sum(p.numel() for p in stored_state(run).values()),
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


def audit(
    split: Split, samples: Images, picture: Path, losses: Sequence[float]
) -> dict:
    """Look for copies of training images, beside held-out ones where there are some."""
    trained_on = torch.from_numpy(split.images[split.train.numpy()])
    save_beside_nearest(picture, samples[:AUDITED], trained_on)
    _, distance = nearest_images(samples[:SHOWN], trained_on)
    found = {"nearest training image, rms": rounded(distance)}
    if len(split.held_out):
        held = torch.from_numpy(split.images[split.held_out[:SHOWN].numpy()])
        _, distance = nearest_images(to_float(held), trained_on)
        found["the same of held-out images"] = rounded(distance)
    if losses:
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
    model: DiffusionModel, trained: Preset, samples: Images, asked: Asked
) -> dict:
    """How well samples show what their captions say; also what was never seen."""
    n, seed = len(samples), trained.seed + 1
    wanted = prompted_attributes(n, seed=seed)
    report = {"scale": asked.scale, "obeyed": obedience(samples, wanted)}
    for combination in trained.absent:
        rows = attributes_showing(combination, NEVER_SEEN, seed=seed)
        prompts = [caption(row, ground=True) for row in rows]
        how = {"seed": seed, "prompts": prompts, "scale": asked.scale}
        drawn = draw_samples(model, NEVER_SEEN, **asked.walk, **how)
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
