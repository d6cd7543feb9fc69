"""Sliders move their frames without Python; the explorer's frames tell the truth."""

import base64
import importlib.util
import io
import json
import re

import numpy as np
import pytest
import torch
from ipywidgets import (
    HTML,
    Dropdown,
    IntText,
    Play,
    SelectionSlider,
    Stack,
    ToggleButtons,
)
from ipywidgets.embed import dependency_state
from PIL import Image

from ddpm_core.diffusion import add_noise
from ddpm_core.display import plots, widgets
from ddpm_core.schedules import cosine_schedule, linear_schedule

PRESETS = {"linear": linear_schedule(100), "cosine": cosine_schedule(50)}


@pytest.fixture
def image(generator) -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1


def inside(widget, kind) -> list:
    """All widgets of a kind in a widget, in the order in which they are seen."""
    found = [widget] if isinstance(widget, kind) else []
    for child in getattr(widget, "children", ()):
        found += inside(child, kind)
    return found


def browser_links(view) -> set[tuple[str, str, str, str]]:
    """What the stored page links: (source model, trait, target model, trait)."""
    state = dependency_state(view)
    links = [m["state"] for m in state.values() if m["model_name"] == "LinkModel"]
    return {
        tuple(
            part
            for name, trait in (link["source"], link["target"])
            for part in (name.removeprefix("IPY_MODEL_"), trait)
        )
        for link in links
    }


def decoded(frame: str) -> np.ndarray:
    data = base64.b64decode(re.search('base64,([^"]+)', frame).group(1))
    return np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def frames_of(stack: Stack) -> list[str]:
    return [child.value for child in stack.children]


def test_picture_is_the_image_with_its_words(image):
    html = widgets.picture(image, 'a "car"')
    expected = (image[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(decoded(html) - expected).max() < 1.0
    assert 'alt="a &quot;car&quot;"' in html


def test_figure_is_the_drawing_with_its_words():
    fig, ax = plots.figure(width=2, height=1)
    ax.plot([0, 1], [0, 1])
    html = widgets.figure(fig, "a <rising> line", width=200)
    assert decoded(html).shape[2] == 3 and decoded(html).min() < 128
    assert 'alt="a &lt;rising&gt; line"' in html and "max-width:200px" in html


def test_slider_moves_frames_in_the_browser():
    view = widgets.frame_slider(["<p>a</p>", "<p>b</p>"], ["0", "1"])
    (play,), (slider,) = inside(view, Play), inside(view, SelectionSlider)
    (stack,) = inside(view, Stack)
    assert frames_of(stack) == ["<p>a</p>", "<p>b</p>"]
    assert browser_links(view) == {
        (play.model_id, "value", slider.model_id, "index"),
        (slider.model_id, "index", stack.model_id, "selected_index"),
    }


def test_slider_refuses_missing_labels():
    with pytest.raises(ValueError, match="2 frames need as many labels, got 1"):
        widgets.frame_slider(["a", "b"], ["0"])


def test_choice_and_slider_move_frames_in_the_browser():
    rows = {"one": ["<p>1a</p>", "<p>1b</p>"], "two": ["<p>2a</p>", "<p>2b</p>"]}
    view = widgets.choice_slider(rows, ["a", "b"])
    (buttons,), (slider,) = inside(view, ToggleButtons), inside(view, SelectionSlider)
    outer, *stacks = inside(view, Stack)
    assert buttons.options == tuple(rows)
    assert [frames_of(stack) for stack in stacks] == list(rows.values())
    links = browser_links(view)
    assert (buttons.model_id, "index", outer.model_id, "selected_index") in links
    for stack in stacks:
        assert (slider.model_id, "index", stack.model_id, "selected_index") in links
    assert {w.selected_index for w in (outer, *stacks)} == {0}


def test_sliders_begin_at_a_chosen_frame():
    for view in (
        widgets.frame_slider(["<p>0</p>", "<p>1</p>"], ["0", "1"], start=1),
        widgets.choice_slider({"a": ["<p>0</p>", "<p>1</p>"]}, ["0", "1"], start=1),
    ):
        (slider,), (play,) = inside(view, SelectionSlider), inside(view, Play)
        assert slider.index == play.value == 1
        assert inside(view, Stack)[-1].selected_index == 1


def test_rows_of_choices_are_nested():
    frames = {c: {b: [f"{c} {b} {k}" for k in "01"] for b in "xyz"} for c in "pq"}
    view = widgets.choice_slider(frames, ["0", "1"])
    first, second = inside(view, ToggleButtons)
    assert (first.options, second.options) == (("p", "q"), ("x", "y", "z"))
    links, outer = browser_links(view), view.children[-1]
    assert (first.model_id, "index", outer.model_id, "selected_index") in links
    for colour, inner in zip(frames, outer.children, strict=True):
        assert (second.model_id, "index", inner.model_id, "selected_index") in links
        shown = [frames_of(stack) for stack in inner.children]
        assert shown == list(frames[colour].values())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"one": ["a"]}, "'one' has 1 frames"),
        ({}, "at least one row"),
        ({"p": {"x": ["a", "b"]}, "q": {"y": ["a", "b"]}}, "the same everywhere"),
    ],
)
def test_choice_refuses_rows_that_do_not_fit(rows, message):
    with pytest.raises(ValueError, match=message):
        widgets.choice_slider(rows, ["0", "1"])


