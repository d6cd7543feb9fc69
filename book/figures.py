"""Draws the pictures of pages that are no notebooks: python book/figures.py.

The cars are those of the text model that ships with the book, from noise of one seed.
"""

import base64
from pathlib import Path

import torch
import yaml
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddpm_core.datasets import draw_toy_cars
from ddpm_core.datasets.images import to_uint8
from ddpm_core.display.plots import encode_png
from ddpm_core.models import load_model

STATIC = Path(__file__).parent / "_static"
MODEL, SCALE, SEED = "toy-cars-text-uniform-32", 2.0, 1
PROMPTS = [
    "a red sports car by day", "a yellow van at night", "a blue pickup truck in snow",
    "a green suv by day", "a white sedan at night", "an orange convertible by day",
    "a black sedan in snow", "a purple sports car at night",
    "a yellow convertible by day", "a red pickup truck at night",
    "a blue van by day", "a green sedan in snow",
]  # fmt: skip
COLUMNS = 6  # of the animation and of the card
FRAMES, MILLISECONDS = 40, 110  # it plays once, in less than five seconds
CARD = (1200, 630)  # what sites that show links ask for
PAPER, INK = "#ffffff", "#222832"


def walk(steps: int) -> Tensor:
    """Return all states x_t, from noise to cars: (steps + 1, cars, 3, h, w)."""
    model = load_model(MODEL)
    x_T = model.noise(len(PROMPTS), torch.Generator().manual_seed(SEED))
    states = model.sample(x_T, steps, prompts=PROMPTS, scale=SCALE)
    return torch.stack([state.x for state in states])


def tiled(images: Tensor, columns: int, *, pixel: int = 1, gap: int = 0) -> Image.Image:
    """Lay images out in rows, each pixel enlarged, the gaps transparent."""
    panels = [Image.fromarray(panel) for panel in to_uint8(images).numpy()]
    side = panels[0].width * pixel
    step, rows = side + gap, -(-len(panels) // columns)
    sheet = Image.new("RGBA", (columns * step - gap, rows * step - gap))
    for i, panel in enumerate(panels):
        large = panel.resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(large, (i % columns * step, i // columns * step))
    return sheet


def animation(path: Path, still: Path) -> None:
    """Noise becomes cars, once; the page enlarges the pixels. `still` has its end."""
    first, *others = [tiled(x, COLUMNS).convert("RGB") for x in walk(FRAMES - 1)]
    first.save(
        path, save_all=True, append_images=others, duration=MILLISECONDS, loop=1,
        quality=80, method=6, allow_mixed=True,
    )  # fmt: skip
    others[-1].save(still, lossless=True, method=6)


def enlarged(film: Path, path: Path) -> None:
    """Write every third frame, each pixel as four by four: for the README."""
    with Image.open(film) as frames:
        large = []
        for i in [*range(0, FRAMES, 3), *[FRAMES - 1] * 4]:
            frames.seek(i)
            size = 4 * frames.width, 4 * frames.height
            large.append(frames.convert("RGB").resize(size, Image.Resampling.NEAREST))
    first, *others = large
    first.save(
        path, save_all=True, append_images=others, duration=250, loop=0, quality=55,
        method=2,
    )  # fmt: skip


def stages(path: Path) -> None:
    """Two of the cars in a row each, from pure noise on the left to clean."""
    n = 7
    cars = walk(24)[::4, :2]
    picture = tiled(cars.transpose(0, 1).flatten(0, 1), n, pixel=5, gap=6)
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def social_card(path: Path, title: str) -> None:
    """What a link to the book shows elsewhere: its title over a walk out of noise."""
    width, height = CARD
    card = Image.new("RGB", CARD, PAPER)
    cars = walk(24)[[0, 7, 12, 17, 21, 24]][:, [0, 4]].transpose(0, 1).flatten(0, 1)
    panels = tiled(cars, COLUMNS, pixel=5, gap=12)
    margin = (width - panels.width) // 2
    card.paste(panels, (margin, height - panels.height - margin), panels)
    font = font_manager.findfont(font_manager.FontProperties(weight="bold"))
    ImageDraw.Draw(card).text(
        (margin, margin), title, fill=INK, font=ImageFont.truetype(font, 56)
    )
    card.quantize(256).save(path, optimize=True)


def laboratory_car() -> str:
    """The van of chapter 05 as a script: pages opened as files may read no pictures."""
    van = Image.fromarray(draw_toy_cars(8, seed=5).images[2])
    data = base64.b64encode(encode_png(van)).decode()
    script = f'const LABORATORY_CAR = "data:image/png;base64,{data}";'
    return f"// Written by book/figures.py.\n{script}\n"


if __name__ == "__main__":
    animation(STATIC / "out-of-noise.webp", STATIC / "cars-drawn.webp")
    enlarged(STATIC / "out-of-noise.webp", STATIC.parent / "out-of-noise-large.webp")
    stages(STATIC / "cars.png")
    config = yaml.safe_load(
        (STATIC.parents[1] / "_config.yml").read_text(encoding="utf-8")
    )
    social_card(STATIC / "social-card.png", config["title"])
    tiled(walk(40)[-1, :1], 1).save(STATIC / "favicon.png", optimize=True)
    (STATIC / "laboratory-car.js").write_text(laboratory_car(), encoding="utf-8")
