"""The book's prose keeps out words that a native technical editor would replace."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"shall": "should, must",
    r"whoever": "anyone who, if you",
    r"whosoever|wherefore|thereof|hitherto": "plain words",
    r"hold (it |them )?(against|to a)": "check against, compare with",
    r"holds? an? \w+ to laws": "tests properties of",
    r"laws? (holds?|does not hold)": "property, identity",
    r"in brackets stands?": "normal order: the values are in brackets",
    r"as a yardstick serves?": "our yardstick is",
    r"on the (left|right) stands?": "normal order",
    r"a rest": "a remainder",
    r"a share of": "a fraction of",
    r"a trace remains": "some of it remains",
    r"hangs? on": "depends on",
    r"of the walk": "of the sampling path",
    r"times? t (stands?|goes)": "timestep",
    r"is to vouch": "test under the conditions of use",
    r"knows? to (draw|tell|say)": "can",
    r"it is (this|that|these) (that|which)": "name the subject first",
}
"""Patterns of words, and what to write."""


def texts() -> list:
    """Pages, the chapters' prose, docstrings, and what checks answer."""
    pages = [*ROOT.glob("book/*.md"), ROOT / "README.md"]
    found = [(page, page.read_text(encoding="utf-8")) for page in pages]
    for path in ROOT.glob("chapters/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        found.append((path, "\n".join(prose)))
    for path in [*ROOT.glob("ddpm_core/**/*.py"), *ROOT.glob("chapters/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
        found.append((path, "\n".join(s for s in strings if isinstance(s, str))))
    return [pytest.param(text, id=str(path.relative_to(ROOT))) for path, text in found]


def unedited(text: str) -> list[str]:
    """The patterns' finds, each with what to write instead."""
    prose = " ".join(re.sub(r"`[^`]*`", "", text).split())
    return [
        f"{found.group()!r}: {better}"
        for pattern, better in INSTEAD.items()
        for found in re.finditer(rf"\b({pattern})\b", prose, re.IGNORECASE)
    ]


@pytest.mark.parametrize("text", texts())
def test_prose_keeps_listed_words_out(text):
    assert unedited(text) == []


def test_listed_words_are_found_across_lines_and_not_in_code():
    assert unedited("Whoever reads\nthis, shall\nmend `shall`.") == [
        "'mend': fix",
        "'shall': should, must",
        "'Whoever': anyone who, if you",
    ]
