"""What several commands share."""

import typer

from ddpm_core.models import DiffusionModel, Prompted, best_device
from ddpm_core.workshop.opened import open_model, same_weights

GUIDANCE = 1.5  # chosen by measurement in chapter 10
TEXT_MODEL = "toy-cars-text-32"  # what draws where no weights are named

T_END = typer.Option(
    min=0,
    help="timestep from which the last step goes to 0; left out: the model's own",
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
