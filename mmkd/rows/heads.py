"""What two dense heads predict at the priors that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from mmkd.families import assignments, is_two_stage, two_stage
from mmkd.families.class_map import ClassMap
from mmkd.families.comparable import Misfit, both, check_class_counts, kind_of, pair_priors
from mmkd.families.dense import dense_head, outputs_tap
from mmkd.families.two_stage import features_tap
from mmkd.rows import predictions
from mmkd.tap import Tap, Trace, parse_taps


@dataclass
class Answer:
    """Predictions of one head, (N, P, ...) for the P priors that are compared.

    Attributes:
        model (nn.Module): whose head it is.
        outputs (list[Tensor]): the head's maps.
        levels (list[int]): positions of the levels that are compared.
        scale (Fraction): side of the learner's images over that of the images that it saw.
    """

    model: nn.Module
    outputs: list[Tensor]
    levels: list[int]
    scale: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        #: (H, W) of all levels, and of those that are compared
        self.sizes = predictions.level_sizes(self.model, self.outputs)
        self.compared = {i: self.sizes[i] for i in self.levels}
        #: class logits (N, P, K) and box codes (N, P, D)
        self.logits, self.codes = predictions.split(self.model, self.outputs, self.levels)

    @property
    def counts(self) -> list[int]:
        """Priors of each level that is compared."""
        return list(predictions.prior_counts(dense_head(self.model), self.compared).values())

    def chosen(self, x: Tensor) -> Tensor:
        """Rows (N, P, ...) of the compared levels, from those of all, as an assignment has them."""
        if len(self.levels) == len(self.sizes):
            return x
        counts = predictions.prior_counts(dense_head(self.model), self.sizes)
        parts = x.split(list(counts.values()), 1)
        return torch.cat([parts[i] for i in self.levels], 1)

    def boxes(self) -> Tensor:
        """Decoded boxes (N, P, 4), xyxy in pixels of the learner's padded input, not clipped."""
        boxes = predictions.decode(self.model, self.codes, self.compared, None)
        return boxes if self.scale == 1 else boxes * self.scale.numerator / self.scale.denominator

    def bins(self) -> Tensor:
        """Logits (N, P, 4, bins) of box distributions."""
        return self.codes.unflatten(-1, (4, -1))


def has_classes(model: nn.Module) -> bool:
    """Whether a one-stage detector scores each class of each prior by a sigmoid, in a known way."""
    return kind_of(model) is not None and not is_two_stage(model)


def check_heads(
    owner: str,
    student: nn.Module,
    teacher: nn.Module,
    common: bool | None = None,
    scale: Fraction = Fraction(1),
    class_map: ClassMap | None = None,
) -> list[tuple[int, int]]:
    """Two heads of known kinds, which may differ, with equal classes and priors, else Misfit.

    Args:
        common (bool | None): see :func:`~mmkd.families.comparable.pair_priors`.
        scale (Fraction): likewise.
        class_map (ClassMap | None): which of the student's classes the teacher knows.

    Returns:
        list[tuple[int, int]]: positions of levels of equal stride.
    """
    if not (has_classes(student) and has_classes(teacher)):
        raise Misfit(
            f'{owner} compares one-stage heads that score each class by a sigmoid, as those of '
            f'RetinaNet, ATSS, PAA, GFL, FCOS, VFNet, TOOD, RTMDet and YOLOX do, but '
            f'{both(student, teacher)}{_for_rois(owner, student, teacher)}.',
            ('CWD', 'PKD'),
        )
    heads = [dense_head(model) for model in (student, teacher)]
    check_class_counts(owner, *heads, class_map)
    return pair_priors(owner, *heads, common, scale)


def _for_rois(owner: str, student: nn.Module, teacher: nn.Module) -> str:
    """What compares the classes of two box heads on RoIs, where there are such."""
    if not (is_two_stage(student) and is_two_stage(teacher)) or owner == 'KD':
        return ''
    try:
        two_stage.check_box_heads(owner, student, teacher, softmax=True)
    except ValueError:
        return ''
    return ', whose softmax classes of RoIs are for KD and DKD'


def head_taps(
    student: nn.Module, teacher: nn.Module, assigned: bool
) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """Taps on student and teacher for :func:`answers`, and for the assignment if it is read."""
    extra = assignments.assignment_taps(student) if assigned else []
    return parse_taps([outputs_tap(student), *extra]), parse_taps(features_tap(teacher))


def answers(trace: Trace, pairs: Sequence[tuple[int, int]]) -> tuple[Answer, Answer]:
    """What both heads say; ``pairs`` as from :func:`check_heads`.

    Raises:
        ValueError: maps of one stride and unequal size.
    """
    own, wanted = predictions.both_outputs(trace)
    first, second = (list(levels) for levels in zip(*pairs, strict=True))
    student = Answer(trace.student.model, own, first)
    teacher = Answer(trace.teacher.model, wanted, second, trace.scale)
    for i, j in pairs:
        if student.sizes[i] != teacher.sizes[j]:
            raise ValueError(
                f'The heads of student and teacher give maps of {student.sizes[i]} and '
                f'{teacher.sizes[j]} cells for one stride; pad the input to a multiple of it '
                '(data_preprocessor.pad_size_divisor).'
            )
    return student, teacher
