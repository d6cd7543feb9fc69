"""One look for every figure of the book: grids and strips of images, curves.

A chapter calls `use_style()` once, draws, and ends with `show(fig)`. The figure's
alternative text is in the metadata of its cell, out of the reader's sight.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ddpm_core.datasets.images import to_uint8
from ddpm_core.types import Images

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, INK, GREY = "#56B4E9", "#E69F00", "#222222", "#8A8A8A"
"""The colours of Okabe and Ito 2008, distinct for people with any colour vision."""

DPI = 200
"""Pixels an inch as stored; a page shows half as many, so that figures stay sharp."""

PHOTO = 15_000
"""A picture with more colours than this shows photos; toy cars have fewer."""

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": matplotlib.cycler(
        color=[BLUE, ORANGE, GREEN, PINK, SKY, AMBER],
        linestyle=["-", "--", "-.", ":", "-", "--"],
    ),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": DPI / 2,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}

PANEL = 192
"""Stored pixels along the side of an image in a grid: a multiple of 16, 32 and 64."""


def use_style() -> None:
    """Give every figure that is drawn from now on the look of the book."""
    matplotlib.rcParams.update(STYLE)


def figure(
    ncols: int = 1, nrows: int = 1, *, width: float = 7.6, height: float = 2.6, **kwargs
) -> tuple[Figure, Axes | np.ndarray]:
    """Return a figure, `width` by `height` inches, and its axes as `subplots` does.

    It does not pass through pyplot: nothing is shown before `show`, nothing leaks.
    """
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(nrows, ncols, **kwargs)


def image_grid(
    images: Images,
    *,
    ncols: int = 8,
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
) -> Figure:
    """Draw images in [-1, 1], row by row; values outside are clipped, as on any screen.

    `titles` stand above the images, one each or one for each column; `row_labels` to
    the left of the rows. Raises ValueError where their number does not fit.
    """
    n = len(images)
    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    if len(titles) not in (0, ncols, n):
        raise ValueError(f"titles must be {n} or {ncols}, got {len(titles)}")
    if len(row_labels) not in (0, nrows):
        raise ValueError(f"row_labels must be {nrows}, got {len(row_labels)}")
    gap, margin, above = 12, 8, 40 if titles else 0
    left = margin + 16 * max((len(label) for label in row_labels), default=0)
    titled_rows = nrows > 1 and len(titles) == n
    step_y = PANEL + gap + above * titled_rows
    width = left + ncols * (PANEL + gap) - gap + margin
    height = 2 * margin + above * (not titled_rows) + nrows * step_y - gap

    fig = Figure(figsize=(width / DPI, height / DPI))
    for i, image in enumerate(to_uint8(images.detach().cpu()).numpy()):
        row, column = divmod(i, ncols)
        x = left + column * (PANEL + gap)
        y = height - (margin + above + row * step_y + PANEL)  # counted from below
        ax = fig.add_axes((x / width, y / height, PANEL / width, PANEL / height))
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        if titles and (titled_rows or row == 0):
            ax.set_title(titles[i if titled_rows else column], fontsize=8, pad=3)
        if row_labels and column == 0:
            ax.annotate(
                row_labels[row],
                (-0.06, 0.5),
                xycoords="axes fraction",
                ha="right",
                va="center",
            )
    return fig


def strip(rows: Mapping[str, Images] | Images, labels: Sequence[str] = ()) -> Figure:
    """Draw stages of one image side by side, one row for each entry of `rows`.

    `labels` stand above the stages, such as their times.
    """
    if isinstance(rows, torch.Tensor):
        rows = {"": rows}
    images = torch.cat(list(rows.values()))
    names = list(rows) if any(rows) else ()
    ncols = len(next(iter(rows.values())))
    return image_grid(images, ncols=ncols, titles=labels, row_labels=names)


def curves(
    ax: Axes, x, lines: Mapping[str, object], *, xlabel: str, ylabel: str
) -> None:
    """Draw named lines over a common x, with a legend where there are several.

    `x` and each line are tensors or arrays of equal length; a line may be (x, y).
    """
    for name, y in lines.items():
        xs, ys = y if isinstance(y, tuple) else (x, y)
        ax.plot(xs, ys, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(lines) > 1:
        ax.legend()


def spreads(ax: Axes, points: Mapping[float, Sequence[float]], label: str = "") -> None:
    """Draw a line through the means over x, with bars from the least to the most.

    `points` are the values found at each x: of several seeds, say.
    """
    xs = sorted(points)
    means = np.array([np.mean(points[x]) for x in xs])
    least, most = (np.array([f(points[x]) for x in xs]) for f in (min, max))
    bars = (means - least, most - means)
    ax.errorbar(xs, means, bars, marker="o", markersize=4, capsize=2, label=label)


def film(
    ax: Axes,
    density: Tensor,
    paths: Tensor,
    title: str,
    *,
    limits: tuple[float, float] = (-3, 3),
) -> None:
    """Shade the density of a number x_t over t, and draw paths of such numbers on it.

    `density` (T+1, n): at n places evenly between the limits, as
    `GaussianMixture.densities` returns it; shaded by its root, black from 1 on. `paths`
    (T+1, m). Both begin at `t = 0`. Chapter 08.
    """
    ax.imshow(
        density.sqrt().T,
        cmap="Greys",
        vmax=1,
        aspect="auto",
        origin="lower",
        extent=(0, len(density) - 1, *limits),
    )
    ax.plot(paths, linestyle="-", linewidth=0.8)
    ax.set(title=title, xlabel="t", ylim=limits)
    ax.grid(False)


def losses(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the losses of a run, as its log holds them, against the epochs.

    `rows`: as `runs.read_log` gives them. Chapter 07.
    """
    fig, ax = figure(width=7.6, height=2.8)
    for key, name in (("loss", "training"), ("held_out", "held out, averaged weights")):
        chosen = [row for row in rows if key in row]
        ax.plot([r["epoch"] for r in chosen], [r[key] for r in chosen], label=name)
    ax.set(xlabel="epoch", ylabel="loss", yscale="log")
    ax.legend()
    return fig


