"""Make the chapters as a course hands them out: without solutions and answers.

    python book/handout.py

The notebooks go to _build/handout/chapters, with the checks that the exercises need.
They keep their figures, their hints and their folded derivations.
"""

import json
import re
import shutil
from pathlib import Path

from first_cell import ROOT, tags

TARGET = ROOT / "_build" / "handout" / "chapters"
ANSWER = re.compile(
    r"\n*<details>\s*<summary>Answer</summary>.*?</details>\n*", re.DOTALL
)
PLACE = "\n\n*Your answer:*\n\n"


def without_answers(notebook: dict) -> dict:
    """Return the notebook without the cells of solutions and the folded answers."""
    kept = []
    for cell in notebook["cells"]:
        if "solution" in tags(cell):
            continue
        if cell["cell_type"] == "markdown":
            text = ANSWER.sub(PLACE, "".join(cell["source"])).rstrip("\n")
            cell = cell | {"source": text.splitlines(keepends=True)}
        kept.append(cell)
    return notebook | {"cells": kept}


def main(source: Path = ROOT / "chapters", target: Path = TARGET) -> None:
    """Write the handout anew."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "checks", target / "checks", ignore=ignored)
    for module in source.glob("*.py"):
        shutil.copy(module, target)
    for path in sorted(source.glob("*.ipynb")):
        notebook = without_answers(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (target / path.name).write_text(text, encoding="utf-8")
    print(f"The notebooks without solutions: {target}")


if __name__ == "__main__":
    main()
