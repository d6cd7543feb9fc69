"""Sphinx extension: `{chapter-graph}` draws which chapter builds on which.

A chapter says so itself, in the paragraph that begins with 'What it builds on'; the
earlier chapters to which it links there are those that it needs.
"""

import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

BUILDS_ON = re.compile(r"^\*\*What it builds on\.\*\*.*$", re.MULTILINE)
LINK = re.compile(r"\((\d\d)_\w+\.ipynb\)")
WIDTH, HEIGHT, GAP, DOWN = 144, 52, 12, 100  # of a box; between boxes; from row to row
ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor"/>'
    "</marker></defs>"
)

Graph = dict[str, set[str]]


def texts(notebook: Path) -> list[str]:
    """Return the Markdown cells of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


def dependencies(folder: Path) -> Graph:
    """Return, for each chapter, the earlier ones that it names as its ground."""
    graph = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        found = [m[0] for text in texts(path) for m in BUILDS_ON.finditer(text)]
        named = set(LINK.findall(" ".join(found)))
        graph[path.stem[:2]] = {other for other in named if other < path.stem[:2]}
    return graph


def needs(graph: Graph, chapter: str) -> set[str]:
    """Return all chapters that come before one, directly or not."""
    return graph[chapter].union(*(needs(graph, other) for other in graph[chapter]))


def arrows(graph: Graph) -> list[tuple[str, str]]:
    """Return (from, to), without those that follow from others."""
    return [
        (before, chapter)
        for chapter, direct in graph.items()
        for before in sorted(direct)
        if not any(before in needs(graph, other) for other in direct - {before})
    ]


def rows(graph: Graph) -> list[list[str]]:
    """Return the chapters row by row, each below all that it needs."""

    def depth(chapter: str) -> int:
        return max((depth(other) + 1 for other in graph[chapter]), default=0)

    depths = {chapter: depth(chapter) for chapter in graph}
    return [
        [chapter for chapter in graph if depths[chapter] == level]
        for level in range(max(depths.values()) + 1)
    ]


def drawing(graph: Graph, titles: dict[str, str], links: dict[str, str]) -> str:
    """Return the graph as an SVG picture whose boxes are links."""
    levels = rows(graph)
    width = max(map(len, levels)) * (WIDTH + GAP)
    place = {}
    for y, level in enumerate(levels):
        left = (width - len(level) * (WIDTH + GAP)) / 2 + GAP / 2
        for x, chapter in enumerate(level):
            place[chapter] = left + x * (WIDTH + GAP), y * DOWN + 2
    parts = []
    for before, after in arrows(graph):
        x0, y0 = place[before][0] + WIDTH / 2, place[before][1] + HEIGHT
        x1, y1 = place[after][0] + WIDTH / 2, place[after][1] - 2
        curve = f"M{x0} {y0}C{x0} {y0 + 30} {x1} {y1 - 30} {x1} {y1}"
        parts.append(
            f'<path d="{curve}" fill="none" stroke="currentColor" '
            'marker-end="url(#arrow)"/>'
        )
    for chapter, (x, y) in place.items():
        parts.append(
            f'<a href="{escape(links[chapter])}" style="text-decoration: none">'
            f'<rect x="{x}" y="{y}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="8" fill="var(--pst-color-surface)" '
            'stroke="currentColor"/>'
            f'<text x="{x + WIDTH / 2}" y="{y + 21}" text-anchor="middle" '
            f'font-weight="bold" fill="currentColor">{chapter}</text>'
            f'<text x="{x + WIDTH / 2}" y="{y + 40}" text-anchor="middle" '
            f'font-size="13" fill="currentColor">{escape(titles[chapter])}</text></a>'
        )
    height = (len(levels) - 1) * DOWN + HEIGHT + 4
    return (
        f'<svg class="chapter-graph" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="Which chapter builds on which" style="max-width: {width}px; '
        f'width: 100%; height: auto; margin-bottom: 1rem">{ARROW}{"".join(parts)}</svg>'
    )


class ChapterGraph(SphinxDirective):
    """`{chapter-graph}`: the picture, and the same in words."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir) / "chapters"
        graph, titles, links = dependencies(folder), {}, {}
        for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
            self.env.note_dependency(str(path))
            chapter = path.stem[:2]
            titles[chapter] = texts(path)[0].splitlines()[0].lstrip("# ")
            links[chapter] = self.env.app.builder.get_relative_uri(
                self.env.docname, f"chapters/{path.stem}"
            )
        items = [
            nodes.list_item(
                "",
                nodes.paragraph(
                    "", f"Chapter {chapter} builds on {', '.join(sorted(before))}."
                ),
            )
            for chapter, before in graph.items()
            if before
        ]
        picture = nodes.raw("", drawing(graph, titles, links), format="html")
        return [picture, nodes.bullet_list("", *items)]


def setup(app) -> dict:
    """Register the directive with Sphinx."""
    app.add_directive("chapter-graph", ChapterGraph)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
