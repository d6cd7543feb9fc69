"""Every page of the built book, in each theme and at each width.

One load of a page in a theme serves all tests of it.
"""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from accessibility import findings
from reader import HTML, SIZES, THEMES, documents


def test_page_is_sound(visit):
    page = visit.page
    assert page.evaluate("document.documentElement.dataset.theme") == visit.theme
    for name, size in SIZES.items():
        page.set_viewport_size(size)
        assert visit.faults() == [], f"at the size of a {name}"


def test_first_visit_is_light(visit):
    weight = visit.weight() / 1e6
    print(f"{visit.page.url.removeprefix(visit.site)}: {weight:.2f} MB")
    assert 0.1 < weight < 3


def test_terms_stand_in_prose_alone_and_once(visit):
    page = visit.page
    wrong = "a.term:is(h1 *, h2 *, h3 *, pre *, code *, mjx-container *, a *)"
    assert page.query_selector_all(wrong) == []
    anchors = [a.get_attribute("href") for a in page.query_selector_all("a.term")]
    assert len(anchors) == len(set(anchors))


# Accessibility ----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_page_can_be_read_by_everyone(visit, size):
    """No finding of axe-core; `findings` says what that covers."""
    visit.resize(size)
    assert findings(visit.page) == []


BARRIERS = """<dd><details>
  <summary>Folded</summary>
  <img src="../_static/favicon.png">
  <input>
  <p id="main-content">The page has this id already.</p>
  <style>html[data-theme="dark"] .planted { color: #555 }</style>
  <p class="planted">On a dark page this is too dark.</p>
</details></dd>"""


@pytest.mark.parametrize("theme", THEMES)
def test_findings_tell_barriers_at_the_end_of_the_longest_page(reader, theme):
    read = reader(theme)
    page = read.open("book/reference")
    last = page.query_selector_all("dl.py")[-1]
    last.evaluate("(e, html) => e.insertAdjacentHTML('beforeend', html)", BARRIERS)
    read.unfold()
    planted = {"duplicate-id", "image-alt", "label"}
    if theme == "dark":
        planted.add("color-contrast")
    assert {rule for rule, _ in findings(page)} == planted


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
