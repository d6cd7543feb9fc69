"""Sphinx extension: what a public site has besides its pages.

A page for addresses that lead nowhere; and, where the address of the site is known, a
canonical link on each page and a map of the site for search engines.
"""

from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from repository import site_url

MISSING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Page not found · {title}</title>
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.6 system-ui, sans-serif; }}
main {{ max-width: 32rem; margin: 20vh auto 0; padding: 0 1rem; }}
</style>
</head>
<body><main>
<h1>This page is pure noise</h1>
<p>There is nothing at this address: it is mistyped, or the page has moved.</p>
<p>The book begins on its <a href="{start}{first}">first page</a>, and the
<a href="{start}search.html">search</a> finds what it holds.</p>
</main></body>
</html>
"""
URLSET = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{urls}
</urlset>
"""


def set_base(app, config) -> None:
    """Let Sphinx write canonical links, where the address of the site is known."""
    config.html_baseurl = site_url(app)


def sitemap(app) -> str:
    """Return the addresses of all pages, as search engines read them."""
    pages = map(app.builder.get_target_uri, sorted(app.env.found_docs))
    urls = [f"<url><loc>{escape(site_url(app) + page)}</loc></url>" for page in pages]
    return URLSET.format(urls="\n".join(urls))


def missing_page(app) -> str:
    """Return the page for addresses at any depth, so that its links are absolute."""
    return MISSING.format(
        title=escape(app.config.html_title),
        start=urlsplit(site_url(app)).path or "/",
        first=app.builder.get_target_uri(app.config.root_doc),
    )


def write_files(app, exception) -> None:
    """Write the files into the finished site."""
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir)
    (folder / "404.html").write_text(missing_page(app), encoding="utf-8")
    if site_url(app):
        (folder / "sitemap.xml").write_text(sitemap(app), encoding="utf-8")
    else:
        (folder / "sitemap.xml").unlink(missing_ok=True)


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", set_base)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
