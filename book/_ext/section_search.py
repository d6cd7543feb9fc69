"""Sphinx extension: search by section.

Each section of each page, with its prose and its code but without formulas and outputs,
goes into one script, which the page of the search alone loads; `search.js` ranks them.
A script, unlike data, can also be loaded by a page that was opened as a file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes

NO_TEXT = (
    nodes.math, nodes.math_block, nodes.raw, nodes.image, nodes.title, nodes.comment,
    addnodes.index, addnodes.toctree,
)  # fmt: skip
BLOCKS = (
    nodes.paragraph, nodes.literal_block, nodes.term, nodes.entry,
    addnodes.desc_signature,
)  # fmt: skip


class Section(NamedTuple):
    """What the search knows of a section: where it is, its titles, its text."""

    address: str
    page: str
    title: str
    text: str


def words(node: nodes.Node) -> str:
    """Return what a node says, without formulas and what is inside it but hidden."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, NO_TEXT):
        return "…" if isinstance(node, nodes.math | nodes.math_block) else ""
    return "".join(words(child) for child in node.children)


def blocks(node: nodes.Element) -> Iterator[str]:
    """Yield the pieces of text of a section, none of the sections within it."""
    for child in node.children:
        if isinstance(child, (nodes.section, nodes.Text, *NO_TEXT)):
            continue
        if "cell_output" in child.get("classes", []):
            continue
        if isinstance(child, BLOCKS):
            yield " ".join(words(child).split())
        else:
            yield from blocks(child)


def sections(doctree: nodes.document, uri: str, page: str) -> Iterator[Section]:
    """Yield the sections of a page; the first one is the page itself."""
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        anchor = "" if section.parent is doctree else f"#{section['ids'][0]}"
        text = " ".join(filter(None, blocks(section)))
        yield Section(uri + anchor, page, title.astext() if title else page, text)


def write(app, exception) -> None:
    """Write the sections of all pages of the book."""
    if exception or app.builder.name != "html":
        return
    found = []
    for document in sorted(app.env.found_docs):
        uri = app.builder.get_target_uri(document)
        page = app.env.titles[document].astext()
        found += sections(app.env.get_doctree(document), uri, page)
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    path = Path(app.outdir, "_static", "sections.js")
    path.write_text(f"const SECTIONS = {text};\n", encoding="utf-8")


def add_scripts(app, pagename, templatename, context, doctree) -> None:
    """Let the page of the search load what it needs."""
    if pagename == "search":
        app.add_js_file("sections.js")
        app.add_js_file("search.js")


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
