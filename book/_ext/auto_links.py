"""Sphinx extension: links that the plain text of a page implies.

Chapters are plain Markdown, so that they read well everywhere. On the built page,
'chapter 05' leads to that chapter, 'Ho et al. (2020)' to the bibliography, and the
first mention of a term to the glossary, whose words appear beside it (`book.js`).
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from pybtex.database import Entry
from sphinx import addnodes

GLOSSARY, BIBLIOGRAPHY = "book/glossary", "book/bibliography"
CHAPTERS = re.compile(r"\b[Cc]hapters? \d\d(?:(?:,| and| to) \d\d)*\b")
ONE_CHAPTER = re.compile(r"(?:[Cc]hapter )?\d\d")
NAME = r"(?:[Vv]an (?:den )?)?[A-Z][\w’'-]+"
CITATION = re.compile(
    rf"\b({NAME})((?:, {NAME})*)(,? and {NAME}| et al\.)?,? "
    r"\(?((?:19|20)\d\d)\b(?:(?<=\(\d{4})\))?"  # with its bracket, if it has a pair
)
EVERYDAY = {"generator", "inversion", "precision", "recall", "score"}
"""Terms that are also plain words: linked only where the glossary says they belong."""
NO_PROSE = (
    nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.math,
    nodes.math_block, nodes.raw, nodes.term, nodes.citation, addnodes.toctree,
)  # fmt: skip


def within(node: nodes.Node | None, such: Callable[[nodes.Node], bool]) -> bool:
    """Whether a node, or one that it lies in, is such."""
    while node is not None and not such(node):
        node = node.parent
    return node is not None


def prose(doctree: nodes.Node) -> list[nodes.Text]:
    """Return the pieces of text that are no heading, code, formula or link."""
    texts = doctree.findall(nodes.Text)
    return [t for t in texts if not within(t.parent, lambda n: isinstance(n, NO_PROSE))]


def replace(texts: list[nodes.Text], pattern: re.Pattern, link: Callable) -> None:
    """Put what `link` makes of each match in its place, where it makes something."""
    for text in texts:
        said, parts, end = text.astext(), [], 0
        for match in pattern.finditer(said):
            made = link(match)
            if made is not None:
                parts += [nodes.Text(said[end : match.start()]), *made]
                end = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(said[end:])])


def linked(text: str, uri: str) -> nodes.reference:
    """Return a link within the book."""
    return nodes.reference("", text, internal=True, refuri=uri)


# Chapters ---------------------------------------------------------------------------


def link_chapters(app, doctree, docname: str) -> None:
    """Let each number of a chapter that is in the book lead there."""
    start = "chapters/"
    pages = {d.removeprefix(start)[:2]: d for d in app.env.found_docs if start in d}
    builder = app.builder

    def parts(match: re.Match) -> Iterator[nodes.Node]:
        end = 0
        for one in ONE_CHAPTER.finditer(match[0]):
            yield nodes.Text(match[0][end : one.start()])
            page = pages.get(one[0][-2:])
            if page in (None, docname):
                yield nodes.Text(one[0])
            else:
                yield linked(one[0], builder.get_relative_uri(docname, page))
            end = one.end()

    replace(prose(doctree), CHAPTERS, lambda match: list(parts(match)))


# Citations --------------------------------------------------------------------------


def plain(name: str) -> str:
    """Return a name without accents, also those of LaTeX, in lower case."""
    name = re.sub(r"[{}]|\\\W", "", name.lower().replace("’", "'"))
    letters = unicodedata.normalize("NFKD", name)
    return "".join(c for c in letters if not unicodedata.combining(c))


def cited(match: re.Match, entries: dict[str, Entry]) -> list[str]:
    """Return the keys of the entries whose authors and year a text names.

    Without an 'et al.' the text names all of them.
    """

    def fits(entry: Entry) -> bool:
        persons = entry.persons["author"]
        authors = [plain(" ".join(p.prelast_names + p.last_names)) for p in persons]
        named = set(names) <= set(authors) if "et al." in match[0] else names == authors
        return authors[0] == names[0] and named

    first, *others, year = match.groups(default="")
    names = [plain(first), *map(plain, re.findall(NAME, "".join(others)))]
    of_year = {k: e for k, e in entries.items() if e.fields["year"] == year}
    return [key for key, entry in of_year.items() if fits(entry)]


def link_citations(app, doctree, docname: str) -> None:
    """Let authors and year lead to the one entry of the bibliography that has them."""
    if docname == BIBLIOGRAPHY:
        return
    cite = app.env.get_domain("cite")
    entries = cite.bibdata.data.entries
    anchors = {c.key: c.citation_id for c in cite.citations}
    page = app.builder.get_relative_uri(docname, BIBLIOGRAPHY)

    def link(match: re.Match) -> list[nodes.Node] | None:
        found = cited(match, entries)
        if len(found) == 1 and found[0] in anchors:
            return [linked(match[0], f"{page}#{anchors[found[0]]}")]

    replace(prose(doctree), CITATION, link)


# Terms ------------------------------------------------------------------------------


class Term(NamedTuple):
    """An entry of the glossary: what it is called, its anchor, what it means."""

    names: list[str]
    anchor: str
    meaning: str


def glossary(app) -> list[Term]:
    """Return the entries of the glossary's page."""
    items = app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item)
    return [
        Term(
            [name.astext() for name in names],
            names[0]["ids"][0],
            " ".join(meaning.astext().split()),
        )
        for *names, meaning in (item.children for item in items)
    ]


