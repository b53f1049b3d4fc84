"""KD: match softened class probabilities of RoIs, pixels or images."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import family_of, segmentor, two_stage
from mmkd.functional import check_choice, check_temperature
from mmkd.objective import Objective, Taps, crop_padding
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.visualization.view import Boxes, View

REDUCTIONS = ('per_pixel', 'skd_sum', 'element_mean')


def soft_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """``tau^2 * sum_k p_t (log p_t - log p_s)`` of each row, p = softmax(z / tau).

    Args:
        student, teacher (Tensor): logits (..., K); the teacher is the target.

    Returns:
        Tensor: (...), not reduced.
    """
    log_s, log_t = F.log_softmax(student / tau, -1), F.log_softmax(teacher / tau, -1)
    return F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(-1) * tau**2


@MODELS.register_module()
class KD(Objective):
    """Distilling the knowledge in a neural network, on whatever class logits a model has.

    Hinton et al., 2015, with the T^2 of section 2.1. Without taps: a two-stage detector's (first)
    box head on the student's sampled RoIs, both heads judging the same ones, mean over R RoIs
    including background; a segmentor's logits before resizing; a classifier's ``head.fc``.

    Args:
        tau (float | None): temperature; ``None`` is 4 for classifiers and 1 otherwise.
        reduction (str): for pixels. ``'per_pixel'`` is the mean over N * h * w;
            ``'skd_sum'`` divides by h * w only (SKD's code); ``'element_mean'`` divides by
            N * K * h * w (IFVD's code). The published weights belong to one of them each.
        mask_ignore (bool): for pixels, leave out those whose label is to be ignored; the divisor
            then counts the rest.
        ignore_index (int): that label.
        resize (str | None): for pixels, ``'student'``, ``'teacher'`` or ``'label'`` brings maps of
            unequal size to one of them (bilinear, the student head's align_corners).
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; unequal class counts; a single class; sigmoid heads;
            a model without class logits of this kind.
    """

    rank_invariant = True
    families = ('two_stage', 'segmentor', 'classifier')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        tau: float | None = None,
        reduction: str = 'per_pixel',
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name)
        self.tau = None if tau is None else check_temperature('KD', tau)
        self.reduction = check_choice('KD', 'reduction', reduction, REDUCTIONS)
        choices = (None, 'student', 'teacher', 'label')
        self.resize = check_choice('KD', 'resize', resize, choices)
        self.mask_ignore, self.ignore_index = mask_ignore, ignore_index
        self.kind = ''
        self.align_corners = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        self.kind, other = family_of(student), family_of(teacher)
        self.align_corners = bool(getattr(student, 'align_corners', False))
        self.tau = self.tau or (4.0 if self.kind == 'classifier' else 1.0)
        if self.kind not in self.families:
            raise ValueError(
                f'KD needs softmax class logits, which {type(student).__name__} ({self.kind}) does '
                'not have. For dense detection heads use CWD or FGFI on the pyramid.'
            )
        if other != self.kind:
            raise ValueError(
                f'KD compares logits of one kind: the student is a {self.kind} '
                f'({type(student).__name__}), the teacher a {other} ({type(teacher).__name__}). '
                'CWD and FGFI compare features of different detectors.'
            )
        getattr(self, f'_bind_{self.kind}')(student, teacher)

    def _bind_two_stage(self, student: nn.Module, teacher: nn.Module) -> None:
        if self.student_taps or self.teacher_taps:
            raise ValueError(
                "KD on a two-stage detector listens to the student's box head on its own RoIs; it "
                'takes no taps.'
            )
        heads = [two_stage.box_head(model) for model in (student, teacher)]
        _check_equal(*(head.num_classes for head in heads))
        for who, head in zip(('student', 'teacher'), heads, strict=True):
            if getattr(head.loss_cls, 'use_sigmoid', False):
                raise ValueError(f"KD: the {who}'s box head scores by sigmoid, not by softmax.")
        self.student_taps = parse_taps(
            [two_stage.box_head_tap(student) + '[0]', two_stage.rois_tap(student)]
        )
        self.teacher_taps = parse_taps('neck' if hasattr(teacher, 'neck') else 'backbone')

    def _bind_segmentor(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student_taps = self.student_taps or parse_taps(segmentor.logits_tap(student))
        self.teacher_taps = self.teacher_taps or parse_taps(segmentor.logits_tap(teacher))
        _check_equal(segmentor.classes(student), segmentor.classes(teacher))

    def _bind_classifier(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student_taps = self.student_taps or parse_taps('head.fc')
        self.teacher_taps = self.teacher_taps or parse_taps('head.fc')
        _check_equal(student.head.fc.out_features, teacher.head.fc.out_features)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        assert trace.teacher is not None
        if self.kind == 'two_stage':
            return {'loss': self._rois(trace)}
        student = trace.student[self.student_taps[0]][0]
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        if self.kind == 'classifier':
            return {'loss': soft_kl(student, teacher, self.tau).mean()}
        return {'loss': self._pixels(student, teacher, trace)}

    def _rois(self, trace: Trace) -> Tensor:
        scores, rois = (trace.student[tap][0] for tap in self.student_taps)
        if not len(scores):
            return scores.sum() * 0.0
        feats = trace.teacher[self.teacher_taps[0]]
        wanted = two_stage.roi_outputs(trace.teacher.model, feats, rois.detach())[0]
        return soft_kl(scores, wanted, self.tau).mean()

    def views(self, trace: Trace) -> Sequence[View | Boxes]:
        """Classes and entropy of pixels, or what both sides say of some RoIs."""
        assert trace.teacher is not None
        if self.kind == 'segmentor':
            return self._pixel_views(trace)
        return self._roi_views(trace) if self.kind == 'two_stage' else []

    def _pixel_views(self, trace: Trace) -> Sequence[View | Boxes]:
        assert trace.teacher is not None
        logits = self._same_size(
            trace.student[self.student_taps[0]][0], trace.teacher[self.teacher_taps[0]][0], trace
        )
        sides = list(zip(('student', 'teacher'), logits, strict=True))
        views = [View('predicted class', z.argmax(1), kind='classes', side=s) for s, z in sides]
        for side, z in sides:
            p = (z / self.tau).softmax(1)
            entropy = -(p * p.clamp(min=1e-12).log()).sum(1)
            views.append(View('entropy', entropy, side=side, unit='nats', scale=log(z.shape[1])))
        kl = soft_kl(*(z.permute(0, 2, 3, 1) for z in logits), self.tau)
        return [*views, View('KL of student from teacher', kl, unit='nats')]

    def _roi_views(self, trace: Trace, shown: int = 10) -> Sequence[View | Boxes]:
        assert trace.teacher is not None
        scores, rois = (trace.student[tap][0] for tap in self.student_taps)
        feats = trace.teacher[self.teacher_taps[0]]
        wanted = two_stage.roi_outputs(trace.teacher.model, feats, rois)[0]
        chosen = _largest(-wanted.softmax(-1)[:, -1], rois[:, 0], shown)
        views = []
        for side, z in (('student', scores), ('teacher', wanted)):
            score, label = (z[chosen] / self.tau).softmax(-1).max(-1)
            views.append(Boxes('classes of RoIs', rois[chosen], label, score, side))
        return views

    def _pixels(self, student: Tensor, teacher: Tensor, trace: Trace) -> Tensor:
        student, teacher = self._same_size(student, teacher, trace)
        n, k, h, w = student.shape
        kl = soft_kl(student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1), self.tau)
        count: Any = n * h * w
        if self.mask_ignore:
            valid = segmentor.valid_pixels(trace.samples, (h, w), self.ignore_index)
            kl, count = kl * valid, valid.sum().clamp(min=1)
        divisor = {'per_pixel': count, 'skd_sum': count / n, 'element_mean': count * k}
        return kl.sum() / divisor[self.reduction]

    def _same_size(self, student: Tensor, teacher: Tensor, trace: Trace) -> tuple[Tensor, Tensor]:
        teacher = crop_padding(teacher, trace.teacher.inputs, trace.inputs)
        if student.shape[2:] == teacher.shape[2:] and self.resize != 'label':
            return student, teacher
        if self.resize is None:
            raise ValueError(
                f'KD: logit maps differ in size, student {tuple(student.shape)} and teacher '
                f"{tuple(teacher.shape)}. Set resize='student', 'teacher' or 'label'."
            )
        sizes = {'student': student, 'teacher': teacher, 'label': trace.inputs}
        size = sizes[self.resize].shape[2:]
        return tuple(
            F.interpolate(x, size, mode='bilinear', align_corners=self.align_corners)
            for x in (student, teacher)
        )


def _largest(values: Tensor, images: Tensor, count: int) -> list[int]:
    """Positions of the ``count`` largest values of each image."""
    chosen: list[int] = []
    for image in images.unique():
        own = (images == image).nonzero()[:, 0]
        chosen += own[values[own].argsort(descending=True)[:count]].tolist()
    return chosen


def _check_equal(student: int, teacher: int) -> None:
    if student != teacher:
        raise ValueError(
            f'KD compares class logits: the student has {student} classes and the teacher '
            f'{teacher}. Use a teacher of the same classes, or a feature method (CWD, FGFI).'
        )
    if student == 1:
        raise ValueError(
            'KD: a softmax over one class is always 1, so the loss would be 0 for ever. Use a '
            'two-channel head, or a feature method such as CWD.'
        )
