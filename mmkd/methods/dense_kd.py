"""DenseKD: each class by a sigmoid and each box by IoU, of two dense heads at equal priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import assignments, dense
from mmkd.families.class_map import class_map_of
from mmkd.families.comparable import Misfit, both, check_same, kind_of
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.logit_distances import mean_kl, weighted_binary_cross_entropy
from mmkd.functional.sigmoid_distances import (
    adaptive_distance,
    gap_weighted_cross_entropy,
    varifocal_distance,
)
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import heads
from mmkd.rows.heads import Answer
from mmkd.tap import Trace
from mmkd.view import View

CLASSES = ('bckd', 'qfl', 'kl', 'varifocal', 'adl', None)
BOXES = ('giou', 'confidence', 'bounded', 'distribution', None)
NORMALISERS = ('positives', 'confidence', 'power')
#: box terms of positives alone
ON_OBJECTS = ('bounded', 'distribution')
#: of BCKD
FACTORS = dict(classes=1.0, boxes=4.0)


def box_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - GIoU`` of boxes (..., 4), (...); 0 where the teacher's has no area."""
    from mmdet.structures.bbox import bbox_overlaps

    apart = 1 - bbox_overlaps(student, teacher, mode='giou', is_aligned=True)
    return apart * (teacher[..., 2:] > teacher[..., :2]).all(-1)


def shortfall(student: Tensor, teacher: Tensor, truth: Tensor) -> Tensor:
    """``max(0, IoU(T, g) - IoU(S, g))`` of boxes (..., 4): how much better the teacher's are."""
    from mmdet.structures.bbox import bbox_overlaps

    own, other = (bbox_overlaps(x, truth, is_aligned=True) for x in (student, teacher))
    return (other - own).clamp(min=0).detach()


