"""Sphinx extension: how long a chapter takes, as the chapter itself says it.

The line under a chapter's title tells the time for reading and that of the notebook
alone. It is set apart on the chapter's page, and the directive `chapter-map` gives the
table of chapters in it a column with these times.
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


def cell(text: str) -> nodes.entry:
    """Return a cell of a table."""
    return nodes.entry("", nodes.paragraph("", text))


class ChapterMap(SphinxDirective):
    """A table of chapters, whose links tell which chapter's times go into a row."""

    has_content = True
    heading = "reading, running"

    def run(self) -> list[nodes.Node]:
        """Return the table with one column more."""
        box = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, box)
        for group in box.findall(nodes.tgroup):
            group["cols"] += 1
            columns = [c for c in group if isinstance(c, nodes.colspec)]
            group.insert(len(columns), nodes.colspec(colwidth=20))
            for row in group.findall(nodes.row):
                head = isinstance(row.parent, nodes.thead)
                row += cell(self.heading if head else self.times(row))
        return box.children

    def times(self, row: nodes.row) -> str:
        """Return the times of the chapter to which a row leads, '' without one."""
        links = [xref["reftarget"] for xref in row.findall(addnodes.pending_xref)]
        if not links:
            return ""
        notebook = Path(self.env.srcdir, links[0] + ".ipynb")
        self.env.note_dependency(str(notebook))
        return "; ".join(times_of(notebook) or ())


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
