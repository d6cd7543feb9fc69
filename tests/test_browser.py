"""The files that a page runs, against the networks that they were made from."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
import torch
from browser_export import export_for_browser

from ddpm_core.models import load_model

NAME = "toy-cars-text-32"
PROMPTS = ["a green pickup truck in snow at night", "a red van"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "model"
    export_for_browser(NAME, path)
    return path


@pytest.fixture(scope="module")
def model():
    return load_model(NAME)


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(a) for a in session.run(None, arrays)]


def test_graphs_compute_what_the_networks_compute(folder, model):
    cond = model.encoder.encode(PROMPTS)
    told = run(folder / "text.onnx", tokens=model.encoder.tokenizer(PROMPTS))
    for got, wanted in zip(told, cond, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = ("pooled", "states", "mask")
    for t in (1, 400, 1000):
        times = torch.full((2,), t)
        inputs = dict(zip(names, told, strict=True))
        (got,) = run(folder / "unet.onnx", x_t=x, t=times, **inputs)
        torch.testing.assert_close(got, model.net(x, times, cond), rtol=0, atol=1e-4)


def test_all_files_together_weigh_at_most_6_mb(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6e6


def test_settings_are_those_of_the_model(folder, model):
    settings = json.loads((folder / "model.json").read_text())
    assert settings["alpha_bar"] == model.schedule.alpha_bar.tolist()
    assert settings["target"] == model.config.target
    assert tuple(settings["words"]) == model.encoder.tokenizer.words


def test_page_shows_the_lines_that_it_runs():
    book = Path(__file__).parents[1] / "book"
    script = (book / "_static" / "car-maker.js").read_text()
    shown = re.findall(
        r"```javascript\n(.*?)```", (book / "browser.md").read_text(), re.S
    )
    lines = [line for block in shown for line in block.splitlines()]
    assert lines and [line for line in lines if line not in script] == []


def test_the_book_makes_them_anew_only_when_something_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "book" / "_ext")
    extension = importlib.import_module("browser_model")
    made = []
    monkeypatch.setattr(extension, "VENDOR", tmp_path)
    monkeypatch.setattr(
        "browser_export.export_for_browser",
        lambda name, folder: (folder.mkdir(exist_ok=True), made.append(name)),
    )
    config = SimpleNamespace(html_static_path=[])
    for _ in range(2):
        extension.make_files(None, config)
    assert made == [NAME] and config.html_static_path == [str(tmp_path)]
    changed = {**extension.ingredients(), "unet": "other weights"}
    monkeypatch.setattr(extension, "ingredients", lambda: changed)
    extension.make_files(None, config)
    assert made == [NAME, NAME]


@pytest.mark.parametrize("name", ["toy-cars-32"])
def test_a_model_without_prompts_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="no text encoder"):
        export_for_browser(name, tmp_path)
