"""The table of samplers: its timesteps, its own step, and what a row holds."""

from functools import partial

import pytest
import torch

from ddpm_core.mixtures import blobs
from ddpm_core.samplers import followed_variance, spaced_times
from ddpm_core.schedules import cosine_schedule
from ddpm_core.workshop import contenders, solvers


def test_clock_times_are_even_in_lambda_between_the_cuts():
    schedule = cosine_schedule(1000)
    times = solvers.clock_times(schedule, 10, reach=3.0)
    assert times[0] == 1000 and times[-1] == 0 and len(times) == 11
    clock = schedule.snr[times[1:-1]].log() / 2
    wanted = torch.linspace(-3, 3, 9, dtype=clock.dtype)
    torch.testing.assert_close(clock, wanted, atol=0.05, rtol=0)


def test_euler_in_t_is_exact_for_standard_gaussian_data():
    schedule = cosine_schedule(1000)
    denoise = blobs(torch.zeros(1, 1, dtype=torch.float64), 1.0).denoiser(schedule)
    step = partial(solvers.euler_in_t, schedule)
    got = followed_variance(step, denoise, spaced_times(1000, 10))
    assert got == pytest.approx(1.0, abs=1e-9)


def test_samplers_are_measured_from_several_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(solvers, "REFERENCE", 40)
    rule = solvers.Rule("2M, lambda", "2m", in_lambda=True, calls=(5,))
    monkeypatch.setattr(solvers, "RULES", (rule,))
    monkeypatch.setattr(contenders, "RESULTS", tmp_path)
    solvers.main(tmp_path / "samplers.json", n=8, starts=2)
    table = contenders.load_table("samplers")
    assert table["command"].startswith("ddpm measure-samplers --out")
    assert len(table["floors"]) == 12 and 0.05 < table["texture"] < 0.12
    first, second = table["rows"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["frechet"] != second["frechet"]
    assert 0.05 < first["texture"] < 0.12
