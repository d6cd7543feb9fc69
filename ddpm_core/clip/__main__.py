"""Trains the small CLIP: `python -m ddpm_core.clip --help`."""

import typer

from ddpm_core.clip.training import main

typer.run(main)
