"""SimKD: mean squared error of the last features; the teacher's classifier is reused."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.functional.pooling import pool_to_smaller
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.registry import MODELS
from mmkd.tap import Trace


@MODELS.register_module()
class SimKD(Objective):
    """Knowledge distillation with the reused teacher classifier.

    Chen et al., CVPR 2022, eq. 3: mean squared error of the last maps. The student's ``head.fc``
    becomes a frozen copy of the teacher's, so train with ``task_weight=0``; a projector of its own
    brings it to the teacher's width and stays in the student::

        model.student.projector = dict(type='mmkd.BottleneckProjector', out_channels=256)

    Of unequal maps the larger is averaged: the teacher's in the loss, the student's in front of the
    projector, as in DefangChen/SimKD, so at inference too: ``projector=dict(…, pool=2)`` where the
    student's maps are twice as large. At weight 0 the student keeps a linear layer of its
    own, so the plain one trains by the same command with ``task_weight=1``.

    Args:
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; by default,
            the taps are the inputs of the pooling.

    Raises:
        ValueError: no classifiers; another number of classes; maps or linear layers of unequal
            width; more than one map per side.
    """

    compares_classes = True  # the student takes over the teacher's classifier
    asks_teacher = True
    over_scales = True
    families = ('classifier',)
    #: the student has a projector, which would have to average first
    projected = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, _pooled_tap, student, teacher)
        heads = [model.get_submodule(classifier.logits_tap(model)) for model in (student, teacher)]
        own, wanted = (tuple(head.weight.shape) for head in heads)
        if own[0] != wanted[0]:
            raise ValueError(
                f'SimKD reuses the linear layer of the teacher, but student and teacher have '
                f'{own[0]} and {wanted[0]} classes. Methods on features, e.g. FitNet, allow that.'
            )
        if own[1] != wanted[1]:
            raise ValueError(
                f"SimKD: the student's linear layer takes {own[1]} channels, the teacher's "
                f'{wanted[1]}. Let the student have projector='
                f"dict(type='mmkd.BottleneckProjector', out_channels={wanted[1]})."
            )
        self.projected = getattr(student, 'projector', None) is not None
        if not self.weight.is_zero:
            heads[0].requires_grad_(False)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if any(levels is not None and len(levels) != 1 for levels in (student, teacher)):
            raise ValueError('SimKD compares one map of each network; name one tap of each.')
        if student and teacher and student[0].channels != teacher[0].channels:
            raise ValueError(
                f'SimKD: the maps have {student[0].channels} and {teacher[0].channels} channels; '
                'tap the input of the pooling in both networks.'
            )
        strides = [levels[0].stride if levels else None for levels in (student, teacher)]
        if self.projected and None not in strides and strides[0] < strides[1]:
            pool = round(strides[1] / strides[0])
            raise ValueError(
                f"SimKD: the student's map has stride {strides[0]} and the teacher's "
                f'{strides[1]}. The student averages its map in front of the projector, also when '
                f'it is deployed: projector=dict(…, pool={pool}).'
            )

    @torch.no_grad()
    def inherit(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        if not self.weight.is_zero:
            for own, wanted in zip(
                student.head.fc.parameters(), teacher.head.fc.parameters(), strict=True
            ):
                own.copy_(wanted)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = trace.student[self.student_taps[0]][0]
        wanted = trace.teacher[self.teacher_taps[0]][0].detach()
        return {'loss': F.mse_loss(*pool_to_smaller(own, wanted))}


def _pooled_tap(model: nn.Module) -> str:
    """Address of the map (N, C, H, W) that enters the pooling."""
    if not isinstance(getattr(model, 'pool', None), nn.Module):
        raise ValueError(
            f'SimKD cannot find the pooling of a {type(model).__name__}; name the tap, e.g. '
            "teacher='backbone'."
        )
    return 'pool@in[0]'
