"""Figures that move: sliders that live in a page without Python. Chapter 05 onwards.

All frames are drawn beforehand and stored with the notebook; `jslink` lets the browser
alone choose between them. What does need Python carries the class `needs-kernel`, which
the built book hides.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from math import cos, inf, log10, pi

import ipywidgets
import torch
import traitlets
from ipywidgets import HTML, HBox, Layout, ToggleButtons, VBox, Widget
from matplotlib.figure import Figure
from PIL import Image

from ddpm_core.datasets.images import check_images, to_uint8
from ddpm_core.diffusion import add_noise
from ddpm_core.display.plots import BLUE, ORANGE, encode_png, to_png
from ddpm_core.schedules import (
    Schedule,
    cosine_schedule,
    linear_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)
from ddpm_core.types import Images

if hasattr(ipywidgets, "Stack"):
    from ipywidgets import Stack, jslink
else:  # version 7, as in Colab, has none, and Colab's pages do not link: Python does
    from ipywidgets import link as jslink

    class Stack(VBox):
        """Shows the one of its children that `selected_index` numbers."""

        selected_index = traitlets.Int(0)

        def __init__(self, children: Sequence[Widget] = (), **options):
            super().__init__(children, **options)
            self._shown, self._hidden = Layout(), Layout(display="none")
            self.observe(self._show, ["children", "selected_index"])
            self._show()

        def _show(self, change=None) -> None:
            for index, child in enumerate(self.children):
                chosen = index == self.selected_index
                child.layout = self._shown if chosen else self._hidden


NEEDS_KERNEL = "needs-kernel"
KINDS = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "sigmoid": sigmoid_schedule,
}


# Frames ---------------------------------------------------------------------------


def picture(image: Images, alt: str, *, width: int = 192) -> str:
    """Return one image (1, c, h, w) in [-1, 1] as an HTML element, a few kB in size.

    `width` is in pixels of the page; small images are enlarged without smoothing.
    """
    data = encode_png(Image.fromarray(to_uint8(image)[0].numpy()))
    style = f"width:{width}px;max-width:100%;image-rendering:pixelated"
    return _img(data, alt, style)


def figure(fig: Figure, alt: str, *, width: int = 380) -> str:
    """Return a figure as an HTML element of few colours, small enough to store many.

    `width` is in pixels of the page, at most.
    """
    return _img(to_png(fig, colours=32), alt, f"width:100%;max-width:{width}px")


def _img(png: bytes, alt: str, style: str) -> str:
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return f'<img src="{source}" alt="{escape(alt)}" style="{style}">'


def frame_slider(
    frames: Sequence[str],
    labels: Sequence[str],
    *,
    name: str = "t",
    interval: int = 300,
    start: int = 0,
) -> VBox:
    """Return a slider and a play button that choose one of `frames`, pieces of HTML.

    `labels` are what the slider shows at each frame, `interval` the milliseconds
    between frames while it plays, `start` the frame that is shown first. It works in
    the built page, without Python. Raises ValueError unless there is one label for each
    frame.
    """
    if len(frames) != len(labels):
        raise ValueError(f"{len(frames)} frames need as many labels, got {len(labels)}")
    controls, slider = _controls(labels, name, interval, start)
    return VBox([controls, _stack(frames, slider)])


def choice_slider(
    frames: Mapping,
    labels: Sequence[str],
    *,
    name: str = "t",
    interval: int = 300,
    start: int = 0,
) -> VBox:
    """Return rows of buttons, and a slider as in `frame_slider`, that choose a frame.

    `frames`: for the text of each button, one piece of HTML for each of `labels`, or
    again such a mapping, for a second row of buttons under the first. All the mappings
    of a row have the same buttons. The slider stays where it is when another button is
    pressed; `start` is where it begins. It works in the built page, without Python.
    Raises ValueError for no button, unequal buttons in a row, and too few or too many
    frames. Chapters 09, 10.
    """
    controls, slider = _controls(labels, name, interval, start)
    rows: list[ToggleButtons] = []
    stack = _choice(frames, len(labels), slider, rows, depth=0)
    return VBox([*rows, controls, stack])


def _choice(
    frames: Mapping, n: int, slider: Widget, rows: list[ToggleButtons], depth: int
) -> Stack:
    """Return what the buttons of row `depth`, and of those below, choose among."""
    if not frames:
        raise ValueError("choice_slider needs at least one row of frames, got none")
    if depth == len(rows):
        rows.append(ToggleButtons(options=list(frames), style={"button_width": "auto"}))
    buttons = rows[depth]
    if tuple(frames) != buttons.options:
        raise ValueError(
            f"a row of buttons must be the same everywhere: {list(frames)} is not "
            f"{list(buttons.options)}"
        )
    parts = []
    for text, part in frames.items():
        if isinstance(part, Mapping):
            parts.append(_choice(part, n, slider, rows, depth + 1))
        elif len(part) == n:
            parts.append(_stack(part, slider))
        else:
            raise ValueError(
                f"{text!r} has {len(part)} frames, but there are {n} labels"
            )
    stack = Stack(parts, selected_index=0)
    jslink((buttons, "index"), (stack, "selected_index"))
    return stack


def _controls(
    labels: Sequence[str], name: str, interval: int, start: int = 0
) -> tuple[HBox, Widget]:
    """Return a play button and a slider in a row, and the slider by itself."""
    play = ipywidgets.Play(value=start, max=len(labels) - 1, interval=interval)
    slider = ipywidgets.SelectionSlider(
        options=list(labels),
        index=start,
        description=name,
        layout=Layout(width="22em"),
        style={"description_width": "initial"},  # what it leaves, the label may need
    )
    jslink((play, "value"), (slider, "index"))
    return HBox([play, slider], layout=Layout(flex_flow="row wrap")), slider


def _stack(frames: Sequence[str], slider: Widget) -> Stack:
    """Return the frames, of which the slider shows one."""
    first = HTML(frames[0])  # the others share its layout and style: a smaller page
    rest = [HTML(f, layout=first.layout, style=first.style) for f in frames[1:]]
    stack = Stack([first, *rest], selected_index=slider.index)
    jslink((slider, "index"), (stack, "selected_index"))
    return stack


# The schedule explorer ------------------------------------------------------------


def explorer_presets() -> dict[str, Schedule]:
    """Return the schedules among which the explorer's page can choose. Chapter 05."""
    linear = linear_schedule(512)
    scale = 1000 / 512
    return {
        "linear, T = 512": linear,
        "linear, T = 1000": linear_schedule(1000),
        "linear, T = 512, beta x 1000/512": linear_schedule(
            512, 1e-4 * scale, 0.02 * scale
        ),
        "linear, T = 512, zero terminal SNR": rescale_zero_terminal_snr(linear),
        "cosine, T = 1000": cosine_schedule(1000),
        "sigmoid, T = 1000": sigmoid_schedule(1000),
    }


