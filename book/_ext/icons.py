"""Sphinx extension: the icons of the theme's buttons, without the other 1,400.

The theme's font of icons weighs 156 kB, and a page shows about fifteen of them. Those
of ICONS are cut out of it at each build, as a font of the same name, which `book.css`
declares after the theme and which browsers therefore take.
"""

import re
from pathlib import Path

import pydata_sphinx_theme
from fontTools import subset

STATIC = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static"
FONT = STATIC / "vendor/fontawesome/webfonts/fa-solid-900.ttf"
STYLES = STATIC / "styles/pydata-sphinx-theme.css"
ICONS = (
    "angle-left", "angle-right", "arrow-up", "bars", "chevron-down", "chevron-right",
    "code", "lightbulb", "pencil-alt",
    "circle-half-stroke", "download", "expand", "file", "file-pdf", "list",
    "magnifying-glass", "moon", "pause", "play", "retweet", "rocket", "stop", "sun",
)  # fmt: skip
CUT = "icons.woff"


def code_points(styles: str) -> set[int]:
    """Return the places in the font of ICONS, and of those in call-outs."""
    names = "|".join(ICONS)
    rule = re.compile(rf'\.fa-(?:{names}):before[^{{]*{{content:"\\([0-9a-f]+)"')
    in_callouts = re.findall(r'--pst-icon-[a-z-]+:"(.)"', styles)
    return {int(code, 16) for code in rule.findall(styles)} | {*map(ord, in_callouts)}


def cut(target: Path) -> None:
    """Write the font of ICONS."""
    options = subset.Options(flavor="woff", notdef_outline=True)
    font = subset.load_font(str(FONT), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=code_points(STYLES.read_text(encoding="utf-8")))
    subsetter.subset(font)
    subset.save_font(font, str(target), options)


def write(app, exception) -> None:
    """Put the font beside the styles of the built book."""
    if not exception and app.builder.name == "html":
        cut(Path(app.outdir, "_static", CUT))


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
