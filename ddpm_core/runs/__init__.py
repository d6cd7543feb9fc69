"""A training run in a folder: begun, killed, resumed, measured. Chapter 07."""

from ddpm_core.runs.batches import Batches, Split, load_split
from ddpm_core.runs.estimate import Estimate, at_least, estimate, spell
from ddpm_core.runs.fitting import in_parts_that_fit
from ddpm_core.runs.folder import RunFolder, Stopped, read_log
from ddpm_core.runs.run import Run

__all__ = [
    "Batches", "Estimate", "Run", "RunFolder", "Split", "Stopped", "at_least",
    "estimate", "in_parts_that_fit", "load_split", "read_log", "spell",
]  # fmt: skip
