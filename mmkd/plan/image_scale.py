"""Objectives over scales: a student on images of another size than its teachers'."""

from __future__ import annotations

from torch import nn

from mmkd.families.comparable import Misfit
from mmkd.objective import Objective
from mmkd.scales import scale_of


def tell_scale(objective: Objective, student: nn.Module, frozen: list[bool]) -> None:
    """Tell an objective the scale of its learner's images.

    Args:
        student (nn.Module): of the run, with the data preprocessor.
        frozen (list[bool]): of each network that it listens to, whether it is a teacher, which sees
            full images, or learns from what the student sees.

    Raises:
        Misfit: it cannot compare over scales.
        ValueError: it listens to networks of both kinds.
    """
    scale = scale_of(student)
    if scale == 1 or not any(frozen):
        return
    name = type(objective).__name__
    if not all(frozen):
        raise ValueError(
            f'{name} listens to a teacher and to a network that learns, which Rescale in the '
            f"student's data_preprocessor shows images of {scale} of the side of the teacher's. "
            'Add an objective for each.'
        )
    if not objective.over_scales:
        raise Misfit(
            f"{name} compares networks that see the same images, but Rescale in the student's "
            f"data_preprocessor brings the student's to {scale} of the side of its teacher's."
        )
    objective.image_scale = scale
