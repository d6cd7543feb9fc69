"""Sphinx extension: each page loads only the scripts and styles that it uses.

The theme and its extensions put all of theirs on every page. Here a page keeps the
file of USES if it has what the file is for, and nothing of NOWHERE; scripts wait until
the page is there. The stored states of sliders, which are most of a chapter's bytes,
leave the page for a script of their own, which `widgets.js` loads with the widgets'
code when the first of them is about to come into sight.
"""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from offline import VENDOR
from sphinx.builders.html._assets import _JavaScript

FORMULA = r'class="math\b'
USES = {
    "clipboard.min.js": r'<div class="highlight">',
    "copybutton.js": r'<div class="highlight">',
    "copybutton.css": r'<div class="highlight">',
    "laboratory-car.js": r'class="schedule-laboratory"',
    "laboratory.js": r'class="schedule-laboratory"',
    "noise.js": r'class="(schedule-laboratory|car-maker)"',
    "car-model.js": r'class="car-maker"',
    "car-easel.js": r'class="car-maker"',
    "car-maker.js": r'class="car-maker"',
    "live.js": r'class="live"',
    "sphinx-design.min.css": r'class="sd-',
    "design-tabs.js": r'class="sd-',
    "tex-mml-chtml.js": FORMULA,
    "mystnb.css": r'class="cell ',
}
"""Scripts and styles, and what there is on a page that uses them."""

NOWHERE = {
    "doctools.js",  # keys for the next page, which are off
    "documentation_options.js",  # a line of each page has them
    "sphinx_highlight.js",  # for links of Sphinx's own search
    "sphinx-thebe.js",
    "sphinx-thebe.css",
    "embed.js",  # the widgets' code, which widgets.js loads
    "togglebutton.js",  # MyST-NB folds with <details>
    "togglebutton.css",
}
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
EMBED = "_static/widgets/embed.js"
FONTS = ["text-font/files/source-sans-3-latin-wght-normal.woff2"]
OPTIONS = (
    "const DOCUMENTATION_OPTIONS = {{ VERSION: '', LANGUAGE: 'en', BUILDER: 'html', "
    "FILE_SUFFIX: '.html', LINK_SUFFIX: '.html', HAS_SOURCE: true, "
    "SOURCELINK_SUFFIX: '', NAVIGATION_WITH_KEYS: false, "
    "ENABLE_SEARCH_SHORTCUTS: true, search_as_you_type: false, pagename: {} }};"
)


def name_of(asset) -> str:
    """Return the name of an asset's file, without the hash that MyST-NB gives it."""
    name = Path(str(asset.filename or "")).name
    return re.sub(r"\.[0-9a-f]{64}\.css$", ".css", name)


def is_used(asset, body: str) -> bool:
    """Whether a page with this body needs a script or a style."""
    name = name_of(asset)
    return name not in NOWHERE and re.search(USES.get(name, ""), body) is not None


def store_states(app, page: str, states: str) -> str:
    """Write the states of a page's widgets as a script; return the way to it."""
    name = f"_static/states/{page.replace('/', '-')}.js"
    text = f"storedWidgets({states});"
    path = Path(app.outdir, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"{name}?v={zlib.crc32(text.encode()):08x}"


def script(filename: str | None, priority: int, **attributes: str) -> _JavaScript:
    """Return a script; one in a file waits until the page is there."""
    if filename and "://" not in filename:
        attributes |= {"defer": "defer"}
    return _JavaScript(filename, priority=priority, **attributes)


def lighter(scripts: list, page: str, body: str) -> Iterator[_JavaScript]:
    """Yield the scripts that a page needs, all but those of its widgets."""
    yield script(None, 0, body=OPTIONS.format(json.dumps(page)))
    for each in scripts:
        inline = not each.filename
        settings = each.attributes.get("body", "").startswith("window.MathJax")
        if inline and settings and re.search(FORMULA, body):
            yield each
        if not inline and is_used(each, body):
            yield script(str(each.filename), each.priority, **each.attributes)


def widgets(app, context: dict, page: str, scripts: list) -> Iterator[_JavaScript]:
    """Yield what loads the widgets of a page late, if it has any."""
    states = [s for s in scripts if s.attributes.get("type") == WIDGET_STATE]
    own = any(str(s.filename or "").endswith(EMBED) for s in scripts)
    if not own:  # the public copy of the widgets' code: as MyST-NB has it
        yield from states
    elif states:
        way = context["pathto"]
        stored = store_states(app, page, states[0].attributes["body"])
        late = {"data-states": way(stored, True), "data-code": way(EMBED, True)}
        yield script("_static/widgets.js", 800, **late)


def lighten(app, pagename, templatename, context, doctree) -> None:
    """Leave out what a page does not use."""
    body = context.get("body", "")
    scripts = list(dict.fromkeys(context["script_files"]))
    context["script_files"] = [
        *lighter(scripts, pagename, body),
        *widgets(app, context, pagename, scripts),
    ]
    context["css_files"] = [css for css in context["css_files"] if is_used(css, body)]
    context["preloaded_fonts"] = FONTS if (VENDOR / FONTS[0]).is_file() else []


def setup(app) -> dict:
    """Register the extension with Sphinx, after all that add scripts."""
    app.connect("html-page-context", lighten, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
