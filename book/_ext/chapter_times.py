"""Sphinx extension: how long a chapter takes, as the chapter itself says it.

The line under a chapter's title tells the time for reading and that of the notebook
alone. It is set apart on the chapter's page, and the directive `chapter-map` adds these
times to the table of chapters in it.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

TIMES = re.compile(
    r"^\*Chapter \d\d\. Reading and running: (?:about )?(?P<reading>[^.]+)\. "
    r"The notebook runs in (?:about )?(?P<alone>[^.]+?)(?: on two cores)?\.\*$",
    re.MULTILINE,
)


def times_of(notebook: Path) -> tuple[str, str] | None:
    """Return the times that a chapter's second line gives: for reading, and alone."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = TIMES.search("".join(cells[0]["source"]))
    return (found["reading"], found["alone"]) if found else None


class ChapterMap(SphinxDirective):
    """A table of chapters; each row that leads to one gets its times."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table, with a line more in the last cell of such a row."""
        box = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, box)
        for row in box.findall(nodes.row):
            for link in row.findall(addnodes.pending_xref):
                notebook = Path(self.env.srcdir, link["reftarget"] + ".ipynb")
                self.env.note_dependency(str(notebook))
                row[-1] += self.times(notebook)
        return box.children

    def times(self, notebook: Path) -> list[nodes.Node]:
        """Return a line with a chapter's times, if the chapter tells them."""
        if not (found := times_of(notebook)):
            return []
        reading, alone = found
        said = f"{reading[0].upper()}{reading[1:]}; the notebook alone, {alone}."
        return [nodes.paragraph("", said, classes=["byline"])]


def mark_byline(app, doctree) -> None:
    """Give the line under a chapter's title a class of its own."""
    first = next(doctree.findall(nodes.paragraph), None)
    if first is not None and app.env.docname.startswith("chapters/"):
        first["classes"].append("byline")


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.add_directive("chapter-map", ChapterMap)
    app.connect("doctree-read", mark_byline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
