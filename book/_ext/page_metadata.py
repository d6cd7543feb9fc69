"""Sphinx extension: what search engines, and sites that show links, read of a page.

The address of the book itself leads on to its first page and says the same of itself.
"""

import re
from html import escape, unescape
from pathlib import Path
from textwrap import shorten

from docutils import nodes
from repository import site_url

CARD = "_static/social-card.png"
CARD_ALT = "Cars that appear out of noise in six stages, drawn by the book's own model."
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
{tags}<meta http-equiv="refresh" content="0; url={first}">
</head>
<body><p><a href="{first}">{title}</a></p></body>
</html>
"""


def is_prose(paragraph: nodes.paragraph) -> bool:
    """Whether a paragraph says something: not all emphasis, no formula, some length."""
    emphasised = isinstance(paragraph[0], nodes.emphasis | nodes.strong)
    if (emphasised and len(paragraph) == 1) or list(paragraph.findall(nodes.math)):
        return False
    return len(paragraph.astext()) > 60


def description(doctree: nodes.document | None, default: str) -> str:
    """Return the first prose of a page, in at most 160 characters."""
    if doctree is None:  # the search page, the index
        return default
    prose = filter(is_prose, doctree.findall(nodes.paragraph))
    first = next(prose, None)
    if first is None:
        return default
    text = re.sub(r"<[^>]*>", "", first.astext())  # terms are links in HTML by now
    return shorten(unescape(text), 160, placeholder="…")


def metatags(app, pagename: str, title: str, doctree) -> str:
    """Return a page's description, and the title and the picture of links to it."""
    book, site = app.config.html_title, site_url(app)
    said = description(doctree, book)
    tags = {
        "description": said,
        "og:title": title if title == book else f"{title} · {book}",
        "og:description": said,
        "og:type": "article",
        "og:site_name": book,
    }
    if site:  # sites that show a picture need its whole address
        tags["og:image"] = site + CARD
        tags["og:image:alt"] = CARD_ALT
        tags["twitter:card"] = "summary_large_image"
        tags["og:url"] = site + app.builder.get_target_uri(pagename)
    return "".join(
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" '
        f'content="{escape(value)}">\n'
        for name, value in tags.items()
    )


def add_metadata(app, pagename, templatename, context, doctree) -> None:
    """Put a page's metadata into its head."""
    title = unescape(context.get("title") or app.config.html_title)
    tags = metatags(app, pagename, title, doctree)
    context["metatags"] = context.get("metatags", "") + tags


def write_index(app, exception) -> None:
    """Let index.html lead to the first page, with that page's metadata."""
    root, title = app.config.root_doc, app.config.html_title
    if exception or app.builder.name != "html" or root == "index":
        return
    tags = metatags(app, root, title, app.env.get_doctree(root))
    first = app.builder.get_target_uri(root)
    index = INDEX.format(title=escape(title), tags=tags, first=first)
    (Path(app.outdir) / "index.html").write_text(index, encoding="utf-8")


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", add_metadata)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
