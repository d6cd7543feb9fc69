"""The exercises of the chapters: which there are, and how far a reader has come.

An exercise is a heading `### Exercise 3: its title ★★` in a chapter's notebook and,
after it, a code cell tagged `exercise`. One star means a formula to put into code, two
an idea of your own, three a derivation. The cell needs nothing but the notebook's
imports, its first code cell after the one tagged `setup`, which installs the library
where it is missing. Its last line runs the check of `chapters/checks`, which prints the
answer.
"""

import ast
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ddpm_core.values import check_number, quoted

HEADING = re.compile(r"^### Exercise (\d+): (.+?) *(★*)\s*$", re.MULTILINE)
PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
MARKS = {PASSED: "x", FAILED: "!", NOT_ATTEMPTED: " "}
UNCHECKED = "its check did not run: is its last line there?"
SECONDS = 120  # for an answer
LONGEST = 400  # characters of a message
OUTPUT = 100_000  # bytes of what an answer prints, its end, that are read
FILE = 256 * 2**20  # bytes of the largest file that it may write: it may print for ever
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
    """What a check says of an exercise: passed, failed or not attempted, and why.

    `submission`: whose it is, where the answers of a course are graded.
    """

    exercise: Exercise
    status: str
    message: str = ""
    submission: str = ""

    def to_dict(self) -> dict:
        """Return it as what JSON can hold, without the code."""
        exercise = self.exercise
        whose = {"submission": self.submission} if self.submission else {}
        return whose | {
            "notebook": exercise.notebook.name,
            "number": exercise.number,
            "title": exercise.title,
            "stars": exercise.stars,
            "status": self.status,
            "message": self.message,
        }


def exercises_of(notebook: Path) -> list[Exercise]:
    """Return the exercises of a notebook, in order.

    Raises FileNotFoundError for a notebook that is not there, and ValueError for a file
    that is none.
    """
    cells = _cells(notebook)
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


def _cells(notebook: Path) -> list[dict]:
    """Read a notebook's cells and check everything in them that is used here."""
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{notebook} is not a notebook: {error}") from error
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        got = f"{quoted(cells)} as its cells" if cells is not None else "no cells"
        raise ValueError(f"{notebook} is not a notebook: it has {got}")
    for i, cell in enumerate(cells):
        if trouble := _damage(cell):
            raise ValueError(f"{notebook} is damaged: cell {i} has {trouble}")
    return cells


def _damage(cell: object) -> str:
    """Say what is wrong with a cell; '' for a good one."""
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return "no cell_type"
    source, metadata = cell.get("source"), cell.get("metadata", {})
    if not (isinstance(source, str) or _is_text(source)):
        return "a source that is no text"
    if not isinstance(metadata, dict):
        return "metadata that are no object"
    return "" if _is_text(metadata.get("tags", [])) else "tags that are no list of text"


def _is_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def all_exercises(folder: Path, chapter: str = "") -> list[Exercise]:
    """Return those of all notebooks in `folder`, or of those that begin with `chapter`.

    Raises FileNotFoundError, listing what there is, where none is found, and as
    `exercises_of` does.
    """
    paths = _notebooks(folder, chapter)
    return [exercise for path in paths for exercise in exercises_of(path)]


def _notebooks(folder: Path, chapter: str) -> list[Path]:
    notebooks = sorted(folder.glob("*.ipynb"))
    chosen = [path for path in notebooks if path.name.startswith(chapter)]
    if not chosen:
        there = ", ".join(path.stem for path in notebooks) or "none"
        raise FileNotFoundError(
            f"no chapter {quoted(chapter)} in {folder}; there is: {there} (--chapters "
            "names another folder)"
        )
    return chosen


def answers(folder: Path, chapter: str = "") -> Iterator[Answer]:
    """Answer the exercises of all chosen notebooks, in order, a few at a time.

    A notebook that cannot be read is one failed answer, number 0, and the others go on.
    Raises as `all_exercises` does where none is found.
    """
    found: list[Answer | Exercise] = []
    for path in _notebooks(folder, chapter):
        try:
            found += exercises_of(path)
        except (ValueError, OSError) as error:
            found.append(_unread(path, error))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda e: e if isinstance(e, Answer) else answer(e), found)


def _unread(notebook: Path, error: Exception) -> Answer:
    """Return the one failed answer of a notebook that cannot be read."""
    whole = Exercise(notebook, 0, "the notebook", 0, "", "")
    return Answer(whole, FAILED, _one_line(str(error)))


# Grading ------------------------------------------------------------------------------


def graded(
    submissions: Path, book: Path, chapter: str = "", seconds: float = SECONDS
) -> Iterator[Answer]:
    """Answer the exercises of all submissions, in order, a few at a time.

    `submissions` holds a folder of notebooks for each participant, and a notebook is
    known by the name that it has in `book`. Each answer runs in a process of its own,
    for so many seconds; the line that checks it comes from the book, and so do the
    checks. What a submission lacks is not attempted.

    Raises FileNotFoundError for a folder without submissions, and as `all_exercises`
    does for the book's.
    """
    there = submissions.iterdir() if submissions.is_dir() else []
    folders = sorted(path for path in there if path.is_dir())
    if not folders:
        raise FileNotFoundError(
            f"no submissions in {submissions}: it must hold a folder of notebooks for "
            "each participant"
        )
    asked = all_exercises(book, chapter)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for folder in folders:
            own = _submitted(folder, asked)
            answered = pool.map(lambda e: _grade(*e, seconds), own)
            yield from (replace(a, submission=folder.name) for a in answered)


