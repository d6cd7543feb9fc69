"""Sphinx extension: the head of a chapter: its number, a picture, and buttons.

The picture is cut out of one of the chapter's own figures, at each build, for light and
for dark pages, and leads to that figure. The buttons lead to what can be done with the
chapter. `chapter_times` shows the same pictures on the chapters' cards.
"""

import base64
import io
import json
import re
import zlib
from html import escape
from pathlib import Path
from typing import NamedTuple

from dark_figures import darkened
from docutils import nodes
from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.osutil import relative_uri

PICTURES = {
    "01_generative_models": ("c03", 0.087, 0.019, 0.995, 0.981),
    "02_autoencoders": ("c047", 0.132, 0.008, 0.995, 0.395),
    "03_gans": ("c024", 0.004, 0.165, 0.995, 0.84),
    "04_trilemma": ("c042", 0.0, 0.0, 1.0, 0.47),
    "05_forward_diffusion": ("c53", 0.087, 0.106, 0.995, 0.982),
    "06_denoising_unet": ("c06-015", 0.1, 0.16, 0.98, 0.89),
    "07_training": ("ch07-051", 0.057, 0.053, 1.0, 0.83),
    "08_reverse_diffusion": ("c56", 0.077, 0.073, 0.995, 0.677),
    "09_fast_sampling": ("c019", 0.065, 0.082, 0.974, 0.845),
    "10_conditioning": ("ch10-004", 0.007, 0.384, 0.993, 0.988),
    "11_latent_diffusion": ("c005", 0.085, 0.344, 0.996, 0.987),
    "12_editing": ("ch12-033", 0.123, 0.008, 0.995, 0.395),
    "13_beyond_ddpm": ("ch13-008", 0.058, 0.07, 1.0, 0.92),
    "14_capstone": ("fourteen-19", 0.005, 0.005, 0.995, 0.253),
    "bug_clinic": ("bug-016", 0.078, 0.106, 0.995, 0.982),
    "fine_tuning": ("fine-018", 0.109, 0.013, 0.996, 0.656),
}
"""A figure's cell in each notebook; left, top, right and bottom of what is shown."""

WIDTH = 720  # pixels
CAPTION = re.compile(r"\*\*Figure (\w+\.\d+)\.\*\*")
LIVE = ('class="plane"', 'class="schedule-laboratory"', "widget-view+json")
TITLE = re.compile(r"<h1>(?P<title>.*?</h1>)", re.DOTALL)
BYLINE = re.compile(
    r'(?P<line><p class="byline">(?:<em>)?)(?:Chapter \d\d\. )?(?P<rest>.*?</p>)',
    re.DOTALL,
)


class Head(NamedTuple):
    """A picture in the built book, for light and dark pages, and where it is from."""

    light: str
    dark: str
    size: tuple[int, int]
    figure: str

    def html(self, app, page: str, alt: str) -> str:
        """Return the elements for a page; a browser loads one, once it is near."""
        start = app.builder.get_target_uri(page)
        return "".join(
            f'<img class="only-{theme}" src="{relative_uri(start, name)}" '
            'width="{}" height="{}" alt="{}" loading="lazy">'.format(*self.size, alt)
            for theme, name in (("light", self.light), ("dark", self.dark))
        )


def find_figure(notebook: Path, cell_id: str) -> tuple[bytes, str]:
    """Return a cell's stored picture and the number of the figure that it is.

    Raises ExtensionError unless there is such a picture with a caption below it.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell, below in zip(cells, cells[1:], strict=False):
        caption = CAPTION.match("".join(below["source"]))
        if cell["id"] == cell_id and caption:
            for output in cell["outputs"]:
                if picture := output.get("data", {}).get("image/png"):
                    return base64.b64decode("".join(picture)), caption[1]
    raise ExtensionError(
        f"{notebook.name} has no figure with a caption in a cell {cell_id!r}: "
        "name another one in book/_ext/chapter_heads.py"
    )


def make_head(app, notebook: Path) -> Head:
    """Write the pictures of a notebook's head into the built book, once."""
    cell, *box = PICTURES[notebook.stem]
    stored, number = find_figure(notebook, cell)
    with Image.open(io.BytesIO(stored)) as figure:
        edges = [round(a * n) for a, n in zip(box, 2 * figure.size, strict=True)]
        size = WIDTH, round(WIDTH * (edges[3] - edges[1]) / (edges[2] - edges[0]))
        version = zlib.crc32(stored + repr((box, WIDTH)).encode())
        names = [
            f"_images/{notebook.stem}-{theme}-{version:08x}.webp"
            for theme in ("light", "dark")
        ]
        for name in names:
            file = Path(app.outdir, name)
            if file.is_file():
                continue
            drawn = darkened(figure) if "-dark-" in name else figure
            file.parent.mkdir(parents=True, exist_ok=True)
            part = drawn.convert("RGB").crop(edges)
            part.resize(size, Image.Resampling.LANCZOS).save(file, quality=60, method=6)
    return Head(*names, size, number)


def live_place(doctree: nodes.document) -> str:
    """Return the section of a page's first figure that computes, '' if it has none."""
    raw = list(doctree.findall(nodes.raw))
    for kind in LIVE:
        node = next((node for node in raw if kind in node.astext()), None)
        while node is not None:
            if isinstance(node, nodes.section):
                return node["ids"][0]
            node = node.parent
    return ""


def buttons(context: dict, doctree: nodes.document) -> list[tuple[str, str]]:
    """Return the addresses and texts of a page's buttons."""
    found = []
    if live := live_place(doctree):
        found.append((f"#{live}", "Try it live"))
    count = len(re.findall(r'<section[^>]* id="exercise-\d', context["body"]))
    if count:
        found.append(("#exercises", f"{count} exercises"))
    for group in context["header_buttons"]:  # the theme's, for a known repository
        if group.get("label") == "launch-buttons":
            found += [(b["url"], f"Open in {b['text']}") for b in group["buttons"]]
    source = context["pathto"]("_sources/" + context["sourcename"], True)
    return [*found, (source, "Download notebook")]


def add_head(app, pagename, templatename, context, doctree) -> None:
    """Put a chapter's number before its title, and the rest under its byline."""
    notebook = Path(app.env.doc2path(pagename))
    if doctree is None or notebook.stem not in PICTURES:
        return
    head = make_head(app, notebook)
    picture = head.html(app, pagename, f"Part of figure {head.figure}")
    links = "".join(
        f'<a href="{escape(url)}"{" download" * ("_sources/" in url)}>{text}</a>'
        for url, text in buttons(context, doctree)
    )
    below = (
        '<nav class="chapter-head" aria-label="This chapter">'
        f'<a href="#figure-{head.figure}">{picture}</a>'
        f'<p class="buttons">{links}</p></nav>'
    )
    body = context["body"]
    if number := re.match(r"\d\d", notebook.stem):
        numbered = rf'<h1><span class="number">{number[0]}</span> \g<title>'
        body = TITLE.sub(numbered, body, count=1)
    context["body"] = BYLINE.sub(rf"\g<line>\g<rest>{below}", body, count=1)


def setup(app) -> dict:
    """Register the extension with Sphinx, after the theme's buttons."""
    app.connect("html-page-context", add_head, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
