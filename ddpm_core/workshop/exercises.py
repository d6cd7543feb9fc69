"""The exercises of the chapters: which there are, and how far a reader has come.

An exercise is a heading `### Exercise 3: its title ★★` in a chapter's notebook and,
after it, a code cell tagged `exercise`. One star is for a formula put into code, two
for a thought of one's own, three for a derivation. The cell needs nothing but the
notebook's imports, its first code cell after the one tagged `setup`, which installs the
library where it is missing. Its last line runs the check of `chapters/checks`, which
prints the answer.
"""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADING = re.compile(r"^### Exercise (\d+): (.+?) *(★*)\s*$", re.MULTILINE)
PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
MARKS = {PASSED: "x", FAILED: "!", NOT_ATTEMPTED: " "}
UNCHECKED = "its check did not run: is its last line there?"
VERDICT = re.compile(
    rf"^({PASSED}|{FAILED}|{NOT_ATTEMPTED})(?:: (.*))?$\s*\Z", re.MULTILINE | re.DOTALL
)  # the last thing that a check prints


@dataclass(frozen=True)
class Exercise:
    """One exercise as it stands in a notebook: with the stub, or the reader's answer.

    `stars`: how hard it is, 1 to 3; 0 where the heading does not say. `imports` is the
    source of the cell with the notebook's imports, `source` its own.
    """

    notebook: Path
    number: int
    title: str
    stars: int
    imports: str
    source: str


@dataclass(frozen=True)
class Answer:
    """What a check says of an exercise: passed, failed or not attempted, and why."""

    exercise: Exercise
    status: str
    message: str = ""


def exercises_of(notebook: Path) -> list[Exercise]:
    """Return the exercises of a notebook, in order.

    Raises FileNotFoundError for a notebook that is not there, and ValueError for a file
    that is none.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is not a notebook: {error}") from error
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    imports = next((_source(cell) for cell in code if "setup" not in _tags(cell)), "")
    found, heading = [], None
    for cell in cells:
        if cell["cell_type"] == "markdown":
            headings = HEADING.findall(_source(cell))
            heading = headings[-1] if headings else heading
        elif heading and "exercise" in _tags(cell):
            number, title, stars = heading
            place = notebook, int(number), title, len(stars)
            found.append(Exercise(*place, imports, _source(cell)))
            heading = None
    return found


def all_exercises(folder: Path, chapter: str = "") -> list[Exercise]:
    """Return those of all notebooks in `folder`, or of those that begin with `chapter`.

    Raises FileNotFoundError, listing what there is, where none is found.
    """
    notebooks = sorted(folder.glob("*.ipynb"))
    chosen = [path for path in notebooks if path.name.startswith(chapter)]
    if not chosen:
        there = ", ".join(path.stem for path in notebooks) or "none"
        raise FileNotFoundError(
            f"no chapter {chapter!r} in {folder}; there is: {there} (--chapters names "
            "another folder)"
        )
    return [exercise for path in chosen for exercise in exercises_of(path)]


def answer(exercise: Exercise) -> Answer:
    """Run the exercise's cell after its imports, and read what the check prints.

    The notebook's code runs in this process, as it would in the notebook. What its
    other cells define is missing here, and the answer says so.
    """
    status, message = _verdict(exercise)
    if "NameError" in message:
        message += " (only the notebook's imports and this cell are run here)"
    return Answer(exercise, status, " ".join(message.split()))


def _verdict(exercise: Exercise) -> tuple[str, str]:
    said, names = io.StringIO(), {"__name__": "__main__"}
    with _working_in(exercise.notebook.parent), contextlib.redirect_stdout(said):
        try:
            exec(exercise.imports, names)
            exec(exercise.source, names)
        except Exception as error:
            return FAILED, f"{type(error).__name__}: {error}"
    printed = VERDICT.findall(said.getvalue())
    return printed[-1] if printed else (FAILED, UNCHECKED)


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Be in the chapters' folder, where their checks are found, for a while."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.remove(str(Path.cwd()))
        os.chdir(before)
