"""The attribute classifier: its answers, its training, and the weights that ship."""

import dataclasses
import json
import shutil

import pytest
import torch

from ddpm_core.datasets.images import to_float
from ddpm_core.datasets.toy_cars import ATTRIBUTES, draw_toy_cars
from ddpm_core.metrics import (
    attribute_accuracy,
    density_coverage,
    frechet_distance,
    precision_recall,
)
from ddpm_core.neighbours.classifier import (
    AttributeClassifier,
    ClassifierConfig,
    load_classifier,
)
from ddpm_core.weights import find_weights
from ddpm_core.workshop.cards import card_text
from ddpm_core.workshop.side import classifier as module
from ddpm_core.workshop.side.classifier import (
    FACING,
    NO_CAR,
    attribute_loss,
    disturbed,
    mirrored,
    noise_images,
    train_classifier,
    training_batches,
)

NAME = "toy-cars-classifier-32"
HELD_OUT_SEED = 20_261  # neither the seed of the training nor that of the card


@pytest.fixture(scope="module")
def shipped():
    return load_classifier(NAME)


@pytest.fixture(scope="module")
def cars():
    return draw_toy_cars(512, seed=HELD_OUT_SEED)


@pytest.fixture(scope="module")
def images(cars):
    return to_float(cars.images)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# The weights that ship


def test_shipped_weights_read_held_out_cars(shipped, cars, images):
    accuracy = attribute_accuracy(
        shipped.predict(images).attributes, torch.from_numpy(cars.attributes)
    )
    assert len(accuracy) == len(ATTRIBUTES)
    assert (accuracy >= 0.98).all(), dict(zip(ATTRIBUTES, accuracy, strict=True))


def test_shipped_weights_read_cars_with_small_faults(shipped, cars, images):
    predicted = shipped.predict(disturbed(images, seeded())).attributes
    accuracy = attribute_accuracy(predicted, torch.from_numpy(cars.attributes))
    assert (accuracy >= 0.96).all(), dict(zip(ATTRIBUTES, accuracy, strict=True))


def test_shipped_weights_are_sure_of_cars_and_doubt_noise(shipped, images):
    """Pure Gaussian noise, which a sampler starts from, and the noise of training."""
    gaussian = torch.randn(256, 3, 32, 32, generator=seeded()).clamp(-1, 1)
    blobs = noise_images(256, 32, seeded(1))
    assert (shipped.predict(images).confidence.mean(0) > 0.97).all()
    for noise in (gaussian, blobs):
        sure_of_all = (shipped.predict(noise).confidence > 0.9).all(1)
        assert sure_of_all.float().mean() < 0.02


def test_features_tell_faults_from_chance(shipped, images):
    """Two halves of the cars lie nearer to each other than to damaged cars."""
    half_1, half_2 = shipped.features(images).chunk(2)
    by_chance = frechet_distance(half_1, half_2)
    noisy = images[256:] + 0.2 * torch.randn(256, 3, 32, 32, generator=seeded())
    assert (
        frechet_distance(half_1, shipped.features(noisy.clamp(-1, 1))) > 2 * by_chance
    )
    shuffled = images[256:].roll(16, dims=3)
    assert frechet_distance(half_1, shipped.features(shuffled)) > 2 * by_chance


def test_features_show_bodies_that_are_missing(shipped, cars, images):
    """Sedans alone are precise, but cover little of what is drawn."""
    features = shipped.features(images)
    sedans = features[torch.from_numpy(cars.attribute("body")) == 0]
    precision, recall = precision_recall(features, sedans)
    assert precision > 0.95
    assert recall < 0.4
    assert density_coverage(features, sedans).coverage < 0.4


def test_answers_do_not_depend_on_the_batch(shipped, images):
    whole = shipped.predict(images[:20])
    parts = shipped.predict(images[:20], chunk=7)
    assert torch.equal(whole.attributes, parts.attributes)
    torch.testing.assert_close(whole.confidence, parts.confidence)
    torch.testing.assert_close(
        shipped.features(images[3:4]), shipped.features(images)[3:4]
    )


def test_prediction_is_the_largest_probability(shipped, images):
    logits = shipped(images[:50])
    prediction = shipped.predict(images[:50])
    assert list(logits) == list(ATTRIBUTES)
    for column, values in enumerate(logits.values()):
        assert torch.equal(prediction.attributes[:, column], values.argmax(1))
        probability = values.exp().amax(1) / values.exp().sum(1)
        torch.testing.assert_close(prediction.confidence[:, column], probability)


def test_shipped_card_tells_what_was_measured():
    folder = find_weights(NAME)
    card = json.loads((folder / "card.json").read_text())
    assert (folder / "README.md").read_text() == card_text(card)
    assert (folder / "weights.safetensors").stat().st_size < 600_000
    for name in ("body", "colour", "facing", "time"):
        assert card["measured"]["accuracy"][name] >= 0.995
    assert card["measured"]["accuracy"]["ground"] >= 0.99
    assert card["measured"]["seed"] != card["seed"]


# Bad input


def test_a_changed_byte_in_the_weights_is_refused(tmp_path):
    folder = shutil.copytree(find_weights(NAME), tmp_path / "changed")
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="sha256"):
        load_classifier(folder)


