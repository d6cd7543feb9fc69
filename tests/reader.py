"""A plugin of pytest: readers of the built book, in a real browser without a network.

The book is `_build/html` as `make book` leaves it; tests are skipped where there is no
book or no browser. The environment variable CHROME names a browser of your own.
"""

import gzip
import os
import shutil
import threading
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"

THEMES = ("light", "dark")
SIZES = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}

FAULTS = r"""() => {
  const faults = [], say = (what, e) => faults.push(what + ": " +
    (e.outerHTML || String(e)).slice(0, 160));
  for (const e of document.querySelectorAll(".math"))
    if (!e.querySelector("mjx-container")) say("formula left raw", e);
  for (const e of document.querySelectorAll("mjx-merror")) say("broken formula", e);
  const walk = document.createTreeWalker(document.querySelector("main"),
    NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const { parentElement: e, data } = walk.currentNode;
    const raw = /\\[([]|\$[a-z\\][^$]*\$/i.test(data);
    if (raw && !e.closest("pre, code, script, style")) say("raw LaTeX", data);
  }
  for (const e of document.querySelectorAll("img")) {
    if (!e.hasAttribute("alt")) say("no alternative text", e);
    if (e.checkVisibility() && !e.naturalWidth) say("picture not loaded", e);
  }
  const main = document.querySelector("main");
  const scrolls = e => e !== main && (
    /auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const wide = [...main.querySelectorAll("*")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 &&
    !e.closest("mjx-assistive-mml") && !scrolls(e));
  const formula = e => [...(window.MathJax?.startup?.document.math ?? [])].find(
    item => item.typesetRoot === e)?.math;
  if (wide.length) say("wider than the window", formula(wide[0]) ?? wide[0]);
  if (document.documentElement.scrollWidth > innerWidth)
    faults.push("the page scrolls sideways");
  return faults;
}"""


def documents() -> list[str]:
    """The pages that the table of contents names, and those that the theme adds."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [toc["root"], *files, "search", "genindex"]


TEXT = {".css", ".html", ".js", ".json", ".mjs", ".svg"}


@cache
def compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)


class PagesHandler(SimpleHTTPRequestHandler):
    """Serves the book as a public site does: quietly, and text compressed."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in TEXT or not path.is_file():
            return super().do_GET()
        body = compressed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address at which the built book is served."""
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built: make book")
    handler = partial(PagesHandler, directory=str(HTML))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROME") or next(
        filter(None, map(shutil.which, names)), None
    )


@pytest.fixture(scope="module")
def browser():
    """A Chromium or Chrome that is installed, or playwright's own."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(
                executable_path=find_browser(), args=["--no-sandbox"]
            )
        except playwright_api.Error as error:
            pytest.skip(
                f"no Chromium or Chrome could be started: {error.message[:200]}"
            )
        yield found
        found.close()


