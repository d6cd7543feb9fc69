"""What each shipped model computes, in 32 numbers: `python tests/references.py`.

The numbers are stored in references.json, for tests/test_shipped.py. Write them again
only for weights that were trained again.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from ddpm_core.clip import load_clip
from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.latent import load_latent
from ddpm_core.models import load_model
from ddpm_core.neighbours.classifier import load_classifier
from ddpm_core.samplers import last
from ddpm_core.weights import WEIGHTS
from ddpm_core.workshop.contenders import load_contender

FILE = Path(__file__).with_name("references.json")
PROMPT = "a red van at night"


def shipped() -> dict[str, str]:
    """The kind of each model that ships, by its name."""
    cards = sorted(WEIGHTS.glob("*/card.json"))
    return {path.parent.name: json.loads(path.read_text())["kind"] for path in cards}


def a_car(size: int) -> Tensor:
    """One drawn car, in float64."""
    return to_float(draw_toy_cars(1, size=size, seed=0).images).double()


def computed(name: str, kind: str) -> Tensor:
    """What the model makes of a fixed input: in float64 where it can."""
    if kind == "diffusion":
        model = load_model(name)
        for part in (model.net, model.encoder, model.latent):
            if part is not None:
                part.double()
        prompted = {"prompts": [PROMPT], "scale": 2.0} if model.encoder else {}
        x_T = model.noise(1, torch.Generator().manual_seed(0)).double()
        return model.decode(last(model.sample(x_T, 3, **prompted)))
    if kind == "autoencoder":
        latent = load_latent(name).double()
        car = a_car(latent.autoencoder.config.size)
        return latent.decode(latent.encode(car))
    if kind == "classifier":
        net = load_classifier(name).double()
        return torch.cat([row.flatten() for row in net(a_car(32)).values()])
    if kind == "clip":
        condition = load_clip(name).double().encode([PROMPT])
        return torch.cat([part.flatten() for part in condition if part is not None])
    return load_contender(name).draw(1, 0)


def signature(name: str, kind: str) -> list[float]:
    """32 of the numbers, evenly spaced."""
    with torch.no_grad():
        numbers = computed(name, kind).double().flatten()
    return numbers[:: max(1, len(numbers) // 32)][:32].tolist()


if __name__ == "__main__":
    found = {name: signature(name, kind) for name, kind in shipped().items()}
    rows = (
        f'  "{name}": {json.dumps([round(v, 7) for v in row])}'
        for name, row in found.items()
    )
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
