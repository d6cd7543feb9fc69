"""The doctor names what is wrong with a run, and leaves healthy ones alone."""

import json
from dataclasses import replace
from math import isfinite
from pathlib import Path

import pytest
import torch
from PIL import Image
from sick_runs import HEALTHY, SICK, Ward, patient
from test_cli import ddpm

from ddpm_core.workshop import doctor
from ddpm_core.workshop.doctor import (
    curves,
    diagnose,
    draw_report,
    examine,
    flat_for,
    healthy_curves,
    patient_of,
    report,
)


@pytest.fixture(scope="module")
def ward(tmp_path_factory) -> Ward:
    return Ward(tmp_path_factory.mktemp("ward"))


def names(folder: Path | str) -> list[str]:
    return [finding.name for finding in diagnose(examine(patient_of(folder)))]


@pytest.mark.parametrize("name", SICK)
def test_what_is_wrong_is_named_first(ward, name):
    assert names(patient(ward, name))[:1] == [name]


def test_a_loss_that_exploded_is_a_rate_too_high_however_smoothly_it_falls(ward):
    found = examine(patient_of(patient(ward, "rate too high")))
    assert found.highest > 100  # a loss of 490, where a network begins at about 1
    smooth = replace(found, first=490.0, last=0.7, rough=1.0)
    assert diagnose(smooth)[0].name == "rate too high"
    resumed = replace(smooth, held_out=found.linear)  # at a lower rate, and well
    assert "rate too high" not in [finding.name for finding in diagnose(resumed)]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_is_left_alone(ward, name, monkeypatch):
    for constant, fewer in {"EACH": 8, "SAMPLES": 16, "STEPS": 8}.items():
        monkeypatch.setattr(doctor, constant, fewer)
    assert names(patient(ward, name)) == []


def test_a_report_says_it_in_words_and_a_picture(ward, tmp_path):
    base = patient_of(ward.base)
    found = examine(base)
    said = report(base, found, diagnose(found))
    assert "1. too early: the loss is" in said and "held-out loss over that" in said
    draw_report(found, tmp_path / "doctor.png")
    assert Image.open(tmp_path / "doctor.png").size[0] > 600
    assert (found.least <= found.linear).all()  # the bounds do not cross
    assert (found.least <= found.train).all()


def test_it_is_a_command(ward, tmp_path):
    out, curves = tmp_path / "look.png", tmp_path / "curves.json"
    done = ddpm("doctor", patient(ward, "range"), "--out", out, "--curves", curves)
    assert done.returncode == 1 and out.exists()
    assert "1. range: nearly all pixels lie between 0.0" in done.stdout
    found = json.loads(curves.read_text())
    assert {len(values) for values in found.values()} == {doctor.BANDS}


@pytest.mark.parametrize("option", ["--out", "--curves"])
def test_a_place_that_cannot_be_written_is_refused_at_once(
    option, tmp_path, monkeypatch
):
    def too_late(name, data):
        pytest.fail("this costs time")

    monkeypatch.setattr("ddpm_core.workshop.commands.doctor.patient_of", too_late)
    place = tmp_path / "folder.png"
    place.mkdir()
    done = ddpm("doctor", "toy-cars-32", "--out", tmp_path / "a.png", option, place)
    assert done.returncode == 1 and "is a folder: name a file in it" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_run_is_examined_on_its_own_data(ward):
    done = ddpm("doctor", ward.base, "--data", "toy-cars")
    assert done.returncode == 1 and "is a run, with its data" in done.stderr


def on_few(ward: Ward, n: int) -> Path:
    """A run on the first n cars, none of them held out."""
    data = ward.packed(f"first-{n}", ward.cars.images[:n])
    changes = {"data": data, "held_out": 0, "batch": 1, "epochs": 10, "flip": False}
    return ward.fresh(f"on-{n}", **changes)


def test_two_images_are_enough_and_one_is_not(ward):
    with pytest.raises(ValueError, match="on 1 image: the doctor needs two or more"):
        examine(patient_of(on_few(ward, 1)))
    found = examine(patient_of(on_few(ward, 2)))
    for name in ("leak", "near", "tint", "tint_errors", "contrast", "largest"):
        assert isfinite(getattr(found, name)), name
    json.dumps(curves(found), allow_nan=False)


def test_the_curves_of_healthy_models_ship():
    """They are as measured, and where there is much signal below the linear bound."""
    found = examine(patient_of("toy-cars-32"))
    expected = healthy_curves(found)
    assert list(expected) == ["photos-32", "toy-cars-32"]
    torch.testing.assert_close(
        expected["toy-cars-32"], found.held_out, rtol=0.02, atol=1e-4
    )
    for values in expected.values():
        assert (values[:6] < found.linear[:6]).all()


def test_how_long_the_loss_has_been_flat():
    losses = [0.5, 0.3, 0.2005, 0.2]
    log = [{"epoch": i + 1, "held_out": loss} for i, loss in enumerate(losses)]
    assert flat_for(log) == "the held-out loss has been flat for 2 of 4 epochs"
    assert flat_for(log[:1]) == "no held-out loss"
