"""The extensions that make the book's pages: what they find, and what they leave."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from docutils import nodes
from PIL import Image
from pybtex.database import parse_file
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "chapters").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import alt_texts  # noqa: E402
import api_reference  # noqa: E402
import auto_links  # noqa: E402
import chapter_cells  # noqa: E402
import chapter_heads  # noqa: E402
import chapter_times  # noqa: E402
import dark_figures  # noqa: E402
import icons  # noqa: E402
import light_pages  # noqa: E402
import page_cells  # noqa: E402
import section_search  # noqa: E402
from page_metadata import description  # noqa: E402
from repository import site_url, source_url  # noqa: E402

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
    assert source_url(application(""), "ddpm_core/neighbours/vae.py", 3) == ""
    url = source_url(
        application("https://github.com/some/book"), "ddpm_core/neighbours/vae.py", 3
    )
    assert (
        url == "https://github.com/some/book/blob/main/ddpm_core/neighbours/vae.py#L3"
    )


# Figures ----------------------------------------------------------------------------


def test_captions_are_marked_and_can_be_linked():
    label = nodes.strong("", "Figure 5.2.")
    caption = nodes.paragraph("", "", nodes.Text(""), label, nodes.Text(" A"))
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


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("as Ho et al. (2020) do", "Ho et al. (2020)"),
        ("(Ho et al. 2020) does", "Ho et al. 2020"),
        ("Ho et al. (2020, eq. 7)", "Ho et al. (2020"),
    ],
)
def test_a_citation_takes_both_brackets_of_its_year(text, link):
    assert auto_links.CITATION.search(text)[0] == link


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


# Cells on pages --------------------------------------------------------------------

DRAWING = """fig, axes = plots.figure(2)
rows = {name: read(name) for name in names}
for ax, (name, row) in zip(axes, rows.items(), strict=True):
    ax.plot(row, label=name)
plots.show(fig)"""


@pytest.mark.parametrize(
    ("after", "only_draws"),
    [
        ([], True),
        (["print(rows)"], False),
        (["plots.show(rows)", "print(names)"], True),
        (["rows = {}", "print(rows)"], True),
        (["rows = rows | {}"], False),
        (["def f(rows):\n    return rows"], True),
        (["[name for name in names]"], True),
        (["%cd chapters"], True),
    ],
)
def test_cell_only_draws_if_nothing_else_uses_what_it_binds(after, only_draws):
    sources = ["names = ['a', 'b']", DRAWING, *after]
    assert page_cells.drawing_cells(sources)[:2] == [False, only_draws]


def code_cell(source: str, *tags: str) -> dict:
    metadata = {"tags": list(tags)}
    return {
        "cell_type": "code",
        "source": source,
        "metadata": metadata,
        "outputs": ["not attempted"],
    }


def test_page_folds_drawing_and_leaves_out_what_is_for_notebooks():
    draws, folded = code_cell(DRAWING), code_cell(DRAWING, "hide-output")
    exercise = code_cell("def f(): ...", "exercise")
    solution = code_cell("# @title Solution 1\nf = 1", "solution", "hide-cell")
    page_cells.arrange([draws, folded, exercise, solution])
    assert draws["metadata"]["tags"] == ["hide-input"]
    assert folded["metadata"]["tags"] == ["hide-output"]
    assert exercise["outputs"] == [] and draws["outputs"]
    assert solution["source"] == "f = 1"


ONE_HOUR = re.findall(
    r"```\{chapter-cell\} (\d\d)\n(?::folded:.*\n)?(.+)\n",
    (ROOT / "book" / "one_hour.md").read_text(),
)


@pytest.mark.slow
def test_one_hour_runs_as_it_stands():
    """Its cells, with the chapter's imports and fewer steps, need no others."""
    imports = chapter_cells.find_cell(ROOT, "07", "import copy").source
    imports = imports.replace("from checks import ch07", "")
    names = {}
    exec(imports, names)
    assert len(ONE_HOUR) == 13
    for chapter, first in ONE_HOUR:
        source = chapter_cells.find_cell(ROOT, chapter, first).source
        source = source.replace("STEPS = 3500", "STEPS = 600")
        exec(source.replace("n = 100_000", "n = 20_000"), names)
    losses = names["batch_loss"]
    assert sum(losses[:3]) / 3 > 0.8 and sum(losses[-50:]) / 50 < 0.3
    denoise = names["diffusion"].make_denoiser(
        names["average"], names["schedule"], names["diffusion"].EPS
    )
    torch, alpha_bar = names["torch"], names["schedule"].alpha_bar.float()
    drawn = names["my_sample"](denoise, alpha_bar, torch.randn(500, 2), None)
    assert drawn.isfinite().all() and drawn.abs().max() < 3


