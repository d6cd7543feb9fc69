"""The command line as a person uses it.

A process of its own spends four seconds on its imports. So one test starts processes,
and the others give their command to this one.
"""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.datasets import ATTRIBUTES, draw_toy_cars, write_packed
from ddpm_core.neighbours.classifier import load_classifier
from ddpm_core.workshop import cli


def ddpm(*arguments: object) -> subprocess.CompletedProcess:
    """The command, run in this process."""
    argv, out, err = ["ddpm", *map(str, arguments)], io.StringIO(), io.StringIO()
    with patch("sys.argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def in_its_own_process(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ddpm_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )


def succeeded(*arguments: object, run=ddpm) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


TINY = [
    "--size", 16, "--channels", "8,16", "--attention", "false,true",
    "--groups", 4, "--patch", 1, "--T", 20, "--drawn", 64,
    "--held-out", 16, "--batch", 16, "--epochs", 1, "--strips", 1, "--sample-steps", 9,
    "--log-every", 1, "--checkpoint-every", 2,
]  # fmt: skip


def test_train_sample_and_prepare_make_what_they_say(tmp_path):
    """From photos to a picture: prepare, train, a strip, and samples of what ships."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(draw_toy_cars(40, size=24).images):
        Image.fromarray(image).save(photos / f"{i}.png")
    (photos / "broken.jpg").write_bytes(b"no image")
    packed, run = tmp_path / "packed", tmp_path / "run"
    command = ["prepare", photos, "--out", packed, "--size", 16]
    said = succeeded(*command, run=in_its_own_process)
    assert "40 images of 16x16" in said and "broken.jpg" in said
    assert "replaced" not in said
    again = succeeded("prepare", photos, "--out", packed, "--size", 16)
    assert f"{packed} holds 40 images from {photos}: they are replaced" in again
    command = ["train", "photos-32", "--data", packed, "--out", run, *TINY]
    said = succeeded(*command, run=in_its_own_process)
    assert "24 images, 1 steps" in said and "images/s" in said
    assert "epoch-....png after epoch 1 (step 1), and first.png after 60 s" in said
    strip = Image.open(run / "strips" / "epoch-0001.png")
    assert strip.size == (9 * 17 + 1, 4 * 17 + 1)
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["network"]["channels"] == [8, 16]
    assert "go on with --resume" in ddpm(*command).stderr
    picture = tmp_path / "own.png"
    succeeded("sample", "--weights", run, "--steps", 2, "--n", 4, "--out", picture)
    assert Image.open(picture).size == (2 * (16 * 16 + 1) + 1,) * 2
    refused = in_its_own_process(*command, "--T", 30)
    assert refused.returncode == 1 and "it differs in T (20)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_shipped_weights_draw_cars(tmp_path):
    out = tmp_path / "cars.png"
    said = succeeded(
        "sample", "--weights", "toy-cars-32", "--n", 4, "--steps", 3, "--out", out
    )
    assert "4 images in" in said
    assert Image.open(out).size == (2 * (8 * 32 + 1) + 1,) * 2  # 512 pixels at least
    succeeded(
        "sample", "--weights", "toy-cars-32", "--n", 2, "--steps", 9, "--strip",
        "--sampler", "dpm-solver++", "--out", out, "--zoom", 1,
    )  # fmt: skip
    assert Image.open(out).size == (9 * 33 + 1, 2 * 33 + 1)


def test_a_prompt_is_enough(tmp_path):
    out = tmp_path / "cars.png"
    prompt = "a red sports car at night"
    more = ["--n", 4, "--steps", 8, "--zoom", 1, "--out", out]
    succeeded("sample", "--prompt", prompt, *more)
    grid = torch.from_numpy(np.array(Image.open(out)))[1:, 1:].unfold(0, 32, 33)
    cars = grid.unfold(1, 32, 33).reshape(-1, 3, 32, 32).float() / 127.5 - 1
    asked = {"body": "sports car", "colour": "red", "time": "night"}
    read = load_classifier().predict(cars).attributes
    for name, value in asked.items():
        wanted = ATTRIBUTES[name].index(value)
        assert (read[:, list(ATTRIBUTES).index(name)] == wanted).all()


@pytest.mark.parametrize(
    ("line", "completed"),
    [("ddpm sa", ["sample"]), ("ddpm prepare --si", ["--size"])],
)
def test_a_shell_completes_commands_and_options(line, completed, monkeypatch, capsys):
    shell = {"_DDPM_COMPLETE": "complete_bash", "COMP_WORDS": line}
    for name, value in {**shell, "COMP_CWORD": str(line.count(" "))}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["ddpm"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.split() == completed


def test_evaluate_says_what_its_figures_are_of():
    said = succeeded("evaluate", "--weights", "toy-cars-32", "--n", 16, "--steps", 2)
    for word in ("16 samples", "toy-cars-classifier-32", "real against real", "recall"):
        assert word in said
    assert "guidance" not in said


def test_evaluate_reads_what_prompts_asked_for():
    text = ("--weights", "toy-cars-text-32", "--n", 16, "--steps", 4)
    pattern = r"guidance (\S+): body (.*)%, colour .*%, time .*%, all (.*)%"
    for scale, obeys in ((None, True), (0, False)):
        more = () if scale is None else ("--scale", scale)
        found = re.search(pattern, succeeded("evaluate", *text, *more))
        assert found[1] == ("1.5" if scale is None else "0")
        assert (float(found[3]) > 50) == obeys


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(value):
    """Whether typer refuses them, as of 0.29, or takes them, as before."""
    done = ddpm("sample", "--scale", value)
    assert done.returncode in (1, 2) and "--scale" in done.stderr

    def command(scale: float = 1.0):
        pytest.fail("this is no number to work with")

    with pytest.raises(ValueError, match="--scale must be a finite number, got"):
        cli.of_finite_numbers(command)(scale=float(value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "lorries"], "unknown preset 'lorries'; there is: toy-cars-32"),
        (["train", "toy-cars-32", "--schedule", "steep"], "linear, cosine, sigmoid"),
        (["train", "toy-cars-32", "--channels", "8,x"], "whole numbers with commas"),
        (["train", "photos-32", "--data", "nowhere"], "nowhere"),
        (
            ["sample", "--weights", "none"],
            "there is: cars-64, cars-64-decoder, photos-32",
        ),
        (["sample", "--prompt", "a red sportscar"], "the nearest is 'sports car'"),
        (["sample", "--prompt", "a " * 15], "has 15 words, at most 14 fit"),
        (
            ["sample", "--weights", "toy-cars-32", "--steps", 2000],
            "steps must lie in 1..1000, got 2000: the model knows T = 1000 times",
        ),
        (
            ["evaluate", "--weights", "toy-cars-32", "--features", "taste"],
            "unknown features 'taste'; there is: classifier, inception",
        ),
        (["prepare", "nowhere", "--out", "x"], "nowhere"),
        (["sample", "--lora-scale", 0.5], "--lora-scale has no effect without --lora"),
        (
            ["measure-wordings", "toy-cars-text-32", "toy-cars-32", "--out", "x.json"],
            "toy-cars-32 takes no captions: name text models",
        ),
        (
            ["speedrun", "latents", "--minutes", 1, "--title", "a/b"],
            "--title must be a name without folders, got 'a/b'",
        ),
        (
            ["export", "x", "y", "--no-measure", "--n", 64],
            "--no-measure draws no samples: leave out --n and --features",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, message, tmp_path):
    if arguments[0] == "train":
        arguments = [*arguments, "--out", tmp_path / "run"]
    done = ddpm(*arguments)
    assert done.returncode == 1 and message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("scale", "why"),
    [
        ([], "--guide has no effect without a --scale above 1"),
        (["--scale", 1], "--guide has no effect without a --scale above 1"),
        (["--scale", 2, "--negative", "a van"], "--negative has no effect"),
        (["--scale", 2, "--guide", "toy-cars-32"], "it is the model itself"),
    ],
)
def test_a_guide_needs_a_scale_and_no_negative_prompt(tmp_path, scale, why):
    both = ["--weights", "toy-cars-32", "--guide", "toy-cars-short-32"]
    done = ddpm("sample", *both, *scale, "--out", tmp_path / "cars.png")
    assert done.returncode and why in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["measure-where-lost", "toy-cars-text-32"], "takes prompts: name a model"),
        (["measure-autoguidance", *["toy-cars-text-32"] * 2], "takes prompts: name"),
        (["measure-autoguidance", *["toy-cars-32"] * 2], "has the weights of"),
        (["doctor", "photos-32", "--data"], "holds 20 images, and photos-32 held out"),
        (["photo-grid", "--sizes", 8, "--n", 8, "--data"], "takes numbers in 32.."),
    ],
)
def test_advice_can_be_followed_where_it_is_given(tmp_path, words, why):
    if words[-1] == "--data":
        write_packed(tmp_path / "few", draw_toy_cars(20, workers=1).images)
        words = [*words, tmp_path / "few"]
    done = ddpm(*words, "--out", tmp_path / "out.png")
    assert done.returncode == 1 and why in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_samples_are_measured_that_a_guide_led():
    few = ["evaluate", "--weights", "toy-cars-32", "--n", 16, "--steps", 2]
    led = succeeded(*few, "--guide", "toy-cars-short-32", "--scale", 3)
    said, figures = led.split(":", 1)
    assert said.endswith("seed 0, away from toy-cars-short-32 at scale 3")
    assert figures != succeeded(*few).split(":", 1)[1]
    done = ddpm(*few, "--guide", "toy-cars-short-32")
    assert done.returncode and "no effect without a --scale above 1" in done.stderr


def test_samples_are_led_away_from_a_guide(tmp_path):
    def cars(*how):
        out = tmp_path / "cars.png"
        few = ["--n", 1, "--steps", 2, "--weights", "toy-cars-32", "--out", out]
        succeeded("sample", *few, *how)
        return np.asarray(Image.open(out)).copy()

    guided = cars("--guide", "toy-cars-short-32", "--scale", 3)
    assert (guided != cars()).any()
