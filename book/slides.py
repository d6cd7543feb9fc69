"""Make the slides of three lectures from the chapters' own figures.

    python book/slides.py

A lecture is a Markdown file in book/slides, its slides parted by lines of `---`. The
line `figure: 05 c08` stands for the figure that the cell c08 of chapter 05 has stored,
with its caption; `$x$` and `$$x$$` are formulas. Each lecture becomes one page in
_build/slides, moved by the arrow keys; printing it makes a page of each slide. Beside
them lies MathJax, once `make book` has fetched it; else it comes from the network.
"""

import html
import json
import re
import shutil
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from first_cell import ROOT

SOURCE = ROOT / "book" / "slides"
TARGET = ROOT / "_build" / "slides"
MATHJAX = ROOT / "book" / "_vendor" / "mathjax"
ONLINE = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"
FIGURE = re.compile(r"^figure: (\d\d) (\S+)$", re.MULTILINE)
CAPTION = re.compile(r"^\*\*Figure (\w+\.\d+)\.\*\*\s*(.*)")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<script>MathJax = {{ options: {{ enableMenu: false }} }};</script>
<script defer src="{mathjax}"></script>
<style>{style}</style>
</head>
<body>
{slides}
<script>
addEventListener("keydown", event => {{
  const steps = {{ ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }};
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const slides = [...document.querySelectorAll("section")];
  const now = Math.round(scrollY / innerHeight);
  slides[Math.min(Math.max(now + step, 0), slides.length - 1)].scrollIntoView();
}});
</script>
</body>
</html>
"""

STYLE = """
@page { size: 13.333in 7.5in; margin: 0; }
:root { color-scheme: light; font: 2.1vw/1.4 system-ui, sans-serif; }
body { margin: 0; background: #fff; color: #1b1f24; }
section { box-sizing: border-box; height: 100vh; padding: 4vh 6vw; overflow: hidden;
  display: flex; flex-direction: column; justify-content: center; break-after: page; }
h1 { font-size: 3.6vw; line-height: 1.15; } h2 { font-size: 2.7vw; margin: 0 0 2vh; }
p, ul, ol { margin: 1vh 0; } li { margin: 0.8vh 0; }
figure { margin: 0; min-height: 0; flex: 0 1 auto; display: flex;
  flex-direction: column; align-items: center; }
figure img { max-width: 88vw; max-height: 58vh; min-height: 0; object-fit: contain; }
figcaption { font-size: 1.2vw; color: #57606a; margin-top: 1vh; }
code { font-size: 0.9em; } pre { font-size: 1.6vw; background: #f4f5f7; padding: 1em; }
@media print { section { height: 7.5in; } :root { font-size: 20pt; } }
"""


def cells(chapter: str) -> list[dict]:
    """Return the cells of a chapter, '05'."""
    (path,) = (ROOT / "chapters").glob(f"{chapter}_*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def figure(chapter: str, cell_id: str) -> str:
    """Return a cell's stored figure as HTML, with its alternative text and caption.

    Raises ValueError for a cell that has stored no picture.
    """
    own = cells(chapter)
    places = [i for i, cell in enumerate(own) if cell.get("id") == cell_id]
    data = [o.get("data", {}) for i in places for o in own[i].get("outputs", [])]
    pictures = [d["image/png"] for d in data if "image/png" in d]
    if not pictures:
        raise ValueError(f"chapter {chapter} has no figure in a cell {cell_id!r}")
    cell = own[places[0]]
    stored = [
        o["metadata"].get("image/png", {}).get("alt", "") for o in cell["outputs"]
    ]
    alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt") or stored[0]
    below = "".join(own[places[0] + 1]["source"]) if places[0] + 1 < len(own) else ""
    said = CAPTION.match(below)
    number = f"figure {said[1]}" if said else f"chapter {chapter}"
    picture = "".join("".join(pictures[0]).split())
    return (
        f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>From {number} of the book</figcaption></figure>"
    )


def slide(markdown: str) -> str:
    """Return one slide as HTML."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    dollarmath_plugin(
        reader, renderer=lambda content, options: tex(content, options["display_mode"])
    )
    text = FIGURE.sub(lambda found: figure(found[1], found[2]), markdown)
    return f"<section>\n{reader.render(text)}</section>"


def tex(content: str, display: bool) -> str:
    """Return LaTeX between the delimiters that MathJax looks for."""
    left, right = (r"\[", r"\]") if display else (r"\(", r"\)")
    return f"{left}{html.escape(content.strip())}{right}"


def lecture(markdown: str, mathjax: str) -> str:
    """Return the page of a lecture."""
    slides = re.split(r"^---$", markdown, flags=re.MULTILINE)
    title = re.search(r"^# (.+)$", markdown, re.MULTILINE)[1]
    body = "\n".join(map(slide, slides))
    return PAGE.format(
        title=html.escape(title), mathjax=mathjax, style=STYLE, slides=body
    )


def main(target: Path = TARGET) -> None:
    """Write the pages of all lectures."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    mathjax = ONLINE
    if MATHJAX.is_dir():
        shutil.copytree(MATHJAX, target / "mathjax")
        mathjax = "mathjax/tex-mml-chtml.js"
    for path in sorted(SOURCE.glob("*.md")):
        page = lecture(path.read_text(encoding="utf-8"), mathjax)
        (target / path.with_suffix(".html").name).write_text(page, encoding="utf-8")
        print(f"Slides: {(target / path.with_suffix('.html').name).as_uri()}")


if __name__ == "__main__":
    main()