def test_cell_of_a_chapter_must_be_there_once():
    with pytest.raises(ValueError, match="0 cells of 07_training.ipynb begin"):
        chapter_cells.find_cell(ROOT, "07", "no such cell")


# Light pages and dark figures ---------------------------------------------------------


def asset(name: str) -> SimpleNamespace:
    return SimpleNamespace(filename=f"_static/{name}", attributes={}, priority=500)


@pytest.mark.parametrize(
    ("name", "body", "used"),
    [
        ("scripts/bootstrap.js", "", True),
        ("laboratory.js", '<div class="schedule-laboratory">', True),
        ("laboratory.js", '<div class="car-maker">', False),
        ("noise.js", '<div class="car-maker">', True),
        ("mathjax/tex-mml-chtml.js", '<span class="math notranslate">', True),
        ("mathjax/tex-mml-chtml.js", "<p>x</p>", False),
        ("sphinx-thebe.js", '<div class="cell docutils">', False),
        (f"mystnb.{'0' * 64}.css", '<div class="cell docutils">', True),
        (f"mystnb.{'0' * 64}.css", "<p>x</p>", False),
    ],
)
def test_page_keeps_what_it_uses(name, body, used):
    assert light_pages.is_used(asset(name), body) is used


def test_scripts_wait_and_come_once():
    inline = SimpleNamespace(
        filename="", attributes={"body": "const THEBE_JS_URL = 1"}, priority=500
    )
    kept = [*light_pages.lighter([inline, asset("book.js")], "a/b", "")]
    assert [script.filename for script in kept] == [None, "_static/book.js"]
    assert kept[1].attributes["defer"] and "a/b" in kept[0].attributes["body"]


def test_every_icon_is_in_the_cut_font(tmp_path):
    points = icons.code_points(icons.STYLES.read_text())
    assert len(points) >= len(icons.ICONS)
    icons.cut(tmp_path / "icons.woff")
    assert 2_000 < (tmp_path / "icons.woff").stat().st_size < 10_000


def test_dark_figure_turns_paper_and_ink_and_keeps_pictures_and_hues():
    noise = np.random.default_rng(0).integers(0, 240, (120, 120, 3), dtype=np.uint8)
    figure = np.full((300, 400, 3), 255, np.uint8)
    figure[40:160, 40:160] = noise
    figure[200:210, 20:300] = 34  # an axis
    figure[220:280, 50:150] = (0, 114, 178)  # a bar
    figure[40:160, 200:360] = np.linspace(250, 0, 160)[:, None]  # a plot's density
    figure[40:160:5, 200:360, 1:] //= 2  # under lines
    dark = np.asarray(dark_figures.darkened(Image.fromarray(figure)))
    assert (dark[40:160, 40:160] == noise).all()
    assert (dark[0, 0] == (20, 24, 30)).all()
    assert (dark[205, 100] > 180).all()
    assert (dark[41, 200] < 40).all() and (dark[41, 358] > 200).all()
    r, g, b = dark[250, 100].astype(int)
    assert b > g > r and b > 178


