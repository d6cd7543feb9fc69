"""Every page of the built book, in each theme and at each width; its widgets.

One load of a page serves all tests of it, in their order here.
"""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from accessibility import OF_COLOURS, OPTIONS, findings
from PIL import Image
from reader import HTML, ROOT, THEMES, compressed, documents


@pytest.fixture(scope="module")
def judged() -> set[str]:
    """The looks of text that were judged, on all pages."""
    return set()


LOOKS = [
    ("light", "phone"),
    ("dark", "phone"),
    ("dark", "desktop"),
    ("light", "desktop"),
]


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_page_is_sound_and_can_be_read_by_everyone(visit, judged, theme, size):
    """Nothing is amiss, and axe-core finds nothing; `findings` says what that covers.

    All its rules judge the page on a phone by day; what depends on colours, all looks.
    """
    visit.choose(theme)
    visit.resize(size)
    assert visit.page.evaluate("document.documentElement.dataset.theme") == theme
    assert visit.faults() == []
    options = OPTIONS if (theme, size) == LOOKS[0] else OF_COLOURS
    assert findings(visit.page, options=options, judged=judged) == []


def test_first_visit_is_light(visit):
    weight = visit.weighed / 1e6
    print(f"{visit.page.url.removeprefix(visit.site)}: {weight:.2f} MB")
    assert 0.1 < weight < 3