def _submitted(folder: Path, asked: list[Exercise]) -> list[tuple]:
    """Pair each exercise of the book with a participant's, an error, or None."""
    read: dict[Path, dict[int, Exercise] | Exception] = {}
    pairs = []
    for exercise in asked:
        path = folder / exercise.notebook.name
        if path not in read:
            try:
                read[path] = {e.number: e for e in exercises_of(path)}
            except (ValueError, OSError) as error:
                read[path] = error
        own = read[path]
        pairs.append(
            (exercise, own.get(exercise.number) if isinstance(own, dict) else own)
        )
    return pairs


def _grade(asked: Exercise, own: Exercise | Exception | None, seconds: float) -> Answer:
    """Answer one exercise of the book by what was submitted for it."""
    if own is None or isinstance(own, FileNotFoundError):
        return Answer(asked, NOT_ATTEMPTED)
    if isinstance(own, Exception):
        return replace(_unread(asked.notebook, own), exercise=asked)
    line = ast.unparse(ast.parse(asked.source).body[-1])
    own = replace(own, imports=f"{asked.imports}\n{own.imports}")
    got = answer(own, seconds, check=f"{asked.imports}\n{line}")
    return replace(got, exercise=asked)


def answer(exercise: Exercise, seconds: float = SECONDS, check: str = "") -> Answer:
    """Run the exercise's cell after its imports, and read what the check prints.

    The code runs in a process of its own, which is stopped after so many seconds, so
    that no answer can end or hold up the others. What the notebook's other cells define
    is missing there, and the answer says so. A stub is not run. With `check`, that code
    is run after the cell, with the book's checks, and only what it prints counts.
    """
    if _is_stub(exercise.source):
        return Answer(exercise, NOT_ATTEMPTED)
    status, message = _verdict(exercise, seconds, check)
    if "NameError" in message:
        message += " (only the notebook's imports and this cell are run here)"
    return Answer(exercise, status, _one_line(message))


def _is_stub(source: str) -> bool:
    """Tell whether a function in the cell only raises NotImplementedError."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    bodies = [s.body for s in statements if isinstance(s, ast.FunctionDef)]
    return any(
        isinstance(body[-1], ast.Raise)
        and isinstance(body[-1].exc, ast.Name)
        and body[-1].exc.id == "NotImplementedError"
        and all(isinstance(s, ast.Expr) and _is_constant(s.value) for s in body[:-1])
        for body in bodies
    )


def _is_constant(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant)


def _one_line(text: str) -> str:
    """Return the text on one line of reasonable length, without control characters."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _verdict(exercise: Exercise, seconds: float, check: str) -> tuple[str, str]:
    check_number("seconds", seconds, above=0)
    book = Path(__file__).parents[2]  # whose checks serve notebooks in other folders
    command = [sys.executable, "-P", "-c", RUNNER, str(book), str(book / "chapters")]
    quiet = {"MPLBACKEND": "agg", "PYTHONUTF8": "1"}
    with tempfile.TemporaryDirectory() as folder:
        output, raised = Path(folder, "output"), Path(folder, "raised")
        begin = f"the check begins {secrets.token_hex()}" if check else ""
        work = json.dumps(
            [exercise.imports, exercise.source, str(raised), check, begin]
        )
        with output.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=exercise.notebook.parent, env=os.environ | quiet,
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            try:
                process.communicate(work.encode(), timeout=seconds)
            except subprocess.TimeoutExpired:
                return FAILED, f"it took more than {seconds:g} s: an endless loop?"
            finally:
                _stop(process)
        if raised.exists():
            return FAILED, raised.read_text(encoding="utf-8", errors="replace")
        text = _end_of(output)
        if begin:
            text = text.partition(begin)[2]
        printed = VERDICT.findall(text)
    if process.returncode:
        return FAILED, f"it ended Python (code {process.returncode})"
    return printed[-1] if printed else (FAILED, UNCHECKED)


def _end_of(path: Path) -> str:
    """Read the end of what an answer printed, which may be long."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OUTPUT))
        return file.read().decode(errors="replace")


def _stop(process: subprocess.Popen) -> None:
    """End an answer's process, and those that it started itself."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


RUNNER = f"""
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE}, {FILE}))
except (ImportError, ValueError, OSError):
    pass
imports, source, raised, check, begin = json.load(sys.stdin)
book, sys.argv[1:] = sys.argv[1:], []
if check:
    sys.path[:0] = [*book, "."]  # nobody brings checks of their own
else:
    sys.path = [".", *sys.path, *book]
names = {{"__name__": "__main__"}}
write = open
try:
    exec(compile(imports, "the notebook's imports", "exec"), names)
    exec(compile(source, "the exercise", "exec"), names)
    if check:
        print(begin, flush=True)
        exec(compile(check, "the check", "exec"), names)
    sys.stdout.flush()
except BaseException as error:
    with write(raised, "w", encoding="utf-8", errors="replace") as file:
        file.write(f"{{type(error).__name__}}: {{error}}")
"""
"""What the process of an answer does: it gets the code, and where to say its error."""


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])
