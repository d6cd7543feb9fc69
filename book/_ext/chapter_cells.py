"""Sphinx extension: a page shows cells of the chapters instead of copies of them.

The directive `chapter-cell` takes the start of a notebook's name, and in its body what
the cell begins with. It shows the cell's code, with a link to its chapter, and its
stored picture; the option `folded` hides the code at first. A cell that is no longer
there stops the build.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import ClassVar, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class Cell(NamedTuple):
    """A cell of a notebook: where it is, its code, its picture and what that shows."""

    notebook: Path
    source: str
    picture: bytes | None
    alt: str


def find_cell(root: Path, chapter: str, first: str) -> Cell:
    """Return the one cell of a chapter that begins with these words.

    Raises ValueError unless there is exactly one.
    """
    (notebook,) = (root / "chapters").glob(f"{chapter}*.ipynb")
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    found = [cell for cell in code if "".join(cell["source"]).startswith(first)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} cells of {notebook.name} begin with {first!r}: one must"
        )
    (cell,) = found
    images = (output.get("data", {}).get("image/png") for output in cell["outputs"])
    image = next(filter(None, images), None)
    alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
    picture = base64.b64decode("".join(image)) if image else None
    return Cell(notebook, "".join(cell["source"]), picture, alt)


class ChapterCell(SphinxDirective):
    """The code of a chapter's cell, and its picture."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"folded": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the code, the line that says where it is from, and the picture."""
        root = Path(self.env.srcdir)
        try:
            cell = find_cell(root, self.arguments[0], self.content[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(str(cell.notebook))
        code = nodes.literal_block(cell.source, cell.source, language="python")
        origin = nodes.paragraph("", f"From chapter {cell.notebook.name[:2]}.")
        origin["classes"].append("from-chapter")
        shown = [code, origin]
        if "folded" in self.options:
            summary = f"<summary>{self.options['folded']}</summary>"
            begin = nodes.raw("", f"<details>{summary}", format="html")
            shown = [begin, *shown, nodes.raw("", "</details>", format="html")]
        return shown + self.picture(cell)

    def picture(self, cell: Cell) -> list[nodes.Node]:
        """Return a cell's picture, written beside the pages that are read."""
        if not cell.picture:
            return []
        name = hashlib.sha256(cell.picture).hexdigest()[:16] + ".png"
        folder = Path(self.env.app.doctreedir).parent / "jupyter_execute" / "cells"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(cell.picture)
        place = Path("/", folder.relative_to(self.env.srcdir), name).as_posix()
        _, absolute = self.env.relfn2path(place)
        self.env.note_dependency(absolute)
        return [nodes.image(uri=place, alt=cell.alt, classes=["from-cell"])]


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.add_directive("chapter-cell", ChapterCell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
