"""Draws the pictures of pages that are no notebooks: python book/figures.py."""

import base64
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.datasets.images import to_uint8
from ddpm_core.diffusion import add_noise
from ddpm_core.plots import encode_png
from ddpm_core.schedules import cosine_schedule

STATIC = Path(__file__).parent / "_static"
STAGES, PIXEL, GAP = 7, 5, 6


def cars_out_of_noise(attributes: list[list[int]], seed: int = 0) -> Image.Image:
    """Each car in a row of its own, from pure noise on the left to clean."""
    cars = draw_toy_cars(len(attributes), seed=seed, attributes=np.array(attributes))
    x0 = to_float(cars.images)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    schedule = cosine_schedule(100)
    stages = []
    for t in torch.linspace(100, 0, STAGES).long():
        stages.append(add_noise(schedule, x0, t.expand(len(x0)), eps))
    panels = to_uint8(torch.stack(stages, 1).flatten(0, 1)).numpy()

    step = panels.shape[1] * PIXEL + GAP
    picture = Image.new("RGBA", (STAGES * step - GAP, len(x0) * step - GAP))
    for i, panel in enumerate(panels):
        row, column = divmod(i, STAGES)
        size = (step - GAP, step - GAP)
        large = Image.fromarray(panel).resize(size, Image.Resampling.NEAREST)
        picture.paste(large, (column * step, row * step))
    return picture.quantize(256, method=Image.Quantize.FASTOCTREE)


def laboratory_car() -> str:
    """The van of chapter 05 as a script: pages opened as files may read no pictures."""
    van = Image.fromarray(draw_toy_cars(8, seed=5).images[2])
    data = base64.b64encode(encode_png(van)).decode()
    script = f'const LABORATORY_CAR = "data:image/png;base64,{data}";'
    return f"// Written by book/figures.py.\n{script}\n"


if __name__ == "__main__":
    # body, colour, facing, time, ground: a red sports car by day, a yellow van at night
    rows = [[2, 0, 1, 0, 0], [4, 2, 0, 1, 2]]
    cars_out_of_noise(rows).save(STATIC / "cars.png", optimize=True)
    (STATIC / "laboratory-car.js").write_text(laboratory_car())
