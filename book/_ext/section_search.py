"""Sphinx extension: search by section.

Each section of each page, and each term of the glossary, goes into one script with its
prose and the words of its code, but without formulas and outputs. The page of the
search alone loads it, and `search.js` ranks them. A script, unlike data, can also be
loaded by a page that was opened as a file.
"""

import builtins
import json
import keyword
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes

NO_TEXT = (
    nodes.math, nodes.math_block, nodes.raw, nodes.image, nodes.title, nodes.comment,
    addnodes.index, addnodes.toctree,
)  # fmt: skip
PROSE = (nodes.paragraph, nodes.term, nodes.entry)
CODE = (nodes.literal_block, addnodes.desc_signature)
PYTHON = {word.lower() for word in (*keyword.kwlist, *dir(builtins))}
COMMON = 8  # a word of code in more than one of 8 sections is left out
Part = type[nodes.Element] | tuple[type[nodes.Element], ...]


class Section(NamedTuple):
    """What the search knows of a section: where it is, its titles, its text."""

    address: str
    page: str
    title: str
    prose: str
    code: str


def words(node: nodes.Node) -> str:
    """Return what a node says; a formula is an ellipsis."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, NO_TEXT):
        return "…" if isinstance(node, nodes.math | nodes.math_block) else ""
    text = "".join(words(child) for child in node.children)
    return f"{text} " if isinstance(node, nodes.paragraph) else text


def blocks(node: nodes.Element, wanted: Part) -> Iterator[str]:
    """Yield the text of a section's prose or code, none of the sections within it."""
    for child in node.children:
        if isinstance(child, (nodes.section, nodes.Text, *NO_TEXT)):
            continue
        if "cell_output" in child.get("classes", []):
            continue
        if isinstance(child, (*PROSE, *CODE)):
            if isinstance(child, wanted):
                yield " ".join(words(child).split())
        else:
            yield from blocks(child, wanted)


def joined(node: nodes.Element, wanted: Part) -> str:
    """Return the text of a section's prose or code on one line."""
    return " ".join(filter(None, blocks(node, wanted)))


def names(code: str, prose: str) -> str:
    """Return the words of some code, each once: they are searched and never shown.

    Words that the prose says as well, those of all Python and single letters find
    nothing more; nor do numbers and their formats, as 2f.
    """
    in_code, in_prose = (
        set(re.findall(r"[^\W_]+", text.lower())) for text in (code, prose)
    )
    found = (word for word in in_code - in_prose - PYTHON if len(word) > 1)
    return " ".join(sorted(w for w in found if not re.fullmatch(r"\d+[a-z]?", w)))


def sections(doctree: nodes.document, uri: str, page: str) -> Iterator[Section]:
    """Yield a page's sections, of which the first is the page itself, and terms."""
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        anchor = "" if section.parent is doctree else f"#{section['ids'][0]}"
        if any(section.findall(addnodes.glossary)):
            yield from terms(section, uri, page)
        prose = joined(section, PROSE)
        yield Section(
            uri + anchor,
            page,
            title.astext() if title else page,
            prose,
            names(joined(section, CODE), prose),
        )


def terms(section: nodes.section, uri: str, page: str) -> Iterator[Section]:
    """Yield the terms of a glossary, each with its meaning."""
    for item in section.findall(nodes.definition_list_item):
        *named, meaning = item.children
        title = ", ".join(term.astext() for term in named)
        text = joined(meaning, PROSE)
        yield Section(f"{uri}#{named[0]['ids'][0]}", page, title, text, "")


def telling(found: list[Section]) -> list[Section]:
    """Leave out words of code that more than one section in eight contains.

    A search for such a word, as torch or plots, would find too much to be of use.
    """
    counted = Counter(word for section in found for word in section.code.split())

    def kept(code: str) -> str:
        words = code.split()
        return " ".join(w for w in words if counted[w] <= len(found) / COMMON)

    return [section._replace(code=kept(section.code)) for section in found]


def write(app, exception) -> None:
    """Write the sections of all pages of the book."""
    if exception or app.builder.name != "html":
        return
    found = []
    for document in sorted(app.env.found_docs):
        uri = app.builder.get_target_uri(document)
        page = app.env.titles[document].astext()
        found += sections(app.env.get_doctree(document), uri, page)
    text = json.dumps(telling(found), ensure_ascii=False, separators=(",", ":"))
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
