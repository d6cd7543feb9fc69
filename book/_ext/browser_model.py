"""Sphinx extension: the text model as files for the page that draws cars by itself.

They are made from the weights in the repository, and made anew only when these have
changed; they lie beside what npm fetches, and are not committed.
"""

from offline import VENDOR

from ddpm_core.browser import export_for_browser, is_current

MODEL = "toy-cars-text-32"


def make_files(app, config) -> None:
    """Export the model if its files are missing or old, then let the pages use them."""
    if not is_current(MODEL, VENDOR / "model"):
        export_for_browser(MODEL, VENDOR / "model")
    if str(VENDOR) not in config.html_static_path:
        config.html_static_path.append(str(VENDOR))


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", make_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
