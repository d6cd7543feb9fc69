"""Sphinx extension: the pages name the authors and the version of pyproject.toml."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from address import RELEASED, ROOT, authors, project

LICENCES = "Text and figures: CC BY 4.0; code: MIT. Version {version}"


def name_authors(app, config) -> None:
    """Set what the pages say of their authors, their copyright and their version."""
    names = " and ".join(filter(None, [", ".join(authors()[:-1]), authors()[-1]]))
    version = project()["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    year = RELEASED.search(changes)[2][:4]
    config.author = names
    config.release = config.version = version
    config.copyright = f"{year}, {names}. {LICENCES.format(version=version)}"


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", name_authors, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
