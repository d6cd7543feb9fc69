"""A table is written whole or not at all; a path that cannot be is refused first."""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from ddpm_core.datasets.atomic import written_file
from ddpm_core.workshop import ablations, guidance, recipes, solvers, tables
from ddpm_core.workshop.folder import write_object
from ddpm_core.workshop.tables import table_writer


def killed_at(event: int, action: Callable[[], object], folder: Path) -> bool:
    """Whether a copy of this process comes to its nth event, where it is killed.

    An event is a row that is printed, a file that is opened to be written in `folder`,
    or one that is moved there.
    """
    child = os.fork()
    if child == 0:
        left = iter(range(event))

        def passed() -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def watch(name: str, values: tuple) -> None:
            there = str(values[0]).startswith(str(folder)) if values else False
            opened = name == "open" and isinstance(values[1], str)
            if there and (name == "os.rename" or (opened and "r" not in values[1])):
                passed()

        torch.set_num_threads(1)  # the threads of the parent are not in its copy
        tables.print = recipes.print = lambda *row, **how: passed()
        sys.addaudithook(watch)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture
def small(monkeypatch) -> Callable[[Path], None]:
    """`ddpm measure-samplers` in a second: two rows, of one step."""
    monkeypatch.setattr(solvers, "REFERENCE", 40)
    rules = [solvers.Rule(name, "ddim", calls=(1,)) for name in ("one", "two")]
    monkeypatch.setattr(solvers, "RULES", rules)
    return partial(solvers.main, n=4, starts=1)


def test_a_command_killed_anywhere_leaves_a_whole_table(small, tmp_path):
    """The old one, or the new; and the command, run again, begins anew."""
    path = tmp_path / "samplers.json"
    old = {"command": "an earlier one", "rows": [{"name": "old"}]}
    write_object(path, old)
    deaths, seen = 0, []
    while killed_at(deaths, partial(small, path), tmp_path):
        seen.append(json.loads(path.read_text()))
        deaths += 1
    assert deaths >= 5  # its lock, its file, two rows, the text, the move
    assert seen == [old] * deaths
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["rows"]] == ["one", "two"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def add(folder: Path, name: str) -> None:
    recipes.add(folder, {"row": name})


def test_a_row_is_added_whole_or_not_at_all(tmp_path):
    """As `ddpm recipes` and `ddpm photo-grid` do, whose tables grow row by row."""
    add(tmp_path, "first")
    deaths = 0
    while killed_at(deaths, partial(add, tmp_path, "second"), tmp_path):
        assert recipes.read(tmp_path) == [{"row": "first"}]
        deaths += 1
    assert deaths >= 3
    assert recipes.read(tmp_path) == [{"row": "first"}, {"row": "second"}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_rows_that_processes_add_at_once_are_all_kept(tmp_path):
    children = []
    for name in "abcd":
        children.append(os.fork())
        if children[-1] == 0:
            try:
                for number in range(5):
                    add(tmp_path, f"{name}{number}")
            finally:
                os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    rows = [row["row"] for row in recipes.read(tmp_path)]
    assert sorted(rows) == [f"{name}{i}" for name in "abcd" for i in range(5)]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": 1}', '{"rows": [1]}', '{"ro'])
def test_a_table_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    for action in (recipes.read, partial(add, name="new")):
        with pytest.raises(ValueError, match=r"results\.json"):
            action(tmp_path)
    assert path.read_text() == text


COMMANDS = {
    "measure": partial(tables.main, "trilemma"),
    "measure-guidance": guidance.main,
    "measure-samplers": solvers.main,
    "measure-parts": ablations.parts,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_any_cost(
    name, tmp_path, monkeypatch
):
    def costs(*values, **options):
        pytest.fail("this is to be refused before it costs time")

    for module, work in (
        (tables, "real_cars"),
        (guidance, "cars_of_one_prompt"),
        (solvers, "draw_toy_cars"),
        (ablations, "cars"),
    ):
        monkeypatch.setattr(module, work, costs)
    (tmp_path / "file").touch()
    with pytest.raises(IsADirectoryError):
        COMMANDS[name](out=tmp_path)
    with pytest.raises(OSError):
        COMMANDS[name](out=tmp_path / "file" / "table.json")
    with (
        written_file(tmp_path / "table.json"),
        pytest.raises(BlockingIOError, match="another process is writing"),
    ):
        COMMANDS[name](out=tmp_path / "table.json")


def test_weights_that_are_missing_are_missed_before_any_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "real_cars", lambda *values: pytest.fail("too late"))
    table = {"toy-cars-32": (), "data/exported/none": ()}
    monkeypatch.setattr(tables, "TABLES", {"views": table})
    with pytest.raises(FileNotFoundError, match="data/exported/none"):
        tables.main("views", out=tmp_path / "views.json")
    assert not list(tmp_path.iterdir())


def test_an_error_among_the_rows_leaves_the_old_table(tmp_path):
    path = tmp_path / "table.json"
    write_object(path, {"rows": []})
    with (
        pytest.raises(ZeroDivisionError),
        table_writer("measure", {"out": path}) as write,
    ):
        write(({"row": 1 // n} for n in (1, 0)), {})
    assert json.loads(path.read_text()) == {"rows": []}
