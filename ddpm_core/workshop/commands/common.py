"""What several commands share."""

import typer

from ddpm_core.models import DiffusionModel, Prompted, best_device
from ddpm_core.options import one_of
from ddpm_core.samplers import SAMPLERS
from ddpm_core.values import check_count
from ddpm_core.weights import find_weights, read_card
from ddpm_core.workshop.opened import is_run, open_model, same_weights

GUIDANCE = 1.5  # chosen by measurement in chapter 10
TEXT_MODEL = "toy-cars-text-32"  # what draws where no weights are named

T_END = typer.Option(
    min=0,
    help="timestep from which the last step goes to 0; left out: the model's own",
)
CALLS = 50  # of the network an image, if neither the command nor the card says it
STEPS = typer.Option(
    min=1,
    help=f"network calls an image; left out: as the card was measured, or {CALLS}",
)
SAMPLER = typer.Option(
    help=f"{', '.join(SAMPLERS)}; left out: as the card was measured, or ddim"
)
GUIDE = typer.Option(help="worse model of the same images, to keep away from")


def guided_by(
    guide: str | None, model: DiffusionModel, scale: float | None
) -> Prompted:
    """The worse model that a model leads away from, and how strongly; neither if None.

    Raises ValueError for a guide that has no effect. Chapter 10.
    """
    if guide is None:
        return {}
    if scale is None or scale <= 1:
        raise ValueError("--guide has no effect without a --scale above 1")
    worse = open_model(guide, best_device())
    if same_weights(model.net, worse.net):
        raise ValueError("--guide has no effect: it is the model itself")
    return {"guide": worse, "scale": scale}


def drawn_as(weights: str, steps: int | None, sampler: str | None) -> tuple[int, str]:
    """The network calls and the sampler: as given, or as the card was measured.

    A run has no card, and some weights were never measured: they get 50 calls of DDIM.
    Raises ValueError for a card with an unknown sampler, or with calls that are no
    count.
    """
    measured = {} if is_run(weights) else read_card(weights).get("measured", {})
    try:
        if steps is None:
            steps = measured.get("steps", CALLS)
            check_count("steps", steps)
        if sampler is None:
            sampler = one_of("sampler", measured.get("sampler", "ddim"), SAMPLERS)
    except (AttributeError, TypeError, ValueError) as error:
        path = find_weights(weights) / "card.json"
        raise ValueError(f"{path}, 'measured': {error}") from None
    return steps, sampler