def link_terms(app, doctree, docname: str) -> None:
    """Let a chapter's first mention of each term lead to the glossary."""
    if not docname.startswith("chapters/"):
        return
    number = docname.removeprefix("chapters/")[:2]
    page = app.builder.get_relative_uri(docname, GLOSSARY)
    wanted = {name: term for term in glossary(app) for name in term.names}
    seen = set()

    def link(match: re.Match) -> list[nodes.Node] | None:
        said = match[1]
        name = said if said in wanted else said[0].lower() + said[1:]
        term = wanted.get(name)
        if term is None or term.anchor in seen:
            return None
        if name in EVERYDAY and number not in re.findall(r"\d\d", term.meaning):
            return None
        seen.add(term.anchor)
        return [nodes.raw("", marked(match[0], term, page), format="html")]

    longest_first = sorted(map(re.escape, wanted), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])({'|'.join(longest_first)})s?(?![\w-])", re.I)
    texts = prose(doctree)
    texts = [t for t in texts if not within(t.parent, lambda n: "sources" in n["ids"])]
    replace(texts, pattern, link)


def marked(text: str, term: Term, page: str) -> str:
    """Return a term as the HTML of a link that carries its meaning."""
    uri, meaning = escape(f"{page}#{term.anchor}"), escape(term.meaning)
    return f'<a class="term" href="{uri}" data-meaning="{meaning}">{escape(text)}</a>'


# All of them ------------------------------------------------------------------------


def bibliography(app) -> Path:
    """Return the file of the bibliography."""
    return Path(app.srcdir) / app.config.bibtex_bibfiles[0]


def note_dependencies(app, doctree) -> None:
    """Write a page anew when the glossary or the bibliography has changed."""
    app.env.note_dependency(str(bibliography(app)))
    app.env.note_dependency(app.env.doc2path(GLOSSARY))


def all_pages(app, env, added, changed, removed) -> set[str]:
    """Write all pages anew when there are more or fewer of them to lead to."""
    return env.found_docs if added or removed else set()


def add_links(app, doctree, docname: str) -> None:
    """Add all links to a page; the first that takes a piece of text keeps it."""
    for link in (link_chapters, link_citations, link_terms):
        link(app, doctree, docname)


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("doctree-read", note_dependencies)
    app.connect("env-get-outdated", all_pages)
    app.connect("doctree-resolved", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