def test_a_smooth_cell_of_a_grid_stays_as_it_is_and_a_box_with_a_word_does_not():
    rng = np.random.default_rng(0)
    figure = np.full((300, 480, 3), 255, np.uint8)
    figure[40:160, 40:160] = rng.integers(0, 240, (120, 120, 3), dtype=np.uint8)
    smooth = np.linspace((70, 140, 220), (180, 210, 235), 120).astype(np.uint8)
    figure[40:160, 180:300] = smooth[:, None]
    figure[40:120, 320:400] = smooth[:80, None]  # of another size
    figure[180:260, 40:120] = (86, 180, 233)
    word = rng.integers(0, 240, (16, 40, 3), dtype=np.uint8)
    figure[212:228, 60:100] = word
    dark = np.asarray(dark_figures.darkened(Image.fromarray(figure)))
    assert (dark[40:160, 180:300] == figure[40:160, 180:300]).all()
    for box in (slice(40, 120), slice(320, 400)), (slice(212, 228), slice(60, 100)):
        assert (dark[box] != figure[box]).mean() > 0.9


# The search ---------------------------------------------------------------------------


def test_sections_have_prose_and_code_without_formulas_and_outputs():
    output = nodes.container("", nodes.literal_block("", "3.1"))
    output["classes"] = ["cell_output"]
    inner = nodes.section("", nodes.title("", "In"), ids=["in"])
    inner += nodes.paragraph("", "Inner.")
    prose = nodes.paragraph("", "", nodes.Text("Noise "), nodes.math("", "x_t"))
    outer = nodes.section("", nodes.title("", "Out"), prose, ids=["out"])
    outer += [nodes.literal_block("", "y = scale(noise) + scale(2)")]
    outer += [nodes.literal_block("", "for k in range(9): print(f'{y:.2f}')")]
    outer += [output, inner]
    document = nodes.document(None, None)
    document += outer
    found = list(section_search.sections(document, "a.html", "Page"))
    assert found == [
        ("a.html", "Page", "Out", "Noise …", "scale"),
        ("a.html#in", "Page", "In", "Inner.", ""),
    ]


def test_words_of_code_that_stand_everywhere_are_left_out():
    def section(code: str) -> section_search.Section:
        return section_search.Section("a.html", "Page", "Title", "Torch.", code)

    found = [section("scale torch"), section("torch"), *[section("")] * 7]
    kept = section_search.telling(found)
    assert [part.code for part in kept] == ["scale", ""] + [""] * 7
    assert all(part.prose == "Torch." for part in kept)


# Heads of chapters, times and metadata ----------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_head_of_a_chapter_shows_a_part_of_one_of_its_figures(path):
    cell, left, top, right, bottom = chapter_heads.PICTURES[path.stem]
    picture, number = chapter_heads.find_figure(path, cell)
    assert picture.startswith(b"\x89PNG") and re.fullmatch(r"\w+\.\d+", number)
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_buttons_of_a_head_lead_to_what_can_be_done_with_the_chapter():
    part = nodes.section("", nodes.raw("", '<div class="plane">'), ids=["the-plane"])
    document = nodes.document(None, None, "", nodes.section("", part))
    colab = {"text": "Colab", "url": "https://colab.example/05.ipynb"}
    context = {
        "body": '<section id="exercise-1-a"></section><section id="exercise-2-b">',
        "header_buttons": [
            {"label": "download-buttons", "buttons": []},
            {"label": "launch-buttons", "buttons": [colab]},
        ],
        "pathto": lambda name, resource: f"../{name}",
        "sourcename": "chapters/05.ipynb",
    }
    assert chapter_heads.buttons(context, document) == [
        ("#the-plane", "Try it live"),
        ("#exercises", "2 exercises"),
        ("https://colab.example/05.ipynb", "Open in Colab"),
        ("../_sources/chapters/05.ipynb", "Download notebook"),
    ]


def test_head_names_the_cell_that_has_no_figure():
    with pytest.raises(ExtensionError, match=r"05_forward.* has no figure .*'c04'"):
        chapter_heads.find_figure(CHAPTERS[4], "c04")


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
