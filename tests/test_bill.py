"""What a run costs, counted without its data, and what `--estimate` says of it."""

import re
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from test_cli import ddpm, succeeded
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.types import Condition
from ddpm_core.workshop.bill import PHOTOS, bill, has_data, on_noise
from ddpm_core.workshop.commands import train as command
from ddpm_core.workshop.estimate import estimate, forward_flop
from ddpm_core.workshop.presets import PLAIN, preset
from ddpm_core.workshop.run import Run

SMALL = ["--channels", "8,16", "--attention", "false,true", "--groups", 4, "--batch", 4]
SMALL += ["--no-compile", "--precision", "no"]


def test_the_articles_network_costs_what_it_is_known_to():
    counted = bill(preset("cars64-article").replace(data="data/no-photos"))
    assert counted.parameters == 54_563_779
    assert counted.flop / 3 == pytest.approx(17.66e9, rel=1e-3)
    assert counted.images == 300 * ((PHOTOS - 2048) // 64) * 64
    assert counted.total == counted.flop * counted.images
    (assumed,) = counted.assumed
    assert assumed.startswith("16,185 photos") and "data/no-photos" in assumed


def test_what_is_counted_is_what_a_run_does(tmp_path):
    chosen = preset("toy-cars-32").replace(drawn=64, held_out=4, batch=4, strips=())
    with Run.begin(tmp_path / "run", chosen) as run:
        counted = bill(chosen)
        assert counted.flop == 3 * forward_flop(run)
        assert counted.images == run.steps * 4 and counted.assumed == ()


def test_latents_are_as_large_as_their_autoencoder_makes_them():
    small = preset("toy-cars-text-latent-32").replace(text="", pooled=0, context=0)
    known = bill(small)
    assert known.assumed == ()
    unknown = bill(small.replace(latent="no-such-autoencoder"))
    assert unknown.assumed == ("latents of 8x8, as there is no no-such-autoencoder",)
    assert unknown.flop == known.flop  # 32x32 images have latents of 8x8 there


def test_a_condition_is_counted_too():
    words = preset("cars64-text").replace(data="data/no-photos")
    network = words.model.network
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        seen = torch.ones(1, 77, dtype=torch.bool)
        cond = Condition(torch.zeros(1, 512), torch.zeros(1, 77, 512), seen)
        network.build()(torch.zeros(1, 3, 64, 64), torch.ones(1, dtype=int), cond)
    assert bill(words).flop == 3 * counter.get_total_flops()


def test_the_photos_that_are_there_are_counted(tmp_path):
    write_packed(tmp_path / "photos", draw_toy_cars(90, size=16).images)
    chosen = PLAIN.replace(
        data=str(tmp_path / "photos"), held_out=10, batch=7, epochs=2
    )
    assert has_data(chosen) and not has_data(chosen.replace(data="data/no-photos"))
    assert bill(chosen.replace(strips=())).images == 2 * 77


def at_rate(monkeypatch, rate: float) -> None:
    """Let large matrices be multiplied at that rate here, whatever the machine."""
    monkeypatch.setattr(command, "matrix_rate", lambda *args, **options: rate)


def briefly(monkeypatch) -> None:
    """Let an estimate be content with half a second of steps."""
    monkeypatch.setattr(command, "estimate", partial(estimate, enough=0.5))


def test_an_estimate_needs_no_photos(tmp_path, monkeypatch):
    at_rate(monkeypatch, 1e15)
    briefly(monkeypatch)
    gone = ["--data", tmp_path / "none", "--size", 16, "--held-out", 0]
    said = succeeded("train", "cars64-article", *gone, *SMALL, "--estimate")
    counted, least, noise, timed = said.strip().splitlines()
    assert f"all {300 * (PHOTOS // 4) * 4:,} images" in counted
    assert "assumed: 16,185 photos" in counted
    assert least.startswith("at least") and "at 1e+03 TFLOP/s" in least
    assert noise == "timed on noise, 4 of 4 images a step:"
    assert re.search(r"images/s, .* GiB, .* all 4,85[\d,]+ images: ", timed)


def test_an_estimate_leaves_nothing_behind(tmp_path, monkeypatch):
    briefly(monkeypatch)
    small = ["--drawn", 64, "--held-out", 4, "--batch", 4, "--strips", ""]
    out = tmp_path / "run"
    said = succeeded("train", "toy-cars-32", *small, "--out", out, "--estimate")
    assert re.search(r"images/s, .* GiB, .* all 1,152 images: \d+ (s|min)", said)
    assert not out.exists()


def test_on_a_slow_device_a_small_step_is_timed(tmp_path, monkeypatch):
    chosen = preset("cars64-article").replace(data=str(tmp_path / "none"))
    flop = bill(chosen).flop
    at_rate(monkeypatch, flop * command.USUAL / 2)  # an image takes 2 s
    tried = []

    @contextmanager
    def noted(chosen, batch):
        tried.append((batch, chosen.compile))
        with on_noise(
            chosen.replace(channels=(8,), attention=(False,), groups=4), 2
        ) as c:
            yield c

    monkeypatch.setattr(command, "on_noise", noted)
    gone = ["--data", tmp_path / "none", "--precision", "no"]
    said = succeeded("train", "cars64-article", *gone, "--estimate")
    assert tried == [(2, False)]  # two images in 5 s
    assert "timed on noise, 2 of 64 images a step:" in said
    at_rate(monkeypatch, flop * command.USUAL / 25)  # 25 s
    said = succeeded("train", "cars64-article", *gone, "--estimate")
    assert said.strip().endswith("a step of one image would take about 25 s")
    assert len(tried) == 1 and "at least" in said


def test_a_missing_autoencoder_is_told(tmp_path):
    gone = ["--data", tmp_path / "none", "--latent", tmp_path / "no-autoencoder"]
    said = succeeded("train", "cars-64-latents", *gone, "--estimate")
    assert "assumed: 16,185 photos" in said and "latents of 16x16" in said
    assert "not timed: the autoencoder" in said.strip().splitlines()[-1]


def test_photos_of_another_size_are_still_refused(tmp_path, monkeypatch):
    at_rate(monkeypatch, 1e15)
    write_packed(tmp_path / "photos", draw_toy_cars(90, size=16).images)
    there = ["--data", tmp_path / "photos", "--held-out", 4]
    done = ddpm("train", "cars64-article", *there, *SMALL, "--estimate")
    assert done.returncode == 1 and "are 16 pixels wide" in done.stderr