@MODELS.register_module()
class DenseKD(Objective):
    """Bridging cross-task protocol inconsistency for distillation in dense object detection (BCKD).

    Yang et al., ICCV 2023; compared with TinyTigerPan/BCKD, whose setting is the default. The
    student's own head answers; with q and p the sigmoids of teacher and student, of each prior:

    * ``loss_classes``: sum over classes of ``|q - p| BCE(z, q)``, where the weight has a gradient,
      too, times the label weight (0 for priors that the student's assigner ignores).
    * ``loss_boxes``: ``max_c |q - p| (1 - GIoU)`` of decoded boxes, times the label weight; 0 where
      the teacher's box has no area.

    Both are divided by the number of positives, at least one of each image, averaged over ranks.
    The authors leave out pyramid levels without a positive (``skip_empty_levels``).

    Heads may be of unequal kinds, depths and widths if their priors lie at the same places. YOLOX
    answers with the probability of class and object together. A teacher whose scores are qualities
    (GFL) teaches one whose scores are not (RetinaNet) another scale: compare ``score_student`` and
    ``score_teacher`` in the log, both sides' largest scores, weighted by the teacher's.

    ADL as released is
    ``DenseKD(classes='adl', boxes=None, normaliser='power', mask_ignore=True)``, on labelled images
    and on others with the teacher's boxes. Without ``mask_ignore`` it needs no boxes there.

    Args:
        classes (str | None): ``'bckd'``; ``'qfl'``, its weight squared, as in quality focal loss;
            ``'kl'``, ``tau^2 KL`` of two-way distributions; ``'varifocal'``, ``q BCE``; ``'adl'``,
            the adaptive distillation loss of Tang et al., 2019; None: boxes alone.
        boxes (str | None): ``'giou'``; ``'confidence'``, weighted by ``max_c q``, as in CrossKD;
            ``'bounded'``, of positives, weighted by how much larger the IoU of the teacher's box
            with the ground truth is (ours); ``'distribution'``, for heads with bins, LD's main
            term, mean over four edges of positives; None: classes alone.
        normaliser (str): ``'positives'``; ``'confidence'``, the sum of ``max_c q``; ``'power'``,
            the sum of ``q^theta``, as ADL has it; at least 1. The last two need no ground truth.
        factors (dict[str, float] | None): of ``'classes'`` and ``'boxes'``, where not 1 and 4.
        tau (float): temperature of ``'kl'`` and ``'distribution'`` (LD: 10).
        mask_ignore (bool | None): multiply by label weights; None: where the assignment is read
            anyway, for positives or their boxes. ADL with labels leaves ignored priors out (True).
        detach_weight (bool): no gradient through the weight of ``'bckd'`` and ``'qfl'``.
        skip_empty_levels (bool): levels without a positive in the batch contribute nothing.
        alpha (float): of ``'adl'``, weight of what is an object.
        gamma (float): of ``'adl'``, exponent of how far the student is off, at least 1.
        beta (float): of ``'adl'``, share of the teacher's entropy that is subtracted; 0 in its
            code, where it is not 0 where both agree; the paper counts ``1 - beta``.
        theta (float): exponent of ``'power'``.
        class_map (list[int] | None): for each class of the teacher its label in a student that
            knows more; only these are compared. None: equal classes.
        level_map (str | None): ``'common'`` compares only the levels that both heads have, as it is
            over scales.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            the head's whatever is given.

    Raises:
        ValueError: options out of range or without effect; heads of unknown kind, with softmax
            classes, unequal classes, strides or priors; ``'distribution'`` without equal bins.
    """

    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    scheduled = ('tau',)
    asks_teacher = True
    rank_invariant = True
    over_scales = True
    families = ('anchor', 'anchor_free', 'yolo')
    only = {'anchor_free': ('FCOS', 'VFNet', 'RTMDet'), 'yolo': ('YOLOX',)}

    def __init__(
        self,
        *taps: Taps,
        classes: str | None = 'bckd',
        boxes: str | None = 'giou',
        normaliser: str = 'positives',
        factors: Mapping[str, float] | None = None,
        tau: float = 1.0,
        mask_ignore: bool | None = None,
        detach_weight: bool = False,
        skip_empty_levels: bool = False,
        alpha: float = 0.5,
        gamma: float = 2.0,
        beta: float = 0.0,
        theta: float = 1.8,
        class_map: Sequence[int] | None = None,
        level_map: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.classes = check_choice('DenseKD', 'classes', classes, CLASSES)
        self.boxes = check_choice('DenseKD', 'boxes', boxes, BOXES)
        self.normaliser = check_choice('DenseKD', 'normaliser', normaliser, NORMALISERS)
        self.class_map = class_map_of('DenseKD', class_map)
        self.level_map = check_choice('DenseKD', 'level_map', level_map, (None, 'common'))
        terms = {'classes': self.classes, 'boxes': self.boxes}
        if not any(terms.values()):
            raise ValueError('DenseKD: classes=None and boxes=None leave nothing to compare.')
        used = {term: FACTORS[term] for term, kind in terms.items() if kind}
        self.factors = dict.fromkeys(FACTORS, 0.0) | check_factors('DenseKD', factors, used)
        self.tau = check_temperature('DenseKD', tau)
        self.alpha = check_number('DenseKD', 'alpha', alpha, 0, 1)
        self.gamma = check_number('DenseKD', 'gamma', gamma, 1)
        self.beta = check_number('DenseKD', 'beta', beta, most=1)
        self.theta = check_number('DenseKD', 'theta', theta, above=0)
        self.detach_weight, self.skip_empty_levels = detach_weight, skip_empty_levels
        on_objects = self.boxes in ON_OBJECTS or skip_empty_levels
        #: whether the student's assignment is read; without it no ground truth is needed
        self.assigned = self.normaliser == 'positives' or on_objects or bool(mask_ignore)
        self.mask_ignore = self.assigned if mask_ignore is None else mask_ignore
        self.label_free = not self.assigned
        self.needs_ground_truth = self.boxes in ON_OBJECTS and not self.classes
        self.zero_at_equality = self.classes != 'varifocal' and (self.classes != 'adl' or beta == 1)
        self._check_effects()
        self.pairs: list[tuple[int, int]] = []

    def _check_effects(self) -> None:
        """Options that would do nothing, by ValueError."""
        used = {
            'tau': (1.0, self.classes == 'kl' or self.boxes == 'distribution'),
            'detach_weight': (False, self.classes in ('bckd', 'qfl')),
            'alpha': (0.5, self.classes == 'adl'),
            'gamma': (2.0, self.classes == 'adl'),
            'beta': (0.0, self.classes == 'adl'),
            'theta': (1.8, self.normaliser == 'power'),
        }
        for name, (default, needed) in used.items():
            if getattr(self, name) != default and not needed:
                raise ValueError(
                    f'DenseKD: {name}={getattr(self, name)!r} has no effect with '
                    f'classes={self.classes!r}, boxes={self.boxes!r} and '
                    f'normaliser={self.normaliser!r}; leave it out.'
                )

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        common, scale = self.level_map == 'common', self.image_scale
        known = self.class_map
        self.pairs = heads.check_heads('DenseKD', student, teacher, common, scale, known)
        if self.assigned:
            assignments.check_assignment('DenseKD', student)
        if self.boxes == 'distribution':
            if not kind_of(student) == kind_of(teacher) == 'distribution':
                raise Misfit(
                    "DenseKD: boxes='distribution' compares bins, which GFL heads have, but "
                    f"{both(student, teacher)}; boxes='giou' compares decoded boxes.",
                    ('CWD', 'PKD'),
                )
            bins = [dense.dense_head(model).reg_max for model in (student, teacher)]
            check_same('DenseKD', 'reg_max', *bins)
        self.student_taps, self.teacher_taps = heads.head_taps(student, teacher, self.assigned)

    def describe(self) -> list[str]:
        compared = [f'classes by {self.classes}'] * bool(self.classes)
        compared += [f'boxes by {self.boxes}'] * bool(self.boxes)
        truth = 'reads the assignment' if self.assigned else 'needs no ground truth'
        levels = f'{len(self.pairs)} levels'
        return [f'{", ".join(compared)}, on {levels}, divided by {self.normaliser}; {truth}']

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own, wanted = self._answers(trace)
        q = wanted.logits.sigmoid()
        sure = q.amax(-1)
        found = assignments.assignment(trace) if self.assigned else None
        positive = own.chosen(found.positive) if found else None
        weights = own.chosen(found.weights) if found and self.mask_ignore else sure.new_ones(())
        if self.skip_empty_levels and positive is not None:
            weights = weights * self._with_objects(positive, own.counts)
        total = self._divisor(q, sure, found)
        terms = {}
        if self.classes:
            apart = self._class_distance(own.logits, wanted.logits).sum(-1)
            terms['classes'] = (apart * weights).sum() / total
        if self.boxes:
            apart = self._box_distance(trace, own, wanted, sure, positive)
            terms['boxes'] = (apart * weights).sum() / total
        losses = {f'loss_{term}': self.factors[term] * value for term, value in terms.items()}
        with torch.no_grad():
            scores = own.logits.sigmoid().amax(-1), sure
            whole = sure.sum().clamp(min=1e-6)
            student, teacher = ((sure * score).sum() / whole for score in scores)
        return losses | dict(score_student=student, score_teacher=teacher)

    def _answers(self, trace: Trace) -> tuple[Answer, Answer]:
        """Of both heads, the student's for the classes that the teacher knows."""
        own, wanted = heads.answers(trace, self.pairs)
        if self.class_map is not None:
            own.logits = self.class_map(own.logits)
        return own, wanted

    def _divisor(
        self, q: Tensor, sure: Tensor, found: assignments.Assignment | None
    ) -> Tensor | float:
        if self.normaliser == 'positives':
            assert found is not None
            return found.normaliser()
        values = sure if self.normaliser == 'confidence' else q**self.theta
        return mean_over_ranks(values.sum()).clamp(min=1)

    @staticmethod
    def _with_objects(positive: Tensor, counts: list[int]) -> Tensor:
        """(1, P) bool: priors of levels on which the batch has a positive."""
        levels = positive.any(0).split(counts)
        return torch.cat([level.any().expand_as(level) for level in levels])[None]

    def _class_distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of each class, (N, P, K)."""
        if self.classes == 'kl':
            both_ways, tau = (1.0, 1.0), self.tau
            kl = weighted_binary_cross_entropy(student, teacher, both_ways, tau, entropy=False)
            return kl * tau**2
        if self.classes == 'varifocal':
            return varifocal_distance(student, teacher)
        if self.classes == 'adl':
            return adaptive_distance(student, teacher, self.alpha, self.gamma, self.beta)
        beta = 2.0 if self.classes == 'qfl' else 1.0
        return gap_weighted_cross_entropy(student, teacher, beta, self.detach_weight)

    def _box_distance(
        self, trace: Trace, own: Answer, wanted: Answer, sure: Tensor, positive: Tensor | None
    ) -> Tensor:
        """Weighted distance of the box of each prior, (N, P)."""
        if self.boxes == 'distribution':
            weight = own.logits.detach().sigmoid().amax(-1) * positive
            return weight * mean_kl(own.bins(), wanted.bins(), self.tau).mean(-1)
        boxes, others = own.boxes(), wanted.boxes()
        if self.boxes == 'giou':
            weight = (own.logits.detach().sigmoid() - wanted.logits.sigmoid()).abs().amax(-1)
        elif self.boxes == 'confidence':
            weight = sure
        else:
            truth = own.chosen(assignments.target_boxes(trace, own.sizes))
            weight = shortfall(boxes, others, truth) * positive
        return weight * box_distance(boxes, others)

    def views(self, trace: Trace) -> list[View]:
        """Distance of the classes, summed over them, of the worst prior of each cell."""
        own, wanted = self._answers(trace)
        apart = gap_weighted_cross_entropy(own.logits, wanted.logits).sum(-1)
        generator = dense.dense_head(trace.student.model).prior_generator
        centre = getattr(generator, 'center_offset', getattr(generator, 'offset', 0.5))
        views = []
        for level, i in zip(apart.split(own.counts, 1), own.levels, strict=True):
            worst = level.unflatten(1, (*own.sizes[i], -1)).amax(-1)
            stride = generator.strides[i][0]
            views.append(View('class distance', worst, stride=stride, centre=centre))
        return views
