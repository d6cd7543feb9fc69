"""The rivals of chapter 04: trained, loaded, measured by one and the same ruler."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_core.datasets.toy_cars import ATTRIBUTES, attributes_showing, caption
from ddpm_core.weights import command_line, load_weights
from ddpm_core.workshop import contenders as trilemma
from ddpm_core.workshop import evaluation, free_wording, guidance
from ddpm_core.workshop import tables as measuring
from ddpm_core.workshop.cards import card_text
from ddpm_core.workshop.contenders import Contender, load_contender
from ddpm_core.workshop.side import vae_and_gan as training

PARAMETERS = {"vae": 1_254_444, "gan": 1_333_937}


@pytest.fixture(scope="module", params=["vae", "gan"])
def trained(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / f"tiny-{request.param}"
    training.main(request.param, out, cars=64, passes=2, batch=32, test=64)
    return out


def test_training_writes_weights_and_a_card(trained):
    _, card = load_weights(trained)
    kind = trained.name.removeprefix("tiny-")
    assert card["kind"] == kind and card["parameters"] == PARAMETERS[kind]
    assert card["images"] == 64 and card["images seen"] == 128
    assert card["commands"][0].startswith(f"ddpm train-contender {kind} ")
    assert "--passes 2 --batch 32 --lr 0.001 --seed 0 --test 64" in card["commands"][0]
    assert (trained / "README.md").read_text() == card_text(card)
    assert (trained / "samples.webp").is_file()


def test_its_weights_draw_images_that_the_seed_fixes(trained):
    contender = load_contender(trained)
    images = contender.draw(130, 3)  # more than are drawn at a time
    assert images.shape == (130, 3, 32, 32) and images.abs().max() <= 1
    assert torch.equal(images, contender.draw(130, 3))
    assert not torch.equal(images, contender.draw(130, 4))
    assert contender.calls == 1


def test_training_moves_the_weights(trained):
    """The average of trained weights is not that of the first ones."""
    state, card = load_weights(trained)
    torch.manual_seed(card["seed"])
    recipe = training.RECIPES[card["kind"]]
    net, _ = recipe.train(recipe.config, iter(()), lambda step: 0.0, 0)
    moved = [not torch.equal(v.half(), state[k]) for k, v in net.state_dict().items()]
    assert sum(moved) > len(moved) / 2


def test_diffusion_is_a_contender_too():
    contender = load_contender("toy-cars-32", steps=2)
    assert (contender.kind, contender.calls) == ("diffusion", 2)
    assert contender.draw(3, 0).shape == (3, 3, 32, 32)


def test_an_unknown_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown kind 'flow'; there is: vae, gan"):
        training.main("flow", tmp_path / "flow")


def test_speed_is_by_processor_time_without_the_first_batch(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 14.0, 20.0, 22.0, 30.0, 33.0])
    monkeypatch.setattr(measuring.time, "process_time", lambda: next(clock))
    drawn = []
    contender = Contender("c", "vae", 1, 1, lambda n, seed: drawn.append((n, seed)))
    assert measuring.images_a_second(contender, repeats=3) == measuring.TIMED / 2
    assert drawn == [(measuring.TIMED, seed) for seed in range(4)]


def test_a_row_holds_every_measure(trained):
    row = measuring.measure(load_contender(trained), "", n=64, seed=0)
    assert row["calls"] == 1 and row["images a second"] > 0
    assert (
        row["scores"]["n"] == 64 and row["scores"]["frechet"] > row["scores"]["floor"]
    )
    assert row["attributes"].keys() == ATTRIBUTES.keys()
    json.dumps(row)


def test_a_row_is_measured_on_other_features_too(trained):
    asked = []

    def thumbnails(images):
        asked.append(len(images))
        return images[:, 0, ::8, ::8].flatten(1)

    other = measuring.remembering(evaluation.Extractor("thumbnails", thumbnails))
    contender = load_contender(trained)
    for calls in (3, 4):  # the real images are remembered, the samples are new
        row = measuring.measure(contender, "", n=64, seed=0, repeats=0, others=[other])
        (scores,) = row["other scores"]
        assert scores["extractor"] == "thumbnails" and scores["n"] == 64
        assert scores["frechet"] > scores["floor"] > 0
        assert scores["frechet"] != row["scores"]["frechet"] and len(asked) == calls


def test_a_table_is_measured_and_read_back(trained, tmp_path, monkeypatch):
    tables = {"tiny": {str(trained): (("", (1,)),)}}
    monkeypatch.setattr(measuring, "TABLES", tables)
    monkeypatch.setattr(trilemma, "RESULTS", tmp_path)
    measuring.main("tiny", tmp_path / "tiny.json", n=64)
    found = trilemma.load_table("tiny")
    assert found["command"].startswith("ddpm measure tiny --out")
    assert [row["name"] for row in found["rows"]] == [trained.name]
    assert found["real"].keys() == ATTRIBUTES.keys()
    with pytest.raises(ValueError, match="unknown table 'other'; there is: tiny"):
        measuring.main("other", tmp_path / "other.json")


def test_all_cars_of_the_one_prompt_have_it_as_a_caption():
    rows = attributes_showing(guidance.ITS_CARS, 20)
    assert {caption(row) for row in rows} == {guidance.ONE_PROMPT}
    assert len(set(rows[:, 4])) == 4  # the ground is left open


def test_guidance_is_measured_over_its_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(guidance, "MODEL", "toy-cars-text-latent-32")
    monkeypatch.setattr(guidance, "SCALES", (0.0, 1.5))
    monkeypatch.setattr(trilemma, "RESULTS", tmp_path)
    guidance.main(tmp_path / "guidance.json", n=32, steps=6)
    found = trilemma.load_table("guidance")
    assert found["command"].startswith("ddpm measure-guidance --out")
    assert 0.8 < found["coverage by real cars"] <= 1
    deaf, told = found["rows"]
    assert (deaf["scale"], told["scale"]) == (0, 1.5)
    assert deaf["obedience"]["all"] < 0.2 < 0.8 < told["obedience"]["all"]
    covered = "coverage of one prompt"
    assert deaf[covered] < told[covered] <= 1
    assert deaf["scores"]["n"] == 32


def test_what_models_make_of_free_wording_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(free_wording, "PROMPTS", ("a red van", "a car at day"))
    monkeypatch.setattr(trilemma, "RESULTS", tmp_path)
    model = "toy-cars-text-32"
    free_wording.main([model], tmp_path / "wordings.json", many=24, n=16, steps=6)
    found = trilemma.load_table("wordings")
    assert found["command"].startswith(f"ddpm measure-wordings {model} --out")
    captions, van, day = found["rows"]
    assert (captions["prompt"], captions["n"], van["n"]) == ("captions", 24, 16)
    assert captions["heeded"].keys() == {"all", *ATTRIBUTES}
    assert van["heeded"].keys() == {"all", "colour", "body"}
    assert van["heeded"]["all"] > 0.8 and day["heeded"].keys() == {"all", "time"}
    assert van["attributes"]["colour"]["red"] == van["heeded"]["colour"]


def test_a_command_on_a_card_is_one_that_runs():
    options = {"out": Path("a/b c"), "kl_weight": 0.1, "loose": True, "quiet": False}
    line = command_line("train-clip", options)
    assert line == "ddpm train-clip --out 'a/b c' --kl-weight 0.1 --loose"


def test_brightness_is_the_mean_of_an_image_in_its_bin():
    images = torch.stack([torch.full((3, 4, 4), v) for v in (-1.0, -0.52, 0.12, 1.0)])
    report = measuring.brightness_report(images)
    assert report["mean"] == pytest.approx(-0.1)
    assert report["std"] == pytest.approx(images[:, 0, 0, 0].std().item())
    assert len(report["histogram"]) == measuring.BINS
    filled = [i for i, share in enumerate(report["histogram"]) if share]
    assert filled == [0, 9, 22, 39]  # bins of 0.05 from -1 on
    assert sum(report["histogram"]) == pytest.approx(1)


def test_a_gpu_is_timed_by_the_clock(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 14.0, 20.0, 22.0, 30.0, 33.0])
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    gpu = torch.device("cuda")
    contender = Contender("c", "diffusion", 1, 1, lambda n, seed: None, gpu)
    assert measuring.images_a_second(contender, repeats=3) == measuring.TIMED / 2
