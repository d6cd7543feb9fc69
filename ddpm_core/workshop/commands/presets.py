"""`ddpm presets`: what `ddpm train` can train."""

import typer

from ddpm_core.datasets.sizes import spelled
from ddpm_core.workshop.presets import PRESETS


def presets() -> None:
    """List what `ddpm train` can train."""
    for name, preset in PRESETS.items():
        model = preset.model
        space = f" in {model.latent}" if model.latent else ""
        typer.echo(
            f"{name:26} {preset.data}, {spelled(model.size)} pixels{space}, "
            f"{model.network.kind}, {preset.epochs} epochs in batches of {preset.batch}"
        )
