"""A training run in a folder: begun, killed, resumed, measured. Chapter 07."""

from ddpm_core.runs.batches import Batches, Split, load_split
from ddpm_core.runs.estimate import Estimate, estimate
from ddpm_core.runs.folder import RunFolder, Stopped, read_log
from ddpm_core.runs.run import Run

__all__ = [
    "Batches", "Estimate", "Run", "RunFolder", "Split", "Stopped", "estimate",
    "load_split", "read_log",
]  # fmt: skip
