"""The files that a page runs, against the networks that they were made from."""

import importlib
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
import torch
from browser_export import export_for_browser

from ddpm_core.models import load_model

TOYS, PHOTOS = "toy-cars-text-32", "cars-64"
PROMPTS = ["a green pickup truck in snow at night", "a red van"]
BOOK = Path(__file__).parents[1] / "book"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a model's files, which are made once."""

    @cache
    def export(name: str) -> Path:
        path = tmp_path_factory.mktemp("browser") / name
        export_for_browser(name, path)
        return path

    return export


@pytest.fixture(params=[TOYS, PHOTOS])
def name(request):
    return request.param


@pytest.fixture
def folder(exported, name):
    return exported(name)


@pytest.fixture
def model(name):
    return load_model(name)


@pytest.fixture
def settings(folder):
    return json.loads((folder / "model.json").read_text())


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(a) for a in session.run(None, arrays)]


def test_graphs_compute_what_the_networks_compute(folder, model, generator):
    cond, parts, rows = None, {}, 1
    if model.encoder:
        cond, rows = model.encoder.encode(PROMPTS), len(PROMPTS)
        told = run(folder / "text.onnx", tokens=model.encoder.tokenizer(PROMPTS))
        for got, wanted in zip(told, cond, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
        parts = dict(zip(cond._fields, told, strict=True))
    x = torch.randn(rows, *model.shape, generator=generator)
    for t in (1, 400, 1000):
        times = torch.full((rows,), t)
        (got,) = run(folder / "unet.onnx", x_t=x, t=times, **parts)
        torch.testing.assert_close(got, model.net(x, times, cond), rtol=0, atol=1e-4)


def test_decoder_enlarges_as_the_librarys_does(exported, generator):
    model = load_model(PHOTOS)
    for spread in (0.3, 2):  # the second leaves the range, where both clip
        x = spread * torch.randn(1, *model.shape, generator=generator)
        (got,) = run(exported(PHOTOS) / "decoder.onnx", latents=x)
        assert got.shape == (1, 3, 64, 64)
        torch.testing.assert_close(got, model.decode(x), rtol=0, atol=1e-4)


def test_a_models_files_together_weigh_at_most_6_mb(folder, settings):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6e6
    graphs = {file.stem: file.stat().st_size for file in folder.glob("*.onnx")}
    assert settings["graphs"] == graphs


def test_settings_are_those_of_the_model(settings, model):
    assert settings["alpha_bar"] == model.schedule.alpha_bar.tolist()
    assert settings["target"] == model.config.target
    assert settings["t_end"] == model.t_end
    assert tuple(settings["shape"]) == model.shape
    prompts = settings["prompts"]
    assert (prompts is None) == (model.encoder is None)
    if prompts:
        assert tuple(prompts["words"]) == model.encoder.tokenizer.words


def test_page_says_how_much_each_model_loads(settings, name):
    """Before a reader presses Draw: the graphs, and what runs them."""
    script = (BOOK / "_static" / "car-model.js").read_text()
    runtime = int(re.search(r"bytes: ([\d_]+)", script)[1].replace("_", ""))
    megabytes = round((sum(settings["graphs"].values()) + runtime) / 1e6)
    page = (BOOK / "browser.md").read_text()
    before, figure, _ = page.partition(f'<div class="car-maker" data-model="{name}">')
    assert figure
    paragraph = before.rstrip().rsplit("\n\n", 1)[-1]
    assert f"{megabytes} MB" in paragraph


def test_page_shows_the_lines_that_it_runs():
    script = (BOOK / "_static" / "car-model.js").read_text()
    page = (BOOK / "browser.md").read_text()
    shown = re.findall(r"```javascript\n(.*?)```", page, re.S)
    lines = [line for block in shown for line in block.splitlines()]
    assert lines and [line for line in lines if line not in script] == []


def test_scripts_share_no_names():
    """They share one scope, in which a name that is there already stops a script."""
    top = re.compile(r"^(?:const|let|class|(?:async )?function\*?) (\w+)", re.M)
    scripts = (BOOK / "_static").glob("*.js")
    names = Counter(name for path in scripts for name in top.findall(path.read_text()))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_book_makes_them_anew_only_when_something_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BOOK / "_ext")
    extension = importlib.import_module("browser_model")
    made = []
    monkeypatch.setattr(extension, "VENDOR", tmp_path)
    monkeypatch.setattr(
        "browser_export.export_for_browser",
        lambda name, folder: (
            folder.mkdir(parents=True, exist_ok=True),
            made.append(name),
        ),
    )
    config = SimpleNamespace(html_static_path=[])
    for _ in range(2):
        extension.make_files(None, config)
    assert made == [TOYS, PHOTOS] and config.html_static_path == [str(tmp_path)]
    ingredients = extension.ingredients
    made_of = {"cars-64", "cars-64-decoder", "drawn", "code"}
    assert made_of == set(ingredients(PHOTOS))
    changed = {PHOTOS: {"cars-64-decoder": "other weights"}}
    monkeypatch.setattr(
        extension, "ingredients", lambda name: ingredients(name) | changed.get(name, {})
    )
    extension.make_files(None, config)
    assert made == [TOYS, PHOTOS, PHOTOS]


def test_a_model_whose_latents_are_no_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="are no images"):
        export_for_browser("toy-cars-text-latent-32", tmp_path)
