"""Is my run healthy? What a run and its data tell, with what to do. Chapter 07.

`examine` measures a patient, `diagnose` compares what was measured with thresholds. The
thresholds were set on runs broken on purpose: tests/test_doctor.py has them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isnan, log, sqrt
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_core.datasets import PackedImages, to_float
from ddpm_core.diffusion import TARGETS, add_noise, diffusion_loss, min_snr
from ddpm_core.models import DiffusionModel, best_device
from ddpm_core.types import Images, PerSample, Samples, Times
from ddpm_core.workshop.batches import Batches, Split, load_split
from ddpm_core.workshop.bounds import Wiener, as_loss, posterior_error
from ddpm_core.workshop.capstone import RESULTS
from ddpm_core.workshop.evaluation import draw_samples, nearest_images
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.opened import is_run, open_model, trained_as
from ddpm_core.workshop.presets import Preset
from ddpm_core.workshop.run import Run

BANDS = 8  # timesteps at which losses are compared, evenly from 1 to T
EACH = 24  # images at each of them
FITTED = 768  # images that the linear denoiser is fitted to
AXES = 256  # of them, at most; fewer images tell of fewer
SAMPLES = 64
STEPS = 20  # network calls a sample
HALF_MAX = 65_504.0  # the largest number of fp16
HEALTHY = RESULTS / "doctor"
"""Curves of healthy models that ship, by name: `ddpm doctor NAME --curves FILE`."""


@dataclass(frozen=True, eq=False)
class Patient:
    """What is examined: a run, or weights with their data; `raw` and `log` of a run.

    `known` says whether the training images are those that were trained on.
    """

    name: str
    preset: Preset
    model: DiffusionModel
    batches: Batches
    log: list[dict]
    raw: nn.Module | None = None
    known: bool = True

    @property
    def split(self) -> Split:
        return self.batches.split


def patient_of(name: str | Path, data: str = "") -> Patient:
    """Open a run, or weights, whose data may be named where they lie elsewhere.

    Of toy cars others are drawn for weights than were trained on. Raises as
    `open_model`, `Run.open` and `load_split` do, and ValueError for other data than a
    run's own.
    """
    if is_run(name):
        if data:
            raise ValueError(f"--data is for weights: {name} is a run, with its data")
        run = Run.open(Path(name))
        log = read_log(Path(name))
        return Patient(str(name), run.preset, run.model, run.batches, log, run.net)
    preset, model = trained_as(name), open_model(name, best_device())
    preset = preset.replace(data=data) if data else preset
    drawn = preset.data == "toy-cars"
    if data and not drawn:
        _check_enough(preset, str(name))
    if drawn:
        seed = preset.seed + 1
        preset = preset.replace(seed=seed, drawn=FITTED, held_out=256)
    batches = Batches(load_split(preset), preset, model.device, latent=model.latent)
    return Patient(str(name), preset, model, batches, [], known=not drawn)


def _check_enough(preset: Preset, name: str) -> None:
    """Raise ValueError for fewer images than there must be where these were trained."""
    n = len(PackedImages.open(preset.data))
    if n < preset.held_out + preset.batch:
        raise ValueError(
            f"{preset.data} holds {n:,} images, and {name} held out {preset.held_out:,}"
            ": name the data that it was trained on"
        )


# Measuring --------------------------------------------------------------------------


class Draw(NamedTuple):
    """Images at the timesteps of the bands, with noise: (BANDS * EACH, ...)."""

    x0: Samples
    t: Times
    eps: Samples
    cond: object


def draw(patient: Patient, rows: Tensor) -> Draw:
    """Take as many images as the bands need, the same noise for every network."""
    n, T = BANDS * EACH, patient.model.schedule.T
    rows = rows[torch.arange(n) % len(rows)]
    x0, _ = patient.batches.clean(rows)
    band = torch.arange(n) * BANDS // n
    t = 1 + ((band + (torch.arange(n) % EACH + 0.5) / EACH) * T / BANDS).long()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    cond, split = None, patient.split
    if split.caption is not None:
        prompts = [split.captions[i] for i in split.caption[rows]]
        cond = patient.model.encoder.encode(prompts)
    return Draw(x0, t.clamp(max=T).to(x0.device), eps.to(x0.device), cond)


def by_band(losses: PerSample) -> Tensor:
    """The mean in each band."""
    return losses.double().view(BANDS, EACH).mean(1).cpu()


@torch.no_grad()
def losses(patient: Patient, net: nn.Module, drawn: Draw, **weight) -> PerSample:
    """A network's loss on each of the images, in evaluation mode."""
    was, model = net.training, patient.model
    net.eval()
    x0, t, eps, cond = drawn
    found = diffusion_loss(
        net, model.schedule, model.target, x0, cond, t=t, eps=eps, **weight
    )
    net.train(was)
    return found


