"""What a run would cost: counted and timed on small runs whose cost is known."""

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


def test_an_estimate_is_that_of_its_steps(run):
    told = estimate(run, enough=0.5, warmup=1)
    assert told.images == 18 * 64 and told.flop == 3 * forward_flop(run)
    assert 0.01 < told.utilisation < 1 and told.memory > 2**27
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


def test_matrices_reach_a_rate_that_a_processor_can_have():
    rate = matrix_rate(torch.device("cpu"), torch.float32, repeats=2)
    assert 1e9 < rate < 1e14


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert spell(seconds) == said
