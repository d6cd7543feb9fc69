"""Trains the KL autoencoder: `python -m ddpm_core.latent --help`."""

import typer

from ddpm_core.latent.training import main

typer.run(main)
