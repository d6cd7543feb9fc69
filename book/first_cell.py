"""Write into every chapter what all have in common: its first code cell.

    python book/first_cell.py

The cell brings the book to a machine that has only Python and PyTorch, such as Colab,
and does nothing where the library is installed. It holds the address of the repository,
which `book/address.py` finds and writes to _config.yml. Cells with a solution get what
folds them, on the page and in every program that shows notebooks.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGURED = re.compile(r'^(repository: \{url: )"([^"]*)"', re.MULTILINE)

FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # Colab; JupyterLab
SOLUTION = FOLDED | {
    "mystnb": {"code_prompt_hide": "Solution", "code_prompt_show": "Solution"},
    "tags": ["hide-cell", "solution"],
}
FIRST = FOLDED | {"tags": ["remove-cell", "setup", "skip-execution"]}

SOURCE = """\
# @title In Colab, run this first. Where the book is installed it does nothing.
import os
import subprocess
import sys
from importlib.util import find_spec

REPOSITORY = "ADDRESS"  # @param {type: "string"}


def run(what, *command):
    sorry = f"The book is not installed: {what} failed: "
    env = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    quiet = {"env": env, "capture_output": True, "text": True}
    try:
        done = subprocess.run(command, errors="replace", **quiet)
    except OSError as error:
        raise SystemExit(f"{sorry}{error}") from None
    if done.returncode:
        lines = done.stderr.splitlines() + [f"code {done.returncode}"]
        telling = ("fatal", "error", "ERROR", "code")
        found = [line for line in lines if line.startswith(telling)]
        raise SystemExit(sorry + found[0])


if not find_spec("ddpm_core"):
    if not REPOSITORY:
        raise SystemExit(
            "Fill in REPOSITORY above, the address from which git clones this "
            "book (https://github.com/OWNER/NAME), and run this cell again."
        )
    if not os.path.exists("ddpm-cars/pyproject.toml"):
        clone = ["git", "clone", "-q", "--depth", "1"]
        run("git", *clone, REPOSITORY, "ddpm-cars")
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    run("pip", *pip, "-e", "ddpm-cars[plots]")
    sys.path.insert(0, os.path.abspath("ddpm-cars"))
if os.path.isdir("ddpm-cars"):
    %cd -q ddpm-cars/chapters"""


def address(root: Path = ROOT) -> str:
    """Return the public address of the repository; '' while it has none.

    Raises ValueError for a _config.yml without a line for it.
    """
    config = (root / "_config.yml").read_text(encoding="utf-8")
    if not (found := CONFIGURED.search(config)):
        raise ValueError('_config.yml has no line that begins: repository: {url: ""')
    return found[2]


def first_cell(repository: str) -> dict:
    """Return the cell, which fetches the book from `repository`."""
    source = SOURCE.replace("ADDRESS", repository)
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "setup",
        "metadata": FIRST,
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


def tags(cell: dict) -> list[str]:
    """Return the tags of a cell."""
    return cell["metadata"].get("tags", [])


def is_first(cell: dict) -> bool:
    """Tell whether this is a cell that `first_cell` made."""
    return "setup" in tags(cell)


def folded(cell: dict) -> dict:
    """Return the cell, folded if it holds a solution."""
    return cell | {"metadata": SOLUTION} if "solution" in tags(cell) else cell


def with_first_cell(notebook: dict, repository: str) -> dict:
    """Return the notebook with the cell before its other code, solutions folded."""
    cells = [folded(cell) for cell in notebook["cells"] if not is_first(cell)]
    kinds = [cell["cell_type"] for cell in cells]
    cells.insert(kinds.index("code"), first_cell(repository))
    return notebook | {"cells": cells}


def main(root: Path = ROOT) -> None:
    """Write all chapters anew."""
    for path in sorted((root / "chapters").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(
            with_first_cell(notebook, address(root)), indent=1, ensure_ascii=False
        )
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
