"""The teacher of a run that distils a trained model. Chapter 13."""

from functools import partial

import torch

from ddpm_core.distillation import Lesson, progressive, reflow
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.workshop.presets import Preset

SHARED = (
    "size schedule T beta_start beta_end zero_terminal_snr target latent unet".split()
)
"""What a student has in common with its teacher, from whose weights it starts."""


def load_teacher(preset: Preset, device: torch.device) -> DiffusionModel | None:
    """Load the preset's teacher; None if it has none.

    Raises as `load_model` does, and ValueError for one that differs from the preset.
    """
    if not preset.teacher:
        return None
    teacher = load_model(preset.teacher, device)
    ours, theirs = preset, teacher.preset
    differing = [k for k in SHARED if getattr(ours, k) != getattr(theirs, k)]
    if differing:
        raise ValueError(
            f"a student is built as its teacher {preset.teacher} is, which differs in "
            + ", ".join(f"{k} ({getattr(theirs, k)})" for k in differing)
        )
    return teacher


def lesson_of(teacher: DiffusionModel, preset: Preset) -> Lesson:
    """What the student is taught: a number of calls, or straight ways for any."""
    kind = partial(progressive, calls=preset.calls) if preset.calls else reflow
    denoise = teacher.denoiser()
    return kind(denoise, teacher.schedule, teacher_calls=preset.teacher_calls)
