"""Sphinx extension: the alternative texts of figures reach the pages.

`ddpm_core.plots.show` stores a figure's text with its output, where notebooks look for
it. MyST-NB takes only width and height from there, so this takes the text along.
"""

from myst_nb.core.render import NbElementRenderer


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    render = NbElementRenderer.render_image

    def render_with_alt(self, data):
        nodes = render(self, data)
        stored = data.output_metadata.get(data.mime_type, {})
        nodes[0]["alt"] = stored.get("alt", "")
        return nodes

    NbElementRenderer.render_image = render_with_alt
    NbElementRenderer.render_image_inline = render_with_alt
    return {"parallel_read_safe": True, "parallel_write_safe": True}
