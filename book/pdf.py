"""Print the built book as one PDF: `make pdf`.

    python book/pdf.py [TARGET]

Each page of `_build/html` is printed by Chromium: with all that is folded unfolded, the
addresses of its links as numbered notes at its end, and the pages to which it refers in
brackets. Before them come a title page and the contents; the printed pages are then
joined, numbered, and linked with each other. A first printing tells on which page each
heading lies, a second one names it. The environment variable CHROME names a browser of
your own.
"""

import base64
import html
import os
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject

from address import authors, project
from first_cell import ROOT

HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "book.pdf"
PAPER = {
    "format": "A4",
    "margin": {"top": "20mm", "bottom": "22mm", "left": "20mm", "right": "20mm"},
    "print_background": True,
    "outline": True,
    "tagged": True,
    "scale": 0.8,
}
PRINTINGS = 3

STYLE = """
html { font-size: 15px !important; }
.bd-sidebar, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-footer,
.bd-footer-content, .bd-header-article, .bd-header-announcement, .prev-next-area,
.headerlink, .copybtn, .skip-link, #pst-skip-link, #pst-back-to-top, dialog,
.needs-kernel, #print-main-content, .out-of-noise button, .legend, nav, button.pst-btn,
.thebelab-cell, #meaning, details.hide > summary { display: none !important; }
.bd-container, .bd-container__inner, .bd-main, .bd-content, .bd-article-container,
.bd-article { display: block !important; max-width: none !important;
  width: auto !important; margin: 0 !important; padding: 0 !important;
  overflow: visible !important; }
details > summary { list-style: none; font-weight: bold; }
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; }
pre, .highlight, .cell_output, .output, .pst-scrollable-table-container, .math,
mjx-container { overflow: visible !important; }  /* what scrolls cannot be broken */
pre, img, svg, tr, .admonition, .widget-subarea, mjx-container[display="true"] {
  break-inside: avoid; }
table, .pst-scrollable-table-container { break-inside: auto !important; }
h1, h2, h3, h4 { break-after: avoid; }
.figure-caption { break-before: avoid; }
img { max-width: 100%; max-height: 230mm; object-fit: contain; }
a.term { border: 0 !important; text-decoration: none !important; color: inherit; }
.book-note { font-size: 0.7em; vertical-align: super; line-height: 0; }
.book-page { white-space: nowrap; font-size: 0.85em; }
.book-page b { display: inline-block; min-width: 1.7em; font-weight: normal; }
.book-notes { font-size: 0.8em; overflow-wrap: anywhere; }
"""

PREPARE = """document => {
  const own = new URL(location.href);
  const main = document.querySelector("main");
  document.querySelectorAll("details").forEach(e => e.open = true);
  for (const e of document.querySelectorAll("summary"))
    if (/code cell/.test(e.textContent)) e.remove();  // 'Hide code cell output'
  document.querySelectorAll("img[loading]").forEach(e => e.loading = "eager");
  const notes = [], numbers = new Map();
  for (const a of main.querySelectorAll("a[href]")) {
    if (a.closest("nav, svg, .headerlink, .prev-next-area")) continue;
    const to = new URL(a.href);
    if (a.classList.contains("term")) { a.removeAttribute("href"); continue; }
    if (to.origin !== own.origin) {
      if (!/^https?:/.test(to.protocol)) continue;
      if (!numbers.has(to.href)) numbers.set(to.href, notes.push(to.href));
      a.insertAdjacentHTML("afterend",
        `<span class="book-note">[${numbers.get(to.href)}]</span>`);
    } else if (to.pathname !== own.pathname && to.pathname.endsWith(".html")) {
      a.insertAdjacentHTML("afterend", ` <span class="book-page"
        data-to="${to.pathname.slice(1)}${to.hash}">(page <b>000</b>)</span>`);
    }
  }
  if (notes.length) {
    const article = main.querySelector("article") ?? main;
    article.insertAdjacentHTML("beforeend", `<section class="book-notes">
      <p><strong>Links on these pages</strong></p><ol></ol></section>`);
    const list = article.querySelector(".book-notes ol");
    for (const url of notes) list.append(
      Object.assign(document.createElement("li"), { textContent: url }));
  }
  return Promise.all([...document.images].map(e => e.decode().catch(() => 0)));
}"""

