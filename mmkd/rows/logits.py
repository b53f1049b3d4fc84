"""Class logits as rows: RoIs of a detector, pixels of a segmentor, images."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmkd.families import classifier, family_of, is_two_stage, segmentor, two_stage
from mmkd.families.comparable import Misfit, check_same, listed, named, uses_sigmoid
from mmkd.families.dense import anchor_generator, dense_head
from mmkd.levels import Level, pair_levels
from mmkd.map_sizes import equal_size, whole
from mmkd.objective import Objective
from mmkd.rows.heads import has_classes
from mmkd.tap import Trace, parse_taps

#: families whose logits these functions find
KINDS = ('two_stage', 'instance', 'segmentor', 'classifier')


_NAMES = {'rois': 'RoIs', 'pixels': 'pixels', 'images': 'images'}
#: priors of a one-stage head, whose classes are scored by sigmoids
PRIORS = 'priors'


class Rows(NamedTuple):
    """Logits (R, K) of student and teacher and target classes (R,); no teacher for regularisers."""

    student: Tensor
    teacher: Tensor
    target: Tensor


def bind_rows(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> str:
    """Check that both classify the same samples into the same classes, and choose the taps.

    Returns:
        str: ``'rois'`` (R sampled RoIs, background is a class), ``'pixels'`` (those with a label)
        or ``'images'``.

    Raises:
        ValueError: no softmax class logits, of unequal kinds, or in unequal or single classes;
            taps for RoIs.
    """
    owner = type(objective).__name__
    kind = check_kinds(owner, student, teacher)
    if kind == 'rois':
        _bind_rois(objective, student, teacher)
    elif kind == 'pixels':
        segmentor.bind_logits(objective, student, teacher)
    else:
        counts = [model.head.fc.out_features for model in (student, teacher or student)]
        check_same(owner, 'class counts', *counts)
        if counts[0] == 1:
            raise ValueError(f'{owner}: a softmax over one class is always 1; use two outputs.')
        objective.student_taps = objective.student_taps or parse_taps(classifier.LOGITS)
        if teacher:
            objective.teacher_taps = objective.teacher_taps or parse_taps(classifier.LOGITS)
    return kind


def bind_images(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> None:
    """:func:`bind_rows` for methods that work for classifiers alone; raises ValueError."""
    if _kind(student) != 'images':
        raise Misfit(
            f'{type(objective).__name__} is for classifiers of images, but the student is '
            f'{named(student)}.'
        )
    bind_rows(objective, student, teacher)


def check_kinds(
    owner: str,
    student: nn.Module,
    teacher: nn.Module | None,
    kinds: tuple[str, ...] = ('rois', 'pixels', 'images'),
    priors: bool = False,
) -> str:
    """The samples that both classify, one of ``kinds``, or with ``priors`` also :data:`PRIORS`.

    Raises:
        Misfit: other samples, or different ones; the message names those of both and the scoring
        functions.
    """
    models = dict(student=student) if teacher is None else dict(student=student, teacher=teacher)
    found = {_kind(model) for model in models.values()}
    if len(found) == 1 and found <= set(kinds):
        return str(found.pop())
    if priors and all(map(has_classes, models.values())):
        return PRIORS
    wanted = listed([_NAMES[kind] for kind in kinds], 'or')
    wanted += ', or sigmoid ones of one-stage heads' * priors
    judged = [
        f'the {side} is {named(m)}, which classifies {_judged(m)}' for side, m in models.items()
    ]
    if len({(named(m), _judged(m)) for m in models.values()}) == 1 < len(models):
        judged = [f'both are {named(student)}, which classifies {_judged(student)}']
    raise Misfit(
        f'{owner} needs softmax class scores of one kind, of {wanted}, but {", and ".join(judged)}.'
    )


def _kind(model: nn.Module) -> str | None:
    names = {'segmentor': 'pixels', 'classifier': 'images'}
    return 'rois' if is_two_stage(model) else names.get(family_of(model))


def _judged(model: nn.Module) -> str:
    """The samples that a model classifies, and its scoring function."""
    kind, head = _kind(model), dense_head(model)
    if kind is not None:
        return _NAMES[kind]
    if head is None:
        return 'something else'
    if family_of(model) == 'detr':
        return 'queries, which each network orders in its own way'
    what = 'anchors' if anchor_generator(model) else 'points'
    return f'{what}, each class by a sigmoid' if uses_sigmoid(head) else what


def _bind_rois(objective: Objective, student: nn.Module, teacher: nn.Module | None) -> None:
    owner = type(objective).__name__
    if objective.student_taps or objective.teacher_taps:
        raise ValueError(
            f"{owner} on a two-stage detector compares the box heads on the student's RoIs; "
            'it takes no taps.'
        )
    two_stage.check_box_heads(owner, student, teacher or student, softmax=True)
    taps, others = two_stage.answer_taps(student, teacher or student)
    objective.student_taps, objective.teacher_taps = taps, others if teacher else ()
    objective.asks_teacher = True


def check_more_than_two(owner: str, model: nn.Module, kind: str, beta: float) -> None:
    """Refuse a term on the other classes where there is only one class, by ValueError."""
    if beta and class_count(model, kind) == 2:
        raise ValueError(
            f'{owner}: of two outputs only one is left besides the target, whose share among the '
            'others is always 1, so that beta has nothing to weigh; set beta=0.'
        )


def class_count(model: nn.Module, kind: str) -> int:
    """Columns of the rows, the background of RoIs among them."""
    if kind == 'rois':
        return int(two_stage.box_head(model).num_classes) + 1
    return segmentor.classes(model) if kind == 'pixels' else int(model.head.fc.out_features)


def check_strides(
    objective: Objective, kind: str, student: list[Level] | None, teacher: list[Level] | None
) -> None:
    """Logit maps of pixels must have equal strides, unless ``resize`` names a common size.

    Raises:
        ValueError: unequal strides; the message names the option.
    """
    if kind == 'pixels' and student and teacher:
        any_stride, owner = objective.resize is not None, type(objective).__name__
        scale = objective.image_scale
        pair_levels(student[:1], teacher[:1], None, any_stride, owner, ('resize',), scale)


def rows(trace: Trace, objective: Objective, kind: str, ignore_index: int = 255) -> Rows:
    """The rows of one step; there may be none.

    Raises:
        ValueError: logit maps of unequal size; missing labels; in the first batch labels beyond the
            classes.
    """
    if kind == 'rois':
        target = two_stage.targets(trace)[0]
        if not trace.teachers or not objective.teacher_taps:
            own = trace.student[two_stage.box_head_tap(trace.student.model)][0]
            return Rows(own, own.detach(), target)
        (own, *_), (wanted, *_) = two_stage.answers(trace)
        return Rows(own, wanted, target)
    own = trace.student.maps(objective.student_taps[0])[0]
    if trace.teachers and objective.teacher_taps:
        wanted = trace.teacher.maps(objective.teacher_taps[0])[0].detach()
        align = bool(getattr(trace.student.model, 'align_corners', False))
        resize = getattr(objective, 'resize', None)
        own, wanted = equal_size(type(objective).__name__, own, wanted, trace, resize, align)
    else:
        own = whole(own)
        wanted = own.detach()
    if kind == 'images':
        return Rows(own, wanted, classifier.labels(trace.samples, own.device))
    classes, size = own.shape[1], own.shape[2:]
    labels = segmentor.known_labels(objective, trace.samples, classes, ignore_index, size)
    where = (labels >= 0).flatten().nonzero()[:, 0]
    own, wanted = (x.permute(0, 2, 3, 1).flatten(0, 2)[where] for x in (own, wanted))
    return Rows(own, wanted, labels.flatten()[where])


def object_rows(trace: Trace, objective: Objective, kind: str) -> Rows:
    """:func:`rows`; of RoIs only the foreground ones (background is the last class)."""
    found = rows(trace, objective, kind)
    if kind != 'rois':
        return found
    where = (found.target < found.student.shape[1] - 1).nonzero()[:, 0]
    return Rows(*(x[where] for x in found))