def test_explorer_chooses_in_the_browser(image):
    view = widgets.schedule_explorer(image, PRESETS, stages=4)
    (slider,) = inside(view, SelectionSlider)
    a, b = [d for d in inside(view, Dropdown) if d.description in "AB"]
    sides = [s for s in inside(view, Stack) if isinstance(s.children[0], Stack)]
    links = browser_links(view)
    for choice, side in zip((a, b), sides, strict=True):
        assert side.selected_index == choice.index
        assert (choice.model_id, "index", side.model_id, "selected_index") in links
        for stack in side.children:
            assert stack.selected_index == slider.index
            assert (slider.model_id, "index", stack.model_id, "selected_index") in links
    assert a.index != b.index


def test_explorer_shows_the_noised_image_and_its_figures(image):
    view = widgets.schedule_explorer(image, PRESETS, stages=4, seed=3)
    side = next(s for s in inside(view, Stack) if isinstance(s.children[0], Stack))
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    for schedule, stack in zip(PRESETS.values(), side.children, strict=True):
        t = round(3 * schedule.T / 4)
        frame = frames_of(stack)[3]
        x_t = add_noise(schedule, image, torch.tensor([t]), eps).clamp(-1, 1)
        expected = (x_t[0].permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(decoded(frame) - expected).mean() < 2
        ab = schedule.alpha_bar[t].item()
        assert f"alpha_bar = {ab:.4f}" in frame
        level = f"{10 * np.log10(ab / (1 - ab)):+.1f}".replace("-", "−")
        assert f"SNR = {level} dB" in frame
        assert f"t = {t} of {schedule.T}" in frame


def test_explorer_says_infinite_where_there_is_no_noise_or_no_signal(image):
    presets = widgets.explorer_presets()
    view = widgets.schedule_explorer(image, presets, stages=2)
    side = next(s for s in inside(view, Stack) if isinstance(s.children[0], Stack))
    clean, _, end = frames_of(side.children[list(presets).index(ZERO)])
    assert "alpha_bar = 1.0000, SNR = +∞ dB" in clean
    assert "alpha_bar = 0.0000, SNR = −∞ dB" in end


ZERO = "linear, T = 512, zero terminal SNR"


def test_explorer_stays_small():
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    state = dependency_state(widgets.schedule_explorer(image))
    assert len(json.dumps(state)) < 1_000_000


def test_live_controls_draw_any_schedule(image):
    view = widgets.schedule_explorer(image, PRESETS, stages=4)
    live = next(w for w in inside(view, object) if widgets.NEEDS_KERNEL in dom(w))
    T, start, end = live.children[1].children[1:4]
    T.value, start.value, end.value = 40, 0.01, 0.3
    a = next(d for d in inside(view, Dropdown) if d.description == "A")
    side = next(s for s in inside(view, Stack) if isinstance(s.children[0], Stack))
    assert (a.label, side.selected_index) == ("your own", len(PRESETS))
    expected = linear_schedule(40, 0.01, 0.3).alpha_bar[20].item()
    frame = frames_of(side.children[-1])[2]
    assert f"alpha_bar = {expected:.4f}" in frame
    assert "t = 20 of 40" in frame


def test_live_controls_say_what_is_wrong(image):
    view = widgets.schedule_explorer(image, PRESETS, stages=4)
    live = next(w for w in inside(view, object) if widgets.NEEDS_KERNEL in dom(w))
    row = live.children[1]
    row.children[1].value = 1
    (message,) = inside(row, HTML)
    assert "T must be at least 2, got 1" in message.value
    row.children[1].value = 100
    assert message.value == ""


def dom(widget) -> tuple[str, ...]:
    return getattr(widget, "_dom_classes", ())


@pytest.mark.parametrize(
    ("shape", "low", "message"),
    [((2, 3, 8, 8), 0, "one image"), ((1, 3, 8, 8), 9, "lie in")],
)
def test_explorer_refuses_what_it_cannot_show(shape, low, message):
    with pytest.raises(ValueError, match=message):
        widgets.schedule_explorer(torch.zeros(shape) + low, PRESETS)


# ipywidgets 7, which Colab has -------------------------------------------------------


@pytest.fixture
def old(monkeypatch):
    """The module as it is where ipywidgets has no Stack."""
    monkeypatch.delattr("ipywidgets.Stack")
    spec = importlib.util.find_spec("ddpm_core.display.widgets")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(stack) -> list:
    """The children of a stack that are seen."""
    return [child for child in stack.children if child.layout.display != "none"]


def test_python_moves_the_frames_where_the_page_cannot(old):
    frames = {"A": ["<p>a0</p>", "<p>a1</p>"], "B": ["<p>b0</p>", "<p>b1</p>"]}
    view = old.choice_slider(frames, ["0", "1"])
    (slider,), (buttons,) = inside(view, SelectionSlider), inside(view, ToggleButtons)
    (play,) = inside(view, Play)
    outer = inside(view, old.Stack)[0]

    def seen() -> str:
        (inner,) = shown(outer)
        (frame,) = shown(inner)
        return frame.value

    assert seen() == "<p>a0</p>"
    play.value = 1
    assert slider.index == 1 and seen() == "<p>a1</p>"
    buttons.value = "B"
    assert seen() == "<p>b1</p>"
    slider.index = 0
    assert seen() == "<p>b0</p>"


def test_explorer_shows_an_own_schedule_where_the_page_cannot(old, image):
    view = old.schedule_explorer(image, PRESETS, stages=4)
    choices = [d for d in inside(view, Dropdown) if d.description in "AB"]
    steps = inside(view, IntText)[0]
    steps.value = 7
    assert choices[0].value == "your own"
    (side,) = shown(inside(view, old.Stack)[0])
    (frame,) = shown(side)
    assert "of 7</b>" in frame.value