class Reader:
    """A browser's page that keeps what goes wrong, and may load the book alone.

    Each has a cache of its own: its first page is a first visit.
    """

    def __init__(self, browser, site: str, theme: str, **context):
        self.site, self.theme = site, theme
        self.complaints, self.loaded = [], []
        self.context = browser.new_context(
            viewport=SIZES["desktop"], color_scheme=theme, **context
        )
        self.context.add_init_script(
            "if (location.protocol !== 'about:') "
            f"localStorage.mode = localStorage.theme = '{theme}';"
            "performance.setResourceTimingBufferSize(1000)"
        )
        self.context.route(lambda url: not url.startswith(site), self.refuse)
        self.page = self.context.new_page()
        self.page.set_default_timeout(300_000)  # for what hangs, not for what is slow
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complain(f"error: {error}"))
        self.page.on("response", self.check_status)
        self.page.on("requestfinished", lambda request: self.loaded.append(request))

    def refuse(self, route):
        if not route.request.url.startswith(("data:", "blob:")):
            self.complain(f"the network is needed for {route.request.url}")
        route.abort()

    def hear(self, message):
        if message.type == "error":
            self.complain(f"console: {message.text}")

    def check_status(self, response):
        if response.status >= 400:
            self.complain(f"{response.status}: {response.url}")

    def complain(self, text: str):
        self.complaints.append(text)

    def faults(self) -> list[str]:
        """What went wrong, and what is not drawn as it should be."""
        return self.complaints + self.page.evaluate(FAULTS)

    def weight(self) -> int:
        """The bytes of the page and of all that it loaded, as they come over a wire."""
        return self.page.evaluate(
            """() => ["navigation", "resource"]
              .flatMap(kind => performance.getEntriesByType(kind))
              .reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""
        )

    def open(self, document: str):
        """Load a page and wait until its formulas and widgets are drawn."""
        self.page.emulate_media(color_scheme=self.theme)
        self.page.goto(f"{self.site}{document}.html")
        self.page.evaluate("() => window.loadWidgets?.()")  # they wait to be seen
        self.page.evaluate(
            "() => document.querySelector('.math') && MathJax.startup.promise"
        )
        self.page.wait_for_function(
            """() => {
              const stored = document.querySelectorAll(
                "script[type='application/vnd.jupyter.widget-view+json']").length;
              return document.querySelectorAll(".widget-subarea").length >= stored;
            }"""
        )
        self.page.evaluate("() => document.fonts.ready.then(() => true)")
        self.load_pictures()
        return self.page

    def load_pictures(self):
        """Load the pictures that wait until they are near, but for hidden ones."""
        self.page.evaluate(
            """() => Promise.all([...document.querySelectorAll("img[loading=lazy]")]
              .filter(e => e.checkVisibility())
              .map(e => { e.loading = "eager"; return e.decode().catch(() => {}); }))"""
        )

    def unfold(self):
        """Open all that is folded: solutions, answers, hidden cells."""
        self.page.evaluate(
            """() => {
              document.querySelectorAll("details").forEach(e => { e.open = true });
              document.getAnimations().forEach(e => e.finish());
            }"""
        )
        self.load_pictures()

    def choose(self, theme: str):
        """Change the theme by the page's own button, and what the system prefers."""
        self.page.emulate_media(color_scheme=theme)
        self.page.evaluate(
            """theme => {
              for (let turn = 0; turn < 3; turn++)
                if (localStorage.mode !== theme)
                  document.querySelector(".theme-switch-button").click();
              document.getAnimations().forEach(e => e.finish());
            }""",
            theme,
        )
        self.load_pictures()

    def resize(self, size: str):
        """Change the window, and wait until the tab key reaches all that scrolls."""
        self.page.set_viewport_size(SIZES[size])
        self.page.wait_for_function(
            """() => [
              ...document.querySelectorAll("pre, .pst-scrollable-table-container")
            ].every(e => e.scrollWidth <= e.clientWidth || e.tabIndex === 0)"""
        )


def readers(browser, site):
    """Yield a function that gives a reader of a theme; close them all in the end."""
    begun = []

    def begin(theme: str, **context) -> Reader:
        begun.append(Reader(browser, site, theme, **context))
        return begun[-1]

    yield begin
    for one in begun:
        one.context.close()


reader = pytest.fixture(readers, name="reader")
lasting_reader = pytest.fixture(readers, name="lasting_reader", scope="module")


@pytest.fixture(scope="module")
def visitor(lasting_reader) -> Reader:
    """The one who visits all pages, and keeps what they share."""
    return lasting_reader("light")


@pytest.fixture(scope="module", params=documents())
def visit(request, visitor) -> Reader:
    """The visitor on a page with all unfolded, first on a phone: each page in turn."""
    visitor.complaints.clear()
    visitor.page.goto("about:blank")  # the page before is not laid out again
    visitor.page.set_viewport_size(SIZES["phone"])
    visitor.open(request.param)
    visitor.unfold()
    visitor.weighed = visitor.weight()
    return visitor