class Head(HTMLParser):
    """The scripts and styles that a page loads with itself."""

    def __init__(self, page: Path):
        super().__init__()
        self.page, self.scripts, self.styles, self.blocking = page, [], [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "script" and attrs.get("src"):
            self.scripts.append(attrs["src"])
            if "defer" not in attrs and "async" not in attrs:
                self.blocking.append(attrs["src"])
        if tag == "link" and attrs.get("rel") == "stylesheet":
            self.styles.append(attrs["href"])

    def weight(self) -> int:
        """The bytes of the page and of these files, compressed, without the index."""
        names = {urlsplit(name).path for name in (*self.scripts, *self.styles)}
        names = {name for name in names if not name.endswith(INDEX)}
        files = [(self.page.parent / unquote(name)).resolve() for name in names]
        return sum(len(compressed(path)) for path in (self.page, *files))


CHAPTERS = [name for name in documents() if name.startswith("chapters/")]
FORMULAS = 270_000  # MathJax, where there are formulas
INDEX = "sections.js"  # the text of the whole book, on the page of the search


@pytest.mark.parametrize("document", documents())
def test_page_keeps_its_budget_of_bytes_and_scripts(document):
    """Without pictures, and without what waits until it is in sight."""
    page = HTML / f"{document}.html"
    if not page.is_file():
        pytest.skip("the book is not built: make book")
    head = Head(page)
    formulas = any("mathjax" in name for name in head.scripts)
    print(f"{head.weight() / 1e3:.0f} kB, {len(head.scripts)} scripts")
    assert head.blocking == []
    assert len(head.scripts) == len({urlsplit(name).path for name in head.scripts})
    assert len(head.scripts) <= 12
    assert head.weight() < 250_000 + FORMULAS * formulas


HEAD = re.compile(r'<nav class="chapter-head".*?</nav>', re.DOTALL)
PICTURE = re.compile(
    r'<img class="only-(?:light|dark)" src="\.\./(\S+)" width="720" height="(\d+)"'
)


@pytest.mark.parametrize("document", CHAPTERS)
def test_chapter_begins_with_a_light_picture_and_buttons(document):
    """The picture has its size in the page, so that nothing moves when it comes."""
    page = HTML / f"{document}.html"
    if not page.is_file():
        pytest.skip("the book is not built: make book")
    (head,) = HEAD.findall(page.read_text())
    pictures = PICTURE.findall(head)
    assert len(pictures) == head.count("<img") == 2
    for name, height in pictures:
        assert (HTML / name).stat().st_size < 50_000
        with Image.open(HTML / name) as image:
            assert image.size == (720, int(height))
    texts = re.findall(r">([^<>]+)</a>", head)
    assert texts[-1] == "Download notebook"
    clinic = document.endswith("bug_clinic")
    assert clinic or any(re.fullmatch(r"\d exercises", text) for text in texts)


def test_index_of_the_search_keeps_a_budget_of_its_own():
    page = HTML / "search.html"
    if not page.is_file():
        pytest.skip("the book is not built: make book")
    assert any(INDEX in name for name in Head(page).scripts)
    assert len(compressed(HTML / "_static" / INDEX)) < 300_000


def test_terms_stand_in_prose_alone_and_once(visit):
    page = visit.page
    wrong = "a.term:is(h1 *, h2 *, h3 *, pre *, code *, mjx-container *, a *)"
    assert page.query_selector_all(wrong) == []
    anchors = [a.get_attribute("href") for a in page.query_selector_all("a.term")]
    assert len(anchors) == len(set(anchors))


# Accessibility ----------------------------------------------------------------------


KINDS = ["book/intro", "book/browser", "chapters/bug_clinic", "search"]


@pytest.mark.parametrize("document", KINDS)
def test_kind_of_page_can_be_read_by_everyone_on_a_desktop(reader, document):
    """What a desktop shows besides, bars at the sides, is the same on all pages."""
    read = reader("light")
    read.open(document)
    read.unfold()
    read.resize("desktop")
    assert findings(read.page) == []


BARRIERS = """<dd><details>
  <summary>Folded</summary>
  <img src="../_static/favicon.png">
  <input>
  <p id="main-content">The page has this id already.</p>
  <style>html[data-theme="dark"] .planted { color: #555 }</style>
  <p class="planted">On a dark page this is too dark.</p>
  <p>By day nobody sees that <a style="color: #3a3f48; text-decoration: none"
    href="#">these words</a> are a link.</p>
</details></dd>"""


@pytest.mark.parametrize("theme", THEMES)
def test_findings_tell_barriers_at_the_end_of_the_longest_page(reader, theme):
    read = reader(theme)
    page = read.open("book/reference")
    last = page.query_selector_all("dl.py")[-1]
    last.evaluate("(e, html) => e.insertAdjacentHTML('beforeend', html)", BARRIERS)
    read.unfold()
    planted = {"duplicate-id", "image-alt", "label"}
    planted.add("color-contrast" if theme == "dark" else "link-in-text-block")
    assert {rule for rule, _ in findings(page)} == planted


# Widgets ----------------------------------------------------------------------------


def notebooks_with_widgets() -> list[str]:
    view = "application/vnd.jupyter.widget-view+json"
    return [d for d in CHAPTERS if view in (ROOT / f"{d}.ipynb").read_text()]


with_widgets = pytest.mark.parametrize("visit", notebooks_with_widgets(), indirect=True)


@pytest.fixture
def desk(visit):
    """The page as seen on a desktop by day."""
    visit.choose("light")
    visit.resize("desktop")
    return visit


VIEW = ".cell_output:has(> script[type$='widget-view+json'])"
SEEN = """view => [...view.querySelectorAll("img, svg")]
  .filter(e => e.checkVisibility({ visibilityProperty: true }) &&
    !e.closest("button, .noUi-base"))
  .map(e => e.outerHTML.replace(/ data-judged(-link)?="[^"]*"/g, "")).join()"""


def widgets(page) -> list:
    return page.query_selector_all(".widget-subarea")


EASEL = "a[href$='book/browser.html#paint-over-a-part-of-it']"


@with_widgets
def test_every_widget_moves(desk):
    """Each has a slider that moves its picture and brings it back, or a choice.

    One has neither: chapter 12's mask is drawn in squares that a running Python alone
    can fill in. A link beside it leads to the page that does so in the browser.
    """
    still = []
    for view in widgets(desk.page):
        handles = view.query_selector_all(".noUi-handle")
        choices = view.query_selector_all("select, .widget-toggle-buttons")
        moved = [choice for choice in choices if choice.is_visible()]
        for handle in (h for h in handles if h.is_visible()):
            before = view.evaluate(SEEN)
            assert before, "no picture is seen beside the slider"
            handle.focus()
            handle.press("ArrowRight")
            assert view.evaluate(SEEN) != before
            handle.press("ArrowLeft")
            assert view.evaluate(SEEN) == before
            moved.append(handle)
        if not moved:
            live = view.query_selector_all(".needs-kernel")
            still.append([part.text_content().strip() for part in live])
    in_python = desk.page.url.endswith("/12_editing.html")
    assert still == [["Fill in"]] * in_python, "a widget without anything to move"
    assert not in_python or desk.page.query_selector(EASEL)
    assert desk.complaints == []


@with_widgets
def test_choices_change_their_pictures(desk):
    page = desk.page
    for view in widgets(page):
        for choice in view.query_selector_all("select"):
            if not choice.is_visible():
                continue
            seen = set()
            options = choice.query_selector_all("option")
            for option in options:
                choice.select_option(label=option.inner_text())
                seen.add(view.evaluate(SEEN))
            assert len(seen) == len(options)


@with_widgets
def test_buttons_change_their_pictures(desk):
    page = desk.page
    for view in widgets(page):
        for row in view.query_selector_all(".widget-toggle-buttons"):
            seen, buttons = set(), row.query_selector_all(".widget-toggle-button")
            for button in buttons:
                button.click()
                seen.add(view.evaluate(SEEN))
                page.wait_for_function(ALONE_PRESSED, arg=button)
            assert len(seen) == len(buttons)


ALONE_PRESSED = """button => {
  const look = e => getComputedStyle(e).backgroundColor;
  return [...button.parentElement.querySelectorAll("button")].every(other =>
    (other === button) === (other.getAttribute("aria-pressed") === "true") &&
    (other === button || look(other) !== look(button)));
}"""


@with_widgets
def test_labels_beside_sliders_are_not_cut_off(desk):
    page = desk.page
    cut_off = """view => [...view.querySelectorAll(".widget-readout")]
      .filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"""
    for view in widgets(page):
        for handle in view.query_selector_all(".noUi-handle"):
            for key in ("Home", "End"):
                handle.press(key)
                assert view.evaluate(cut_off) == []


@with_widgets
def test_page_shows_no_control_that_needs_python(desk):
    page = desk.page
    inner = page.query_selector_all(".needs-kernel > *")
    assert not any(element.is_visible() for element in inner)


@with_widgets
def test_play_moves_the_pictures(desk):
    page = desk.page
    for view in widgets(page):
        for play in view.query_selector_all(".jupyter-widget-play .play-button"):
            before = view.evaluate(SEEN)
            play.click()
            page.wait_for_function(
                f"([view, before]) => ({SEEN})(view) != before", arg=[view, before]
            )


@pytest.mark.parametrize("document", notebooks_with_widgets()[:1])
def test_sliders_move_in_a_book_opened_from_its_files(browser, document):
    page = browser.new_page()
    page.goto((HTML / f"{document}.html").as_uri())
    page.query_selector(VIEW).scroll_into_view_if_needed()
    handle = page.wait_for_selector(".widget-subarea .noUi-handle")
    view = widgets(page)[0]
    before = view.evaluate(SEEN)
    handle.press("ArrowRight")
    assert view.evaluate(SEEN) != before


# Links ------------------------------------------------------------------------------


class Links(HTMLParser):
    """The names of a page's anchors and where its links lead."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.targets = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        for name in ("href", "src", "srcset"):
            if attrs.get(name) is not None:
                self.targets.append(attrs[name])


links = cache(Links)


def leads_nowhere(page: Path, target: str) -> bool:
    url = urlsplit(urljoin(page.as_uri(), target))
    if url.scheme != "file":
        return False
    file = Path(unquote(url.path))
    if file.is_dir():
        file /= "index.html"
    if not file.is_file() or HTML not in file.parents:
        return True
    wanted = unquote(url.fragment)
    return bool(wanted) and file.suffix == ".html" and wanted not in links(file).anchors


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(site, document):
    page = HTML / f"{document}.html"
    assert page.is_file()
    assert [t for t in links(page).targets if leads_nowhere(page, t)] == []