def show(fig: Figure, alt: str = "") -> None:
    """Show a figure in a notebook.

    `alt`: a text for those who do not see the figure, stored with the output. Chapters
    keep it in the cell's metadata, as `{"mystnb": {"image": {"alt": "..."}}}`, because
    in the code it would answer the question that the figure asks. Raises ValueError
    for a text too short to say anything.
    """
    from IPython.display import display  # only notebooks have it

    if alt and len(alt) < 20:
        raise ValueError(f"alt must say what the figure shows, got {alt!r}")
    data = to_png(fig)
    options = {"width": Image.open(io.BytesIO(data)).width // 2}
    display(
        {
            "image/png": base64.b64encode(data).decode(),
            "text/plain": alt or "a figure",
        },
        metadata={"image/png": options | ({"alt": alt} if alt else {})},
        raw=True,
    )


def to_png(fig: Figure, *, colours: int = 256) -> bytes:
    """Render a figure as an opaque PNG of at most `colours` colours, for any page."""
    buffer = io.BytesIO()
    raw = {"compress_level": 0}  # what encodes it again packs it
    fig.savefig(buffer, dpi=DPI, format="png", pil_kwargs=raw)
    return encode_png(Image.open(buffer).convert("RGB"), colours=colours)


def encode_png(image: Image.Image, *, colours: int = 256) -> bytes:
    """Encode a picture as a PNG with a palette of at most `colours` colours.

    That of photos is sought in every fourth line and column, and not by the usual
    method, median cut, which loses rare colours.
    """
    buffer, image = io.BytesIO(), image.convert("RGB")
    if image.getcolors(PHOTO) is None:  # more than that
        size = tuple((side + 3) // 4 for side in image.size)
        palette = image.resize(size, Image.Resampling.NEAREST).quantize(
            colours, method=Image.Quantize.MAXCOVERAGE, kmeans=1
        )
        few = image.quantize(palette=palette, dither=Image.Dither.NONE)
    else:
        few = image.quantize(colours, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