class Convention(NamedTuple):
    """How a training might compute its loss otherwise: a slip of the code."""

    says: str
    clean: Callable[[Samples], Samples] = lambda x0: x0
    noise: Callable[[Samples], Samples] = lambda eps: eps
    scales: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    target: str = ""


def _uniform(eps: Samples) -> Samples:
    return torch.special.ndtr(eps)  # even in [0, 1], where eps is Gaussian


SLIPS = {
    "missing root": Convention(
        "noise is multiplied by its variance, where its root belongs",
        scales=lambda ab, alpha: (ab.sqrt(), 1 - ab),
    ),
    "swapped alpha": Convention(
        "alpha stands where alpha_bar, its product over the timesteps, belongs",
        scales=lambda ab, alpha: (alpha.sqrt(), (1 - alpha).sqrt()),
    ),
    "rand for randn": Convention(
        "the noise is even between 0 and 1, not Gaussian", noise=_uniform
    ),
    "images in [0, 1]": Convention(
        "the images lie in [0, 1], not in [-1, 1]", clean=lambda x0: (x0 + 1) / 2
    ),
    **{
        f"target {name}": Convention(f"the network predicts {name}", target=name)
        for name in ("eps", "x0", "v")
    },
}
"""The slips that are tried where the log's loss is not that of the weights."""

EARLY = Convention("only timesteps up to T / 2 are drawn")


@torch.no_grad()
def slipped_loss(patient: Patient, net: nn.Module, d: Draw, slip: Convention) -> float:
    """The mean loss of a network, computed with that slip."""
    schedule, target = patient.model.schedule, patient.model.target
    target = TARGETS[slip.target] if slip.target else target
    x0, eps = slip.clean(d.x0), slip.noise(d.eps)
    a, s = schedule.scales(d.t, like=x0)
    x_t = add_noise(schedule, x0, d.t, eps)
    if slip.scales:
        shape = (-1,) + (1,) * (x0.ndim - 1)
        ab, alpha = (v[d.t].view(shape) for v in (schedule.alpha_bar, schedule.alpha))
        signal, noise = slip.scales(ab, alpha)
        x_t = (signal * x0 + noise * eps).to(x0.dtype)
    wanted = target.from_clean(x0, eps, a, s)
    error = (net.eval()(x_t, d.t, d.cond) - wanted).square().flatten(1).mean(1)
    return (error * weights_of(patient, d.t)).mean().item()


def weights_of(patient: Patient, t: Times) -> Tensor:
    """The factors that the run's loss has at these timesteps."""
    gamma, model = patient.preset.min_snr, patient.model
    if not gamma:
        return torch.ones(len(t), device=t.device)
    return min_snr(model.target, gamma)(model.schedule.snr[t]).float()