def with_config(tmp_path, **changes):
    folder = shutil.copytree(find_weights(NAME), tmp_path / "other")
    card = json.loads((folder / "card.json").read_text())
    card["config"] |= changes
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_weights_that_do_not_fit_their_card_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit their card"):
        load_classifier(with_config(tmp_path, widths=[32, 96, 96]))


def test_weights_for_other_attributes_are_refused(tmp_path):
    other = {**ATTRIBUTES, "facing": ("right", "left")}
    with pytest.raises(ValueError, match="train it anew"):
        load_classifier(with_config(tmp_path, attributes=other))


def test_the_card_of_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not the configuration of a classifier"):
        load_classifier(with_config(tmp_path, unet={}))


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(FileNotFoundError, match=NAME):
        load_classifier("toy-cars-clasifier")


def test_images_of_another_shape_or_range_are_refused(shipped, images):
    with pytest.raises(ValueError, match=r"\(b, 3, 32, 32\), got \(4, 3, 16, 16\)"):
        shipped.predict(images[:4, :, ::2, ::2])
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        shipped.predict(images[:4] * 127.5)
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        shipped.features(images[:4] / 0)


@pytest.mark.parametrize("changes", [{"size": 20}, {"widths": (20, 48, 48)}])
def test_sizes_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="multiple"):
        ClassifierConfig(**changes)


# Training


def test_config_survives_json():
    config = ClassifierConfig(size=64, widths=(16, 32, 48))
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert ClassifierConfig.from_dict(values) == config


class Fixed(torch.nn.Module):
    """Gives the same logits whatever it sees."""

    def __init__(self, **logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def test_loss_is_the_cross_entropy_summed_over_attributes():
    logits = torch.randn(2, 6, 4, generator=seeded())
    wanted = torch.randint(0, 4, (6, 2), generator=seeded())
    losses = attribute_loss(
        Fixed(a=logits[0], b=logits[1]), torch.zeros(6, 3, 8, 8), wanted
    )
    cross_entropy = torch.nn.functional.cross_entropy
    expected = sum(
        cross_entropy(logits[i], wanted[:, i], reduction="none") for i in range(2)
    )
    torch.testing.assert_close(losses, expected)


def test_loss_of_no_car_is_least_where_all_is_equally_likely():
    images, wanted = torch.zeros(1, 3, 8, 8), torch.full((1, 1), NO_CAR)
    undecided = attribute_loss(Fixed(a=torch.zeros(1, 4)), images, wanted)
    decided = attribute_loss(Fixed(a=torch.tensor([[3.0, 0, 0, 0]])), images, wanted)
    torch.testing.assert_close(undecided, torch.tensor([4.0]).log())
    assert decided > undecided


def test_training_batches_differ_each_pass_and_are_the_same_each_time(cars):
    few = dataclasses.replace(
        cars, images=cars.images[:24], attributes=cars.attributes[:24]
    )

    def draw():
        return list(training_batches(few, passes=2, batch=16, seed=3))

    first, again = draw(), draw()
    assert [len(x) for x, _ in first] == [16, 8, 16, 8]
    assert [(w == NO_CAR).all(1).sum().item() for _, w in first] == [2, 1, 2, 1]
    assert [(w == NO_CAR).any(1).sum().item() for _, w in first] == [2, 1, 2, 1]
    for (x, wanted), (x_again, wanted_again) in zip(first, again, strict=True):
        assert torch.equal(x, x_again) and torch.equal(wanted, wanted_again)
        assert x.abs().max() <= 1
    assert not torch.equal(first[0][0], first[2][0])


def test_mirrored_cars_keep_their_labels_true(shipped, cars, images):
    """The classifier, which is right nearly always, agrees with the changed labels."""
    wanted = torch.from_numpy(cars.attributes)
    flipped, changed = mirrored(images, wanted, seeded())
    turned = changed[:, FACING] != wanted[:, FACING]
    assert 0.4 < turned.float().mean() < 0.6
    assert torch.equal(flipped[turned], images[turned].flip(3))
    assert torch.equal(flipped[~turned], images[~turned])
    right = shipped.predict(flipped).attributes == changed
    assert (right.float().mean(0) > 0.98).all()


def test_training_learns(cars, images):
    """A hundred steps or so of a narrow network tell day from night, and grounds."""
    torch.manual_seed(0)
    net = AttributeClassifier(ClassifierConfig(widths=(16, 16, 32)))
    batches = training_batches(draw_toy_cars(512, seed=5), passes=5, batch=32, seed=5)
    train_classifier(net, batches, steps=80)
    assert not net.training
    wanted = torch.from_numpy(cars.attributes)
    accuracy = attribute_accuracy(net.predict(images).attributes, wanted)
    assert accuracy[list(ATTRIBUTES).index("time")] > 0.9
    assert accuracy[list(ATTRIBUTES).index("ground")] > 0.5


def test_command_writes_weights_that_load_and_a_card(tmp_path, capsys):
    out = tmp_path / "mine"
    module.main(out, passes=1, cars=32, batch=16, seed=1, test=64)
    net = load_classifier(out)
    card = json.loads((out / "card.json").read_text())
    assert card["images seen"] == 32
    assert f"--out {out.as_posix()} --cars 32 --passes 1" in card["commands"][0]
    assert (out / "README.md").read_text() == card_text(card)
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["measured"]["images"] == 64
    assert "# mine" in capsys.readouterr().out
