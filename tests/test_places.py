"""Weights from a wheel, from a folder and from a web address."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer

import pytest

from ddpm_core.datasets import places, toy_cars
from ddpm_core.weights import find_weights
from ddpm_core.workshop.commands import models as commands_models
from ddpm_core.workshop.commands.models import models

ROOT = Path(__file__).parents[1]
CARD, WEIGHTS = b'{"kind": "diffusion", "parameters": 7, "config": {}}', b"numbers"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A wheel's installation that knows of `far`, which is in the folder `place`."""
    far, wheel = tmp_path / "place" / "far", tmp_path / "shipped"
    far.mkdir(parents=True)
    wheel.mkdir()
    (far / "card.json").write_bytes(CARD)
    (far / "weights.safetensors").write_bytes(WEIGHTS)
    known = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in zip(places.FILES, (CARD, WEIGHTS), strict=True)
    }
    (wheel / "known.json").write_text(json.dumps({"far": known}))
    monkeypatch.setattr(places, "WHEEL", wheel)
    monkeypatch.setattr(places, "REPOSITORY", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(places.PLACE, raising=False)
    return far.parent


@pytest.fixture
def address(elsewhere):
    """The same place as a web address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    handler = partial(Quiet, directory=str(elsewhere))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_weights_are_found_in_a_folder_of_ones_own(elsewhere, monkeypatch):
    assert places.find("far") is None
    with pytest.raises(FileNotFoundError, match="set DDPM_WEIGHTS to a folder or"):
        find_weights("far")
    monkeypatch.setenv(places.PLACE, str(elsewhere))
    assert find_weights("far") == elsewhere / "far"


def test_weights_are_fetched_once_and_kept(address, elsewhere, monkeypatch, capsys):
    models()
    assert "far" in (said := capsys.readouterr().out) and "not here" in said
    monkeypatch.setenv(places.PLACE, address + "/")
    models()
    assert f"fetched from {address} when it is used" in capsys.readouterr().out
    folder = find_weights("far")
    assert (folder / "weights.safetensors").read_bytes() == WEIGHTS
    shutil.rmtree(elsewhere / "far")  # from here on, nothing can be fetched
    assert find_weights("far") == folder
    assert [path.name for path in folder.parent.iterdir()] == ["far"]


def test_a_file_with_another_hash_is_refused(address, elsewhere, monkeypatch):
    (elsewhere / "far" / "weights.safetensors").write_bytes(b"others")
    monkeypatch.setenv(places.PLACE, address)
    with pytest.raises(ValueError, match="is not the file that ships: sha256"):
        find_weights("far")
    assert list(places.cache().iterdir()) == []


def test_a_place_that_does_not_answer_is_named(address, elsewhere, monkeypatch):
    shutil.rmtree(elsewhere / "far")
    monkeypatch.setenv(places.PLACE, address)
    with pytest.raises(OSError, match=r"far/card.json cannot be fetched: .*404"):
        find_weights("far")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"?\r\n"]
)
def test_a_place_that_breaks_off_is_named(answer, elsewhere, monkeypatch):
    """In the middle of a file, or with an answer that is not one."""

    class Broken(StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(answer)

    with TCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv(places.PLACE, f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(OSError, match=r"far/card.json cannot be fetched: "):
            find_weights("far")
    assert list(places.cache().iterdir()) == []


def test_a_wheel_draws_cars_in_an_empty_folder(tmp_path):
    """What a wheel holds is enough for the first command; the rest is named."""
    source, empty = tmp_path / "source", tmp_path / "empty"
    empty.mkdir()
    for name in ("ddpm_core", "data/weights"):
        skipped = shutil.ignore_patterns("__pycache__", "*.webp")
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w"]
    command = [sys.executable, "-m", *build, str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        shipped = {n.split("/")[2] for n in file.namelist() if "/shipped/" in n}
        file.extractall(tmp_path / "installed")
    texts = {"toy-cars-32", "toy-cars-text-32", "toy-cars-clip-32"}
    assert shipped == {"known.json"} | texts
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    env.pop(places.PLACE, None)
    ddpm = [sys.executable, "-m", "ddpm_core"]

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*ddpm, *words], cwd=empty, env=env, capture_output=True, text=True
        )

    drawn = run("sample", "--weights", "toy-cars-32", "--n", "2", "--steps", "2")
    assert drawn.returncode == 0, drawn.stderr
    assert [path.name for path in empty.iterdir()] == ["samples.png"]
    listed = run("models").stdout
    assert "toy-cars-32" in listed and "photos-32" in listed and "not here" in listed


def test_another_colour_lists_the_models_to_train_again(monkeypatch, capsys):
    models()
    assert commands_models.STALE not in capsys.readouterr().out
    more = (*toy_cars.COLOURS, "pink")
    for module in (toy_cars, commands_models):
        monkeypatch.setattr(module, "COLOURS", more)
        monkeypatch.setattr(
            module, "ATTRIBUTES", toy_cars.ATTRIBUTES | {"colour": more}
        )
    models()
    stale = {
        line.split()[0]
        for line in capsys.readouterr().out.splitlines()
        if line.endswith(commands_models.STALE)
    }
    assert {"toy-cars-32", "toy-cars-classifier-32", "toy-cars-clip-32"} <= stale
    assert not any(name.startswith(("photos", "cars")) for name in stale)
