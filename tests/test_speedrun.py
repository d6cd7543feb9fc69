"""The speedrun, at a size that takes seconds, and the table of its records."""

import json

import pytest
import speedrun_table
from PIL import Image
from test_cli import ddpm

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.workshop import recipes, speedrun
from ddpm_core.workshop.evaluation import Extractor


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A tiny network on a few drawn cars, measured on their colours; goal: any."""
    monkeypatch.setattr(recipes, "seconds_a_step", lambda recipe, chosen: 0.2)
    colours = Extractor("colours", lambda x: x.mean((2, 3)))
    monkeypatch.setattr(recipes.evaluation, "imagenet_extractor", lambda: colours)
    monkeypatch.setattr(speedrun, "N", 16)
    monkeypatch.setattr(speedrun, "CALLS", 2)
    monkeypatch.setattr(speedrun, "GOAL", 1e9)
    monkeypatch.setattr(recipes, "reference_step", lambda: 0.4)
    tiny = {"channels": (8, 16), "groups": 4, "held_out": 40, "batch": 8}
    tiny |= {"attention": (False, True), "blocks": 1, "patch": 4}
    entry = recipes.Recipe("tiny", speedrun.ARTICLE | tiny)
    monkeypatch.setattr(speedrun, "ENTRIES", {"tiny": entry})
    write_packed(tmp_path / "photos", draw_toy_cars(90, size=64).images)
    recipes.judge.cache_clear()
    return [
        "speedrun", "tiny", "--minutes", 0.01, "--data", tmp_path / "photos",
        "--out", tmp_path / "out", "--runs", tmp_path / "runs",
    ]  # fmt: skip


def test_a_record_holds_what_it_takes_to_repeat_and_compare_it(small, tmp_path):
    done = ddpm(*small, "--lr", 2e-3, "--title", "faster")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "faster-0.01.json").read_text())
    assert found["reached"] and found["changes"]["lr"] == 2e-3
    assert found["changes"]["ema"] == 0.9999  # the recipe's own
    assert "ddpm speedrun tiny" in found["command"] and found["given"] == {}
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    for seed in (0, 1, 2):
        with Image.open(tmp_path / "out" / f"faster-0.01-{seed}.webp") as picture:
            assert picture.size == (8 * 65 + 1, 2 * 65 + 1)  # of 16 samples
    assert len({run["frechet"] for run in found["runs"]}) == 3
    for run in found["runs"]:
        assert run["steps"] == 6  # 0.6 s on a core twice as fast, 0.2 s each
        assert run["images seen"] == 48
        assert run["n"] == 16 and run["photos"] == 90 and len(run["sha256"]) == 12
        wanted = 60 * run["core minutes"] / 0.4
        assert run["reference steps"] == pytest.approx(wanted, abs=1)
    times = [run["core minutes"] for run in found["runs"]]
    assert found["core minutes"]["least"] == min(times)
    assert found["core minutes"]["most"] == max(times)


def test_what_is_done_is_not_repeated_and_a_miss_is_no_record(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(speedrun, "GOAL", 0.0)
    assert "missed" in ddpm(*small, "--seeds", "0").stdout
    path = tmp_path / "out" / "tiny-0.01.json"
    first = path.read_text()
    assert not json.loads(first)["reached"]
    monkeypatch.setattr(recipes, "train", None)  # would fail if it were called
    monkeypatch.setattr(recipes, "commit", lambda: "a later one")
    assert "missed" in ddpm(*small, "--seeds", "0").stdout
    again, first = json.loads(path.read_text()), json.loads(first)
    assert again["runs"] == first["runs"]
    assert again["commit"] == first["commit"] == str(first["runs"][0]["commit"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--held-out", 10], "a record may not change held_out"),
        (["--seed", 3, "--size", 32], "a record may not change seed, size"),
    ],
)
def test_what_is_fixed_cannot_be_changed(small, options, said):
    done = ddpm(*small, *options)
    assert done.returncode == 1 and said in done.stderr


def test_a_gpu_is_refused(small, monkeypatch):
    gpu = recipes.torch.device("cuda")
    monkeypatch.setattr(speedrun, "best_device", lambda: gpu)
    assert "hide the GPU" in ddpm(*small).stderr


def test_every_entry_is_a_preset_that_can_be():
    for name, entry in speedrun.ENTRIES.items():
        assert json.dumps(entry.preset(1).to_dict()), name
    article = speedrun.ENTRIES["article"].preset(0)
    assert (article.model.schedule, article.model.T) == ("linear", 512)
    assert not article.model.latent and not article.min_snr


def test_weights_that_were_given_are_told():
    cascade = recipes.RECIPES["cascade"]
    found = speedrun.given(cascade.preset(0), cascade)
    assert found == {"photos-32": pytest.approx(91, abs=1)}
    begun = recipes.RECIPES["small-images"]
    found = speedrun.given(begun.preset(0, start_from="photos-32"), begun)
    assert set(found) == {"cars-64-decoder", "photos-32"}


def test_the_reference_is_a_step_of_training():
    assert recipes.reference_step(rounds=2) > 0


# The page ---------------------------------------------------------------------------


def row(name: str, steps: float, *, reached: bool = True, seeds: int = 3) -> dict:
    """A record as `speedrun.record` writes it."""
    run = {"core minutes": 2.0, "reference steps": steps, "frechet": 290.0}
    run["coverage"] = 0.5
    found = speedrun.record(name, f"the recipe {name}", [run] * seeds)
    made = {"command": f"ddpm speedrun {name}", "commit": "abc", "hardware": "one"}
    return found | made | {"reached": reached, "given": {"photos-32": 91.0}}


def test_the_fastest_record_comes_first_and_what_is_none_last(tmp_path):
    rows = [row("slow", 900), row("missed", 1, reached=False), row("fast", 500)]
    rows.append(row("one-seed", 2, seeds=1))
    for i, found in enumerate(rows):
        (tmp_path / f"{i}.json").write_text(json.dumps(found))
    found = speedrun_table.records(tmp_path)
    names = [entry["recipe"] for entry in found]
    assert names == ["fast", "slow", "missed", "one-seed"]
    table = speedrun_table.rows(found)
    assert table[2].startswith("| fast: the recipe fast | 500 | 2.0 | 290.0 | ")
    assert "photos-32: 91 min | `ddpm speedrun fast`, abc, one |" in table[2]
    assert "(no record: above 300)" in table[4]
    assert "(no record: one seed or two)" in table[5]
    assert {line.count("|") for line in table} == {7}


def test_seeds_that_differ_are_told_by_their_mean_and_spread():
    """A distance of 300.5 is not rounded to the goal."""
    run = row("any", 500)["runs"][0]
    runs = [run | {"frechet": value} for value in (258.01, 280.49, 300.49)]
    found = row("any", 500) | speedrun.record("any", "any", runs)
    assert "| 279.7 (258.0 to 300.5) |" in speedrun_table.rows([found])[2]


def test_without_records_the_page_says_so(tmp_path):
    assert speedrun_table.rows(speedrun_table.records(tmp_path / "none")) == [
        "No record has been set yet."
    ]
