"""Figures show what they are given, small, opaque, and with words beside them."""

import base64
import io

import IPython.display
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.display import plots

RED, BLUE = (1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)


def plain(*colours) -> torch.Tensor:
    """One image of 4 x 4 pixels for each colour."""
    return torch.tensor(colours).view(-1, 3, 1, 1).expand(-1, 3, 4, 4)


def pixels(fig) -> np.ndarray:
    """The stored pixels (height, width, 3)."""
    return np.array(Image.open(io.BytesIO(plots.to_png(fig))).convert("RGB"))


def area(fig, colour: tuple[int, int, int]) -> int:
    return int((pixels(fig) == colour).all(-1).sum())


def test_grid_shows_images_in_reading_order():
    fig = plots.image_grid(plain(RED, BLUE, BLUE, RED), ncols=2)
    seen = pixels(fig)
    height, width, _ = seen.shape
    corners = seen[[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4]]
    red, blue = (255, 0, 0), (0, 0, 255)
    assert corners.tolist() == [[list(red), list(blue)], [list(blue), list(red)]]


def test_grid_draws_every_image_whole():
    fig = plots.image_grid(plain(RED, BLUE, RED), ncols=2, titles=["a", "b", "c"])
    assert area(fig, (255, 0, 0)) == pytest.approx(2 * plots.PANEL**2, rel=0.02)
    assert area(fig, (0, 0, 255)) == pytest.approx(plots.PANEL**2, rel=0.02)


def test_grid_clips_what_no_screen_can_show():
    image = torch.full((1, 3, 4, 4), -7.0)
    image[:, 0] = 7.0
    assert area(plots.image_grid(image), (255, 0, 0)) > 0


@pytest.mark.parametrize(
    "words", [{"titles": ["a", "b", "c"]}, {"row_labels": ["a", "b", "c"]}]
)
def test_grid_refuses_labels_that_do_not_fit(words):
    with pytest.raises(ValueError, match="must be 2"):
        plots.image_grid(plain(RED, BLUE), ncols=1, **words)


def test_strip_has_one_row_for_each_name():
    fig = plots.strip({"up": plain(RED, RED), "down": plain(BLUE, BLUE)}, ["0", "1"])
    assert [ax.get_title() for ax in fig.axes] == ["0", "1", "", ""]
    texts = [ax.texts[0].get_text() for ax in fig.axes if ax.texts]
    assert texts == ["up", "down"]


def test_curves_draw_each_line_under_its_name():
    _, ax = plots.figure()
    x = torch.arange(3)
    plots.curves(ax, x, {"a": x**2, "b": (x[1:], -x[1:])}, xlabel="t", ylabel="y")
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert lines == {"a": [0, 1, 4], "b": [-1, -2]}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "y")


def test_curves_differ_in_more_than_colour():
    plots.use_style()
    _, ax = plots.figure()
    plots.curves(ax, [0, 1], {k: [0, 1] for k in "abcd"}, xlabel="x", ylabel="y")
    assert len({line.get_linestyle() for line in ax.lines}) == 4


def test_png_is_opaque_small_and_the_same_each_time():
    fig = plots.image_grid(plain(RED, BLUE))
    first = plots.to_png(fig)
    image = Image.open(io.BytesIO(first))
    assert (image.mode, image.info) == ("P", {})  # a palette; no alpha, no versions
    assert len(first) < 2_000
    assert plots.to_png(fig) == first


@pytest.fixture
def shown(monkeypatch) -> list:
    """What is displayed, each as (data, options)."""
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda d, **k: shown.append((d, k)))
    return shown


def test_show_stores_the_words_with_the_picture(shown):
    plots.show(plots.image_grid(plain(RED)), alt="One plain red square, and no car.")
    ((data, options),) = shown
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert data["text/plain"] == "One plain red square, and no car."
    assert options["metadata"]["image/png"]["alt"] == data["text/plain"]
    assert options["metadata"]["image/png"]["width"] == image.width // 2


def test_show_leaves_the_words_to_the_metadata_of_the_cell(shown):
    plots.show(plots.image_grid(plain(RED)))
    ((data, options),) = shown
    assert data["text/plain"] == "a figure"
    assert list(options["metadata"]["image/png"]) == ["width"]


def test_show_refuses_words_that_say_nothing():
    with pytest.raises(ValueError, match="alt must say"):
        plots.show(plots.image_grid(plain(RED)), alt="a plot")


def test_a_film_shades_the_root_of_the_density_and_draws_each_path():
    _, ax = plots.figure()
    density, paths = torch.rand(11, 7), torch.rand(11, 3)
    plots.film(ax, density, paths, "forward", limits=(-1, 2))
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), density.sqrt().T)
    assert image.get_extent() == [0, 10, -1, 2]
    assert image.origin == "lower"  # the first place is the lowest
    drawn = np.stack([line.get_ydata() for line in ax.lines], axis=1)
    np.testing.assert_array_equal(drawn, paths)
    assert ax.lines[0].get_xdata().tolist() == list(range(11))


def test_a_spread_has_its_means_and_reaches_from_least_to_most():
    _, ax = plots.figure()
    plots.spreads(ax, {30: [2.0, 4.0, 9.0], 10: [7.0]}, "runs")
    (line, _, (bars,)) = ax.containers[0]
    assert line.get_xydata().tolist() == [[10, 7], [30, 5]]
    assert [s[:, 1].tolist() for s in bars.get_segments()] == [[7, 7], [2, 9]]
    assert ax.get_legend_handles_labels()[1] == ["runs"]


def test_a_rare_colour_survives_among_those_of_photos():
    rng = np.random.default_rng(0)
    photo = rng.integers(60, 190, (200, 200, 3), dtype=np.uint8)
    photo[90:98, 90:98] = 240, 130, 20  # orange
    encoded = plots.encode_png(Image.fromarray(photo))
    assert Image.open(io.BytesIO(encoded)).mode == "P"
    shown = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    assert np.abs(shown - photo).max(-1)[90:98, 90:98].max() < 30
