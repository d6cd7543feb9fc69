"""Sphinx extension: buttons that lead from a page to Colab, Binder and the repository.

All follow from the repository's address in _config.yml. Without one there are none:
the theme would fail to build their links. Colab opens notebooks of GitHub alone.
"""

BINDER = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
COLAB = {"colab_url": "https://colab.research.google.com"}


def launch_buttons(repository: str) -> dict[str, str]:
    """Return the theme's option for a repository at this address."""
    if not repository:
        return {}
    return BINDER | (COLAB if repository.startswith("https://github.com/") else {})


def choose_buttons(app, config) -> None:
    """Set the theme's options: to run a chapter, see its source, edit it, report."""
    options = config.html_theme_options
    address = options.get("repository_url", "")
    options["launch_buttons"] = launch_buttons(address)
    for button in ("repository", "edit_page", "issues"):
        options[f"use_{button}_button"] = bool(address)


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", choose_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
