"""The sources that end each chapter, against the bibliography of the book."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from pybtex.database import parse_file

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
BIBLIOGRAPHY = parse_file(ROOT / "book" / "references.bib").entries

IDENTIFIERS = {
    "eprint": re.compile(r"arxiv\.org/abs/(\d{4}\.\d{4,5})"),
    "url": re.compile(r"\]\((https?://(?!arxiv\.org)(?:[^()\s]|\([^()\s]*\))+)\)"),
}


def plain(text: str) -> str:
    """Letters and digits alone, without accents: titles as they can be compared."""
    letters = unicodedata.normalize("NFKD", text.lower())
    return re.sub(r"[^a-z0-9]", "", letters)


def field(name: str) -> set[str]:
    return {e.fields[name] for e in BIBLIOGRAPHY.values() if name in e.fields}


KNOWN = {name: field(name) for name in IDENTIFIERS}
TITLES = {plain(title) for title in field("title")}


def sources(path: Path) -> list[str]:
    """The items of the section with a chapter's sources."""
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    found = "\n".join(texts).partition("\n## Sources")[2].partition("\n## ")[0]
    return re.findall(r"^- (.+)", found, re.MULTILINE)


def unlisted(item: str) -> list[str]:
    """What an item names that the bibliography does not have."""
    named = {kind: pattern.findall(item) for kind, pattern in IDENTIFIERS.items()}
    missing = [i for kind, ids in named.items() for i in ids if i not in KNOWN[kind]]
    listed = any(title in plain(item) for title in TITLES)
    return missing if any(named.values()) or listed else [item]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_bibliography_has_what_a_chapter_names(path):
    items = sources(path)
    assert items, "a chapter ends with its sources"
    assert [missing for item in items for missing in unlisted(item)] == []


@pytest.mark.parametrize(
    "item",
    [
        "A. Author, *No such paper at all*, 1999.",
        "A. Author 1999, [A title](https://arxiv.org/abs/9999.99999): on nothing.",
        "A. Author 1999, [A title](https://example.org/paper): on nothing.",
    ],
)
def test_what_is_missing_is_found(item):
    assert len(unlisted(item)) == 1


def test_entries_say_who_what_and_when():
    for key, entry in BIBLIOGRAPHY.items():
        assert entry.persons.get("author"), key
        assert {"title", "year"} <= set(entry.fields), key
    assert len(field("eprint")) == sum(
        "eprint" in e.fields for e in BIBLIOGRAPHY.values()
    )
