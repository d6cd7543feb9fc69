"""The teacher of a run that distils a trained model. Chapter 13."""

from functools import partial

import torch

from ddpm_core.distillation import Lesson, progressive, reflow
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.workshop.folder import flat
from ddpm_core.workshop.presets import Preset


def load_teacher(preset: Preset, device: torch.device) -> DiffusionModel | None:
    """Load the preset's teacher; None if it has none.

    Its student starts from its weights, and so is the same kind of model. Raises as
    `load_model` does, and ValueError for a teacher that differs from the preset's
    model.
    """
    if not preset.teacher:
        return None
    teacher = load_model(preset.teacher, device)
    ours, theirs = flat(preset.model.to_dict()), flat(teacher.config.to_dict())
    differing = [name for name in theirs if ours.get(name) != theirs[name]]
    if differing:
        raise ValueError(
            f"a student is built as its teacher {preset.teacher} is, which differs in "
            + ", ".join(f"{name} ({theirs[name]})" for name in differing)
        )
    return teacher


def lesson_of(teacher: DiffusionModel, preset: Preset) -> Lesson:
    """What the student is taught: a number of calls, or straight paths for any."""
    kind = partial(progressive, calls=preset.calls) if preset.calls else reflow
    denoise = teacher.denoiser()
    return kind(denoise, teacher.schedule, teacher_calls=preset.teacher_calls)
