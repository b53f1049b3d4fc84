"""Heads with outputs per class: their number of classes, and taps that give class scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmkd.families import classifier, family_of
from mmkd.families.comparable import definer
from mmkd.objective import Objective
from mmkd.tap import Tap

#: layers inside a head whose output has a channel for each class
_CLASS_LAYER = re.compile(r'(^|_)cls(_(score|embed|branches|pred))?$|^conv_(seg|logits)$')


@dataclass(frozen=True)
class Labels:
    """Class names of a dataset or of a network: label i is ``names[i]``.

    Attributes:
        names (tuple[str, ...]): all classes.
        things (int | None): how many of them are things, in panoptic data; the rest is stuff.
    """

    names: tuple[str, ...]
    things: int | None = None


@dataclass(frozen=True)
class WrongHead:
    """A head that is built for another number of classes than the data have.

    Attributes:
        path (str): of the head in its model; ``''`` is the model.
        found (int): classes for which it is built.
        wanted (dict[str, Any]): arguments of the head that would fit.
    """

    path: str
    found: int
    wanted: dict[str, Any]


def class_heads(model: nn.Module) -> dict[str, nn.Module]:
    """Heads (and losses in them) that are built for a number of classes, by path.

    Left out are RPNs, masks without classes, heads for labels of another kind (HTC's stuff, depth),
    open-vocabulary models, whose outputs belong to words, and trackers, whose data name more
    than they track.
    """
    others = ('language_model', 'text_encoder', 'tracker')
    if any(getattr(model, part, None) is not None for part in others):
        return {}
    return {path: m for path, m in model.named_modules() if _is_class_head(path, m)}


def numbers_classes(model: nn.Module) -> bool:
    """Whether any of its outputs belongs to a class index."""
    return family_of(model) == 'classifier' or bool(class_heads(model))


def _is_class_head(path: str, module: nn.Module) -> bool:
    parts, kinds = path.split('.'), [cls.__name__ for cls in type(module).__mro__]
    if not any(part.endswith('head') for part in parts) or 'rpn_head' in parts:
        return False
    if parts[0] in ('backbone', 'neck', 'teacher', 'teacher_model', 'objectives'):
        return False
    # Not a class attribute: a depth head is never told.
    count = vars(module).get('num_classes')
    if type(count) is not int or count < 1 or getattr(module, 'class_agnostic', False):
        return False
    # STDC's auxiliary head learns edges, from labels that it makes.
    edges = 'auxiliary_head' in parts and definer(module, 'loss_by_feat') != 'BaseDecodeHead'
    return not (edges or kinds[0].endswith('RPNHead') or 'FusedSemanticHead' in kinds)


def wrong_heads(model: nn.Module, labels: Labels) -> list[WrongHead]:
    """Heads that cannot work with so many classes. One unnamed channel of a segmentor can."""
    count = len(labels.names)
    if family_of(model) == 'classifier':
        found = model.head.fc.out_features
        path = 'head' if 'num_classes' in vars(model.head) else ''
        return [] if found == count else [WrongHead(path, found, dict(num_classes=count))]
    found = []
    for path, head in class_heads(model).items():
        if hasattr(head, 'conv_seg') and hasattr(head, 'out_channels'):
            wanted = _wanted_of_pixels(head, count)
        else:
            wanted = _wanted_of_objects(head, labels)
        if wanted:
            found.append(WrongHead(path, head.num_classes, wanted))
    return found


def _wanted_of_objects(head: nn.Module, labels: Labels) -> dict[str, Any]:
    """Arguments that make a head of a detector, or one of mask queries, fit; {} if it does."""
    count = len(labels.names)
    things = getattr(head, 'num_things_classes', None)
    if labels.things is not None:
        split = dict(num_things_classes=labels.things, num_stuff_classes=count - labels.things)
        if things is not None:
            return {} if all(getattr(head, k) == v for k, v in split.items()) else split
        count = labels.things  # boxes and masks of Panoptic FPN are those of things
    return {} if head.num_classes == count else dict(num_classes=count)


def _wanted_of_pixels(head: nn.Module, count: int) -> dict[str, Any]:
    """Arguments that make a decode head fit; {} if it does. One channel separates two classes."""
    if head.out_channels == 1 and count <= 2:
        losses = head.loss_decode
        losses = losses if isinstance(losses, nn.ModuleList) else [losses]
        softmax = any(getattr(loss, 'use_sigmoid', True) is False for loss in losses)
        return dict(num_classes=2, out_channels=None) if softmax else {}
    if head.out_channels == 1:
        return dict(num_classes=count, out_channels=None)
    spare = head.num_classes == count + 1
    # One softmax channel says nothing, and mmseg takes one class for a sigmoid.
    return {} if head.num_classes == count or spare else dict(num_classes=max(count, 2))


def spare_channels(model: nn.Module, labels: Labels) -> list[str]:
    """Paths of decode heads with one class more than there are names."""
    count = len(labels.names)
    heads = class_heads(model) if family_of(model) == 'segmentor' else {}
    return [
        path
        for path, head in heads.items()
        if hasattr(head, 'conv_seg') and head.num_classes == count + 1 and head.out_channels > 1
    ]


def compares_classes(objective: Objective, student: nn.Module, teacher: nn.Module) -> bool:
    """Whether label i of the teacher must be the same class as label i of the student.

    An objective says so itself, or it looks at class scores of one of the two. At weight 0 it
    compares nothing.
    """
    if not objective.needs_teacher or objective.weight.is_zero:
        return False
    if objective.compares_classes is not None:
        return objective.compares_classes
    sides: Sequence[tuple[nn.Module, tuple[Tap, ...]]] = (
        (student, objective.student_taps),
        (teacher, objective.teacher_taps),
    )
    return any(shows_classes(model, tap) for model, taps in sides for tap in taps)


def shows_classes(model: nn.Module, tap: Tap) -> bool:
    """Whether a tap is the output of a head with outputs per class, or of its class layer."""
    if tap.scores:
        return True
    path, _, method = tap.path.rpartition('.') if tap.call else (tap.path, '', 'forward')
    if tap.arg is not None or method != 'forward':
        return False
    heads = class_heads(model)
    if path in heads or (path == classifier.LOGITS and family_of(model) == 'classifier'):
        return True
    parents, _, layer = path.rpartition('.')
    inside = any(f'{parents}.'.startswith(f'{head}.') for head in heads)
    return inside and bool(_CLASS_LAYER.search(layer))
