"""Which heads can be compared: how they code boxes and classes, and errors where two differ."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from mmkd.families.dense import dense_head


class Misfit(ValueError):
    """The method does not support these two networks; the plan adds methods that do.

    Args:
        message (str): the reason.
        prefer (Sequence[str]): similar methods, to be tried first.
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


def check_class_counts(
    owner: str, student: nn.Module, teacher: nn.Module, class_map: Any = None
) -> None:
    """Two heads of equally many classes, or of those of a map, else Misfit.

    Args:
        class_map (ClassMap | None): which of the student's classes the teacher knows.
    """
    counts = [int(head.num_classes) for head in (student, teacher)]
    if class_map is None:
        check_same(owner, 'class counts', *counts)
    else:
        class_map.check(*counts)


def check_classes(
    owner: str, student: nn.Module, teacher: nn.Module, class_map: Any = None
) -> None:
    """:func:`check_class_counts`, and scores by the same function (softmax or sigmoid)."""
    check_class_counts(owner, student, teacher, class_map)
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


def check_priors(
    owner: str, student: nn.Module, teacher: nn.Module, scale: Fraction = Fraction(1)
) -> None:
    """Equal anchors or points: strides, number per cell, sizes and places.

    Args:
        scale (Fraction): side of the student's images over that of the teacher's; at another than
            1 one level of each that covers the same boxes is enough.
    """
    generators = [getattr(head, 'prior_generator', None) for head in (student, teacher)]
    check_same(owner, 'kinds of priors', *(type(g).__name__ for g in generators))
    if scale != 1:
        if not shared_levels(student, teacher, scale):
            raise _nothing_shared(owner, [[s[0] for s in g.strides] for g in generators], scale)
        return
    check_same(owner, 'strides', *([s[0] for s in g.strides] for g in generators))
    check_same(owner, 'priors a cell', *(list(g.num_base_priors) for g in generators))
    grids = [g.grid_priors([(1, 2)] * g.num_levels, device='cpu') for g in generators]
    if not all(torch.equal(s, t) for s, t in zip(*grids, strict=True)):
        raise Misfit(
            f"{owner} needs equal priors: those of the student's {type(student).__name__} and of "
            f"the teacher's {type(teacher).__name__} differ in size or place."
        )


def _nothing_shared(owner: str, strides: Sequence[Any], scale: Fraction) -> Misfit:
    return Misfit(
        f'{owner} over scales needs priors that are the same boxes for both, but the strides are '
        f"{strides[0]} in the student's head and {strides[1]} in the teacher's, which sees images "
        f'{1 / scale} times as large; with anchors of equal multiples of the stride, scales of '
        '1/2, 1/4, … have levels in common.'
    )


def shared_levels(
    student: nn.Module, teacher: nn.Module, scale: Fraction = Fraction(1)
) -> list[tuple[int, int]]:
    """Levels (i, j) of two dense heads with equal priors, in pixels of the teacher.

    At a scale of 1 they are all, which :func:`check_priors` makes sure of.
    """
    own, other = (head.prior_generator for head in (student, teacher))
    if scale == 1:
        return [(i, i) for i in range(own.num_levels)]
    places = [
        [generator.single_level_grid_priors((1, 2), i, device='cpu') for i in range(len(strides))]
        for generator, strides in ((own, own.strides), (other, other.strides))
    ]
    return [
        (i, j)
        for i, s in enumerate(places[0])
        for j, t in enumerate(places[1])
        if s.shape == t.shape
        and torch.allclose(s * scale.denominator / scale.numerator, t, rtol=1e-4, atol=0.01)
    ]


def pair_priors(
    owner: str,
    student: nn.Module,
    teacher: nn.Module,
    common: bool | None = None,
    scale: Fraction = Fraction(1),
) -> list[tuple[int, int]]:
    """Positions of the levels of two heads whose priors lie at the same places.

    Where a cell has one prior, its place decides, whatever the kind; of several also the size.

    Args:
        common (bool | None): leave out levels whose stride one head does not have; None: no, and
            there is no option ``level_map`` for it.
        scale (Fraction): side of the student's images over that of the teacher's, in whose pixels
            places and strides are compared; at another than 1 no two heads have the same levels,
            and some are enough.

    Raises:
        Misfit: unequal strides, counts or places, with the first level that differs.
    """
    generators = [head.prior_generator for head in (student, teacher)]
    strides = [[stride[0] for stride in generator.strides] for generator in generators]
    seen = [s / scale for s in strides[0]]
    pairs = [(i, strides[1].index(s)) for i, s in enumerate(seen) if s in strides[1]]
    if scale != 1 and not pairs:
        raise _nothing_shared(owner, strides, scale)
    if scale == 1 and (not pairs or not common):
        asked = "level_map='common' compares the levels that both have"
        way = '' if common is None or not pairs else asked
        check_same(owner, 'strides', *strides, way)
    for i, j in pairs:
        stride = strides[1][j]
        counts = [g.num_base_priors[k] for g, k in zip(generators, (i, j), strict=True)]
        check_same(owner, f'priors a cell of stride {stride}', *counts)
        own, other = (
            g.single_level_grid_priors((1, 2), k, device='cpu')
            for g, k in zip(generators, (i, j), strict=True)
        )
        own = own * scale.denominator / scale.numerator
        if counts[0] == 1:
            own, other = (x if x.shape[1] == 2 else (x[:, :2] + x[:, 2:]) / 2 for x in (own, other))
        if own.shape != other.shape or (own - other).abs().max() > 1e-3 * stride:
            own, other = (x[0].tolist() for x in (own, other))
            raise Misfit(
                f"{owner} needs equal priors: the first of stride {stride} of the student's "
                f"{type(student).__name__} is at {own}, and of the teacher's "
                f'{type(teacher).__name__} at {other}.'
            )
    return pairs


