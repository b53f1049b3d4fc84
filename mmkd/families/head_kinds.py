"""Which dense heads are known, how they code boxes, and whether two of them can be compared."""

from __future__ import annotations

from torch import nn

from mmkd.families.agreement import (
    both,
    check_classes,
    check_coders,
    check_priors,
    check_same,
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


def check_decodable(
    owner: str, student: nn.Module, teacher: nn.Module, side: str | None = None
) -> None:
    """Refuse models whose dense heads' boxes cannot be decoded; ``side`` names one of the two."""
    models = dict(student=student, teacher=teacher)
    if any(kind_of(model) is None for name, model in models.items() if side in (None, name)):
        raise ValueError(
            f'{owner} decodes boxes{f" of the {side}" if side else ""}, which have to come from an '
            f'RPN, RetinaNet, ATSS, GFL or FCOS head, but {both(student, teacher)}; Mimic with '
            "proposal_source='gt', FGD and CWD need no boxes of a network."
        )


def check_assigner(owner: str, student: nn.Module) -> None:
    """Refuse heads that give anchors to boxes by looking at predictions."""
    assigner = type(getattr(dense_head(student), 'assigner', None)).__name__
    if kind_of(student) != 'distance' and assigner not in ('MaxIoUAssigner', 'ATSSAssigner'):
        raise ValueError(
            f'{owner} asks the assigner which anchors belong to a box, but the {assigner} of '
            f'{type(student).__name__} looks at predictions; Mimic and FGD need no assigner.'
        )


def check_anchor_heads(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both must have RPN or RetinaNet heads of equal classes and anchors, else ValueError."""
    if not (has_anchor_targets(student) and has_anchor_targets(teacher)):
        raise ValueError(
            f'{owner} works with RPN and RetinaNet heads, but {both(student, teacher)}; LD is for '
            'GFL heads, Mimic for any.'
        )
    check_classes(owner, dense_head(student), dense_head(teacher))
    check_priors(owner, dense_head(student), dense_head(teacher))


def check_comparable(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both heads must code boxes alike, for equal classes and priors, else ValueError."""
    check_decodable(owner, student, teacher)
    kinds = [kind_of(model) for model in (student, teacher)]
    check_same(owner, 'kinds of box codes', *kinds, 'Mimic compares features')
    heads = [dense_head(model) for model in (student, teacher)]
    check_classes(owner, *heads)
    check_priors(owner, *heads)
    check_coders(owner, *heads, 'Mimic compares features', per_class=False)
