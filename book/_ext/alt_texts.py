"""Sphinx extension: figures have their alternative texts and captions on the pages.

A figure's text is in its cell's metadata, where MyST-NB looks for it:
`"mystnb": {"image": {"alt": "..."}}`. Texts that `display.plots.show` has stored with
the output reach the page here. A paragraph that begins with **Figure 5.2.** is the
caption of the figure above it.
"""

import re

from docutils import nodes
from myst_nb.core.render import NbElementRenderer

CAPTION = re.compile(r"Figure (\w+\.\d+)\.")


def mark_captions(app, doctree) -> None:
    """Give each caption a class of its own and the address `#figure-5.2`."""
    for paragraph in doctree.findall(nodes.paragraph):
        parts = (part for part in paragraph.children if part.astext())
        label = next(parts, None)  # the parser puts an empty text before it
        number = CAPTION.fullmatch(label.astext()) if label is not None else None
        if number and isinstance(label, nodes.strong):
            paragraph["classes"].append("figure-caption")
            paragraph["ids"].append(f"figure-{number[1]}")


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    render = NbElementRenderer.render_image

    def render_with_alt(self, data):
        images = render(self, data)
        stored = data.output_metadata.get(data.mime_type, {})
        images[0].setdefault("alt", stored.get("alt", ""))
        return images

    NbElementRenderer.render_image = render_with_alt
    NbElementRenderer.render_image_inline = render_with_alt
    app.connect("doctree-read", mark_captions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
