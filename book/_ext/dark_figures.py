"""Sphinx extension: figures without a white plate on dark pages.

Each figure of a notebook gets a dark copy: its paper has the page's colour, its ink is
light, its colours keep their hue, and the pictures in it stay as they are. The page
shows one of both, and the browser loads only that one, when it is about to be seen. Its
size stands in the page, so that the text around it does not move when it comes.
"""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image

PAPER = np.array([20, 24, 30], np.float32) / 255  # the theme's dark background
TILE = 8  # pixels along the side of the tiles in which pictures are sought
SMALLEST = 8  # tiles along the side of a picture
COLOURS = 40  # that a picture has at least; a bar or an area of a plot has fewer
GREY = 0.6  # of its pixels; with more it is a plot's density, under coloured lines
FLAT = 0.75  # of its pixels have one colour; with more it is an area with a word in it
IMAGE = re.compile(
    r'<img (?P<rest>[^>]*?src="[^"]*?_images/(?P<name>[0-9a-f]{16,}\.png)"[^>]*)>'
)
Box = tuple[slice, slice]


def extreme(which: np.ufunc, rgb: np.ndarray) -> np.ndarray:
    """Return the largest or smallest of each pixel's three values, (h, w)."""
    return which(which(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def groups(tiles: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Yield the places of tiles that hang together, group by group."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(tiles), strict=True)}
    while left:
        group = [left.pop()]
        for y, x in group:  # grows while it is read
            near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            group += near
            left -= near
        yield group


def pictures(rgb: np.ndarray) -> Iterator[Box]:
    """Yield the boxes of the pictures in a figure of uint8, (h, w, 3).

    A picture is a large and nearly full box of painted tiles, of many colours, and not
    nearly all grey or of one colour. A box as large as a picture is one, too: a smooth
    or grey cell of a grid has few colours, but others of the grid have many.
    """
    painted = extreme(np.minimum, rgb) < 251
    h, w = (n // TILE for n in painted.shape)
    tiles = painted[: h * TILE, : w * TILE].reshape(h, TILE, w, TILE).mean((1, 3))
    boxes, sizes = [], []
    for group in groups(tiles > 0.97):
        ys, xs = np.array(group).T
        sides = np.ptp(ys) + 1, np.ptp(xs) + 1
        if min(sides) < SMALLEST or len(group) < 0.75 * sides[0] * sides[1]:
            continue
        box = grown(painted, ys.min(), ys.max() + 1, xs.min(), xs.max() + 1)
        boxes.append(box)
        coarse = (rgb[box] // 8).astype(int) @ (1, 32, 1024)
        grey = np.ptp(rgb[box], axis=-1) == 0
        counts = np.unique(coarse, return_counts=True)[1]
        flat = counts.max() / counts.sum()
        if len(counts) >= COLOURS and grey.mean() <= GREY and flat <= FLAT:
            sizes.append(rgb[box].shape[:2])
    for box in boxes:
        if any(
            np.abs(np.subtract(rgb[box].shape[:2], size)).max() < 3 for size in sizes
        ):
            yield box


def grown(painted: np.ndarray, top: int, end: int, left: int, right: int) -> Box:
    """Return a box of tiles in pixels, with the painted lines around it."""
    top, end, left, right = (TILE * n for n in (top, end, left, right))
    for _ in range(TILE):
        top -= top > 0 and painted[top - 1, left:right].mean() > 0.6
        end += end < len(painted) and painted[end, left:right].mean() > 0.6
        left -= left > 0 and painted[top:end, left - 1].mean() > 0.6
        right += right < painted.shape[1] and painted[top:end, right].mean() > 0.6
    return slice(top, end), slice(left, right)


def darkened(image: Image.Image) -> Image.Image:
    """Turn a figure's lightness over and keep its hues and its pictures."""
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    rgb = np.asarray(flat)
    scaled = rgb.astype(np.float32) / 255
    high = extreme(np.maximum, scaled)[..., None]
    low = extreme(np.minimum, scaled)[..., None]
    turn = 1 - high - low  # to the lightness 1 - (high + low) / 2
    vivid = ((high - low) / 0.35).clip(max=1)  # such colours become no darker
    turned = scaled + np.where(turn < 0, turn * (1 - vivid), turn)
    dark = 255 * (PAPER + turned * (0.94 - PAPER))
    for box in pictures(rgb):
        dark[box] = rgb[box]
    return Image.fromarray(dark.round().astype(np.uint8))


def dark_copy(folder: Path, name: str) -> str:
    """Make the dark copy of a figure in this folder, if there is none; name it."""
    copy = folder / f"{Path(name).stem}-dark.png"
    if not copy.is_file():
        with Image.open(folder / name) as image:
            dark = darkened(image).quantize(256, method=Image.Quantize.FASTOCTREE)
        dark.save(copy)
    return copy.name


def with_copy(match: re.Match, folder: Path) -> str:
    """Return a figure's element and that of its dark copy."""
    name, rest = match["name"], match["rest"]
    if not (folder / name).is_file() or "only-light" in rest:
        return match[0]
    with Image.open(folder / name) as image:
        width, height = (n // 2 for n in image.size)
    size = "" if ' width="' in rest else f' width="{width}" height="{height}"'
    bare = re.sub(r'\s*class="([^"]*)"', "", rest).rstrip(" /")
    kind = re.search(r'class="([^"]*)"', rest)
    classes = kind[1] if kind else ""
    pair = (
        (f"{classes} only-light", bare),
        (f"{classes} only-dark", bare.replace(name, dark_copy(folder, name))),
    )
    return "".join(
        f'<img class="{c.strip()}"{size} loading="lazy" {b}/>' for c, b in pair
    )


def add_copies(app, pagename, templatename, context, doctree) -> None:
    """Let each figure of a page have its dark copy beside it."""
    folder = Path(app.outdir, app.builder.imagedir)
    body = context.get("body", "")
    if doctree is not None and "_images/" in body:
        copy_images(app, folder)
        context["body"] = IMAGE.sub(lambda match: with_copy(match, folder), body)


def copy_images(app, folder: Path) -> None:
    """Put the pages' images where the built book has them; Sphinx does so later."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in app.builder.images.items():
        target = folder / unquote(unescape(name))
        if not target.is_file():
            target.write_bytes(Path(app.srcdir, source).read_bytes())


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", add_copies, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
