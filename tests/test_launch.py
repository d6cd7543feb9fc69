"""The buttons of a chapter's page follow from the one address of the repository."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_book.cli.main import main as jupyter_book

from address import project

ROOT = Path(__file__).parents[1]
NOTEBOOK = "chapters/05_short.ipynb"
BINDER = "https://mybinder.org/v2/{}/main?urlpath=lab/tree/" + NOTEBOOK
EXT = ROOT / "book" / "_ext"
EXTENSIONS = ("launch", "release", "site_files")
COLAB = "https://colab.research.google.com/github/owner/book/blob/main/" + NOTEBOOK


def build(folder: Path, address: str) -> Path:
    """Build a book of one chapter, with this project's settings of the buttons."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert "launch_buttons" not in config, "the extension chooses them"
    settings = {
        "execute": config["execute"],
        "repository": config["repository"] | {"url": address},
        "sphinx": {"local_extensions": dict.fromkeys(EXTENSIONS, str(EXT))},
    }
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    chapters = [{"file": NOTEBOOK.removesuffix(".ipynb")}]
    toc = {"format": "jb-book", "root": "intro", "chapters": chapters}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    (folder / "intro.md").write_text("# The book\n")
    cells = [nbformat.v4.new_markdown_cell("# A chapter")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (folder / "chapters").mkdir()
    nbformat.write(notebook, folder / NOTEBOOK)
    jupyter_book(["build", "-q", "-W", str(folder)], standalone_mode=False)
    return folder / "_build" / "html"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", set()),
        ("https://github.com/owner/book", {BINDER.format("gh/owner/book"), COLAB}),
        ("https://gitlab.com/owner/book", {BINDER.format("gl/owner%2Fbook")}),
    ],
)
def test_buttons_lead_to_the_chapter_where_it_can_be_run(tmp_path, address, expected):
    html = build(tmp_path, address)
    page = (html / NOTEBOOK).with_suffix(".html").read_text()
    links = set(re.findall(r'href="(https://[^"]*05_short\.ipynb)"', page))
    links = {link for link in links if "/edit/" not in link}
    assert links == expected
    assert ("launch-buttons" in page) == bool(expected), "no empty menu"
    assert (
        f'href="../_sources/{NOTEBOOK}"' in page
        and (html / "_sources" / NOTEBOOK).is_file()
    )
    intro = (html / "intro.html").read_text()
    assert "launch-buttons" not in intro
    for link in ("/edit/main/intro.md", "/issues/new?"):
        assert (f'href="{address}{link}' in intro) == ("github" in address), link
    site = "https://owner.github.io/book/" if "github" in address else ""
    assert (f'rel="canonical" href="{site}intro.html"' in intro) == bool(site)
    assert (html / "sitemap.xml").exists() == bool(site)
    if site:
        pages = re.findall("<loc>(.*)</loc>", (html / "sitemap.xml").read_text())
        assert pages == [site + "chapters/05_short.html", site + "intro.html"]
    missing = (html / "404.html").read_text()
    assert f'href="{"/book/" if site else "/"}intro.html"' in missing
    assert f"Version {project()['version']}" in intro and "The authors" in intro


def test_binder_gets_what_the_library_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = [d for d in project["dependencies"] if d.startswith("torch>")]
    wanted = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    assert torch.replace("torch", "pytorch-cpu") in wanted["dependencies"]
    assert '".[plots]"' in (ROOT / "binder" / "postBuild").read_text()
