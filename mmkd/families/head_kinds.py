"""Kinds of dense heads: how they code boxes, and whether two of them can be compared."""

from __future__ import annotations

from torch import nn

from mmkd.families.agreement import (
    Misfit,
    both,
    check_classes,
    check_coders,
    check_priors,
    check_same,
    named,
    uses_sigmoid,
)
from mmkd.families.dense import dense_head


def kind_of(model: nn.Module) -> str | None:
    """How the dense head codes boxes: ``'delta'``, ``'distribution'``, ``'distance'`` or unknown.

    Unknown (None) are also heads whose classes compete with a background.
    """
    head = dense_head(model)
    coder = type(getattr(head, 'bbox_coder', None)).__name__
    if getattr(head, 'prior_generator', None) is None or not uses_sigmoid(head):
        return None
    if definer(head, '_predict_by_feat_single') not in ('BaseDenseHead', 'RPNHead', 'GFLHead'):
        return None  # it has a way of its own to make boxes
    if hasattr(head, 'reg_max'):
        return 'distribution' if coder == 'DistancePointBBoxCoder' else None
    if hasattr(head, 'norm_on_bbox'):
        return 'distance' if definer(head, 'forward_single') == 'FCOSHead' else None
    return 'delta' if coder == 'DeltaXYWHBBoxCoder' and hasattr(head, 'cls_out_channels') else None


def has_anchor_targets(model: nn.Module) -> bool:
    """Whether ``get_targets()`` of the dense head gives labels (N, A * H * W), label weights,
    encoded boxes and more, level by level, as RPN's and RetinaNet's do."""
    own = definer(dense_head(model), 'get_targets')
    return kind_of(model) == 'delta' and own == 'AnchorHead'


def is_gfl(model: nn.Module | None) -> bool:
    """Whether boxes are distributions and ``get_targets()`` gives anchors (N, H * W, 4), labels
    (N, H * W), label weights and more, level by level, as GFL's does."""
    own = definer(dense_head(model), 'get_targets')
    return kind_of(model) == 'distribution' and own == 'GFLHead'


def is_yolov3(model: nn.Module) -> bool:
    """Whether the dense head gives maps (N, A * (5 + K), H, W) of x, y, w, h, objectness and
    classes, as YOLOv3's does."""
    return definer(dense_head(model), 'forward') == 'YOLOV3Head'


def definer(head: nn.Module | None, method: str) -> str:
    """Name of the class whose method of this name the head has."""
    function = getattr(type(head), method, None)
    return getattr(function, '__qualname__', '').partition('.')[0]


def judges_objects_only(model: nn.Module) -> bool:
    """Whether the dense head is an RPN, which separates objects from background without classes."""
    return definer(dense_head(model), '_predict_by_feat_single') == 'RPNHead'


def check_decodable(
    owner: str, student: nn.Module, teacher: nn.Module, side: str | None = None
) -> None:
    """Refuse models whose dense heads' boxes cannot be decoded; ``side`` names one of the two."""
    models = dict(student=student, teacher=teacher)
    if any(kind_of(model) is None for name, model in models.items() if side in (None, name)):
        raise Misfit(
            f'{owner} decodes boxes{f" of the {side}" if side else ""}, which have to come from an '
            f'RPN, RetinaNet, ATSS, GFL or FCOS head with sigmoid scores, but '
            f'{both(student, teacher)}.'
        )


def check_assigner(owner: str, student: nn.Module) -> None:
    """Refuse heads whose assigner uses predictions."""
    assigner = type(getattr(dense_head(student), 'assigner', None)).__name__
    if kind_of(student) != 'distance' and assigner not in ('MaxIoUAssigner', 'ATSSAssigner'):
        raise Misfit(
            f'{owner} asks the assigner which anchors belong to a box, but the {assigner} of '
            f'the student {type(student).__name__} uses predictions.'
        )


def check_stages(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Refuse an RPN beside a head with classes, before their class counts are compared."""
    sides = dict(student=student, teacher=teacher)
    rpn = [name for name, model in sides.items() if judges_objects_only(model)]
    if len(rpn) == 1:
        (other,) = set(sides) - set(rpn)
        raise Misfit(
            f'{owner} compares what the dense heads predict: that of the {rpn[0]} '
            f'{type(sides[rpn[0]]).__name__} is an RPN, which tells objects from background, and '
            f'that of the {other} {named(sides[other])} tells classes.'
        )


def check_anchor_heads(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both must have RPN or RetinaNet heads of equal classes and anchors, else Misfit."""
    if not (has_anchor_targets(student) and has_anchor_targets(teacher)):
        raise Misfit(f'{owner} works with RPN and RetinaNet heads, but {both(student, teacher)}.')
    check_stages(owner, student, teacher)
    check_classes(owner, dense_head(student), dense_head(teacher))
    check_priors(owner, dense_head(student), dense_head(teacher))


def check_comparable(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both heads must code boxes alike, for equal classes and priors, else Misfit."""
    check_decodable(owner, student, teacher)
    check_stages(owner, student, teacher)
    kinds = [kind_of(model) for model in (student, teacher)]
    check_same(owner, 'kinds of box codes', *kinds)
    heads = [dense_head(model) for model in (student, teacher)]
    check_classes(owner, *heads)
    check_priors(owner, *heads)
    check_coders(owner, *heads, per_class=False)