def schedule_explorer(
    image: Images,
    presets: Mapping[str, Schedule] | None = None,
    *,
    stages: int = 20,
    seed: int = 0,
) -> VBox:
    """Show two schedules side by side: alpha_bar, SNR, and one image being noised.

    `image`: (1, c, h, w) in [-1, 1]; both sides add the same noise, drawn from `seed`,
    at `stages` + 1 times from 0 to T. The built page chooses among `presets` (at least
    two); with Python running, any T and beta range can be set on either side. Raises
    ValueError for anything else. Chapter 05.
    """
    check_images(image, "image")
    presets = explorer_presets() if presets is None else presets
    if len(image) != 1 or len(presets) < 2:
        raise ValueError(
            "the explorer needs one image and at least two schedules, "
            f"got {len(image)} and {len(presets)}"
        )
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    labels = [f"{100 * k / stages:.0f} % of T" for k in range(stages + 1)]
    controls, slider = _controls(labels, "t", 400, start=stages // 2)
    stacks = [
        _stack(_explorer_frames(schedule, image, eps, stages), slider)
        for schedule in presets.values()
    ]
    last = len(presets) - 1
    sides = [
        _Side(letter, list(presets), stacks, start, slider, image, eps)
        for letter, start in (("A", 0), ("B", max(1, last - 1)))
    ]
    invitation = HTML("Your own schedules (any T and beta range):")
    live = VBox([invitation, *(side.live for side in sides)])
    live.add_class(NEEDS_KERNEL)
    return VBox([controls, HBox([s.view for s in sides], layout=_wrap()), live])


def _wrap() -> Layout:
    return Layout(flex_flow="row wrap", align_items="flex-start")


class _Side:
    """One side of the explorer: what is chosen, its frames, and its live controls."""

    def __init__(self, letter, names, stacks, start, slider, image, eps):
        self.slider, self.image, self.eps = slider, image, eps
        self.names, self.own = names, None
        self.stack = Stack(stacks, selected_index=start)
        self.choice = ipywidgets.Dropdown(
            options=names,
            index=start,
            description=letter,
            layout=Layout(width="23em"),
            style={"description_width": "initial"},  # the longest name needs the room
        )
        jslink((self.choice, "index"), (self.stack, "selected_index"))
        self.view = VBox([self.choice, self.stack], layout=Layout(width="23em"))
        self.live = self._live_controls(letter)

    def _live_controls(self, letter: str) -> HBox:
        narrow = Layout(width="13em")
        self.kind = ipywidgets.Dropdown(
            options=KINDS, description=f"own {letter}", layout=Layout(width="13em")
        )
        self.T = ipywidgets.IntText(1000, description="T", layout=narrow)
        self.beta_start = ipywidgets.FloatText(
            1e-4, description="beta_start", layout=narrow
        )
        self.beta_end = ipywidgets.FloatText(
            0.02, description="beta_end", layout=narrow
        )
        self.message = HTML()
        fields = [self.kind, self.T, self.beta_start, self.beta_end]
        for field in fields:
            field.observe(self._show_own, "value")
        return HBox([*fields, self.message], layout=_wrap())

    def _schedule(self) -> Schedule:
        linear = self.kind.value is linear_schedule
        self.beta_start.disabled = self.beta_end.disabled = not linear
        ends = (self.beta_start.value, self.beta_end.value) if linear else ()
        return self.kind.value(self.T.value, *ends)

    def _show_own(self, change) -> None:
        """Draw the reader's own schedule and choose it; say what is wrong if it is."""
        try:
            schedule = self._schedule()
        except ValueError as error:
            self.message.value = f"<b>{escape(str(error))}</b>"
            return
        self.message.value = ""
        stages = len(self.slider.options) - 1
        frames = _explorer_frames(schedule, self.image, self.eps, stages)
        if self.own is None:
            self.own = _stack(frames, self.slider)
            self.stack.children = (*self.stack.children, self.own)
            self.choice.options = [*self.names, "your own"]
        for widget, frame in zip(self.own.children, frames, strict=True):
            widget.value = frame
        self.choice.index = self.stack.selected_index = len(self.names)


def _explorer_frames(schedule: Schedule, image: Images, eps, stages: int) -> list[str]:
    return [
        _explorer_frame(schedule, image, eps, round(k * schedule.T / stages))
        for k in range(stages + 1)
    ]


def _explorer_frame(schedule: Schedule, image: Images, eps, t: int) -> str:
    """Return the noised image at t, its figures, and both curves with a dot at t."""
    x_t = add_noise(schedule, image, torch.tensor([t]), eps)
    alpha_bar, snr = schedule.alpha_bar.tolist(), _decibels(schedule)
    time = f"t = {t} of {schedule.T}"
    figures = f"alpha_bar = {alpha_bar[t]:.4f}, SNR = {_with_sign(snr[t])} dB"
    return (
        '<div style="line-height:1.4">'
        + picture(x_t, f"The image noised to {time}; {figures}.")
        + f"<div><b>{time}</b></div><div>{figures}</div>"
        + _chart("alpha_bar", alpha_bar, t, (0, 1), BLUE)
        + _chart("SNR in dB", snr, t, (-90, 50), ORANGE)
        + "</div>"
    )


def _decibels(schedule: Schedule) -> list[float]:
    """10 log10(SNR) at each time; infinite where there is no noise or no signal."""
    return [
        10 * log10(r) if 0 < r < inf else inf * (r - 1) for r in schedule.snr.tolist()
    ]


def _with_sign(value: float) -> str:
    if value in (inf, -inf):
        return "+∞" if value > 0 else "−∞"
    return f"{value:+.1f}".replace("-", "−")


def _chart(
    title: str,
    values: Sequence[float],
    t: int,
    limits: tuple[float, float],
    colour: str,
) -> str:
    """Draw values over time as a small SVG, in the page's own ink, with a dot at t."""
    low, high = limits
    T, width, height = len(values) - 1, 240, 72

    def point(time: int) -> tuple[float, float]:
        share = (min(max(values[time], low), high) - low) / (high - low)
        return 34 + width * time / T, 18 + height * (1 - share)

    times = sorted({round(T * (1 - cos(pi * k / 48)) / 2) for k in range(49)})
    line = " ".join("{:.0f},{:.1f}".format(*point(time)) for time in times)
    x, y = point(t)
    middle = 18 + height / 2
    text = '<text x="{}" y="{:.0f}" text-anchor="{}">{}</text>'
    signed = [f"{v:g}".replace("-", "−") for v in (high, (low + high) / 2, low)]
    ticks = "".join(
        text.format(30, at, "end", label)
        for at, label in zip((22, middle + 4, 22 + height), signed, strict=True)
    )
    axes = f"M34 18V{18 + height}H{34 + width}"
    grid = f"M34 18H{34 + width}M34 {middle:.0f}H{34 + width}"
    return (
        f'<svg role="img" aria-label="{title} over t" '
        'viewBox="0 0 290 106" width="290" '
        'style="max-width:100%;display:block" font-size="10" fill="currentColor">'
        f'<path d="{grid}" stroke="currentColor" opacity=".2"/>'
        f'<path d="{axes}" stroke="currentColor" opacity=".6" fill="none"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        + text.format(38, 12, "start", title)
        + ticks
        + text.format(34, 34 + height - 4, "middle", "0")
        + text.format(34 + width, 34 + height - 4, "end", f"T = {T}")
        + "</svg>"
    )
