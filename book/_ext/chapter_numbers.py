"""Sphinx extension: chapters have their number wherever they are listed.

The text says 'chapter 05'; so do the table of contents, the search, and the links to
the chapters before and after.
"""

import re

from docutils import nodes

CHAPTER = re.compile(r"chapters/(\d\d)_")


def number(app, doctree) -> None:
    """Put a chapter's number, as its file's name has it, before its listed titles."""
    page = app.env.docname
    if not (chapter := CHAPTER.match(page)):
        return
    listed = next(app.env.tocs[page].findall(nodes.reference))
    for title in (app.env.titles[page], listed):
        title.insert(0, nodes.Text(f"{chapter[1]} "))


def setup(app) -> dict:
    """Register the extension with Sphinx; the titles must have been collected."""
    app.connect("doctree-read", number, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