#: kinds of boxes that mmdet's common code makes from a prior and a code
CODES = ('delta', 'distribution', 'distance')
#: kinds of heads with a forward of their own, by the class that defines it
_OWN_KINDS = {
    'RTMDetHead': 'pixels',
    'RTMDetSepBNHead': 'pixels',
    'RTMDetInsHead': 'pixels',
    'RTMDetInsSepBNHead': 'pixels',
    'VFNetHead': 'pixels',
    'YOLOXHead': 'yolox',
    'TOODHead': 'decoded',
}
#: classes whose way to make boxes is known
_KNOWN_WAYS = ('BaseDenseHead', 'RPNHead', 'GFLHead', 'PAAHead')


def kind_of(model: nn.Module) -> str | None:
    """How the dense head codes boxes: one of :data:`CODES`, of the three below, or unknown.

    ``'pixels'``: distances in pixels, in training, too (RTMDet, VFNet); ``'yolox'``: offset of the
    centre and logarithm of the sides, beside an objectness; ``'decoded'``: corners in units of the
    stride, beside probabilities (TOOD). Unknown (None) are also heads whose classes compete with a
    background.
    """
    head = dense_head(model)
    coder = type(getattr(head, 'bbox_coder', None)).__name__
    if getattr(head, 'prior_generator', None) is None or not uses_sigmoid(head):
        return None
    own = _OWN_KINDS.get(definer(head, 'forward'))
    if own is not None:
        return own if own != 'pixels' or coder == 'DistancePointBBoxCoder' else None
    if definer(head, '_predict_by_feat_single') not in _KNOWN_WAYS:
        return None  # it has a way of its own to make boxes
    if hasattr(head, 'reg_max'):
        return 'distribution' if coder == 'DistancePointBBoxCoder' else None
    if hasattr(head, 'norm_on_bbox'):
        return 'distance' if definer(head, 'forward_single') == 'FCOSHead' else None
    return 'delta' if coder == 'DeltaXYWHBBoxCoder' and hasattr(head, 'cls_out_channels') else None


def has_codes(model: nn.Module) -> bool:
    """Whether boxes come from a prior and a code alike, see :data:`CODES`."""
    return kind_of(model) in CODES


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


def is_class_agnostic(model: nn.Module) -> bool:
    """Whether the dense head is an RPN, which separates objects from background without classes."""
    return definer(dense_head(model), '_predict_by_feat_single') == 'RPNHead'


def check_decodable(
    owner: str, student: nn.Module, teacher: nn.Module, side: str | None = None
) -> None:
    """Refuse models whose dense heads' boxes cannot be decoded; ``side`` names one of the two."""
    models = dict(student=student, teacher=teacher)
    if not all(has_codes(model) for name, model in models.items() if side in (None, name)):
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
    rpn = [name for name, model in sides.items() if is_class_agnostic(model)]
    if len(rpn) == 1:
        (other,) = set(sides) - set(rpn)
        raise Misfit(
            f'{owner} compares what the dense heads predict: that of the {rpn[0]} '
            f'{type(sides[rpn[0]]).__name__} is an RPN, which separates objects from background, '
            f'and that of the {other} {named(sides[other])} separates classes.'
        )


def check_anchor_heads(
    owner: str, student: nn.Module, teacher: nn.Module, scale: Fraction = Fraction(1)
) -> None:
    """Both must have RPN or RetinaNet heads of equal classes and anchors, else Misfit."""
    if not (has_anchor_targets(student) and has_anchor_targets(teacher)):
        raise Misfit(f'{owner} works with RPN and RetinaNet heads, but {both(student, teacher)}.')
    check_stages(owner, student, teacher)
    check_classes(owner, dense_head(student), dense_head(teacher))
    check_priors(owner, dense_head(student), dense_head(teacher), scale)


def check_comparable(
    owner: str, student: nn.Module, teacher: nn.Module, scale: Fraction = Fraction(1)
) -> None:
    """Both heads must code boxes alike, for equal classes and priors, else Misfit."""
    check_decodable(owner, student, teacher)
    check_stages(owner, student, teacher)
    kinds = [kind_of(model) for model in (student, teacher)]
    check_same(owner, 'kinds of box codes', *kinds)
    heads = [dense_head(model) for model in (student, teacher)]
    check_classes(owner, *heads)
    check_priors(owner, *heads, scale)
    check_coders(owner, *heads, per_class=False)