@dataclass
class Examined:
    """What `examine` found; None where it could not be measured."""

    latent: bool  # whether images are latents to the network
    times: list[float]  # the middle of each band
    snr: list[float]  # there
    linear: Tensor  # loss of the best linear denoiser, on held-out images
    least: Tensor  # least loss on the training images
    held_out: Tensor  # of the averaged weights, by band
    train: Tensor
    raw_held_out: Tensor | None
    first: float | None  # the log's first loss; NaN where weights were given
    last: float | None  # the mean of the last quarter
    falling: float | None  # the last quarter's mean loss over the third quarter's
    rough: float | None  # largest of the second half's losses over its median
    highest: float | None  # the largest, over that of a network that answers 0
    grad_norm: float | None  # median of the last rows, over the bound
    computed: float | None  # raw weights' loss on training images, as in the log
    slips: dict[str, float]  # the same with each slip
    low: float  # range of the images' values
    high: float
    leak: float  # what is left at T of the mean brightness, over the noise's std
    twins: float  # fraction of held-out images that are in the training set
    near: float  # median distance of samples to training images, over held-out ones'
    tint: float  # largest difference of a channel's mean, samples and data
    tint_errors: float  # the same, in standard errors
    contrast: float  # spread of the samples over the data's
    largest: float  # of all layers' outputs
    samples: Images
    nearest: Images


