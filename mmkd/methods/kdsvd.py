"""KDSVD: singular vectors (SVD) of feature maps, and their correlation between layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mmkd.adapters.convolution import consecutive_adapters
from mmkd.families import DETECTORS, classifier
from mmkd.functional.singular import aligned_vectors
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """``exp(-(V_2[p, m] - V_1[q, m])^2 / 8)``, (N, C1, k) and (N, C2, k) -> (N, C2, C1, k)."""
    return (-(second[:, :, None] - first[:, None]).square() / 8).exp()


def singular_distance(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    count: int = 1,
    spare: int = 3,
) -> Tensor:
    """``1 / N * sum (R_s - R_t)^2`` of the correlations between two consecutive maps.

    Args:
        student, teacher (tuple): two maps each, (N, C, H, W), of equal widths on both sides.
        count, spare (int): see :func:`~mmkd.functional.singular.aligned_vectors`.
    """
    ends = [aligned_vectors(s, t, count, spare) for s, t in zip(student, teacher, strict=True)]
    own, wanted = (correlation(*side) for side in zip(*ends, strict=True))
    return (own - wanted).square().sum() / len(own)


@MODELS.register_module()
class KDSVD(Objective):
    """Self-supervised knowledge distillation using singular value decomposition.

    Lee, Kim and Song, ECCV 2018, eqs. 3-6, over consecutive taps: the first right singular
    vectors of each map, in the space of channels, the student's aligned with the teacher's, and
    the RBF correlation of those of two consecutive maps. Signs of singular vectors are arbitrary:
    here the teacher's largest entry is positive. The authors' code clips this gradient to the norm
    of the task's: train with ``optim_wrapper=dict(clip_grad=dict(max_norm=5))``. Without taps: all
    stages of two classifiers.

    Args:
        count (int): k, singular vectors of the teacher.
        spare (int): additional singular vectors of the student that may be matched.
        adapt (str | None): ``'auto'``: a 1x1 convolution on the student's maps where widths differ;
            ``None``: unequal widths are refused.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; fewer than two maps, or unequally many; unequal widths.
    """

    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        count: int = 1,
        spare: int = 3,
        adapt: str | None = 'auto',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.count = check_number('KDSVD', 'count', count, 1, whole=True)
        self.spare = check_number('KDSVD', 'spare', spare, 0, whole=True)
        self.adapt = check_choice('KDSVD', 'adapt', adapt, ('auto', None))
        self.adapters = nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, classifier.stage_taps, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.adapters.extend(consecutive_adapters('KDSVD', student, teacher, self.adapt))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = [t for tap in self.student_taps for t in trace.student[tap]]
        own = [adapter(x) for adapter, x in zip(self.adapters, own, strict=True)]
        wanted = [t.detach() for tap in self.teacher_taps for t in trace.teacher[tap]]
        losses = [
            singular_distance(s, t, self.count, self.spare)
            for s, t in zip(pairwise(own), pairwise(wanted), strict=True)
        ]
        return {'loss': sum(losses)}
