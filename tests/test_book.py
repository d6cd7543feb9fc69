"""The extensions that make the book's pages: what they find, and what they leave."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes
from PIL import Image
from pybtex.database import parse_file

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9]*.ipynb"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import alt_texts  # noqa: E402
import api_reference  # noqa: E402
import auto_links  # noqa: E402
import chapter_times  # noqa: E402
from formulas import formulas, to_latex  # noqa: E402
from page_metadata import description  # noqa: E402
from repository import site_url, source_url  # noqa: E402

# Formulas ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("x_t = a x0 + s eps", r"x_t = a\, x_0 + s\, \epsilon"),
        ("sqrt(1 - ab_u) x0_hat", r"\sqrt{1 - \bar\alpha_u}\, \hat x_0"),
        ("a b / c d", r"\frac{a\, b}{c}\, d"),
        ("a / b / c", r"\frac{\frac{a}{b}}{c}"),
        ("(a + b) / (c - d)", r"\frac{a + b}{c - d}"),
        ("(a) (b) / 2", r"\frac{(a)\, (b)}{2}"),
        ("2^-k", "2^{-k}"),
        ("|x - x_hat|^2", r"\lVert x - \hat x\rVert^{2}"),
        ("q(x_u | x_t, x_0)", r"q(x_u \mid x_t,\ x_0)"),
        ("scale (cond - x)", r"\mathrm{scale}\, (\mathrm{cond} - x)"),
        ("prod_{i=1..t} alpha_i", r"\prod_{i = 1\dots t}\, \alpha_i"),
        ("beta-tilde < 1,000", r"\tilde\beta < 1{,}000"),
        ("(a - 1) (1 - a / b)", r"(a - 1)\, \left(1 - \frac{a}{b}\right)"),
        ("sin(f w) / sin(w)", r"\frac{\sin(f\, w)}{\sin(w)}"),
    ],
)  # fmt: skip
def test_formula_becomes_latex(text, latex):
    assert to_latex(text) == latex


@pytest.mark.parametrize(
    "text", ["x_t =", "the mean", "(a + b", "a ) b", "x[0] = 1", ""]
)
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ValueError):
        to_latex(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Noise them: x_t = a x0 + s eps. Chapter 05.", ["x_t = a x0 + s eps"]),
        ("Raises it for t = 0 or t > T, and", ["t = 0", "t > T"]),
        ("with one mix ~ U(0, 1) a sample", ["mix ~ U(0, 1)"]),
        ("section 4 (T = 1000), and", ["T = 1000"]),
        ("`x`: (b, c, h, w) -> the same, a KL term of scale 2.", []),
        ("steps t -> u < t", ["u < t"]),
    ],
)
def test_formulas_are_found_in_prose(text, found):
    assert [text[start:stop] for start, stop, _ in formulas(text)] == found


# The reference ----------------------------------------------------------------------


def test_reference_takes_what_is_public_and_documented():
    source = '''
KINDS = {}
"""What there is."""

other = 1

def f(x: int = 1, *, y=None) -> str:
    """Do it. Chapter 05."""

def _hidden():
    """Not shown."""

def undocumented(): ...

class C:
    """A class."""

    @property
    def size(self) -> int:
        """How many."""

    def grow(self, by: int):
        """Grow."""
'''
    found = list(
        api_reference.public_members(api_reference.ast.parse(source).body, "m")
    )
    shown = [(m.name, m.kind, m.signature) for m in api_reference.flattened(found)]
    assert shown == [
        ("m.KINDS", "data", ""),
        ("m.f", "function", "(x: int=1, *, y=None) -> str"),
        ("m.C", "class", ""),
        ("m.C.size", "function", ""),
        ("m.C.grow", "function", "(by: int)"),
    ]


def test_reference_has_every_module_of_the_table():
    modules = api_reference.all_modules()
    files = {p for name in modules for p in api_reference.files_of(ROOT, name)}
    package = ROOT / api_reference.PACKAGE
    wanted = {p for p in package.rglob("*.py") if not p.name.startswith("__main__")}
    assert files == wanted - {package / "__init__.py"}


@pytest.mark.parametrize(
    ("docstring", "chapters"),
    [
        ("Do it. Chapter 05.", "05"),
        ("Do it, Ho et al. 2020. Chapters\n02, 04 and\n11.", "02, 04 and\n11"),
        ("Do it as chapter 05 says.", None),
    ],
)
def test_reference_finds_the_chapters_that_explain(docstring, chapters):
    found = api_reference.CHAPTERS.search(docstring)
    assert (found and found[1]) == chapters


def application(url: str, base: str = "") -> SimpleNamespace:
    theme = {"repository_url": url, "repository_branch": "main"}
    return SimpleNamespace(
        config=SimpleNamespace(html_theme_options=theme, html_baseurl=base)
    )


@pytest.mark.parametrize(
    ("url", "base", "site"),
    [
        ("", "", ""),
        ("https://github.com/Some/book", "", "https://some.github.io/book/"),
        ("https://github.com/Some/book.git", "", "https://some.github.io/book/"),
        ("https://github.com/some/Some.github.io", "", "https://some.github.io/"),
        ("https://example.org/some/book", "", ""),
        ("", "https://example.org/book", "https://example.org/book/"),
    ],
)
def test_address_of_the_site_follows_from_the_repository(url, base, site):
    assert site_url(application(url, base)) == site


def test_source_is_linked_where_there_is_a_repository():
    assert source_url(application(""), "ddpm_core/vae.py", 3) == ""
    url = source_url(application("https://github.com/some/book"), "ddpm_core/vae.py", 3)
    assert url == "https://github.com/some/book/blob/main/ddpm_core/vae.py#L3"


# Figures ----------------------------------------------------------------------------


def test_captions_are_marked_and_can_be_linked():
    caption = nodes.paragraph("", "", nodes.strong("", "Figure 5.2."), nodes.Text(" A"))
    others = [
        nodes.paragraph("", "Figure 5.2. shows it"),
        nodes.paragraph("", "", nodes.strong("", "Figure it out.")),
        nodes.paragraph(),
    ]
    alt_texts.mark_captions(None, nodes.section("", caption, *others))
    assert caption["classes"] == ["figure-caption"]
    assert caption["ids"] == ["figure-5.2"]
    assert not any(other["classes"] or other["ids"] for other in others)


# Links that a text implies ----------------------------------------------------------

BIBLIOGRAPHY = parse_file(ROOT / "book" / "references.bib").entries


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("as Ho et al. (2020) do", ["ho2020ddpm"]),
        ("by Ho and Salimans 2022, eq. (6)", ["ho2022guidance"]),
        ("Theis, van den Oord and Bethge 2016", ["theis2016note"]),
        ("Kynkäänniemi et al. 2019", ["kynkaanniemi2019precision"]),
        ("Kynkaanniemi et al. 2019", ["kynkaanniemi2019precision"]),
        ("Song and Ermon 2019", ["song2019score"]),
        ("Song et al. 2021", ["song2021ddim", "song2021sde"]),
        ("Ho and Nobody 2022", []),
        ("Nobody 2020", []),
    ],
)
def test_authors_and_year_name_an_entry(text, keys):
    match = auto_links.CITATION.search(text)
    assert auto_links.cited(match, BIBLIOGRAPHY) == keys


def test_links_keep_to_prose():
    words = [
        nodes.title("", "chapter 05"),
        nodes.paragraph("", "", nodes.literal("", "chapter 05")),
        nodes.paragraph("", "", nodes.reference("", "chapter 05", refuri="x")),
        nodes.paragraph("", "In chapter 05, and in chapters 06 and 99."),
    ]
    document = nodes.section("", *words)
    pages = {"chapters/05_forward", "chapters/06_unet"}
    app = SimpleNamespace(
        env=SimpleNamespace(found_docs=pages),
        builder=SimpleNamespace(get_relative_uri=lambda start, to: to),
    )
    before = document.astext()
    auto_links.link_chapters(app, document, "book/intro")
    assert document.astext() == before
    links = [(r.astext(), r["refuri"]) for r in document[3].findall(nodes.reference)]
    assert links == [("chapter 05", "chapters/05_forward"), ("06", "chapters/06_unet")]
    assert len(list(document.findall(nodes.reference))) == 3


def test_glossary_names_chapters_that_there_are_or_will_be():
    text = (ROOT / "book" / "glossary.md").read_text()
    terms = re.findall(r"^(\S.*)\n  ", text.partition("{glossary}")[2], re.MULTILINE)
    assert len(terms) > 60
    assert sorted(terms, key=str.lower) == sorted(set(terms), key=str.lower)
    assert set(re.findall(r"\b\d\d\b", text)) <= {f"{n:02}" for n in range(1, 15)}


# Times and metadata -----------------------------------------------------------------


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_second_line_of_a_chapter_tells_its_times(path):
    assert chapter_times.times_of(path) is not None


def test_times_are_read_from_the_line(tmp_path):
    said = "# Title\n\n*Chapter 07. Reading and running: about an hour. The notebook runs in about two minutes on two cores.*\n"  # noqa: E501
    notebook = tmp_path / "07.ipynb"
    notebook.write_text(json.dumps({"cells": [{"source": [said]}]}))
    assert chapter_times.times_of(notebook) == ("an hour", "two minutes")
    notebook.write_text(json.dumps({"cells": [{"source": ["# Title"]}]}))
    assert chapter_times.times_of(notebook) is None


def test_description_is_the_first_prose():
    document = nodes.section(
        "",
        nodes.paragraph("", "", nodes.emphasis("", "Chapter 05. About an hour." * 4)),
        nodes.paragraph("", "Short."),
        nodes.paragraph("", "word " * 60),
    )
    said = description(document, "the book")
    assert said.startswith("word word") and said.endswith("…") and len(said) <= 160
    assert description(None, "the book") == "the book"


# What the project's own model drew --------------------------------------------------


def test_pictures_have_the_sizes_that_their_readers_expect():
    static = ROOT / "book" / "_static"
    with Image.open(static / "out-of-noise.webp") as film:
        assert film.n_frames >= 20 and film.info["loop"] == 1
    assert (static / "out-of-noise.webp").stat().st_size < 500_000
    assert Image.open(static / "favicon.png").size == (32, 32)
    assert Image.open(static / "social-card.png").size == (1200, 630)


# Workflows --------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")))
def test_workflow_runs_what_the_makefile_has_and_needs_no_secret(path):
    text = path.read_text()
    steps = [s for job in yaml.safe_load(text)["jobs"].values() for s in job["steps"]]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = [t for s in steps for t in re.findall(r"^make (\w+)", s.get("run", ""))]
    assert made and set(made) <= targets
    assert all(
        re.match(r"actions/[\w-]+@[0-9a-f]{40}$", s["uses"])  # by commit, not by tag
        for s in steps
        if "uses" in s
    )
    assert "secrets." not in text