def examine(patient: Patient) -> Examined:
    """Measure a patient. Takes BANDS * EACH images through the network some times.

    Raises ValueError for fewer than two training images.
    """
    split, model = patient.split, patient.model
    if len(split.train) < 2:
        raise ValueError(
            f"{patient.name} was trained on {len(split.train)} image: the doctor needs "
            "two or more, to see how far images differ"
        )
    held_rows = split.held_out if len(split.held_out) >= 8 else split.train
    held, train = draw(patient, held_rows), draw(patient, split.train)
    fitted, _ = patient.batches.clean(split.train[:FITTED])
    wiener = Wiener.of(fitted.cpu(), k=min(AXES, max(1, len(fitted) // 3)))
    linear = wiener.error(model.schedule, held.x0.cpu(), held.t.cpu())
    known, _ = patient.batches.clean(split.train[: 4 * FITTED])
    inside = draw(patient, split.train[: 4 * FITTED])
    least = posterior_error(known, model.schedule, inside.x0, inside.t, inside.eps)
    raw = patient.raw
    times = [(k + 0.5) * model.schedule.T / BANDS for k in range(BANDS)]
    return Examined(
        latent=bool(model.latent),
        times=times,
        snr=[model.schedule.snr[round(t)].item() for t in times],
        linear=by_band(as_loss(model.target, model.schedule, linear, held.t)),
        least=by_band(as_loss(model.target, model.schedule, least, inside.t)),
        held_out=by_band(losses(patient, model.net, held)),
        train=by_band(losses(patient, model.net, train)),
        raw_held_out=by_band(losses(patient, raw, held)) if raw else None,
        **of_log(patient, loss_of_nothing(patient, train)),
        **of_formulas(patient, train),
        **of_data(patient),
        **of_samples(patient),
        largest=largest_output(model.net, train),
    )


def loss_of_nothing(patient: Patient, drawn: Draw) -> float:
    """The run's loss of a network that answers 0: where most trainings begin."""
    a, s = patient.model.schedule.scales(drawn.t, like=drawn.x0)
    wanted = patient.model.target.from_clean(drawn.x0, drawn.eps, a, s)
    found = wanted.square().flatten(1).mean(1) * weights_of(patient, drawn.t)
    return found.mean().item()


def of_log(patient: Patient, nothing: float) -> dict:
    """What the log tells: where the loss began and ended, and how it moved."""
    rows = [row for row in patient.log if "loss" in row]
    names = ("first", "last", "falling", "rough", "highest", "grad_norm")
    if len(rows) < 8:
        return dict.fromkeys(names)
    values = torch.tensor([row["loss"] for row in rows]).double()
    norms = torch.tensor([row["grad_norm"] for row in rows]).double()
    quarter = len(values) // 4
    late, before = values[-quarter:].mean(), values[-2 * quarter : -quarter].mean()
    half = values[len(values) // 2 :]
    started = bool(patient.preset.start_from or patient.preset.teacher)
    found = (
        values[0] if not started else values[0] * torch.nan,
        late,
        late / before,
        half.max() / half.median(),
        values.max() / nothing,
        norms[-quarter:].median() / patient.preset.clip,
    )
    return {name: value.item() for name, value in zip(names, found, strict=True)}


def of_formulas(patient: Patient, train: Draw) -> dict:
    """The raw weights' loss by this library's formulas, and by slips of them."""
    if patient.raw is None or patient.preset.teacher:
        return {"computed": None, "slips": {}}
    found = losses(patient, patient.raw, train) * weights_of(patient, train.t)
    tried = {k: slipped_loss(patient, patient.raw, train, s) for k, s in SLIPS.items()}
    tried.pop(f"target {patient.model.target.name}", None)
    early = by_band(found)[: BANDS // 2].mean().item()
    return {"computed": found.mean().item(), "slips": tried | {"early only": early}}


def of_data(patient: Patient) -> dict:
    """The range of the data, what is left of them at T, and repeated images."""
    split = patient.split
    flat = to_float(split.images[split.train[:FITTED].numpy()]).flatten()
    flat = flat[:: max(1, len(flat) // 200_000)]
    low, high = flat.quantile(0.002).item(), flat.quantile(0.998).item()
    x0, _ = patient.batches.clean(split.train[:FITTED])
    ab = patient.model.schedule.alpha_bar[-1].item()
    brightness = x0.flatten(2).mean(2).std(0).max().item()
    leak = sqrt(ab / (1 - ab) * x0[0, 0].numel()) * brightness
    held = split.held_out[:128]
    twins = 0.0
    if len(held) and patient.known:
        images = torch.from_numpy(split.images[split.train.numpy()])
        queries = to_float(split.images[held.numpy()])
        twins = (nearest_images(queries, images)[1] < 1e-3).double().mean().item()
    return {"low": low, "high": high, "leak": leak, "twins": twins}


def of_samples(patient: Patient) -> dict:
    """Samples beside the data: copies, tints, contrast."""
    split, model = patient.split, patient.model
    prompts = {}
    if model.config.conditional:
        rows = split.train[torch.arange(SAMPLES) % len(split.train)]
        prompts = {"prompts": [split.captions[i] for i in split.caption[rows]]}
    steps = min(STEPS, model.schedule.T)
    samples = draw_samples(model, SAMPLES, steps=steps, **prompts)
    samples = samples.nan_to_num(0).clamp(-1, 1)
    images = torch.from_numpy(split.images[split.train[:20_000].numpy()])
    nearest, distance = nearest_images(samples, images)
    held = split.held_out[:SAMPLES] if len(split.held_out) else split.train[:SAMPLES]
    real = to_float(split.images[held.numpy()])
    _, usual = nearest_images(real, images)
    data = to_float(images[:2048])
    means, theirs = samples.mean((2, 3)), data.mean((2, 3))
    off = (means.mean(0) - theirs.mean(0)).abs()
    error = theirs.std(0) / sqrt(SAMPLES)
    return {
        "near": (distance.median() / usual.median().clamp(min=1e-6)).item(),
        "tint": off.max().item(),
        "tint_errors": (off / error.clamp(min=1e-6)).max().item(),
        "contrast": (samples.std() / data.std().clamp(min=1e-6)).item(),
        "samples": samples[:8],
        "nearest": nearest[:8],
    }


@torch.no_grad()
def largest_output(net: nn.Module, drawn: Draw) -> float:
    """The largest number that any layer gives: fp16 reaches 65,504."""
    found = [0.0]

    def look(module, inputs, output) -> None:
        if isinstance(output, Tensor):
            found.append(output.abs().max().item())

    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    few = slice(None, None, EACH // 4)
    cond = drawn.cond.rows(few) if drawn.cond else None
    net.eval()(drawn.x0[few], drawn.t[few], cond)
    for hook in hooks:
        hook.remove()
    return max(found) if all(map(isfinite, found)) else float("inf")


# Diagnosing -------------------------------------------------------------------------


class Finding(NamedTuple):
    """Something that is not as it should be: its name, what was seen, what to do."""

    name: str
    says: str
    do: str


LIMITS = {
    "low": -0.5,  # the darkest pixels lie below this
    "high": 0.5,  # and the brightest above that
    "twins": 0.02,
    "leak": 0.3,
    "log of computed over last": 0.12,
    "unexplained": 0.4,
    "average over raw": 1.5,
    "last over first": 0.7,
    "rough": 3.0,
    "highest": 10.0,
    "falling": 0.9,
    "over linear": 1.1,
    "band over others": 2.5,
    "band over linear": 1.5,
    "held out over train": 1.25,
    "near": 0.6,
    "tint": 0.12,
    "tint errors": 5.0,
    "contrast": 0.3,
}
"""The thresholds, as calibrated on the runs of tests/test_doctor.py."""


def diagnose(found: Examined) -> list[Finding]:
    """Name what is wrong, the most likely cause of the rest first, impatience last."""
    checks = (data_range, twins, leak, learning, overflow, formula, average, timesteps,
              by_heart, copies, colours, early)  # fmt: skip
    return [finding for check in checks if (finding := check(found))]


def data_range(found: Examined) -> Finding | None:
    if found.latent or (found.low < LIMITS["low"] and found.high > LIMITS["high"]):
        return None
    return Finding(
        "range",
        f"nearly all pixels lie between {found.low:.2f} and {found.high:.2f}, where "
        "images fill [-1, 1]",
        "look at the packed images: were they stored at half their range?",
    )


def twins(found: Examined) -> Finding | None:
    if found.twins <= LIMITS["twins"]:
        return None
    return Finding(
        "twins",
        f"{found.twins:.0%} of the held-out images are in the training set, too",
        "remove repeated images before `ddpm prepare`: the held-out loss says nothing",
    )


def leak(found: Examined) -> Finding | None:
    if found.leak <= LIMITS["leak"]:
        return None
    return Finding(
        "leak",
        f"at T the mean brightness still stands out of the noise by {found.leak:.1f} "
        "standard deviations: samples, which begin without it, are all of medium "
        "brightness",
        "--schedule cosine, or --zero-terminal-snr with --target v (chapter 05)",
    )


def overflow(found: Examined) -> Finding | None:
    if found.largest < HALF_MAX / 4:
        return None
    return Finding(
        "overflow",
        f"a layer answers with {found.largest:,.0f}; fp16 ends at {HALF_MAX:,.0f}: NaN "
        "or black pictures in half precision",
        "--precision bf16 or no",
    )


def formula(found: Examined) -> Finding | None:
    """The log's loss against that of the weights, by the right and by wrong formulas.

    The right formula gives the weights the loss of the log. A slip is named where it
    comes twice as near to it; without one, only a much larger loss is a finding.
    """
    if found.computed is None or not found.last or learning_failed(found):
        return None
    off = log(found.computed / found.last)
    name, value = min(
        found.slips.items(), key=lambda pair: abs(log(pair[1] / found.last))
    )
    near = abs(log(value / found.last))
    known = abs(off) > LIMITS["log of computed over last"] and near < abs(off) / 2
    if not known and off <= LIMITS["unexplained"]:
        return None
    guess = (SLIPS | {"early only": EARLY})[name].says if known else "not a known slip"
    return Finding(
        name if known else "formula",
        f"the log ends with a loss of {found.last:.4f}, the weights have "
        f"{found.computed:.4f} by this library's formulas: the training computed "
        f"something else ({guess})",
        "compare the training code with `add_noise` and `diffusion_loss` (chapters 05, "
        "07; bug clinic)",
    )


def average(found: Examined) -> Finding | None:
    if found.raw_held_out is None:
        return None
    ratio = (found.held_out.mean() / found.raw_held_out.mean()).item()
    if ratio <= LIMITS["average over raw"]:
        return None
    return Finding(
        "average",
        f"the averaged weights have {ratio:.1f} times the loss of the raw ones",
        "train longer, or average over fewer steps (--ema 0.99); copy buffers instead "
        "of averaging them",
    )


def learning_failed(found: Examined) -> bool:
    """Whether the loss has hardly come down since the first row."""
    if found.last is None or isnan(found.first):
        return False
    return not found.last <= LIMITS["last over first"] * found.first


def learning(found: Examined) -> Finding | None:
    unwell = early(found) is not None  # else it exploded once, and has recovered
    exploded = unwell and (found.highest or 0) > LIMITS["highest"]
    rough = (found.rough or 0) > LIMITS["rough"]
    if exploded or rough or learning_failed(found):
        wild = exploded or rough or not isfinite(found.last)
        wild = wild or found.last > 1.2 * found.first  # False for NaN
        return Finding(
            "rate too high" if wild else "does not learn",
            f"the loss began at {found.first:.3f} and ends at {found.last:.3f}, with "
            f"jumps of up to {found.rough:.1f} times its median; its largest is "
            f"{found.highest:.1f} times that of a network that answers 0",
            "a tenth of --lr, more --warmup"
            if wild
            else "ten times --lr; see that gradients reach every weight",
        )
    return None


def early(found: Examined) -> Finding | None:
    over = (found.held_out / found.linear).median().item()
    if over <= LIMITS["over linear"]:
        return None
    return Finding(
        "too early",
        f"the loss is {over:.2f} times that of the best linear denoiser"
        + (", and still falls" if (found.falling or 1) < LIMITS["falling"] else ""),
        "train longer, or with a larger network",
    )


def timesteps(found: Examined) -> Finding | None:
    ratio = found.held_out / found.linear
    worst = int(ratio.argmax())
    others = ratio[torch.arange(BANDS) != worst].median().item()
    least = max(LIMITS["band over others"] * others, LIMITS["band over linear"])
    if ratio[worst] <= least:
        return None
    return Finding(
        "timesteps",
        f"around t = {found.times[worst]:.0f} the loss is {ratio[worst]:.1f} times "
        f"that of the best linear denoiser, elsewhere {others:.2f} times",
        "see that training draws t from all of 1..T",
    )


def by_heart(found: Examined) -> Finding | None:
    ratio = (found.held_out.mean() / found.train.mean()).item()
    if ratio <= LIMITS["held out over train"]:
        return None
    return Finding(
        "by heart",
        f"held-out images have {ratio:.2f} times the loss of training images",
        "more images, a shorter training, --flip, dropout",
    )


def copies(found: Examined) -> Finding | None:
    if found.near >= LIMITS["near"]:
        return None
    return Finding(
        "copies",
        f"samples lie {found.near:.2f} times as far from their nearest training image "
        "as held-out images do",
        "do not publish them; more images or a shorter training",
    )


def colours(found: Examined) -> Finding | None:
    if found.tint > LIMITS["tint"] and found.tint_errors > LIMITS["tint errors"]:
        return Finding(
            "tint",
            f"the mean colour of samples is off by {found.tint:.2f} of the range -1..1 "
            f"({found.tint_errors:.0f} standard errors)",
            "longer averaging (--ema), a longer training; see the leak at T",
        )
    if abs(found.contrast - 1) > LIMITS["contrast"]:
        return Finding(
            "contrast",
            f"the pixels of samples spread {found.contrast:.2f} times as far as the "
            "data's",
            "more steps in sampling; train longer",
        )
    return None


# Reporting --------------------------------------------------------------------------


def report(patient: Patient, found: Examined, findings: list[Finding]) -> str:
    """Put an examination into words: the findings, and what was measured."""
    lines = [f"{patient.name}: " + ("healthy, nothing found" if not findings else "")]
    for number, finding in enumerate(findings, 1):
        lines += [f"{number}. {finding.name}: {finding.says}.", f"   {finding.do}."]
    over = (found.held_out / found.linear).tolist()
    lines += ["", "held-out loss over that of the best linear denoiser, by timestep:"]
    pairs = zip(found.times, over, strict=True)
    lines.append("  " + ", ".join(f"{t:.0f}: {ratio:.2f}" for t, ratio in pairs))
    ratio = (found.held_out.mean() / found.train.mean()).item()
    lines += [
        f"held-out over training loss: {ratio:.2f}; samples' distance to training "
        f"images over held-out images': {found.near:.2f}",
        f"tint {found.tint:.2f}, contrast {found.contrast:.2f}, largest output "
        f"{found.largest:,.1f}, brightness left at T {found.leak:.2f} std",
    ]
    if found.last:
        lines.append(
            f"the log's last loss {found.last:.4f}, over the quarter before "
            f"{found.falling:.2f}; gradient norm {found.grad_norm:.2f} of the bound; "
            f"{flat_for(patient.log)}"
        )
    wrapped = (fill(line, 79, subsequent_indent="  ") for line in lines)
    return "\n".join(wrapped).strip()


def flat_for(log: list[dict]) -> str:
    """How long the held-out loss has been within 1 % of its last value."""
    rows = [row for row in log if "held_out" in row]
    if len(rows) < 2:
        return "no held-out loss"
    last = rows[-1]["held_out"]
    moved = [row["epoch"] for row in rows if row["held_out"] > 1.01 * last]
    since = rows[-1]["epoch"] - max(moved, default=0)
    return (
        f"the held-out loss has been flat for {since:g} of {rows[-1]['epoch']:g} epochs"
    )


def curves(found: Examined) -> dict[str, list[float]]:
    """The losses by timestep and their bounds, as JSON can hold them."""
    bands = {"linear": found.linear, "least": found.least, "held_out": found.held_out}
    parts = {name: list(map(_figures, values)) for name, values in bands.items()}
    return {"t": found.times, "snr": list(map(_figures, found.snr))} | parts


def _figures(x: float | Tensor) -> float | None:
    """Four digits of a number; None, JSON's null, for what is none."""
    return float(f"{x:.4g}") if isfinite(x) else None


def healthy_curves(found: Examined) -> dict[str, Tensor]:
    """What this model's loss would be if it were as good as healthy models that ship.

    As good at each SNR, measured by the best linear denoiser, each on its own images.
    Nothing for latents, and where the repository's results are not at hand.
    """
    expected = {}
    for path in [] if found.latent else sorted(HEALTHY.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {name: np.array(values) for name, values in stored.items()}
        share = known["held_out"] / known["linear"]
        x, at = np.log(known["snr"]), np.log(np.maximum(found.snr, 1e-12))
        here = np.interp(at, x[::-1], share[::-1])  # interp wants rising x
        expected[path.stem] = found.linear * torch.from_numpy(here)
    return expected


def draw_report(found: Examined, path: Path) -> None:
    """One picture: the losses between their bounds, samples above the nearest image."""
    from ddpm_core.display import plots  # an extra

    plots.use_style()
    import matplotlib.pyplot as plt
    from torchvision.utils import make_grid

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    shown = {
        "best linear denoiser": (found.linear, "--"),
        "held-out images": (found.held_out, "o-"),
        "training images": (found.train, "s-"),
        "least possible on these training images": (found.least, ":"),
    }
    for name, (values, style) in shown.items():
        left.plot(found.times, values, style, label=name)
    for i, (name, values) in enumerate(healthy_curves(found).items()):
        grey = str(0.7 - 0.25 * i)
        left.plot(found.times, values, "-", color=grey, label=f"as good as {name}")
    left.set(xlabel="timestep $t$", ylabel="loss", yscale="log", ylim=(1e-3, None))
    left.legend(fontsize="small")
    grid = make_grid(torch.cat([found.samples, found.nearest]), nrow=8, padding=1)
    right.imshow(grid.permute(1, 2, 0).add(1).div(2).clamp(0, 1))
    right.set_title("samples, and below each its nearest training image")
    right.axis("off")
    fig.savefig(path, dpi=110)
    plt.close(fig)
