"""Sphinx extension: what a page shows of a notebook's cells.

A cell that only draws shows its picture, and its code when it is asked for; an exercise
shows no check that nobody has attempted; a solution no title for Colab. The notebooks
stay as they are.
"""

import ast
import json
import re

DRAWS = re.compile(r"^(plots\.show|widgets\.\w+)\(", re.MULTILINE)
TITLE = re.compile(r"^# @title .*\n")
SHORT = 4  # lines of a cell that is not worth folding


def names(code: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell binds, and those that it takes from other cells.

    Raises SyntaxError for what is not plain Python, such as a magic.
    """
    bound, taken = set(), set()
    for statement in ast.parse(code).body:
        here, used = set(), set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else here).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                here.add(node.name)
            elif isinstance(node, ast.arg):
                here.add(node.arg)
        own = (
            here
            if isinstance(statement, ast.For | ast.FunctionDef)
            else _inner(statement)
        )
        taken |= used - bound - own
        bound |= here
    return bound, taken


def _inner(statement: ast.stmt) -> set[str]:
    """Return the names that comprehensions and lambdas of a statement bind."""
    inner = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.comprehension):
            inner |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.arg):
            inner.add(node.arg)
    return inner


def drawing_cells(sources: list[str]) -> list[bool]:
    """Tell which cells only draw: nothing but other such cells uses what they bind.

    A name counts as used up to the next cell that binds it anew.
    """
    found = []
    for code in sources:
        try:
            found.append(names(code))
        except SyntaxError:
            found.append((set(), set()))
    draws = [bool(DRAWS.search(code)) for code in sources]
    for i in reversed(range(len(sources))):
        left = found[i][0] if draws[i] else set()
        for (bound, used), drawing in zip(found[i + 1 :], draws[i + 1 :], strict=True):
            if used & left and not drawing:
                draws[i] = False
            left = left - bound
    return draws


def arrange(cells: list[dict]) -> None:
    """Change the cells of a notebook into what its page shows."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    for cell, source, draws in zip(code, sources, drawing_cells(sources), strict=True):
        tags = cell["metadata"].setdefault("tags", [])
        hidden = any(tag.startswith(("hide-", "remove-")) for tag in tags)
        if draws and not hidden and source.count("\n") >= SHORT:
            tags.append("hide-input")
        if "exercise" in tags:
            cell["outputs"] = []
        cell["source"] = TITLE.sub("", source)


def read(app, docname: str, source: list[str]) -> None:
    """Arrange the cells of a chapter before it is parsed."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    arrange(notebook["cells"])
    source[0] = json.dumps(notebook)


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
