"""MimicHead: squared distance of class logits and box codes of both box heads, after Mimic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.families import two_stage
from mmkd.families.comparable import check_coders, uses_sigmoid
from mmkd.objective import Objective, Taps
from mmkd.options import check_factors
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import Boxes

TERMS = ('classes', 'boxes')


@MODELS.register_module()
class MimicHead(Objective):
    """Second stage of Mimic: fine-tune from the first with the teacher's class and box outputs.

    Li et al., CVPR 2017, two-stage mimic: squared distances of class logits and of encoded boxes,
    averaged over all elements, of the RoIs that the student samples. It starts from a student
    trained with :class:`Mimic`; ``mmkd train configs/chains/mimic_frcnn_r101_r50.py`` runs both
    stages. The paper's first one trains no box head, which is
    ``task_weight=dict(loss_cls=0, loss_bbox=0)`` there.

    Args:
        factors (dict[str, float] | None): of the terms ``'classes'`` and ``'boxes'``, where not 1.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            the first box head's whatever is given.

    Raises:
        ValueError: a model without a box head; unequal classes or box coders.
    """

    term_factors = {f'loss_{term}': f'factors.{term}' for term in TERMS}
    asks_teacher = True
    over_scales = True
    families = ('two_stage', 'instance')
    rank_invariant = True

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.factors = check_factors('MimicHead', factors, dict.fromkeys(TERMS, 1.0))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        two_stage.check_box_heads('MimicHead', student, teacher, softmax=False)
        heads = [two_stage.box_head(model) for model in (student, teacher)]
        check_coders('MimicHead', *heads)
        self.student_taps, self.teacher_taps = two_stage.answer_taps(student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {
            f'loss_{term}': self.factors[term] * (s - t).square().sum() / max(s.numel(), 1)
            for term, s, t in zip(TERMS, *two_stage.answers(trace), strict=True)
        }

    def views(self, trace: Trace) -> list[Boxes]:
        """RoIs where the class outputs differ most, with the scores of both sides."""
        model = trace.student.model
        student, teacher = (answer[0] for answer in two_stage.answers(trace))
        sigmoid = uses_sigmoid(two_stage.box_head(model))
        scores = [z.sigmoid() if sigmoid else z.softmax(-1) for z in (student, teacher)]
        rois, gap = trace.student[two_stage.rois_tap(model)][0], (student - teacher).square()
        return two_stage.ranked_rois('RoIs of largest difference', rois, scores, gap.mean(-1))
