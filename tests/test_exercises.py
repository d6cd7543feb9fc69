"""Every exercise can be solved, can be left alone, and tells mistakes apart.

A check `check_<name>` in chapters/checks belongs to a cell tagged `exercise`, which
defines `<name>`, and to a cell tagged `solution`, which defines `<name>_solution`. Both
need nothing but the first cell of their chapter, its imports.
"""

import importlib
import json
from functools import cache
from pathlib import Path

import pytest

CHAPTERS = Path(__file__).parents[1] / "chapters"


def check_names(chapter: str) -> list[str]:
    return [n for n in vars(checks_of(chapter)) if n.startswith("check_")]


def checks_of(chapter: str):
    return importlib.import_module(f"checks.{chapter}")


def wrong_answers(chapter: str) -> dict:
    return importlib.import_module(f"wrong_answers.{chapter}").WRONG


@cache
def code_cells(chapter: str) -> list[dict]:
    (path,) = CHAPTERS.glob(f"{chapter.removeprefix('ch')}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def tagged(chapter: str, tag: str, definition: str) -> str:
    """The source of the one cell with this tag that holds this definition."""
    sources = [
        "".join(cell["source"])
        for cell in code_cells(chapter)
        if tag in cell["metadata"].get("tags", [])
    ]
    (source,) = [s for s in sources if definition in s]
    return source


def run_cell(chapter: str, source: str, monkeypatch) -> dict:
    """The names that a cell defines, run after the chapter's imports alone."""
    monkeypatch.chdir(CHAPTERS)
    names = {}
    exec("".join(code_cells(chapter)[0]["source"]), names)
    exec(source, names)
    return names


BOOK = sorted(path.stem for path in CHAPTERS.glob("checks/ch*.py"))
EVERY_CHECK = [(chapter, name) for chapter in BOOK for name in check_names(chapter)]
EVERY_MISTAKE = [
    pytest.param(chapter, name, wrong, hint, id=f"{chapter}-{name}-{hint}")
    for chapter, name in EVERY_CHECK
    for wrong, hint in wrong_answers(chapter)[name]
]


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_stub_is_not_attempted(chapter, check, monkeypatch, capsys):
    name = check.removeprefix("check_")
    source = tagged(chapter, "exercise", f"def {name}(")
    assert f"{chapter}.{check}({name})" in source
    run_cell(chapter, source, monkeypatch)
    assert capsys.readouterr().out == "not attempted\n"


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_solution_passes(chapter, check, monkeypatch, capsys):
    name = check.removeprefix("check_") + "_solution"
    source = tagged(chapter, "solution", f"def {name}(")
    assert f"{chapter}.{check}({name})" in source
    names = run_cell(chapter, source, monkeypatch)
    assert capsys.readouterr().out.startswith("passed: ")
    result = getattr(checks_of(chapter), check)(names[name])
    assert result.status == "passed"


@pytest.mark.parametrize(("chapter", "check", "wrong", "hint"), EVERY_MISTAKE)
def test_mistake_gets_its_hint(chapter, check, wrong, hint):
    result = getattr(checks_of(chapter), check)(wrong)
    assert result.status == "failed"
    assert hint in result.message


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_mistakes_get_different_hints(chapter, check):
    run = getattr(checks_of(chapter), check)
    hints = [run(wrong).message for wrong, _ in wrong_answers(chapter)[check]]
    assert len(hints) >= 2
    assert len(set(hints)) == len(hints)


@pytest.mark.parametrize("chapter", BOOK)
def test_no_wrong_answers_without_a_check(chapter):
    assert set(wrong_answers(chapter)) == set(check_names(chapter))


def test_crash_in_the_answer_is_reported_not_raised(capsys):
    def crashes(a):
        raise KeyError("oops")

    result = checks_of("ch05").check_noise_std(crashes)
    assert result.status == "failed"
    assert "your function raised KeyError" in capsys.readouterr().out


def test_not_implemented_inside_torch_is_not_a_stub():
    def half_supported(a):
        raise NotImplementedError("'erf' is not implemented for 'Long'")

    assert checks_of("ch05").check_noise_std(half_supported).status == "failed"
