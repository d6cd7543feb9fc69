"""The consistency models of chapter 13: what a student begins with, and its rows."""

import json

import torch

from ddpm_core.models import load_model
from ddpm_core.workshop import consistency


def test_a_student_begins_as_its_teacher_and_leaves_it_alone(monkeypatch):
    monkeypatch.setattr(consistency, "BATCH", 2)
    monkeypatch.setattr(consistency, "RATE", 1e-9)
    teacher = load_model(consistency.TEACHER)
    x0 = consistency.cars(2, 32, seed=0)
    net = consistency.train(teacher, x0, passes=1, steps=4, seed=0)
    before, after = teacher.net.state_dict(), net.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    assert not any(p.requires_grad for p in teacher.net.parameters())


def test_rows_compare_teacher_and_student(tmp_path, monkeypatch):
    monkeypatch.setattr(consistency, "CARS", 4)
    monkeypatch.setattr(consistency, "BATCH", 2)
    monkeypatch.setattr(consistency, "CALLS", (1,))
    out = tmp_path / "consistency.json"
    consistency.main(out, passes=1, steps=2, seeds=1, n=100)
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["command"].startswith("ddpm measure-consistency --out")
    found = [(row["name"], row["calls"]) for row in table["rows"]]
    assert found == [("teacher", 1), ("teacher", 2), ("halving", 1), ("consistency", 1)]
    assert table["rows"][3]["images seen"] == 4
    assert table["rows"][0]["frechet"] > table["rows"][1]["frechet"]
    assert out.with_suffix(".png").exists()
