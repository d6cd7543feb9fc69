"""Trains the attribute classifier: `python -m ddpm_core.classifier --help`."""

import typer

from ddpm_core.classifier.training import main

typer.run(main)
