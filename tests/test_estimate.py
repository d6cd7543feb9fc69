"""What a run would cost: counted on small runs, and timed by a clock of our own."""

import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from ddpm_core.unet import UNetConfig
from ddpm_core.workshop.estimate import (
    Estimate,
    estimate,
    forward_flop,
    matrix_rate,
    spell,
)
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.presets import PLAIN, preset
from ddpm_core.workshop.run import Run

SMALL = preset("toy-cars-32").replace(drawn=64, held_out=4, batch=4, strips=())


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.begin(tmp_path / "run", SMALL)


def set_clock(monkeypatch, ticks) -> None:
    """Let the module read these seconds, one after the other."""
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(sys.modules[matrix_rate.__module__], "time", clock)


def test_an_estimate_is_that_of_its_steps(run, monkeypatch):
    set_clock(monkeypatch, count(step=0.25))  # all that is timed takes a quarter second
    told = estimate(run, enough=0.2, warmup=1)
    assert told.images == 18 * 64 and told.flop == 3 * forward_flop(run)
    assert told.images_per_second == 4 / 0.25 and told.memory > 2**27
    assert told.rate == 2 * 1024**3 / 0.25
    assert told.utilisation == pytest.approx(16 * told.flop / told.rate)
    assert told.seconds == pytest.approx(told.images / told.images_per_second)
    assert f"all 1,152 images: {spell(told.seconds)}" in str(told)
    assert not run.files.checkpoints() and not read_log(run.folder)


def test_flop_are_those_of_the_matrices(tmp_path):
    """One level at half the side, by hand; attention's products come on top."""
    unet = UNetConfig((8,), (False,), blocks=1, groups=4, dropout=0.0, patch=2)
    chosen = PLAIN.replace(size=16, drawn=8, held_out=2, network=unet, strips=())
    run = Run.begin(tmp_path / "run", chosen.replace(batch=4))
    weights = [
        (m.weight.numel(), 64 if isinstance(m, torch.nn.Conv2d) else 1)
        for m in run.net.modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    by_hand = sum(2 * n * places for n, places in weights)
    assert by_hand < forward_flop(run) < 1.2 * by_hand


def test_an_estimate_needs_a_run_of_some_steps(tmp_path):
    run = Run.begin(tmp_path / "run", SMALL.replace(epochs=1, drawn=32))
    with pytest.raises(ValueError, match="the run's 8 steps are too few"):
        estimate(run, warmup=8)
    told = estimate(run, enough=1000.0)  # a short run tells what it can
    assert told.seconds == pytest.approx(32 / told.images_per_second)


def test_utilisation_is_the_share_of_the_rate():
    told = Estimate(10.0, 2**30, 5, 200.0, 600)
    assert told.utilisation == 0.25 and told.seconds == 60
    assert "1.00 GiB" in str(told) and "25% of" in str(told) and "60 s" in str(told)


def test_steps_double_until_they_take_long_enough(tmp_path, monkeypatch):
    set_clock(monkeypatch, iter([0, 5, 5, 6, 6, 8, 8, 12, *range(20, 32)]))
    run = Run.begin(tmp_path / "run", SMALL)
    assert estimate(run, enough=4.0, warmup=2).images_per_second == 4 * 4 / 4
    (taken,) = {int(state["step"]) for state in run.optimizer.state.values()}
    assert taken == 2 + 1 + 2 + 4


def test_the_rate_is_that_of_the_fastest_product(monkeypatch):
    set_clock(monkeypatch, iter([0, 9, 10, 14, 20, 22]))
    rate = matrix_rate(torch.device("cpu"), torch.float32, repeats=2)
    assert rate == 2 * 1024**3 / 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert spell(seconds) == said
