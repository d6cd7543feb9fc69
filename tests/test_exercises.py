"""Every exercise can be solved, can be left alone, and tells mistakes apart.

A check `check_<name>` in chapters/checks belongs to a cell tagged `exercise`, which
defines `<name>`, and to a cell tagged `solution`, which defines `<name>_solution`. Both
need nothing but the imports of their chapter, its first cell after that of the set-up.
"""

import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddpm_core.workshop.cli import app_for
from ddpm_core.workshop.exercises import (
    Answer,
    Exercise,
    all_exercises,
    answer,
    exercises_of,
)

CHAPTERS = Path(__file__).parents[1] / "chapters"


def check_names(chapter: str) -> list[str]:
    return [n for n in vars(checks_of(chapter)) if n.startswith("check_")]


def checks_of(chapter: str):
    return importlib.import_module(f"checks.{chapter}")


def wrong_answers(chapter: str) -> dict:
    return importlib.import_module(f"wrong_answers.{chapter}").WRONG


def right_answers(chapter: str) -> dict:
    module = importlib.import_module(f"wrong_answers.{chapter}")
    return getattr(module, "RIGHT", {})


@cache
def outcomes(chapter: str, check: str) -> list:
    """What a check answers to each of its wrong answers; each is run once."""
    run = getattr(checks_of(chapter), check)
    return [run(wrong) for wrong, _ in wrong_answers(chapter)[check]]


@cache
def code_cells(chapter: str) -> list[dict]:
    (path,) = CHAPTERS.glob(f"{chapter.removeprefix('ch')}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [cell for cell in code if "setup" not in cell["metadata"].get("tags", [])]


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
    pytest.param(chapter, name, number, hint, id=f"{chapter}-{name}-{hint}")
    for chapter, name in EVERY_CHECK
    for number, (_, hint) in enumerate(wrong_answers(chapter)[name])
]

OTHER_WAYS = [
    (chapter, check, number)
    for chapter in BOOK
    for check, answers in right_answers(chapter).items()
    for number in range(len(answers))
]


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_stub_is_not_attempted(chapter, check, monkeypatch, capsys):
    name = check.removeprefix("check_")
    source = tagged(chapter, "exercise", f"def {name}(")
    assert f"{chapter}.{check}({name})" in source
    run_cell(chapter, source, monkeypatch)
    assert capsys.readouterr().out == "not attempted\n"


def test_every_exercise_says_how_hard_it_is():
    found = all_exercises(CHAPTERS)
    assert all(1 <= exercise.stars <= 3 for exercise in found)
    assert not any("★" in exercise.title for exercise in found)


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_solution_passes(chapter, check, monkeypatch, capsys):
    name = check.removeprefix("check_") + "_solution"
    source = tagged(chapter, "solution", f"def {name}(")
    assert f"{chapter}.{check}({name})" in source
    run_cell(chapter, source, monkeypatch)
    assert capsys.readouterr().out.startswith("passed: ")


@pytest.mark.parametrize(("chapter", "check", "number", "hint"), EVERY_MISTAKE)
def test_mistake_gets_its_hint(chapter, check, number, hint):
    result = outcomes(chapter, check)[number]
    assert result.status == "failed"
    assert hint in result.message


@pytest.mark.parametrize(("chapter", "check"), EVERY_CHECK)
def test_mistakes_get_different_hints(chapter, check):
    hints = [result.message for result in outcomes(chapter, check)]
    assert len(hints) >= 2
    assert len(set(hints)) == len(hints)


@pytest.mark.parametrize(("chapter", "check", "number"), OTHER_WAYS)
def test_other_ways_to_be_right_pass(chapter, check, number):
    result = getattr(checks_of(chapter), check)(right_answers(chapter)[check][number])
    assert result.status == "passed", result.message


@pytest.mark.parametrize("chapter", BOOK)
def test_no_wrong_answers_without_a_check(chapter):
    assert set(right_answers(chapter)) <= set(check_names(chapter))
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


# The reader's progress ---------------------------------------------------------------

STD = "def noise_std(a):\n    return {}\n\n\nch05.check_noise_std(noise_std)"
ATTEMPTS = [
    ("right", STD.format("(1 - a**2) ** 0.5"), "passed"),
    ("wrong", STD.format("1 - a"), "failed"),
    ("open", STD.replace("return {}", "raise NotImplementedError"), "not attempted"),
    ("broken", STD.format("("), "failed"),
    ("cut short", "x = 'passed: not at all'", "failed"),
    ("scattered", STD.format("helper(a)"), "failed"),
]


