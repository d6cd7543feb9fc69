"""What the publisher decides, and where it is written: address, authors, version."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

import address
import first_cell

ROOT = Path(__file__).parents[1]
GITHUB = "https://github.com/owner/book"


@pytest.mark.parametrize(
    ("remote", "web"),
    [
        (GITHUB, GITHUB),
        (f"{GITHUB}/", GITHUB),
        (f"{GITHUB}.git\n", GITHUB),
        ("https://user:token@github.com/owner/book.git", GITHUB),
        ("git@github.com:owner/book.git", GITHUB),
        ("ssh://git@github.com:22/owner/book.git", GITHUB),
        (
            "https://gitlab.com/group/part/book.git",
            "https://gitlab.com/group/part/book",
        ),
        ("http://localhost:8000/owner/book.git", "http://localhost:8000/owner/book"),
        ("../book", ""),
        ("file:///owner/book.git", ""),
        ("C:/owner/book", ""),
        ('https://github.com/owner/"book', ""),
    ],
)
def test_every_form_of_a_remote_is_one_address(remote, web):
    assert address.web_address(remote) == web


@pytest.fixture
def book(tmp_path) -> Path:
    """A small book in a repository: the files that are written, and one chapter."""
    for name in ("pyproject.toml", "CHANGELOG.md", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "chapters").mkdir()
    code = {"cell_type": "code", "metadata": {}, "source": ["1 + 1"]}
    notebook = json.dumps({"cells": [code]})
    (tmp_path / "chapters" / "01.ipynb").write_text(notebook)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def test_github_names_the_repository_else_the_remote_does(book):
    assert address.find_address({}, book) == ""
    remote = ["remote", "add", "origin", "git@example.org:some/book.git"]
    subprocess.run(["git", "-C", book, *remote], check=True)
    assert address.find_address({}, book) == "https://example.org/some/book"
    github = {"GITHUB_REPOSITORY": "owner/book"}
    assert address.find_address(github, book) == GITHUB
    github["GITHUB_SERVER_URL"] = "https://git.example.org"
    assert address.find_address(github, book) == "https://git.example.org/owner/book"
    with pytest.raises(ValueError, match="OWNER/NAME, got 'book'"):
        address.find_address({"GITHUB_REPOSITORY": "book"}, book)


def test_address_reaches_all_files_and_is_written_once(book):
    for _ in range(2):
        address.write(GITHUB, book)
    assert yaml.safe_load((book / "_config.yml").read_text())["repository"] == {
        "url": GITHUB, "path_to_book": "", "branch": "main",
    }  # fmt: skip
    assert first_cell.address(book) == GITHUB
    assert yaml.safe_load((book / "CITATION.cff").read_text())["repository-code"] == (
        GITHUB
    )
    cells = json.loads((book / "chapters" / "01.ipynb").read_text())["cells"]
    assert len(cells) == 2
    assert f'REPOSITORY = "{GITHUB}"' in "".join(cells[0]["source"])


def test_script_needs_nothing_but_python(tmp_path):
    for name in ("pyproject.toml", "CHANGELOG.md", "_config.yml", "book/address.py",
                 "book/first_cell.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    alone = [sys.executable, "-S", "-E", "book/address.py"]  # -S: no installed package
    environment = {"GITHUB_REPOSITORY": "owner/book"}
    done = subprocess.run(
        alone, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The book's repository is {GITHUB}\n"


# Authors and version ------------------------------------------------------------------


def test_citation_is_as_the_files_say():
    written = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert written == address.citation(first_cell.address())
    found = yaml.safe_load(written)
    assert found["version"] == address.project()["version"]
    assert found["authors"] and found["date-released"] >= "2026"


@pytest.mark.parametrize(
    ("name", "author"),
    [
        ("Ada King Lovelace", {"family-names": "Lovelace", "given-names": "Ada King"}),
        ("The authors", {"name": "The authors"}),
        ("Bourbaki", {"name": "Bourbaki"}),
    ],
)
def test_authors_are_cited_as_persons_or_groups(name, author):
    assert yaml.safe_load(address.cited(name)) == [author]


def test_version_without_its_changes_is_refused(book):
    old = (book / "pyproject.toml").read_text()
    version = address.project()["version"]
    (book / "pyproject.toml").write_text(old.replace(version, "9.8.7", 1))
    with pytest.raises(
        ValueError, match=r"version 9\.8\.7, the newest .* is " + version
    ):
        address.write(GITHUB, book)


def test_wheel_installs_and_knows_its_version(committed, tmp_path):
    source, machine = tmp_path / "source", tmp_path / "machine"
    wanted = {"pyproject.toml", "README.md", "LICENSE"}
    for path in committed:
        name = path.relative_to(ROOT)
        if name.parts[0] == "ddpm_core" or str(name) in wanted:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / name)
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    pip = ["-m", "pip", "wheel", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([sys.executable, *pip, *offline, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")

    venv.create(machine, symlinks=True)
    base = {"base": str(machine)}
    packages = Path(sysconfig.get_path("purelib", "venv", base))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    python = Path(sysconfig.get_path("scripts", "venv", base)) / "python"
    install = [python, "-m", "pip", "install", *offline, wheel]
    subprocess.run(install, check=True, env={"PYTHONPATH": ""})
    ask = "import ddpm_core; print(ddpm_core.__version__, ddpm_core.__file__)"
    said = subprocess.run(
        [python, "-c", ask], env={}, cwd=tmp_path, capture_output=True, text=True
    )
    version, place = said.stdout.split()
    assert version == address.project()["version"]
    assert Path(place).is_relative_to(machine)
