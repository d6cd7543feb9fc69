"""The book as one PDF: made of two small pages here, in a real browser."""

import threading
from functools import partial
from http.server import ThreadingHTTPServer
from io import BytesIO

import pytest

pytest.importorskip("pypdf", reason="the extra `pdf` is not installed")
pytest.importorskip("playwright.sync_api")

import pdf

ONE = """<!DOCTYPE html><title>One</title><main><article>
<h1>First things</h1>
<p>See <a href="two.html#deep">what is deep</a>, and <a href="#last">the last</a>.</p>
<p>Out <a href="https://example.org/paper">there</a>, <a class="term" href="two.html">
a term</a>.</p>
<details><summary>Answer</summary><p>Folded away.</p></details>
<div style="height: 1500px"></div>
<h2 id="last">The last section</h2><p>End.</p></article></main>"""
TWO = """<!DOCTYPE html><title>Two</title><main><article>
<h1>Second things</h1><div style="height: 1500px"></div>
<section id="deep"><h2>Deep down</h2><p>Here.</p></section></article></main>
<script type="application/vnd.jupyter.widget-view+json"></script><script>
window.loadWidgets = () => document.querySelector("#deep").insertAdjacentHTML(
  "beforeend", '<p class="widget-subarea">A slider, loaded when it is seen.</p>');
</script>"""


@pytest.fixture(scope="module")
def book(browser, tmp_path_factory):
    """The book of the two pages, read again."""
    folder = tmp_path_factory.mktemp("html")
    for name, text in {"one": ONE, "two": TWO}.items():
        (folder / f"{name}.html").write_text(text)
    handler = partial(pdf.Handler, directory=str(folder))
    parts = [pdf.Part("one", ""), pdf.Part("two", "A part")]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}/"
        writer = pdf.make(browser, site, parts, "A small book")
        server.shutdown()
    file = BytesIO()
    writer.write(file)
    return pdf.PdfReader(file)


def test_book_has_title_contents_and_numbered_pages(book):
    texts = [page.extract_text() for page in book.pages]
    assert len(texts) == 7  # title, rights, contents; two pages for each document
    assert "A small book" in texts[0]
    assert book.metadata.title == "A small book"
    contents = " ".join(texts[2].split())
    for line in ("First things 4", "The last section 5", "A part", "Deep down 7"):
        assert line in contents
    assert [text.split()[-1] for text in texts] == list("1234567")


def test_what_waits_to_be_seen_is_printed(book):
    assert "A slider, loaded when it is seen." in book.pages[6].extract_text()


def test_links_name_pages_and_lead_to_them(book):
    text = " ".join(book.pages[3].extract_text().split())
    assert "what is deep (page 7 )" in text.replace("7)", "7 )")
    assert "there[1]" in text.replace(" ", "") and "Folded away." in text
    assert "https://example.org/paper" in book.pages[4].extract_text()
    targets = {
        book.get_page_number(link["/Dest"][0].get_object())
        for link in (a.get_object() for a in book.pages[3]["/Annots"])
        if "/Dest" in link
    }
    assert targets == {4, 6}  # the last section; what is deep
    uris = [a.get_object().get("/A", {}).get("/URI") for a in book.pages[3]["/Annots"]]
    assert [uri for uri in uris if uri] == ["https://example.org/paper"]


def test_bookmarks_follow_the_headings(book):
    titles = [entry.title for entry in pdf.flat(book.outline)]
    assert titles == [
        "First things", "The last section", "A part", "Second things", "Deep down",
    ]  # fmt: skip


def test_documents_are_those_of_the_table_of_contents():
    parts = [{"caption": "P", "chapters": [{"file": "a"}, {"file": "b"}]}]
    found = pdf.documents({"root": "intro", "parts": parts})
    assert found == [pdf.Part("intro", ""), pdf.Part("a", "P"), pdf.Part("b", "")]
