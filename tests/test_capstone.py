"""The capstone's command, at a size that takes seconds. Chapter 14."""

import json

import pytest
from PIL import Image

from ddpm_core.workshop import capstone
from ddpm_core.workshop.folder import read_log
from ddpm_core.workshop.presets import PRESETS
from ddpm_core.workshop.run import Run

SMALL = {
    "features": "classifier", "n": 32, "marks": "0.5,1", "mark_calls": 2, "table": "3",
    "drawn": 96, "held_out": 64, "epochs": 2, "batch": 16, "channels": "16,32",
    "strips": "2", "sample_steps": 8, "log_every": 1, "checkpoint_every": 5,
}  # fmt: skip


def test_a_run_is_measured_on_its_way_and_written_down(tmp_path, monkeypatch):
    folder, out = tmp_path / "run", tmp_path / "results" / "small"
    monkeypatch.setattr(capstone, "PICTURED", 3)
    monkeypatch.setattr("sys.argv", ["ddpm", "capstone", "a name"])
    capstone.main("toy-cars-32", run=folder, out=out, **SMALL)
    monkeypatch.setattr(capstone, "RESULTS", tmp_path / "results")
    found = capstone.load_results("small")
    assert [mark["epoch"] for mark in found["marks"]] == [1, 2]
    assert all(mark["frechet"] > mark["floor"] > 0 for mark in found["marks"])
    assert [(row["sampler"], row["calls"]) for row in found["table"]] == [
        ("ddim", 3),
        ("dpm-solver++", 3),
    ]
    assert found["images seen"] == 192 and found["images"] == 96
    assert found["command"] == "ddpm capstone 'a name'"
    times, losses = found["loss by time"].values()
    assert len(times) == len(losses) == capstone.BINS
    assert times == sorted(times) and times[0] >= 1 and times[-1] <= 1000
    first, last = found["loss by epoch"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    rows = [row for row in read_log(folder) if "loss" in row]
    taken = [row["loss"] for row in rows if row["epoch"] > 1]
    assert last["loss"] == pytest.approx(sum(taken) / len(taken), abs=1e-5)
    pictures = {path.name: Image.open(path).size for path in out.glob("*.webp")}
    assert pictures.keys() == {"samples.webp", "nearest.webp", "epoch-0002.webp"}
    assert pictures["samples.webp"][0] > 8 * 32

    again = json.loads((out / "results.json").read_text())["marks"]
    capstone.main("toy-cars-32", run=folder, out=out, **SMALL)  # nothing left to train
    assert capstone.load_results("small")["marks"] == again

    table = tmp_path / "calls.json"
    monkeypatch.setattr(capstone, "FEW", 3)
    capstone.measure_calls(str(folder), table, "3,4", n=32, features="classifier")
    rows = json.loads(table.read_text())["rows"]
    assert [(row["sampler"], row["calls"]) for row in rows] == [
        ("ddim", 3),
        ("dpm-solver++", 3),
        ("ddim", 4),  # above FEW, DDIM alone
    ]
    few = {"n": 32, "features": "classifier"}
    capstone.measure_calls(str(folder), table, "3,4", "ancestral", **few)
    written = json.loads(table.read_text())
    assert "--sampler ancestral" in written["command"]
    assert [row["sampler"] for row in written["rows"]] == ["ancestral"] * 2
    with pytest.raises(ValueError, match="unknown sampler 'best'; there is: ddim, "):
        capstone.measure_calls(str(folder), table, "3", "best", **few)
    with pytest.raises(ValueError, match="--counts takes numbers in 1..1000"):
        capstone.measure_calls(str(folder), table, "0", n=32)
    with pytest.raises(ValueError, match="--counts takes each number once, got '3,3'"):
        capstone.measure_calls(str(folder), table, "3,3", n=32)


def test_of_several_processes_one_judges(tmp_path):
    chosen = PRESETS["toy-cars-32"].replace(
        drawn=32, held_out=16, epochs=1, batch=16, channels=(16, 32), strips=()
    )
    with Run.begin(tmp_path / "run", chosen) as run:
        run.main = False
        blind = capstone.Judge(None, None, None, "")  # fails where it must judge
        assert capstone.train(run, blind, (0.5, 1), calls=2) == []
        assert run.step == run.steps and not (run.folder / "marks.jsonl").exists()


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"step": "3"}', "[" * 10_000])
def test_a_damaged_mark_is_named(tmp_path, line):
    path = tmp_path / "marks.jsonl"
    assert capstone.read_rows(path) == []
    path.write_text('{"step": 3}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"marks\.jsonl, line 2: no row with a 'step'"):
        capstone.read_rows(path)


@pytest.mark.parametrize("name", [name for name in PRESETS if "cars64" in name])
def test_presets_for_photos_hold_out_what_they_are_measured_on(name):
    assert PRESETS[name].held_out >= 2048 and PRESETS[name].data.endswith("cars-64")
