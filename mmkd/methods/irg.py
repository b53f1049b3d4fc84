"""IRG: relationship graph of a batch: logits, distances, and their change between layers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, classifier, family_of
from mmkd.families.comparable import Misfit, both
from mmkd.functional.pooling import pool_to_smaller
from mmkd.functional.relations import distances
from mmkd.levels import Level
from mmkd.objective import Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective
from mmkd.tap import Trace, parse_taps

FACTORS = dict(vertex=0.1, edge=5.0, transform=5.0, edge_transform=0.0)
REDUCTIONS = ('mean', 'sum')
_EPS = 1e-12


def edges(x: Tensor) -> Tensor:
    """``|f_i - f_j|^2`` over the largest, (B, D) -> (B, B); the largest counts as a constant."""
    square = distances(x).square()
    return square / square.detach().amax().clamp(min=_EPS)


def transform(first: Tensor, second: Tensor) -> Tensor:
    """``|f_i^l1 - f_i^l2|^2`` over the largest, (B, D_1) and (B, D_2) -> (B,).

    The wider of the two is narrowed by averaging neighbouring channels.
    """
    width = min(first.shape[1], second.shape[1])
    a, b = (x if x.shape[1] == width else F.adaptive_avg_pool1d(x, width) for x in (first, second))
    square = (a - b).square().sum(1)
    return square / square.detach().amax().clamp(min=_EPS)


def same_shape(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two layers (B, C, H, W), or (B, C), as vectors of one length, (B, D) each.

    The larger map is averaged to the smaller one's size, the wider one's channels in groups.
    """
    if first.dim() == second.dim() == 4:
        first, second = pool_to_smaller(first, second)
    first, second = (x if x.dim() == 4 else x.flatten(1)[..., None, None] for x in (first, second))
    width = min(first.shape[1], second.shape[1])
    pooled = (
        F.adaptive_avg_pool3d(x, (width, *x.shape[2:])) if x.shape[1] != width else x
        for x in (first, second)
    )
    a, b = (x.flatten(1) for x in pooled)
    return a, b


def relation_error(student: Tensor, teacher: Tensor, reduction: str = 'mean') -> Tensor:
    """Of two relations, the mean square; or ``'sum'``: the sum over 2 B for edges, 2 otherwise."""
    square = (student - teacher).square()
    if reduction == 'mean':
        return square.mean()
    return square.sum() / (2 * len(square) if square.dim() == 2 else 2)