def notebook_of(attempts: list, folder: Path) -> Path:
    """A folder with one notebook, which holds these attempts."""

    def cell(kind, source, *tags):
        return {"cell_type": kind, "source": source, "metadata": {"tags": tags}}

    cells = [
        cell("code", "%pip install a library", "setup"),
        cell("code", ["from checks import ch05\n", "print('hello')"]),
    ]
    for number, (title, source, _) in enumerate(attempts, 1):
        cells.append(
            cell("markdown", f"## Exercises\n\n### Exercise {number}: {title}")
        )
        cells.append(cell("code", source, "exercise"))
        cells.append(cell("code", "1 / 0", "solution"))
    (folder / "05_short.ipynb").write_text(json.dumps({"cells": cells}))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A notebook with one attempt of each kind."""
    return notebook_of(ATTEMPTS, tmp_path)


def test_progress_tells_right_wrong_and_open_apart(folder):
    found = all_exercises(folder)
    assert [(e.number, e.title) for e in found] == [
        (number, title) for number, (title, *_) in enumerate(ATTEMPTS, 1)
    ]
    got = [answer(exercise) for exercise in found]
    assert [a.status for a in got] == [status for *_, status in ATTEMPTS]
    assert "variance" in got[1].message and got[3].message.startswith("SyntaxError")
    assert "check did not run" in got[4].message
    assert "NameError" in got[5].message and "only the notebook's" in got[5].message
    assert all(isinstance(a, Answer) for a in got) and Path.cwd() != folder


def exercises_command(*arguments: str):
    """Call `ddpm exercises`."""
    words = ["exercises", *arguments]
    return CliRunner().invoke(app_for(words), words)


def test_progress_is_a_command(tmp_path):
    folder = notebook_of(ATTEMPTS[:3], tmp_path)
    run = exercises_command("05", "--chapters", str(folder))
    assert run.exit_code == 0 and "[x] 1 right\n" in run.output
    assert "[!] 2 wrong: " in run.output and "[ ] 3 open\n" in run.output
    assert run.output.endswith("1 passed [x], 1 failed [!], 1 not attempted [ ]\n")


def test_progress_is_found_from_inside_the_folder_too(tmp_path, monkeypatch):
    folder = notebook_of(ATTEMPTS[:1], tmp_path)
    monkeypatch.chdir(folder)
    assert "05_short\n" in exercises_command().output
    (folder / "chapters").mkdir()
    (folder / "05_short.ipynb").rename(folder / "chapters" / "05_inner.ipynb")
    assert "05_inner\n" in exercises_command().output


def test_progress_refuses_what_is_no_chapter(folder):
    with pytest.raises(FileNotFoundError, match="no chapter '06'.*there is: 05_short"):
        all_exercises(folder, "06")
    (folder / "06_text.ipynb").write_text("[]")
    with pytest.raises(ValueError, match="06_text.ipynb is not a notebook: it has no"):
        all_exercises(folder)


CELL = {"cell_type": "code", "source": "1", "metadata": {}}
DAMAGED = [
    "",
    "{",
    "[" * 100_000,
    "\xff",
    "null",
    {"cells": None},
    {"cells": {"a": 1}},
    {"cells": [1]},
    {"cells": [{"source": ""}]},
    {"cells": [CELL | {"cell_type": 3}]},
    {"cells": [CELL | {"source": None}]},
    {"cells": [CELL | {"source": ["a", 1]}]},
    {"cells": [CELL | {"metadata": []}]},
    {"cells": [CELL | {"metadata": {"tags": "exercise"}}]},
    {"cells": [CELL | {"metadata": {"tags": [["exercise"]]}}]},
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_notebook_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "07_damaged.ipynb"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(
        ValueError, match=r"07_damaged\.ipynb is (not|damaged)"
    ) as raised:
        exercises_of(path)
    assert "\n" not in str(raised.value)


def attempt(folder, source: str, seconds: float = 100) -> Answer:
    """What becomes of one answer, whose notebook imports nothing."""
    exercise = Exercise(folder / "05.ipynb", 1, "try", 1, "import os, sys", source)
    return answer(exercise, seconds)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("sys.exit()", "SystemExit"),
        ("os._exit(3)", r"it ended Python \(code 3\)"),
        ("os.kill(os.getpid(), 9)", r"it ended Python \(code -9\)"),
        ("os._exit(0)", "its check did not run"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input()", "EOFError"),
        ("os.close(1)\nprint('passed: no')", ""),
        ("raise ValueError('a\\nb' * 10**5)", r"^ValueError: a ba.{300,}\.\.\.$"),
    ],
)
def test_an_answer_that_ends_its_process_has_failed(tmp_path, source, why):
    got = attempt(tmp_path, source)
    assert got.status == "failed" and re.search(why, got.message)


def test_an_endless_loop_is_stopped_and_what_it_started_too(tmp_path):
    child = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.fork()))"
    got = attempt(tmp_path, f"{child}\nwhile True: pass", seconds=2)
    assert got == Answer(
        got.exercise, "failed", "it took more than 2 s: an endless loop?"
    )


def test_one_answer_or_notebook_leaves_the_others_alone(folder):
    notebook = json.loads((folder / "05_short.ipynb").read_text())
    ends = {"cell_type": "code", "source": "import os; os._exit(0)"}
    title = {"cell_type": "markdown", "source": "### Exercise 0: ends ★"}
    notebook["cells"][2:2] = [title, ends | {"metadata": {"tags": ["exercise"]}}]
    notebook["cells"] = notebook["cells"][:6]  # the first of the others, which is right
    (folder / "05_short.ipynb").write_text(json.dumps(notebook))
    (folder / "04_damaged.ipynb").write_text("[]")
    run = CliRunner().invoke(
        app_for(["exercises"]), ["exercises", "--chapters", str(folder), "--json"]
    )
    rows = [json.loads(line) for line in run.output.splitlines()]
    assert [(r["notebook"], r["number"], r["status"]) for r in rows] == [
        ("04_damaged.ipynb", 0, "failed"),
        ("05_short.ipynb", 0, "failed"),
        ("05_short.ipynb", 1, "passed"),
    ]
    assert "is not a notebook" in rows[0]["message"] and rows[2]["message"]


@pytest.mark.parametrize("chapter", BOOK)
def test_every_exercise_of_the_book_is_found(chapter):
    (path,) = CHAPTERS.glob(f"{chapter.removeprefix('ch')}_*.ipynb")
    found = exercises_of(path)
    assert [e.number for e in found] == list(range(1, len(found) + 1))
    assert len(found) == len(check_names(chapter)) >= 4


# Grading ------------------------------------------------------------------------------

CHECK = "def check(f):\n    print('passed: 4' if f(2) == 4 else 'failed: not 4')"
DOUBLE = "def double(x):\n    {}\n\n\ncheck(double)"
SUBMITTED = {
    "ada": (DOUBLE.format("return 2 * x"), "passed"),
    "ben": (DOUBLE.format("return x"), "failed"),
    "cat": ("def double(x):\n    return x\n\n\nprint('passed: all')", "failed"),
    "dan": ("import os\nprint('passed: 4', flush=True)\nos._exit(0)", "failed"),
    "eve": (DOUBLE.format("return x\n\n\ncheck = print"), "failed"),
    "fay": ("while True:\n    pass", "failed"),
    "gus": (DOUBLE.format("raise NotImplementedError"), "not attempted"),
}


def one_exercise(folder: Path, source: str) -> None:
    """Write a notebook with one exercise and its own check into a new folder."""
    kinds = [("code", CHECK, []), ("markdown", "### Exercise 1: double ★", [])]
    kinds.append(("code", source, ["exercise"]))
    cells = [
        {"cell_type": kind, "source": text, "metadata": {"tags": tags}}
        for kind, text, tags in kinds
    ]
    folder.mkdir(parents=True)
    (folder / "05_short.ipynb").write_text(json.dumps({"cells": cells}))


def test_a_course_is_graded_by_the_checks_of_the_book(tmp_path):
    book, course = tmp_path / "book", tmp_path / "course"
    one_exercise(book, DOUBLE.format("raise NotImplementedError"))
    for name, (source, _) in SUBMITTED.items():
        one_exercise(course / name, source)
    (course / "hal").mkdir()  # handed in nothing
    (course / "ivy").mkdir()
    (course / "ivy" / "05_short.ipynb").write_text("{")
    words = ["--chapters", str(book), "--submissions", str(course), "--json"]
    run = exercises_command(*words, "--seconds", "4")
    rows = [json.loads(line) for line in run.output.splitlines()]
    statuses = {row["submission"]: row["status"] for row in rows}
    wanted = {name: status for name, (_, status) in SUBMITTED.items()}
    assert statuses == wanted | {"hal": "not attempted", "ivy": "failed"}
    said = {row["submission"]: row["message"] for row in rows}
    assert "endless loop" in said["fay"] and "is not a notebook" in said["ivy"]
    assert rows[0]["title"] == "double" and rows[0]["stars"] == 1


def test_a_folder_without_submissions_is_refused(tmp_path):
    run = exercises_command("--submissions", str(tmp_path))
    assert "a folder of notebooks for each" in str(run.exception)
