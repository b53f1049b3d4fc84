"""KD: KL divergence of softened class probabilities, of RoIs, priors, pixels or images."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from torch import Tensor, nn

from mmkd.families import assignments, segmentor, two_stage
from mmkd.families.class_map import class_map_of
from mmkd.families.comparable import Misfit
from mmkd.functional.logit_distances import (
    PIXEL_REDUCTIONS,
    pixel_wise_kl,
    soft_kl,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)
from mmkd.levels import Level, pair_levels
from mmkd.map_sizes import RESIZE, equal_size
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import heads, logits
from mmkd.scales import in_teachers_pixels
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes, View


def cross_entropy(student: Tensor, teacher: Tensor, tau: float, student_tau: float) -> Tensor:
    """``- sum_k p_t log p_s``, p_t = softmax(T / tau), p_s = softmax(S / student_tau).

    Its gradient vanishes where S / student_tau equals T / tau, up to a constant of each row.

    Args:
        student, teacher (Tensor): logits (..., K).

    Returns:
        Tensor: (...), not reduced.
    """
    return weighted_cross_entropy(student / student_tau, teacher / tau)


@MODELS.register_module()
class KD(Objective):
    """Distilling the knowledge in a neural network, on whatever class logits a model has.

    Hinton et al., 2015, with the T^2 of section 2.1. Without taps: a two-stage detector's (first)
    box head on the student's sampled RoIs, on which both heads are evaluated, mean over R RoIs
    including background; a segmentor's logits before resizing; a classifier's ``head.fc``. A
    one-stage detector that scores each class by a sigmoid has no distribution over classes: there
    each class is one of its own, and ``tau^2 KL`` is summed over classes and priors that are not
    ignored, by the number of positives, which is ``DenseKD(classes='kl', boxes=None)``.

    Args:
        tau (float | None): temperature; ``None`` is 4 for classifiers and 1 otherwise.
        reduction (str): for pixels. ``'per_pixel'`` is the mean over N * h * w;
            ``'skd_sum'`` divides by h * w only (SKD's code); ``'element_mean'`` divides by
            N * K * h * w (IFVD's code). The published weights belong to one of them each. For all:
            ``'cross_entropy'`` is the mean of :func:`cross_entropy`, without T^2 (snapshot
            distillation).
        student_tau (float | None): temperature of the student, if it is another than ``tau``; for
            ``reduction='cross_entropy'``.
        mask_ignore (bool): for pixels, leave out those with the ignored label; the divisor then
            counts the rest.
        ignore_index (int): the ignored label.
        class_map (list[int] | None): for each class of the teacher its label in a student that
            knows more; only these are compared, by a softmax over them. Of RoIs, all others are
            background to the teacher. None: equal classes.
        resize (str | None): for pixels, ``'student'``, ``'teacher'`` or ``'label'`` brings maps of
            unequal size to one of them (bilinear, the student head's align_corners).
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; unequal class counts; a single class of a softmax;
            one-stage heads of unequal priors; a model without class logits of this kind.
    """

    rank_invariant = True
    scheduled = ('tau',)
    over_scales = True
    families = (
        'two_stage',
        'instance',
        'anchor',
        'anchor_free',
        'yolo',
        'segmentor',
        'classifier',
    )
    only = {'anchor_free': ('FCOS', 'VFNet', 'RTMDet'), 'yolo': ('YOLOX',)}

    def __init__(
        self,
        *taps: Taps,
        tau: float | None = None,
        reduction: str = 'per_pixel',
        student_tau: float | None = None,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        class_map: Sequence[int] | None = None,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.tau = check_temperature('KD', tau, optional=True)
        choices = (*PIXEL_REDUCTIONS, 'cross_entropy')
        self.reduction = check_choice('KD', 'reduction', reduction, choices)
        self.student_tau = check_temperature('KD', student_tau, 'student_tau', optional=True)
        if self.reduction == 'cross_entropy':
            self.zero_at_equality = False  # its least value is the entropy of the teacher
        elif student_tau is not None:
            raise ValueError(
                "KD: student_tau is the student's temperature in a cross entropy; give "
                "reduction='cross_entropy' with it."
            )
        self.resize = check_choice('KD', 'resize', resize, RESIZE)
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('KD', 'ignore_index', ignore_index, whole=True)
        self.class_map = class_map_of('KD', class_map)
        self.kind = ''
        self.align_corners = False
        self.pairs: list[tuple[int, int]] = []  # levels of one-stage heads

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        self.align_corners = bool(getattr(student, 'align_corners', False))
        self.kind = logits.check_kinds('KD', student, teacher, priors=True)
        self.tau = self.tau or (4.0 if self.kind == 'images' else 1.0)
        self.label_free = self.kind not in ('rois', 'priors')
        getattr(self, f'_bind_{self.kind}')(student, teacher)

    def _bind_rois(self, student: nn.Module, teacher: nn.Module) -> None:
        if self.student_taps or self.teacher_taps:
            raise ValueError(
                "KD on a two-stage detector compares the box heads on the student's RoIs; it takes "
                'no taps.'
            )
        two_stage.check_box_heads('KD', student, teacher, True, self.class_map)
        self.student_taps = parse_taps(
            [two_stage.box_head_tap(student) + '[0]', two_stage.rois_tap(student)]
        )
        self.teacher_taps = parse_taps(two_stage.features_tap(teacher))
        self.asks_teacher = True

    def _bind_priors(self, student: nn.Module, teacher: nn.Module) -> None:
        if self.student_taps or self.teacher_taps:
            raise ValueError('KD on a one-stage detector compares the heads; it takes no taps.')
        if self.reduction == 'cross_entropy':
            raise ValueError(
                "KD: reduction='cross_entropy' is of a softmax, and these heads score each class "
                "by a sigmoid; DenseKD(classes='bckd') is a cross entropy of those."
            )
        scale, known = self.image_scale, self.class_map
        self.pairs = heads.check_heads('KD', student, teacher, scale=scale, class_map=known)
        assignments.check_assignment('KD', student)
        self.student_taps, self.teacher_taps = heads.head_taps(student, teacher, assigned=True)
        self.asks_teacher = True

    def _bind_pixels(self, student: nn.Module, teacher: nn.Module) -> None:
        segmentor.bind_logits(self, student, teacher)

    def _bind_images(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student_taps = self.student_taps or parse_taps('head.fc')
        self.teacher_taps = self.teacher_taps or parse_taps('head.fc')
        counts = student.head.fc.out_features, teacher.head.fc.out_features
        if self.class_map is None:
            _check_equal(*counts)
        else:
            self.class_map.check(*counts, least=2)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if self.kind == 'pixels' and student and teacher:
            any_stride, scale = self.resize is not None, self.image_scale
            pair_levels(student, teacher, None, any_stride, 'KD', ('resize',), scale)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        if self.kind == 'rois':
            return {'loss': self._rois(trace)}
        if self.kind == logits.PRIORS:
            return {'loss': self._priors(trace)}
        if self.kind == 'pixels':
            return {'loss': self._pixels(trace)}
        student = trace.student[self.student_taps[0]][0]
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        return {'loss': self._distance(self._known(student), teacher).mean()}

    def _known(self, student: Tensor, dim: int = -1) -> Tensor:
        """The student's logits of the classes that the teacher knows."""
        return student if self.class_map is None else self.class_map(student, dim)

    def _roi_scores(self, student: Tensor) -> Tensor:
        """The student's logits (R, C + 1) of the teacher's classes and of background."""
        if self.class_map is None:
            return student
        return self.class_map.with_background(student, self.student_tau or float(self.tau or 1))

    def _rois(self, trace: Trace) -> Tensor:
        scores, rois = (trace.student[tap][0] for tap in self.student_taps)
        if not len(scores):
            return scores.sum() * 0.0
        feats = trace.teacher[self.teacher_taps[0]]
        seen = in_teachers_pixels(rois.detach(), trace)
        wanted = two_stage.roi_outputs(trace.teacher.model, feats, seen)[0]
        return self._distance(self._roi_scores(scores), wanted).mean()

    def _priors(self, trace: Trace) -> Tensor:
        own, wanted = heads.answers(trace, self.pairs)
        found = assignments.assignment(trace)
        pair = self._known(own.logits), wanted.logits
        kl = weighted_binary_cross_entropy(*pair, (1.0, 1.0), self.tau, entropy=False).sum(-1)
        return self.tau**2 * (kl * own.chosen(found.weights)).sum() / found.normaliser()

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of each row (..., K), as ``reduction`` says."""
        if self.reduction == 'cross_entropy':
            return cross_entropy(student, teacher, self.tau, self.student_tau or self.tau)
        return soft_kl(student, teacher, self.tau)

    def views(self, trace: Trace) -> Sequence[View | Boxes]:
        """Classes and entropy of pixels, or class scores of both sides for some RoIs."""
        if self.kind == 'pixels':
            return self._pixel_views(trace)
        return self._roi_views(trace) if self.kind == 'rois' else []

    def _pixel_views(self, trace: Trace) -> Sequence[View | Boxes]:
        maps = self._maps(trace)
        sides = list(zip(('student', 'teacher'), maps, strict=True))
        views = [View('predicted class', z.argmax(1), kind='classes', side=s) for s, z in sides]
        for side, z in sides:
            p = (z / self.tau).softmax(1)
            entropy = -(p * p.clamp(min=1e-12).log()).sum(1)
            views.append(View('entropy', entropy, side=side, unit='nats', scale=log(z.shape[1])))
        kl = soft_kl(*(z.permute(0, 2, 3, 1) for z in maps), self.tau)
        return [*views, View('KL of student from teacher', kl, unit='nats')]

    def _roi_views(self, trace: Trace) -> Sequence[View | Boxes]:
        own, rois = (trace.student[tap][0] for tap in self.student_taps)
        feats = trace.teacher[self.teacher_taps[0]]
        seen = in_teachers_pixels(rois, trace)
        wanted = two_stage.roi_outputs(trace.teacher.model, feats, seen)[0]
        scores = [(z / self.tau).softmax(-1) for z in (self._roi_scores(own), wanted)]
        return two_stage.ranked_rois('classes of RoIs', rois, scores, 1 - wanted.softmax(-1)[:, -1])

    def _pixels(self, trace: Trace) -> Tensor:
        student, teacher = self._maps(trace)
        valid = segmentor.counted_pixels(self, trace, student.shape[2:])
        if self.reduction == 'cross_entropy':
            each = self._distance(*(z.permute(0, 2, 3, 1) for z in (student, teacher)))
            return each.mean() if valid is None else (each * valid).sum() / valid.sum().clamp(min=1)
        return pixel_wise_kl(student, teacher, self.tau, self.reduction, valid)

    def _maps(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """(N, K, h, w) of student and teacher."""
        student = trace.student.maps(self.student_taps[0])[0]
        teacher = trace.teacher.maps(self.teacher_taps[0])[0].detach()
        pair = equal_size('KD', student, teacher, trace, self.resize, self.align_corners)
        return self._known(pair[0], 1), pair[1]


def _check_equal(student: int, teacher: int) -> None:
    if student != teacher:
        raise Misfit(
            f'KD compares class logits, but the student has {student} classes and the teacher '
            f'{teacher}.'
        )
    if student == 1:
        raise Misfit(
            'KD: a softmax over one class is always 1, so the loss would always be 0; use a '
            'two-channel head.'
        )
