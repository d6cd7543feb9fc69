"""Sphinx extension: how long a chapter takes, as the chapter itself says it.

The line under a chapter's title tells the time for reading and that of the notebook
alone. It is set apart on the chapter's page, and the directive `chapter-map` adds these
times to the table of chapters in it.
"""

import json
import re
from pathlib import Path

from chapter_heads import make_head
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

TIMES = re.compile(
    r"^\*Chapter \d\d\. Reading and running: (?:about )?(?P<reading>[^.]+)\. "
    r"The notebook runs in (?:about )?(?P<alone>[^.]+?)(?: on two cores)?\.\*$",
    re.MULTILINE,
)


LINK = addnodes.pending_xref


def times_of(notebook: Path) -> tuple[str, str] | None:
    """Return the times that a chapter's second line gives: for reading, and alone."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = TIMES.search("".join(cells[0]["source"]))
    return (found["reading"], found["alone"]) if found else None


class ChapterMap(SphinxDirective):
    """Chapters as cards, from a table of their numbers, titles and questions."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a list with an item for each row that leads to a chapter."""
        box = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, box)
        rows = [row for row in box.findall(nodes.row) if row.next_node(LINK)]
        cards = [self.card(row) for row in rows]
        return [nodes.bullet_list("", *cards, classes=["chapter-map"])]

    def card(self, row: nodes.row) -> nodes.list_item:
        """Return a row as an item: picture, number and title, question, times."""
        number, link, question = row.children
        title = nodes.paragraph(classes=["title"])
        title += nodes.inline("", number.astext(), classes=["number"])
        title += [nodes.Text(" "), *link[0].children]
        notebook = Path(self.env.srcdir, row.next_node(LINK)["reftarget"] + ".ipynb")
        self.env.note_dependency(str(notebook))
        head = make_head(self.env.app, notebook)
        picture = head.html(self.env.app, self.env.docname, alt="")
        return nodes.list_item(
            "", nodes.raw("", picture, format="html"), title,
            *question.children, *self.times(notebook),
        )  # fmt: skip

    def times(self, notebook: Path) -> list[nodes.Node]:
        """Return a line with a chapter's times, if the chapter tells them."""
        if not (found := times_of(notebook)):
            return []
        reading, alone = found
        line = f"{reading[0].upper()}{reading[1:]}; the notebook alone, {alone}."
        return [nodes.paragraph("", line, classes=["byline"])]


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
