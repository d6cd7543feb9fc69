"""How a toy car is drawn: shapes in units of its length, colours, light. Chapter 01.

Everything is drawn larger with pillow, facing right, and reduced at the end. The car's
own coordinates: u from its tail (0) to its nose (1), v upwards from the sill, both in
car lengths; the picture's: x to the right, y down, both in picture sides.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

PAINT: dict[str, Colour] = {
    "red": (208, 32, 36),
    "orange": (242, 126, 20),
    "yellow": (248, 208, 44),
    "green": (38, 138, 62),
    "blue": (34, 92, 206),
    "purple": (132, 58, 176),
    "white": (240, 241, 240),
    "black": (42, 43, 50),
}
"""The colours of the bodies by day."""

GROUND: dict[str, Colour] = {
    "road": (120, 121, 127),
    "grass": (104, 164, 74),
    "snow": (228, 234, 242),
    "sand": (221, 190, 132),
}
"""The colours of the grounds by day."""

GLASS, TYRE, RIM, DARK = (52, 70, 92), (28, 28, 32), (186, 190, 198), (24, 25, 30)
SEAT, SKIN, LAMP, TAIL = (150, 104, 70), (226, 178, 146), (255, 240, 190), (190, 24, 30)
NIGHT = (0.66, 0.67, 0.80)  # what is left of red, green and blue at night


@dataclass(frozen=True)
class Body:
    """The shape of a kind of car: outline and windows, in the car's coordinates."""

    outline: tuple[tuple[float, float], ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheels: tuple[float, float]  # u of their centres
    radius: float
    clearance: float
    length: float  # in picture sides
    doors: tuple[float, ...]  # u of the lines between them
    belt: float  # v of the line under the windows


BODY_SHAPES: dict[str, Body] = {
    "sedan": Body(
        ((0, 0.01), (0, 0.14), (0.02, 0.185), (0.18, 0.20), (0.29, 0.33), (0.36, 0.355),
         (0.56, 0.355), (0.63, 0.335), (0.75, 0.205), (0.93, 0.175), (0.99, 0.14),
         (1, 0.05), (0.99, 0.0), (0.01, 0.0)),
        (((0.225, 0.205), (0.315, 0.318), (0.435, 0.325), (0.435, 0.205)),
         ((0.465, 0.205), (0.465, 0.325), (0.575, 0.322), (0.695, 0.205))),
        (0.20, 0.80), 0.088, 0.045, 0.82, (0.45, 0.66), 0.195,
    ),
    "SUV": Body(
        ((0, 0.01), (0, 0.22), (0.015, 0.31), (0.05, 0.415), (0.10, 0.44), (0.58, 0.44),
         (0.64, 0.42), (0.74, 0.275), (0.94, 0.25), (0.99, 0.215), (1, 0.06),
         (0.99, 0.0), (0.01, 0.0)),
        (((0.06, 0.27), (0.085, 0.395), (0.205, 0.40), (0.205, 0.27)),
         ((0.235, 0.27), (0.235, 0.40), (0.42, 0.40), (0.42, 0.27)),
         ((0.45, 0.27), (0.45, 0.40), (0.585, 0.398), (0.68, 0.27))),
        (0.20, 0.79), 0.108, 0.085, 0.78, (0.22, 0.435, 0.65), 0.26,
    ),
    "sports car": Body(
        ((0, 0.03), (0, 0.13), (0.02, 0.165), (0.14, 0.18), (0.32, 0.255),
         (0.40, 0.268), (0.48, 0.26), (0.66, 0.165), (0.86, 0.125), (0.97, 0.075),
         (1, 0.03), (0.98, 0.0), (0.02, 0.0)),
        (((0.275, 0.185), (0.36, 0.235), (0.42, 0.238), (0.42, 0.182)),
         ((0.445, 0.182), (0.445, 0.238), (0.475, 0.236), (0.60, 0.168))),
        (0.18, 0.81), 0.090, 0.03, 0.86, (0.43, 0.63), 0.165,
    ),
    "pickup truck": Body(
        ((0, 0.01), (0, 0.20), (0.40, 0.20), (0.405, 0.36), (0.43, 0.39), (0.58, 0.39),
         (0.63, 0.37), (0.72, 0.235), (0.94, 0.215), (0.99, 0.18), (1, 0.05),
         (0.99, 0.0), (0.01, 0.0)),
        (((0.44, 0.235), (0.44, 0.352), (0.515, 0.355), (0.515, 0.235)),
         ((0.54, 0.235), (0.54, 0.355), (0.585, 0.352), (0.665, 0.235))),
        (0.19, 0.80), 0.102, 0.085, 0.86, (0.41, 0.53, 0.66), 0.22,
    ),
    "van": Body(
        ((0, 0.01), (0, 0.42), (0.015, 0.49), (0.06, 0.515), (0.68, 0.515),
         (0.77, 0.485), (0.91, 0.29), (0.98, 0.235), (1, 0.16), (1, 0.03), (0.99, 0.0),
         (0.01, 0.0)),
        (((0.05, 0.31), (0.05, 0.455), (0.30, 0.455), (0.30, 0.31)),
         ((0.335, 0.31), (0.335, 0.455), (0.59, 0.455), (0.59, 0.31)),
         ((0.625, 0.31), (0.625, 0.455), (0.745, 0.445), (0.85, 0.31))),
        (0.19, 0.80), 0.088, 0.045, 0.78, (0.32, 0.605, 0.83), 0.29,
    ),
    "convertible": Body(
        ((0, 0.02), (0, 0.145), (0.02, 0.185), (0.17, 0.205), (0.25, 0.20),
         (0.29, 0.172), (0.57, 0.172), (0.62, 0.195), (0.74, 0.19), (0.93, 0.155),
         (0.99, 0.12), (1, 0.04), (0.99, 0.0), (0.01, 0.0)),
        (),
        (0.19, 0.80), 0.088, 0.04, 0.84, (0.32, 0.60), 0.165,
    ),
}  # fmt: skip


class Canvas:
    """A square picture of `side` pixels, drawn on in picture sides (0..1)."""

    def __init__(self, side: int, background: Image.Image, night: bool):
        self.side, self.image, self.night = side, background, night
        self.draw = ImageDraw.Draw(background, "RGBA")

    def lit(self, colour, alpha: float = 1.0) -> tuple[int, ...]:
        """The colour at this time of day, as bytes."""
        if isinstance(colour, np.ndarray):
            colour = colour.tolist()  # numpy is slow with single numbers
        r, g, b = colour
        if self.night:
            r, g, b = r * NIGHT[0], g * NIGHT[1], b * NIGHT[2]
        r, g, b = (int(min(max(value, 0), 255)) for value in (r, g, b))
        return r, g, b, round(255 * alpha)

    def polygon(self, points: np.ndarray, colour, alpha: float = 1.0) -> None:
        """Fill a polygon of (x, y) points."""
        self.draw.polygon(
            (points * self.side).ravel().tolist(), self.lit(colour, alpha)
        )

    def line(
        self, points: np.ndarray, colour, width: float, alpha: float = 1.0
    ) -> None:
        """Draw a line of that width through (x, y) points."""
        pixels = (points * self.side).ravel().tolist()
        wide = max(1, round(width * self.side))
        self.draw.line(pixels, self.lit(colour, alpha), wide, joint="curve")

    def ellipse(self, x, y, rx, ry, colour, alpha: float = 1.0, glows=False) -> None:
        """Fill an ellipse around (x, y); what glows keeps its colour at night."""
        box = [v * self.side for v in (x - rx, y - ry, x + rx, y + ry)]
        fill = (*colour, round(255 * alpha)) if glows else self.lit(colour, alpha)
        self.draw.ellipse(box, fill)

    def shaded(self, points: np.ndarray, stops, colours) -> None:
        """Fill a polygon with a vertical gradient: colours at the y of the stops."""
        mask = Image.new("L", (self.side, self.side))
        ImageDraw.Draw(mask).polygon((points * self.side).ravel().tolist(), 255)
        lit = [self.lit(colour)[:3] for colour in colours]
        self.image.paste(gradient(self.side, stops, lit), mask=mask)


def gradient(side: int, stops, colours) -> Image.Image:
    """A picture whose rows go through `colours` at the heights `stops` (0..1)."""
    rows = (np.arange(side) + 0.5) / side
    channels = [
        np.interp(rows, stops, channel) for channel in zip(*colours, strict=True)
    ]
    column = np.stack(channels, 1).clip(0, 255).astype(np.uint8)[:, None]
    return Image.fromarray(column).resize((side, side), Image.Resampling.NEAREST)


def rounded(points: np.ndarray, times: int = 2) -> np.ndarray:
    """Cut the corners of a closed polygon (Chaikin's curve)."""
    for _ in range(times):
        after = np.concatenate([points[1:], points[:1]])
        cut = np.empty((len(points), 2, 2))
        cut[:, 0] = 0.8 * points + 0.2 * after
        cut[:, 1] = 0.2 * points + 0.8 * after
        points = cut.reshape(-1, 2)
    return points


def draw_car(
    body: str, colour: str, left: bool, night: bool, ground: str, size: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Draw one car, uint8 (size, size, 3); `rng` decides whatever has no name."""
    scale = 4 if size <= 64 else 3
    side = size * scale
    horizon = rng.uniform(0.50, 0.64)
    canvas = scenery(side, horizon, night, ground, rng)
    shape = BODY_SHAPES[body]
    length = shape.length * rng.uniform(0.93, 1.06)
    nose = 0.5 + length / 2 + rng.uniform(-1, 1) * (0.96 - length) / 2
    floor = rng.uniform(0.80, 0.88)  # y where the tyres stand
    tall, clearance = rng.uniform(0.93, 1.08), shape.clearance * rng.uniform(0.85, 1.2)

    def place(points) -> np.ndarray:
        """From the car's coordinates to the picture's."""
        u, v = np.asarray(points, float).T
        placed = np.empty((len(u), 2))
        placed[:, 0] = nose - (1 - u) * length
        placed[:, 1] = floor - (clearance + v * tall) * length
        return placed

    paint = painted(colour, rng)
    draw_shadow(canvas, nose - length / 2, floor, length)
    if night:
        draw_beam(canvas, place([(0.99, 0.11)])[0], floor)
    if body == "convertible":
        draw_cabin(canvas, place, length, rng)
    draw_body(canvas, shape, body, place, paint, length, rng)
    draw_wheels(canvas, shape, nose, floor, length, rng)
    image = canvas.image.reduce(scale)
    if left:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def painted(colour: str, rng: np.random.Generator) -> np.ndarray:
    """The named colour, a little lighter, darker or warmer than the last time."""
    base = np.array(PAINT[colour], float)
    return (base * rng.uniform(0.90, 1.08) + rng.uniform(-9, 9, 3)).clip(8, 250)


def scenery(
    side: int, horizon: float, night: bool, ground: str, rng: np.random.Generator
) -> Canvas:
    """Sky, what stands far away, and ground."""
    near = np.array(GROUND[ground], float) + rng.uniform(-10, 10)
    if night:
        top, low = (
            np.array([16, 18, 48]),
            np.array([64, 66, 118]) * rng.uniform(0.75, 1.2),
        )
        near = near * (0.44, 0.46, 0.60)
    else:
        blue = rng.uniform(0, 1)
        top = np.array([70 + 60 * blue, 140 + 40 * blue, 222 + 14 * blue])
        low = np.array([196, 220, 238]) + rng.uniform(-14, 14)
    far = 0.75 * near + 0.25 * low
    stops = [0, horizon, horizon + 1e-3, 1]
    canvas = Canvas(side, gradient(side, stops, [top, low, far, near]), False)
    far_away(canvas, horizon, night, low, near, rng)
    if ground == "road":
        x, y = rng.uniform(0, 0.25), rng.uniform(0.92, 0.95)
        mark = near + (100 if not night else 60)
        for start in np.arange(x - 0.25, 1, 0.34):
            dash = [(start, y), (start + 0.18, y), (start + 0.17, y + 0.025)]
            canvas.polygon(np.array([*dash, (start - 0.01, y + 0.025)]), mark)
    else:
        tufts = {"grass": -26, "snow": 9, "sand": -17}[ground] * (0.5 if night else 1)
        for x, y, r in rng.uniform((0, horizon + 0.08, 0.03), (1, 1, 0.11), (7, 3)):
            canvas.ellipse(x, y, r, 0.016, (near + tufts).clip(0, 255), 0.7)
    canvas.night = night
    return canvas


def far_away(canvas: Canvas, horizon, night, low, near, rng) -> None:
    """Sun or moon, clouds or stars, and a line of hills."""
    x, y, r = (
        rng.uniform(0.08, 0.92),
        rng.uniform(0.08, 0.22),
        rng.uniform(0.045, 0.065),
    )
    if night:
        for star in rng.uniform((0, 0, 0.5), (1, horizon - 0.1, 1), (6, 3)):
            canvas.ellipse(star[0], star[1], 0.011, 0.011, (225, 228, 245), star[2])
        canvas.ellipse(x, y, r, r, (240, 240, 214))
    elif rng.random() < 0.6:
        canvas.ellipse(x, y, r, r, (255, 236, 150))
    if not night:
        for cx, cy in rng.uniform(
            (0, 0.06), (1, horizon - 0.22), (rng.integers(0, 3), 2)
        ):
            for dx, dy, rx in (
                (-0.07, 0.01, 0.07),
                (0, -0.015, 0.085),
                (0.08, 0.01, 0.06),
            ):
                canvas.ellipse(cx + dx, cy + dy, rx, 0.035, (250, 251, 253), 0.85)
    hill = 0.55 * np.asarray(low) + 0.45 * np.asarray(near)
    for start in rng.uniform(-0.3, 1.0, 3):
        wide, high = rng.uniform(0.35, 0.75), rng.uniform(0.04, 0.12)
        ridge = [(start, horizon), (start + wide / 2, horizon - high)]
        canvas.polygon(rounded(np.array([*ridge, (start + wide, horizon)]), 2), hill)


def draw_shadow(canvas: Canvas, middle: float, floor: float, length: float) -> None:
    """A soft shadow under the car."""
    for grow, alpha in ((1.0, 0.22), (0.93, 0.25), (0.85, 0.30)):
        rx, ry = grow * length * 0.53, grow * 0.045
        canvas.ellipse(middle, floor, rx, ry, (10, 12, 20), alpha)


def draw_beam(canvas: Canvas, lamp: np.ndarray, floor: float) -> None:
    """The light of the head lamp on air and ground."""
    x, y = lamp
    for spread, alpha in ((1.0, 0.22), (0.6, 0.25)):
        reach = [(x + 0.5, y - 0.05 * spread), (x + 0.5, floor + 0.05 * spread)]
        points = np.array([(x, y - 0.012), *reach, (x, y + 0.02)])
        pixels = (points * canvas.side).ravel().tolist()
        canvas.draw.polygon(pixels, (255, 236, 170, round(255 * alpha)))


def draw_cabin(canvas: Canvas, place, length: float, rng: np.random.Generator) -> None:
    """What an open car shows: seats, perhaps a driver, the windscreen."""
    seat = np.array(SEAT) * rng.uniform(0.6, 1.1)
    for u in (0.33, 0.485):
        back = [(u, 0.16), (u - 0.035, 0.262), (u + 0.02, 0.268), (u + 0.05, 0.16)]
        canvas.polygon(rounded(place(back), 2), seat)
    if rng.random() < 0.5:
        (x, y), r = place([(0.515, 0.30)])[0], 0.034 * length
        canvas.ellipse(x, y + 2.2 * r, 1.5 * r, 1.8 * r, rng.uniform(40, 200, 3))
        canvas.ellipse(x, y, r, 1.15 * r, SKIN)
    screen = [(0.60, 0.17), (0.575, 0.30), (0.595, 0.305), (0.68, 0.19)]
    canvas.polygon(place(screen), (150, 180, 200), 0.75)
    canvas.line(place([(0.675, 0.18), (0.582, 0.305)]), DARK, 0.016)


def draw_body(
    canvas: Canvas, shape: Body, body: str, place, paint: np.ndarray, length: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Paint, windows, doors, lamps and bumpers."""
    outline = np.array(shape.outline) + rng.uniform(
        -0.005, 0.005, (len(shape.outline), 2)
    )
    outline = rounded(place(outline), 2)
    light = (0.55 * paint + 0.45 * np.array([255, 255, 255])).clip(0, 255)
    dark = 0.55 * paint
    roof = outline[:, 1].min()
    belt, middle, sill = (place([(0.5, v)])[0, 1] for v in (shape.belt, 0.09, 0.0))
    stops = [roof, belt - 0.01, belt + 0.012, middle, sill]
    colours = [light, 0.9 * paint, 0.7 * paint + 0.3 * light, paint, dark]
    canvas.shaded(outline, stops, colours)
    if canvas.night:  # the moon's edge keeps dark paint apart from a dark sky
        top = outline[outline[:, 1] < middle]
        canvas.line(top, 0.6 * light + 70, 0.007, 0.55)
    if body == "sports car" and rng.random() < 0.7:
        canvas.polygon(
            place([(0.0, 0.205), (0.12, 0.225), (0.12, 0.205), (0, 0.18)]), dark
        )
        canvas.line(place([(0.06, 0.16), (0.06, 0.21)]), dark, 0.014)
    if body == "pickup truck":
        canvas.line(place([(0.0, 0.197), (0.405, 0.197)]), DARK, 0.022)
    tint = np.array(GLASS) * rng.uniform(0.75, 1.35)
    for window in shape.windows:
        points = rounded(place(window), 1)
        upper, lower = points[:, 1].min(), points[:, 1].max()
        canvas.shaded(points, [upper, lower], [1.75 * tint, tint])
    for u in shape.doors:
        canvas.line(place([(u, 0.03), (u, shape.belt)]), dark, 0.006, 0.7)
    for u in shape.doors[:-1]:
        handle = [(u + 0.03, shape.belt - 0.035), (u + 0.075, shape.belt - 0.035)]
        canvas.line(place(handle), dark, 0.010, 0.8)
    canvas.line(place([(0.27, 0.008), (0.73, 0.008)]), DARK, 0.016)
    for u in (0.012, 0.985):
        canvas.line(place([(u, 0.02), (u, 0.055)]), (90, 92, 98), 0.022)
    draw_lamps(canvas, shape, place, length)


def draw_lamps(canvas: Canvas, shape: Body, place, length: float) -> None:
    """The head lamp at the nose and the red one at the tail; at night they glow."""
    height = min(0.75 * shape.belt, 0.17)
    (nx, ny), (tx, ty) = place([(0.965, 0.8 * height), (0.018, height)])
    lamp, tail = (0.030 * length, 0.022 * length), (0.014 * length, 0.032 * length)
    if canvas.night:
        canvas.ellipse(nx, ny, 2.4 * lamp[0], 2.4 * lamp[0], LAMP, 0.35, glows=True)
        canvas.ellipse(
            tx, ty, 2.2 * tail[1], 2.2 * tail[1], (255, 40, 40), 0.35, glows=True
        )
    canvas.ellipse(nx, ny, *lamp, LAMP, glows=True)
    canvas.ellipse(tx, ty, *tail, (255, 50, 50) if canvas.night else TAIL, glows=True)


def draw_wheels(
    canvas: Canvas, shape: Body, nose: float, floor: float, length: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Arches, tyres, rims with spokes, hubs; both wheels alike."""
    r = shape.radius * length * rng.uniform(0.93, 1.08)
    rim, turn = np.array(RIM) * rng.uniform(0.75, 1.15), rng.uniform(0, 2 * np.pi)
    spokes = int(rng.integers(4, 7))
    for u in shape.wheels:
        x, y = nose - (1 - u) * length, floor - r
        canvas.ellipse(x, y, 1.2 * r, 1.2 * r, DARK)
        canvas.ellipse(x, y, r, r, TYRE)
        canvas.ellipse(x, y, 0.62 * r, 0.62 * r, rim.clip(0, 255))
        for k in range(spokes):
            angle = turn + 2 * np.pi * k / spokes
            end = (x + 0.55 * r * np.cos(angle), y + 0.55 * r * np.sin(angle))
            canvas.line(np.array([(x, y), end]), 0.55 * rim, 0.012 * length, 0.8)
        canvas.ellipse(x, y, 0.2 * r, 0.2 * r, (70, 72, 78))
