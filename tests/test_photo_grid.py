"""The grid of photos by minutes, at a size that takes seconds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.unet import UNetConfig
from ddpm_core.workshop import photo_grid, presets, recipes
from ddpm_core.workshop.evaluation import Extractor
from ddpm_core.workshop.run import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Tiny networks on a few drawn cars, measured on their colours."""
    colours = Extractor("colours", lambda x: x.mean((2, 3)))
    monkeypatch.setattr(recipes.evaluation, "imagenet_extractor", lambda: colours)
    tiny = UNetConfig((8, 16), (False, False), blocks=1, groups=4, patch=2)
    base = presets.PLAIN.replace(size=16, network=tiny, batch=8, flip=True)
    monkeypatch.setitem(presets.PRESETS, "photos-32", base)
    write_packed(tmp_path / "photos", draw_toy_cars(120, size=16, workers=1).images)
    recipes.judge.cache_clear()
    return {
        "data": str(tmp_path / "photos"),
        "out": tmp_path / "out",
        "runs": tmp_path / "runs",
        "n": 32,
        "calls": 2,
    }


def test_runs_of_equal_minutes_see_equally_many_images(small, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ddpm", "photo-grid"])
    photo_grid.main(**small, sizes="16,64", minutes="0.002,0.004")
    rows = recipes.read(small["out"])
    found = [(row["photos"], row["minutes"]) for row in rows]
    assert found == [(16, 0.002), (64, 0.002), (16, 0.004), (64, 0.004)]
    seen = [row["images seen"] for row in rows]
    assert seen == [16, 16, 40, 40]  # 155 images a second, in batches of 8
    for row in rows:
        assert row["frechet"] > 0 and row["floor"] == rows[0]["floor"]
        assert row["near"] > 0 and 0 <= row["copies"] <= 1
        assert row["command"] == "ddpm photo-grid"
    assert len(list(small["out"].glob("*.webp"))) == 5  # and one of all runs
    text = (small["out"] / "results.json").read_text()
    photo_grid.main(**small, sizes="16", minutes="0.002")  # is there
    assert (small["out"] / "results.json").read_text() == text


def test_few_photos_are_among_the_many_and_none_are_measured_on(small, tmp_path):
    held, kept = [], []
    for size in (16, 64):
        recipe = photo_grid.row(size, small["data"])
        chosen = photo_grid.preset_of(recipe, size, 0)
        with recipes.open_run(tmp_path / f"{size}", recipe, chosen) as run:
            held.append(run.split.held_out.tolist())
            kept.append(set(run.split.train.tolist()))
            assert round(chosen.warmup * run.batches.steps_an_epoch) == 100
    assert kept[0] < kept[1] and len(kept[0]) == 16
    assert held[0][: len(held[1])] == held[1]


def test_a_photo_and_its_mirror_image_are_copies(small, tmp_path):
    recipe = photo_grid.row(64, small["data"])
    chosen = photo_grid.preset_of(recipe, 64, 0)
    with recipes.open_run(tmp_path / "run", recipe, chosen) as run:
        assert isinstance(run, Run)
        known, mirrored = run.batches.clean(run.split.train[:8])
        noise = torch.from_numpy(np.random.default_rng(0).random((8, 3, 16, 16)) * 2)
        images = torch.cat([known, mirrored, noise.float() - 1])
        found = photo_grid.copies(run, images)
    assert found["copies"] == pytest.approx(2 / 3) and found["near"] == 0


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"minutes": "a"}, "numbers in .* with commas between, got 'a'"),
        ({"minutes": "nan"}, "--minutes takes numbers in 0.001..1000000.0"),
        ({"minutes": "0"}, "--minutes takes numbers in 0.001..1000000.0"),
        ({"sizes": "0"}, "--sizes takes numbers in 8.."),
        ({"sizes": ""}, "--sizes takes numbers in 8.."),
        ({"n": 61}, "--n 61 needs twice as many photos .* holds 120"),
        ({"n": 0}, "n must be at least 8, got 0"),
        ({"calls": 0}, "steps must lie in 1..1000, got 0"),
        ({"calls": 1001}, "steps must lie in 1..1000, got 1001"),
        ({"seed": -1}, "seed must lie in 0.., got -1|seed must lie in 0..2147483648"),
        ({"sizes": "89"}, "must be in 1..88, .* got 89"),
    ],
)
def test_what_no_run_can_have_is_refused_at_once(small, changed, answer):
    with pytest.raises(ValueError, match=answer):
        photo_grid.main(**{**small, "sizes": "16", "minutes": "1"} | changed)
    assert not small["runs"].exists() and not small["out"].exists()


def test_a_run_of_other_photos_is_not_taken_for_this_one(small, tmp_path):
    photo_grid.main(**small, sizes="16", minutes="0.001")
    cars = draw_toy_cars(130, size=16, seed=1, workers=1)
    write_packed(tmp_path / "others", cars.images)
    changed = small | {"data": str(tmp_path / "others")}
    with pytest.raises(ValueError, match="16-0.001-0 holds another run; it differs in"):
        photo_grid.main(**changed, sizes="16", minutes="0.001")


def test_a_half_written_file_is_named(small):
    photo_grid.main(**small, sizes="16", minutes="0.001")
    folder = small["runs"] / "16-0.001-0"
    (small["out"] / "results.json").unlink()
    (folder / "row.json").write_text('{"step')
    with pytest.raises(ValueError, match=r"row\.json"):
        photo_grid.main(**small, sizes="16", minutes="0.001")


def test_the_page_prints_what_was_measured():
    page = (ROOT / "book" / "own_data.md").read_text(encoding="utf-8")
    stored = ROOT / "data" / "results" / "photo-grid" / "results.json"
    rows = json.loads(stored.read_text(encoding="utf-8"))["rows"]
    sizes = [100, 500, 2000, 14000]
    assert [row["photos"] for row in rows] == [*sizes, *sizes, *sizes[:3]]
    for row in rows:
        each, images = row["images seen"] / row["photos"], row["images seen"]
        line = (
            f"| {row['minutes']:g} | {row['photos']:,} | {each:,.0f} "
            f"| {row['held-out loss']:.3f} | {row['frechet']:.0f} "
            f"| {row['coverage']:.3f} | {row['copies']:.0%} |"
        )
        assert line in page
        assert re.search(rf"{images:,} (images )?in {row['minutes']:g}", page)
