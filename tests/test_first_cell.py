"""The first cell of a chapter brings the book to a machine that has only its packages.

The machine is a fresh virtual environment that sees the packages of this one, but not
the library; the repository is a local one, in the place of the remote.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

import first_cell

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "chapters" / "05_forward_diffusion.ipynb"  # the quickest

OFFLINE = {
    "PYTHONPATH": "",
    "PIP_NO_INDEX": "1",  # nothing is downloaded: what is there must do
    "PIP_NO_BUILD_ISOLATION": "0",  # 0 is how pip spells 'no isolation' here
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


# Elsewhere ----------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the cell, with an address, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()

    def run(repository: str):
        return shell.run_cell("".join(first_cell.first_cell(repository)["source"]))

    return run


def test_cell_does_nothing_where_the_library_is_installed(run, tmp_path, capsys):
    assert run("nowhere").success
    assert Path.cwd() == tmp_path and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.fixture
def missing(monkeypatch):
    """A machine on which the library is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def sentence(result) -> str:
    """What the cell stopped with, as the reader sees it: one line, no traceback."""
    assert not result.success
    assert isinstance(result.error_in_exec, SystemExit)
    text = str(result.error_in_exec)
    assert "\n" not in text
    return text


def test_cell_asks_for_the_address_while_there_is_none(run, missing):
    said = sentence(run(""))
    assert said.startswith("Fill in REPOSITORY above") and "OWNER/NAME" in said


def test_address_can_be_filled_in_where_colab_folds_the_code():
    assert (
        '\nREPOSITORY = ""  # @param {type: "string"}\n'
        in first_cell.SOURCE.replace("ADDRESS", "")
    )


@pytest.mark.parametrize("address", ["{}/nowhere", "https://no-such-host.invalid/b"])
def test_cell_stops_where_the_book_cannot_be_fetched(run, missing, tmp_path, address):
    said = sentence(run(address.format(tmp_path.as_uri())))
    assert said.startswith("The book is not installed: git failed: fatal: ")
    assert not (tmp_path / "ddpm-cars").exists()


def test_cell_stops_without_git(run, missing, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git failed: [Errno 2] No such file" in sentence(run("nowhere"))


def test_cell_leaves_a_folder_that_is_not_the_book(run, missing, tmp_path):
    own = tmp_path / "ddpm-cars" / "mine.txt"
    own.parent.mkdir()
    own.write_text("mine")
    (tmp_path / "empty").mkdir()
    subprocess.run(["git", "init", "-q", tmp_path / "empty"], check=True)
    assert "already exists" in sentence(run((tmp_path / "empty").as_uri()))
    assert own.read_text() == "mine"


def test_cell_stops_where_pip_fails(run, missing, monkeypatch, tmp_path):
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "ddpm-cars"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]\nname = 'no version'")
    assert "The book is not installed: pip failed: " in sentence(run("nowhere"))


# A bare machine -----------------------------------------------------------------------


@pytest.fixture
def repository(committed, tmp_path) -> str:
    """The address of a repository with the files of this one."""
    folder = tmp_path / "remote"
    for path in committed:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (
        ["init", "-q"],
        ["config", "core.compression", "0"],  # it is read once
        ["config", "pack.window", "0"],
        ["add", "--all"],
        [*author, "commit", "-qm", "The book"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """The packages of a fresh virtual environment, whose kernel is named `bare`."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    own, programs = (
        Path(sysconfig.get_path(name, "venv", {"base": str(folder)}))
        for name in ("purelib", "scripts")
    )
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    kernel = tmp_path / "jupyter" / "kernels" / "bare" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    python = str(programs / Path(sys.executable).name)
    launch = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": launch, "display_name": "bare", "language": "python"}
    kernel.write_text(json.dumps(spec | {"env": OFFLINE}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return own


def run_in(folder: Path, cells: list[dict]) -> str:
    """Run cells from start to end in a new kernel `bare`; return what the last says."""
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook = nbformat.reads(json.dumps(notebook), as_version=4)
    NotebookClient(
        notebook,
        kernel_name="bare",
        skip_cells_with_tag="",  # the first cell is run here
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return "".join(output["text"] for output in notebook.cells[-1].outputs)


def code(source: str) -> dict:
    return nbformat.v4.new_code_cell(source)


def test_chapter_runs_where_the_library_was_missing(repository, packages, tmp_path):
    machine = tmp_path / "machine"
    machine.mkdir()
    look = code("from importlib.util import find_spec; print(find_spec('ddpm_core'))")
    assert run_in(machine, [look]) == "None\n"

    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    cells = first_cell.with_first_cell(notebook, repository)["cells"]
    where = code("import ddpm_core; print(ddpm_core.__file__)")
    clone = machine / "ddpm-cars"
    assert run_in(machine, [*cells, where]) == f"{clone}/ddpm_core/__init__.py\n"
    installed = {path.name.split("-")[0] for path in packages.glob("*.dist-info")}
    assert installed == {"ddpm_core"}, "no other package was touched"

    # After a restart the library is there, and the cell only finds the folder again.
    again = [first_cell.first_cell("nowhere"), code("from checks import ch05")]
    assert run_in(machine, [*again, where]) == f"{clone}/ddpm_core/__init__.py\n"
