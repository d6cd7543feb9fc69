"""Sphinx extension: a changed style or script reaches the pages.

Sphinx copies static files only when it writes a page, and each page names them with
their checksum; so all pages are written anew when one of the files has changed.
"""

from filecmp import cmp
from pathlib import Path


def changed(app, env, added, changed, removed) -> list[str]:
    """Name all pages if a static file differs from the copy in the built book."""
    copies = Path(app.outdir) / "_static"
    for folder in app.config.html_static_path:
        for file in (Path(app.srcdir) / folder).glob("*.*"):
            copy = copies / file.name
            if not copy.is_file() or not cmp(file, copy, shallow=False):
                return sorted(env.found_docs)
    return []


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("env-get-outdated", changed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