HEADINGS = """() => {
  const headings = [...document.querySelectorAll("main :is(h1, h2, h3, h4, h5, h6)")]
    .filter(e => e.checkVisibility());
  const before = {};
  for (const e of document.querySelectorAll("main [id]")) {
    let found = 0;
    headings.forEach((h, i) => {
      const place = e.compareDocumentPosition(h);
      if (e.contains(h) && !before[e.id]) { before[e.id] ??= i; }
      if (place & Node.DOCUMENT_POSITION_PRECEDING) found = i;
    });
    before[e.id] ??= found;
  }
  const said = headings.map(h => [Number(h.tagName[1]),
    [...h.childNodes].filter(n => !n.classList?.contains("headerlink"))
      .map(n => n.textContent).join("").trim()]);
  return [said, before];
}"""

REFER = """pages => {
  for (const e of document.querySelectorAll(".book-page")) {
    const page = pages[e.dataset.to] ?? pages[e.dataset.to.split("#")[0]];
    if (page) e.querySelector("b").textContent = page; else e.remove();
  }
}"""

FRONT = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 11pt/1.5 system-ui, sans-serif; color: #1b1f24; margin: 0; }}
.title {{ break-after: page; padding-top: 60mm; text-align: center; }}
.title h1 {{ font-size: 30pt; line-height: 1.2; }} .title img {{ width: 150mm; }}
.rights {{ break-after: page; padding-top: 180mm; font-size: 9pt; }}
table {{ width: 100%; border-collapse: collapse; }} td {{ padding: 1mm 0; }}
td + td {{ text-align: right; width: 15mm; vertical-align: bottom; }}
tr.part td {{ padding-top: 4mm; font-weight: bold; }}
tr.part + tr td {{ break-before: avoid; }}
tr.section td {{ font-size: 9pt; padding: 0 0 0 6mm; }}
a {{ color: inherit; text-decoration: none; }}
</style>
<div class="title"><h1>{title}</h1><img src="data:image/png;base64,{picture}" alt="">
<p>{authors}</p><p>Version {version}</p></div>
<div class="rights">© {authors}. Text and figures: CC BY 4.0; code: MIT licence.<br>
This is the printed form of a book whose chapters are notebooks. What moves on its pages
stands still here.</div>
<h1>Contents</h1><table>{rows}</table></html>"""

NUMBER = (
    '<div style="width: 100%; font: 9px system-ui, sans-serif; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


class Part(NamedTuple):
    """A document of the book, and the caption of the part that begins with it."""

    name: str
    caption: str


class Printed(NamedTuple):
    """A printed document: its headings (level, text), their pages, those of its ids."""

    pdf: bytes
    headings: list[tuple[int, str]]
    pages: list[int]
    ids: dict[str, int]

    @property
    def length(self) -> int:
        """How many pages it has."""
        return len(PdfReader(BytesIO(self.pdf)).pages)


def documents(toc: dict) -> list[Part]:
    """Return the documents in the order of the table of contents."""
    found = [Part(toc["root"], "")]
    for part in toc["parts"]:
        for i, chapter in enumerate(part["chapters"]):
            found.append(Part(chapter["file"], part["caption"] if i == 0 else ""))
    return found


class Handler(SimpleHTTPRequestHandler):
    """Serves the built pages quietly."""

    def log_message(self, *args):
        """Say nothing."""


def open_page(browser, url: str) -> Page:
    """Load a page in its light form, wait until all is drawn, prepare it for paper."""
    still = {"color_scheme": "light", "reduced_motion": "reduce"}
    page = browser.new_page(viewport={"width": 900, "height": 1200}, **still)
    page.set_default_timeout(300_000)
    page.add_init_script("localStorage.mode = localStorage.theme = 'light'")
    page.goto(url)
    page.evaluate("() => window.loadWidgets?.()")  # they wait to be seen
    page.evaluate("() => document.querySelector('.math') && MathJax.startup.promise")
    page.wait_for_function(
        """() => document.querySelectorAll(".widget-subarea").length >= document
          .querySelectorAll("script[type='application/vnd.jupyter.widget-view+json']")
          .length"""
    )
    page.emulate_media(media="print", **still)
    page.add_style_tag(content=STYLE)
    page.evaluate(f"() => ({PREPARE})(document)")
    page.evaluate("() => document.fonts.ready.then(() => true)")
    page.evaluate(
        """() => Promise.all([...document.querySelectorAll("img")]
          .filter(e => e.checkVisibility())
          .map(e => e.decode().catch(() => {})))"""
    )
    return page


def flat(outline: list) -> list:
    """Return the entries of an outline, of all levels, in order."""
    found = []
    for entry in outline:
        found += flat(entry) if isinstance(entry, list) else [entry]
    return found


def print_page(page: Page) -> Printed:
    """Print a page, and find the pages of its headings (from 0) and of its ids."""
    headings, ids = page.evaluate(HEADINGS)
    pdf = page.pdf(**PAPER)
    reader = PdfReader(BytesIO(pdf))
    outline = flat(reader.outline)
    places = [reader.get_destination_page_number(entry) or 0 for entry in outline]
    pages, at = [], 0
    titles = ["".join(entry.title.split()) for entry in outline]
    for _, text in headings:  # Chromium leaves out headings without text
        wanted = "".join(text.split())
        later = [i for i in range(at, len(titles)) if titles[i].startswith(wanted[:20])]
        if wanted and later:
            at = later[0]
        pages.append(places[at] if places else 0)
    ids = {name: pages[i] if pages else 0 for name, i in ids.items()}
    return Printed(pdf, [(level, text) for level, text in headings], pages, ids)


def first_pages(printed: list[Printed], front: int) -> list[int]:
    """Return on which page of the book each document begins, counted from 1."""
    starts = [front + 1]
    for one in printed[:-1]:
        starts.append(starts[-1] + one.length)
    return starts


def index(parts: list[Part], printed: list[Printed], starts: list[int]) -> dict:
    """Return the page of each document and of each place in it: 'a/b.html#id'."""
    pages = {}
    for part, one, start in zip(parts, printed, starts, strict=True):
        pages[f"{part.name}.html"] = start
        for name, page in one.ids.items():
            pages[f"{part.name}.html#{name}"] = start + page
    return pages


def front_matter(browser, site: str, title: str, parts, printed, starts) -> bytes:
    """Print the title page and the contents."""
    rows = []
    for part, one, start in zip(parts, printed, starts, strict=True):
        if part.caption:
            rows.append(f'<tr class="part"><td>{part.caption}</td><td></td></tr>')
        for (level, text), page in zip(one.headings, one.pages, strict=True):
            if level <= 2 and text:
                kind = ' class="section"' if level == 2 else ""
                link = f'<a href="{site}{part.name}.html">{html.escape(text)}</a>'
                rows.append(f"<tr{kind}><td>{link}</td><td>{start + page}</td></tr>")
    picture = (ROOT / "book" / "_static" / "cars.png").read_bytes()
    page = browser.new_page()
    page.set_content(
        FRONT.format(
            title=html.escape(title),
            picture=base64.b64encode(picture).decode(),
            authors=html.escape(", ".join(authors())),
            version=project()["version"],
            rows="\n".join(rows),
        )
    )
    return page.pdf(**PAPER | {"scale": 1})


def numbers(browser, count: int) -> PdfReader:
    """Print so many empty pages that have only their number."""
    page = browser.new_page()
    empty = '<div style="break-after: page; height: 1px"></div>'
    page.set_content("<body>" + empty * (count - 1) + "<div></div></body>")
    printed = page.pdf(
        format="A4", display_header_footer=True, header_template="<span></span>",
        footer_template=NUMBER, margin={"top": "20mm", "bottom": "22mm"},
    )  # fmt: skip
    return PdfReader(BytesIO(printed))


def link_pages(
    writer: PdfWriter, reader: PdfReader, start: int, site: str, pages: dict
):
    """Let the links of a document lead to pages of the book; `start` counts from 0."""
    named = reader.named_destinations
    for page in writer.pages[start : start + len(reader.pages)]:
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            target = None
            if "/Dest" in link and isinstance(link["/Dest"], str):
                found = named.get(link["/Dest"])
                inside = reader.get_destination_page_number(found) if found else None
                target = None if inside is None else start + inside
            uri = link.get("/A", {}).get("/URI", "")
            if uri.startswith(site):
                url = urlsplit(uri)
                name = unquote(url.path[1:])
                page_number = pages.get(f"{name}#{url.fragment}") or pages.get(name)
                target = page_number - 1 if page_number else None
            if target is None:
                continue
            link.pop("/A", None)
            link[NameObject("/Dest")] = ArrayObject(
                [writer.pages[target].indirect_reference, NameObject("/XYZ")]
                + [NullObject()] * 3
            )


def join(title, front: bytes, parts, printed, starts, site, stamps) -> PdfWriter:
    """Join the printed documents to a book with numbers, links and bookmarks."""
    writer = PdfWriter()
    readers = [PdfReader(BytesIO(pdf)) for pdf in (front, *(p.pdf for p in printed))]
    for reader in readers:
        writer.append(reader, import_outline=False)
    for page, stamp in zip(writer.pages, stamps.pages, strict=True):
        page.merge_page(stamp)
    pages = index(parts, printed, starts)
    for reader, start in zip(readers, [1, *starts], strict=True):
        link_pages(writer, reader, start - 1, site, pages)
    above = None
    for part, one, start in zip(parts, printed, starts, strict=True):
        if part.caption:
            above = writer.add_outline_item(title=part.caption, page_number=start - 1)
        own = None
        for (level, text), page in zip(one.headings, one.pages, strict=True):
            if level == 1 and text:
                own = writer.add_outline_item(
                    title=text, page_number=start - 1 + page, parent=above
                )
            elif level == 2 and text:
                writer.add_outline_item(
                    title=text, page_number=start - 1 + page, parent=own or above
                )
    writer.add_metadata({"/Title": title, "/Author": ", ".join(authors())})
    writer.root_object[NameObject("/ViewerPreferences")] = DictionaryObject()
    writer.compress_identical_objects()
    return writer


def make(browser, site: str, parts: list[Part], title: str) -> PdfWriter:
    """Print, fill in the pages to which links lead, print again, and join."""
    open_pages = [open_page(browser, f"{site}{part.name}.html") for part in parts]
    printed = list(map(print_page, open_pages))
    front = front_matter(browser, site, title, parts, printed, [1] * len(parts))
    front_length = len(PdfReader(BytesIO(front)).pages)
    pages = {}
    for _ in range(PRINTINGS):  # until the numbers that are filled in move nothing
        before, starts = pages, first_pages(printed, front_length)
        pages = index(parts, printed, starts)
        if pages == before:
            break
        for page in open_pages:
            page.evaluate(REFER, pages)
        printed = list(map(print_page, open_pages))
    starts = first_pages(printed, front_length)
    front = front_matter(browser, site, title, parts, printed, starts)
    count = front_length + sum(one.length for one in printed)
    stamps = numbers(browser, count)
    return join(title, front, parts, printed, starts, site, stamps)


def find_browser() -> str | None:
    """Return a Chromium or Chrome of this machine, None for playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROME") or next(
        filter(None, map(shutil.which, names)), None
    )


def main(target: Path = TARGET) -> None:
    """Write the PDF of the built book."""
    if not (HTML / "index.html").exists():
        raise SystemExit("make pdf: the book is not built: make book")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    handler = partial(Handler, directory=str(HTML))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        site = f"http://127.0.0.1:{server.server_port}/"
        writer = make(browser, site, documents(toc), config["title"])
        browser.close()
        server.shutdown()
    writer.write(target)
    size = target.stat().st_size / 1e6
    print(f"{len(writer.pages)} pages, {size:.1f} MB: {target}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
