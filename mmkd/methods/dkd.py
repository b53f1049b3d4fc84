"""DKD: KL divergence split into target-class and non-target-class terms, weighted separately."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import classifier, is_two_stage, two_stage
from mmkd.families.comparable import check_same
from mmkd.functional.logit_distances import decoupled_kl, log_parts
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes


@MODELS.register_module()
class DKD(Objective):
    """Decoupled knowledge distillation, on the RoIs of a detector or on images.

    Zhao et al., CVPR 2022, eqs. 5-7: ``tau^2 / R * sum_r alpha TCKD_r + beta NCKD_r``. Compared
    with megvii-research/mdistiller. A two-stage detector's (first) box head on all R RoIs that the
    student samples, on which both heads are evaluated; the target is the class that the student's
    assigner gave to the RoI, background included. Or a classifier's ``head.fc`` on R images, where
    the authors start slowly: ``weight=dict(value=1, warmup=20 / 240)``.

    Args:
        alpha (float): weight of the target-class term.
        beta (float | None): weight of the non-target term. ``None`` is 0.25 on RoIs and 8 on images
            (2 to 8 there, depending on the networks).
        tau (float | None): temperature. ``None`` is 1 on RoIs and 4 on images.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps may be
            named for a classifier only.

    Raises:
        ValueError: options out of range; unequal class counts; a single class; sigmoid scores; a
            model with neither box head nor ``head.fc``.
    """

    rank_invariant = True
    term_factors = {'loss_target': 'alpha', 'loss_others': 'beta'}
    scheduled = ('alpha', 'beta', 'tau')
    over_scales = True
    families = ('two_stage', 'instance', 'classifier')

    def __init__(
        self,
        *taps: Taps,
        alpha: float = 1.0,
        beta: float | None = None,
        tau: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.alpha = check_number('DKD', 'alpha', alpha, 0)
        self.beta = check_number('DKD', 'beta', beta, 0, optional=True)
        self.tau = check_temperature('DKD', tau, optional=True)
        self.on_rois = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        self.on_rois = is_two_stage(student)
        beta, tau = (0.25, 1.0) if self.on_rois else (8.0, 4.0)
        self.beta = beta if self.beta is None else self.beta
        self.tau = self.tau or tau
        if self.on_rois:
            two_stage.check_box_heads('DKD', student, teacher, softmax=True)
            logits.check_more_than_two('DKD', student, 'rois', self.beta)
            self.student_taps, self.teacher_taps = two_stage.answer_taps(student, teacher)
            self.asks_teacher = True
            return
        logits.check_kinds('DKD', student, teacher, ('rois', 'images'))
        counts = [model.head.fc.out_features for model in (student, teacher)]
        check_same('DKD', 'class counts', *counts)
        if counts[0] == 1:
            raise ValueError('DKD: a softmax over one class is always 1. Use a two-class head.')
        logits.check_more_than_two('DKD', student, 'images', self.beta)
        self.student_taps = self.student_taps or parse_taps(classifier.LOGITS)
        self.teacher_taps = self.teacher_taps or parse_taps(classifier.LOGITS)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher, target = self.logits(trace)
        if not len(student):
            zero = student.sum() * 0.0
            return {'loss_target': zero, 'loss_others': zero}
        target_kl, other_kl = decoupled_kl(student, teacher, target, self.tau)
        return {
            'loss_target': self.alpha * target_kl.mean(),
            'loss_others': self.beta * other_kl.mean(),
        }

    def logits(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
        """Student's and teacher's logits, (R, K) each, and the target classes (R,)."""
        if self.on_rois:
            (student, *_), (teacher, *_) = two_stage.answers(trace)
            return student, teacher, two_stage.targets(trace)[0]
        student = trace.student[self.student_taps[0]][0]
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        return student, teacher, classifier.labels(trace.samples, student.device)

    def views(self, trace: Trace) -> list[Boxes]:
        """RoIs with the teacher's lowest target probability, with the scores of both sides."""
        if not self.on_rois:
            return []
        *sides, target = self.logits(trace)
        doubt = -log_parts(sides[1] / self.tau, target)[0][:, 0]
        scores = [(z / self.tau).softmax(-1) for z in sides]
        rois = trace.student[two_stage.rois_tap(trace.student.model)][0]
        return two_stage.ranked_rois('RoIs of hardest target', rois, scores, doubt)
