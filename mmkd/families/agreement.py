"""Checks that two heads can be compared: classes, scores, box coders, priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mmkd.families.dense import dense_head


class Misfit(ValueError):
    """The method does not support these two networks; the plan adds methods that do.

    Args:
        message (str): the reason.
        prefer (Sequence[str]): methods that come closest to what was wanted, to be tried first.
    """

    def __init__(self, message: str, prefer: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.prefer = tuple(prefer)


def both(student: nn.Module, teacher: nn.Module) -> str:
    """Describes the two models in messages."""
    return f'the student is {named(student)} and the teacher {named(teacher)}'


def listed(words: Sequence[str], conjunction: str = 'and') -> str:
    """``'a, b and c'``."""
    *first, last = words
    return f'{", ".join(first)} {conjunction} {last}' if first else last


def named(model: nn.Module) -> str:
    """``'RetinaNet with RetinaHead'``; the name alone for models without a dense head."""
    head = dense_head(model)
    return type(model).__name__ + (f' with {type(head).__name__}' if head is not None else '')


def check_same(owner: str, what: str, student: Any, teacher: Any, way: str = '') -> None:
    """Refuse two unequal properties of heads in one sentence.

    Args:
        way (str): an option under which they may differ, if there is one.

    Raises:
        Misfit: they are unequal.
    """
    if student != teacher:
        raise Misfit(
            f"{owner} needs equal {what}: the student's head has {student} and the teacher's "
            f'{teacher}{"; " * bool(way)}{way}.'
        )


def check_classes(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Equal classes, scored by the same function (softmax or sigmoid)."""
    counts = [int(head.num_classes) for head in (student, teacher)]
    check_same(owner, 'class counts', *counts)
    kinds = ['sigmoid' if uses_sigmoid(head) else 'softmax' for head in (student, teacher)]
    check_same(owner, 'class scores', *kinds)


def uses_sigmoid(head: nn.Module) -> bool:
    """Whether the head scores each class independently (sigmoid)."""
    found = getattr(head, 'use_sigmoid_cls', None)
    if found is None:
        found = getattr(getattr(head, 'loss_cls', None), 'use_sigmoid', False)
    return bool(found)


def check_coders(
    owner: str, student: nn.Module, teacher: nn.Module, per_class: bool = True, way: str = ''
) -> None:
    """Equal box coders (type, means, stds), on deltas or on boxes alike.

    Args:
        per_class (bool): also alike in having one box a class or one for all.
        way (str): see :func:`check_same`.
    """
    for side, head in (('student', student), ('teacher', teacher)):
        if not getattr(head, 'with_reg', True):  # Grid R-CNN finds boxes by other means
            raise Misfit(f"{owner} compares box codes, but the {side}'s box head gives none.")
    coders = [_coder(head) for head in (student, teacher)]
    check_same(owner, 'box coders', *coders, way)
    for name in ('reg_class_agnostic',) * per_class + ('reg_decoded_bbox', 'norm_on_bbox'):
        check_same(owner, name, *(getattr(h, name, None) for h in (student, teacher)), way)


def _coder(head: nn.Module) -> str:
    coder = getattr(head, 'bbox_coder', None)
    means, stds = (tuple(getattr(coder, name, None) or ()) for name in ('means', 'stds'))
    return f'{type(coder).__name__}(means={means}, stds={stds})'


def check_priors(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Equal anchors or points: strides, number a cell, sizes and places."""
    generators = [getattr(head, 'prior_generator', None) for head in (student, teacher)]
    check_same(owner, 'kinds of priors', *(type(g).__name__ for g in generators))
    check_same(owner, 'strides', *([s[0] for s in g.strides] for g in generators))
    check_same(owner, 'priors a cell', *(list(g.num_base_priors) for g in generators))
    grids = [g.grid_priors([(1, 2)] * g.num_levels, device='cpu') for g in generators]
    if not all(torch.equal(s, t) for s, t in zip(*grids, strict=True)):
        raise Misfit(
            f"{owner} needs equal priors: those of the student's {type(student).__name__} and of "
            f"the teacher's {type(teacher).__name__} differ in size or place."
        )
