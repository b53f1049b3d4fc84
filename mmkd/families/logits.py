"""Class logits as rows, whatever a row is: a detector's RoI, a segmentor's pixel, an image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmkd.families import classifier, family_of, is_two_stage, segmentor, two_stage
from mmkd.families.agreement import both, check_same
from mmkd.objective import Objective
from mmkd.tap import Trace, parse_taps

#: families whose logits these functions find
KINDS = ('two_stage', 'instance', 'segmentor', 'classifier')


class Rows(NamedTuple):
    """Logits (R, K) of student and teacher and target classes (R,); no teacher for regularisers."""

    student: Tensor
    teacher: Tensor
    target: Tensor


def bind_rows(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> str:
    """Check that both judge the same things in the same classes, and choose the taps.

    Returns:
        str: ``'rois'`` (R sampled RoIs, background is a class), ``'pixels'`` (those with a label)
        or ``'images'``.

    Raises:
        ValueError: no softmax class logits, of unequal kinds, or in unequal or single classes;
            taps for RoIs.
    """
    owner = type(objective).__name__
    kinds = [_kind(model) for model in (student, teacher) if model is not None]
    if None in kinds or len(set(kinds)) > 1:
        raise ValueError(
            f'{owner} needs softmax class logits of one kind, of RoIs, pixels or images, but '
            f'{both(student, teacher or student)}; CWD and AT take the features of any model.'
        )
    kind = str(kinds[0])
    if kind == 'rois':
        _bind_rois(objective, student, teacher)
    elif kind == 'pixels':
        segmentor.check_logits(owner, student, teacher or student)
        _choose(objective, segmentor.logits_tap(student), teacher and segmentor.logits_tap(teacher))
    else:
        counts = [model.head.fc.out_features for model in (student, teacher or student)]
        check_same(owner, 'class counts', *counts, 'AT and SP compare features of any classes')
        if counts[0] == 1:
            raise ValueError(f'{owner}: a softmax over one class is always 1; use two outputs.')
        _choose(objective, classifier.LOGITS, teacher and classifier.LOGITS)
    return kind


def bind_images(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> None:
    """:func:`bind_rows` for methods that work for classifiers alone; raises ValueError."""
    if _kind(student) != 'images':
        raise ValueError(
            f'{type(objective).__name__} is for classifiers of images, but the student is a '
            f'{type(student).__name__}; CWD and AT take the features of any model.'
        )
    bind_rows(objective, student, teacher)


def _kind(model: nn.Module) -> str | None:
    names = {'segmentor': 'pixels', 'classifier': 'images'}
    return 'rois' if is_two_stage(model) else names.get(family_of(model))


def _bind_rois(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> None:
    owner = type(objective).__name__
    if objective.student_taps or objective.teacher_taps:
        raise ValueError(
            f"{owner} on a two-stage detector listens to the student's box head on its own RoIs; "
            'it takes no taps.'
        )
    two_stage.check_box_heads(owner, student, teacher or student, softmax=True)
    taps, others = two_stage.answer_taps(student, teacher or student)
    objective.student_taps, objective.teacher_taps = taps, others if teacher else ()


def _choose(objective: Objective, student: str, teacher: str | None) -> None:
    objective.student_taps = objective.student_taps or parse_taps(student)
    if teacher:
        objective.teacher_taps = objective.teacher_taps or parse_taps(teacher)


def class_count(model: nn.Module, kind: str) -> int:
    """Columns of the rows, the background of RoIs among them."""
    if kind == 'rois':
        return int(two_stage.box_head(model).num_classes) + 1
    return segmentor.classes(model) if kind == 'pixels' else int(model.head.fc.out_features)


def rows(trace: Trace, objective: Objective, kind: str, ignore_index: int = 255) -> Rows:
    """The rows of one step; there may be none.

    Raises:
        ValueError: logit maps of unequal size; missing labels; in the first batch labels beyond the
            classes.
    """
    if kind == 'rois':
        target = two_stage.targets(trace)[0]
        if trace.teacher is None or not objective.teacher_taps:
            own = trace.student[two_stage.box_head_tap(trace.student.model)][0]
            return Rows(own, own.detach(), target)
        (own, *_), (wanted, *_) = two_stage.answers(trace)
        return Rows(own, wanted, target)
    own = trace.student[objective.student_taps[0]][0]
    wanted = own.detach()
    if trace.teacher is not None and objective.teacher_taps:
        wanted = trace.teacher[objective.teacher_taps[0]][0].detach()
    if kind == 'images':
        return Rows(own, wanted, classifier.labels(trace.samples, own.device))
    if own.shape != wanted.shape:
        raise ValueError(
            f'{type(objective).__name__}: logit maps differ in size, student {tuple(own.shape)} '
            f'and teacher {tuple(wanted.shape)}; use models of equal stride, or KD with resize=.'
        )
    classes, size = own.shape[1], own.shape[2:]
    labels = segmentor.known_labels(objective, trace.samples, classes, ignore_index, size)
    keep = labels >= 0
    own, wanted = (x.permute(0, 2, 3, 1)[keep] for x in (own, wanted))
    return Rows(own, wanted, labels[keep])


def object_rows(trace: Trace, objective: Objective, kind: str) -> Rows:
    """:func:`rows`, but of RoIs only those that are not background, the last class."""
    found = rows(trace, objective, kind)
    if kind != 'rois':
        return found
    keep = found.target < found.student.shape[1] - 1
    return Rows(*(x[keep] for x in found))