@MODELS.register_module()
class IRG(InstanceObjective):
    """Knowledge distillation via instance relationship graph.

    Liu et al., CVPR 2019. Vertices are logits, edges squared distances within a layer, and the
    transformation of vertices squared distances between two layers; both are divided by the
    largest. The transformation of edges, their change between two layers, is an option: the authors
    leave it out for its cost. Layers are vectors, or maps averaged over places, as the authors'
    code has them. The default weights are those of Knowledge-Distillation-Zoo, which flattens maps
    (``variant='zoo'``); they are kept for averaged maps, uncalibrated.

    Without taps: of two classifiers the second and third last stage, the embedding and the logits.
    With taps (the logits are added) layers of any classifier, or with ``factors=dict(vertex=0)`` of
    any model, e.g. of a detector's objects with ``student=['backbone[2]', 'neck']``.

    Args:
        factors (dict[str, float] | None): of the terms ``'vertex'`` (logits), ``'edge'`` (distances
            between images), ``'transform'`` (distances between layers) and ``'edge_transform'``
            (squared change of each edge between layers), where not 0.1, 5, 5 and 0; 0 leaves one
            out.
        variant (str): ``'code'``, the authors', averages maps over places; ``'zoo'`` flattens them,
            and transforms only between the first two layers, the larger map averaged and channels
            of the wider one in groups.
        reduction (str): ``'mean'`` over all numbers (the factors above), or ``'sum'``: over 2 B for
            edges and 2 for transformations, as the authors' code does with factors 0, 0.005 and
            0.005.
        edge_layers (int): how many of the last layers have edges.
        one_to_many (bool): the teacher's last layer teaches the edges of all of them (paper), not
            each its partner.
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: options out of range; unequally many layers; unequal classes; models
            that do not fit. A batch of one gives 0 for edges and transformations.
    """

    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        variant: str = 'code',
        reduction: str = 'mean',
        edge_layers: int = 3,
        one_to_many: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.factors = check_factors('IRG', factors, FACTORS)
        self.variant = check_choice('IRG', 'variant', variant, ('code', 'zoo'))
        self.reduction = check_choice('IRG', 'reduction', reduction, REDUCTIONS)
        self.edge_layers = check_number('IRG', 'edge_layers', edge_layers, 1, whole=True)
        self.one_to_many = one_to_many
        self.instances.pooled = self.variant == 'code'

    @staticmethod
    def taps_of(model: nn.Module) -> list[str]:
        return [*classifier.stage_taps(model)[-3:-1], classifier.embedding_tap(model)]

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        if not self.factors['vertex']:
            return
        if [family_of(model) for model in (student, teacher)] != ['classifier'] * 2:
            raise Misfit(
                "IRG's vertex term compares the logits of classifiers, but "
                f'{both(student, teacher)}.'
            )
        self.student_taps += parse_taps(classifier.logits_tap(student))
        self.teacher_taps += parse_taps(classifier.logits_tap(teacher))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        judged = bool(self.factors['vertex'])
        moves = self.factors['transform'] or self.factors['edge_transform']
        self.instances.setup(student, teacher, judged + (2 if moves else 1))
        if student and teacher and judged and student[-1].shape != teacher[-1].shape:
            raise ValueError(
                f'IRG: the student has {student[-1]} logits and the teacher {teacher[-1]}; '
                "factors={'vertex': 0} leaves them out."
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        layers, factors = self.instances.pairs(trace, self), self.factors
        losses = {}
        if factors['vertex']:
            losses['loss_vertex'] = factors['vertex'] * F.mse_loss(*layers.pop())
        student, teacher = zip(*layers, strict=True)
        if factors['edge']:
            losses['loss_edge'] = factors['edge'] * self._edge_error(student, teacher)
        if factors['transform']:
            moves = self._transform_error(trace, student, teacher)
            losses['loss_transform'] = factors['transform'] * moves
        if factors['edge_transform']:
            graphs = [[edges(x) for x in side] for side in (student, teacher)]
            changes = [[(a - b).square() for a, b in pairwise(side)] for side in graphs]
            losses['loss_edge_transform'] = factors['edge_transform'] * self._mean_error(*changes)
        return losses

    def _transform_error(self, trace: Trace, student: tuple, teacher: tuple) -> Tensor:
        """Error of the distances between layers."""
        if self.variant == 'zoo' and self.instances.rows not in ('boxes', 'regions'):
            sides = (trace.student, self.student_taps), (trace.teacher, self.teacher_taps)
            maps = [[x for tap in taps for x in side[tap]][:2] for side, taps in sides]
            flat = [self.instances.together(*same_shape(*pair)) for pair in maps]
            return self._mean_error(*([transform(*pair)] for pair in flat))
        count = 2 if self.variant == 'zoo' else len(student)
        moves = [[transform(*p) for p in pairwise(side[:count])] for side in (student, teacher)]
        return self._mean_error(*moves)

    def _mean_error(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        errors = [
            relation_error(s, t, self.reduction) for s, t in zip(student, teacher, strict=True)
        ]
        return sum(errors) / len(errors)

    def _edge_error(self, student: tuple, teacher: tuple) -> Tensor:
        own = [edges(x) for x in student[-self.edge_layers :]]
        wanted = [edges(x) for x in teacher[-self.edge_layers :]]
        if self.one_to_many:
            wanted = wanted[-1:] * len(own)
        return self._mean_error(own, wanted)
