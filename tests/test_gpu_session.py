"""The list for a quarter of an hour of a GPU: its limits, and what it keeps."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent / "benchmarks" / "gpu_session.py"


@pytest.fixture
def listed(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_session", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_session", module)
    spec.loader.exec_module(module)
    return module


def script(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_each_preset_is_estimated_with_and_without_graphs(listed, tmp_path):
    found = listed.steps(tmp_path, "cars.zip", dry=False)
    names = [step.name for step in found]
    for name in ("cars64-article", "cars64", "cars-64"):
        assert f"estimate-{name}" in names and f"estimate-{name}-graphs" in names
    assert names[0] == "photos" and names[-2:] == ["profile", "compare"]
    graphs = [step for step in found if "--graphs" in step.words]
    assert len(graphs) == 3 and all("--compile" in step.words for step in graphs)


def test_the_last_step_has_at_least_three_minutes(listed, tmp_path):
    taken = sum(step.limit for step in listed.steps(tmp_path, "cars.zip", dry=False))
    assert taken <= listed.TOTAL - 180 and listed.TOTAL <= 13 * 60


def test_the_new_preset_trains_for_as_many_epochs_as_fit(listed, tmp_path):
    (tmp_path / "estimate-cars-64.txt").write_text("1 x H100: 2,000.5 images/s, 1 GiB")
    (tmp_path / "estimate-cars-64-graphs.txt").write_text("5,000.0 images/s, 2 GiB")
    (tmp_path / "estimate-cars64.txt").write_text("9,999.0 images/s, 2 GiB")
    assert listed.speed_of(tmp_path, "cars-64") == 5000
    words = listed.training(tmp_path, 300.0, 5000.0, dry=False).words
    epochs = int(words[words.index("--epochs") + 1])
    assert epochs == int(0.6 * 300 * 5000 / 14_137)
    slow = listed.training(tmp_path, 300.0, 0.0, dry=False).words
    assert slow[slow.index("--epochs") + 1] == "1"


def test_what_fails_or_takes_too_long_does_not_stop_the_rest(
    listed, tmp_path, monkeypatch
):
    three = [
        listed.Step("fails", script("print('so far', flush=True); 1 / 0"), 60),
        listed.Step("hangs", script("import time; time.sleep(600)"), 0.2),
        listed.Step("works", script("print(6 * 7)"), 60),
    ]
    monkeypatch.setattr(listed, "steps", lambda *args, **options: three[:2])
    monkeypatch.setattr(listed, "training", lambda *args, **options: three[2])
    found = listed.session(tmp_path / "out", "", 120, dry=False)
    assert [row["code"] for row in found] == [1, "cut off", 0]
    assert json.loads((tmp_path / "out" / "session.json").read_text()) == found
    assert "so far" in (tmp_path / "out" / "fails.txt").read_text()
    assert (tmp_path / "out" / "works.txt").read_text() == "42\n"


def test_no_step_gets_more_than_is_left(listed, tmp_path):
    step = listed.Step("works", script("pass"), 60)
    assert listed.run(step, tmp_path, 5.0)["limit"] == 5.0
