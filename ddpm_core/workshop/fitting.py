"""A batch in as many parts as fit into the memory of a GPU. Chapter 14."""

import gc
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ddpm_core.workshop.presets import Preset
from ddpm_core.workshop.run import Run


def in_parts_that_fit(preset: Preset) -> Preset:
    """The same preset with `accumulate` doubled until a step fits into memory.

    The losses stay the same to float tolerance. Raises RuntimeError where the batch has
    no more equal parts. Chapter 14.
    """
    parts = preset.accumulate
    while preset.batch % (2 * parts) == 0:
        parts *= 2
        smaller = preset.replace(accumulate=parts)
        if fits(smaller):
            return smaller
    raise RuntimeError(
        f"a batch of {preset.batch} does not fit into memory in {parts} parts, and it "
        "has no more equal ones: choose another --batch or a smaller network"
    )


def fits(preset: Preset) -> bool:
    """Try whether a step of a run fits into memory, in a run of its own."""
    try:
        with (
            TemporaryDirectory() as folder,
            Run.begin(Path(folder) / "run", preset) as run,
        ):
            for _ in islice(run.take_steps(), 1):
                pass
    except torch.OutOfMemoryError:
        return False
    finally:
        free()
    return True


def free() -> None:
    """Free the GPU memory that nothing uses any more."""
    gc.collect()
    torch.cuda.empty_cache()
