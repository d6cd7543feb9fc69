"""Trains and measures: `python -m ddpm_core.trilemma --help`."""

import typer

from ddpm_core.trilemma import guidance, measuring, training

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
app.command("train")(training.main)
app.command("measure")(measuring.main)
app.command("guidance")(guidance.main)
app()
