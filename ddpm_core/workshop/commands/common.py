"""What several commands share."""

import typer

GUIDANCE = 1.5  # chosen by measurement in chapter 10
TEXT_MODEL = "toy-cars-text-32"  # what draws where no weights are named

T_END = typer.Option(
    min=0,
    help="timestep from which the last step goes to 0; left out: the model's own",
)
