"""MatchedMasks: classes and masks of queries, matched between two networks that classify masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import mask_queries, segmentor
from mmkd.families.mask_queries import Answers
from mmkd.families.set_losses import objects_of
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.logit_distances import soft_kl, weighted_binary_cross_entropy
from mmkd.functional.set_matching import assign
from mmkd.generators import step_generator
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps

#: of the terms, and of the costs of the matching
FACTORS = dict(classes=2.0, masks=5.0, dice=5.0)
#: cost of a pair with a query of the teacher that is sure of nothing
_NO_PAIR = 1e5


def dice_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """``1 - (2 sum ab + 1) / (sum a + sum b + 1)`` of probabilities a and b, (..., P) -> (...)."""
    shared, a, b = ((counted * x).sum(-1) for x in (student * teacher, student, teacher))
    return 1 - (2 * shared + 1) / (a + b + 1)


def mask_costs(
    student: Answers, teacher: Answers, counted: Tensor, factors: Mapping[str, float]
) -> Tensor:
    """``2 CE(p_t, p_s) + 5 mean BCE(y_s, q_t) + 5 Dice`` of all pairs of queries, (..., S, T).

    Args:
        student, teacher (Answers): of S and T queries.
        counted (Tensor): 1 at points that count and 0 elsewhere, (..., 1, P).
        factors (Mapping): of ``'classes'``, ``'masks'`` and ``'dice'``.
    """
    (x, y), (u, v) = student, teacher
    a, q = y.sigmoid(), v.sigmoid().mT
    share = counted / counted.sum(-1, keepdim=True).clamp(min=1)
    classes = -x.log_softmax(-1) @ u.softmax(-1).mT
    masks = (share * F.softplus(y)).sum(-1)[..., None] - (share * y) @ q
    both = (counted * a).sum(-1)[..., None] + counted @ q
    dice = 1 - (2 * (counted * a) @ q + 1) / (both + 1)
    return factors['classes'] * classes + factors['masks'] * masks + factors['dice'] * dice


def mask_terms(
    student: Answers, teacher: Answers, counted: Tensor, partners: Tensor, dice: str = 'plain'
) -> dict[str, Tensor]:
    """Distances of each query from its partner, (..., S): ``KL(p_t || p_s)``, the mean over points
    of ``KL(q_t || s(y_s))``, and Dice. They are 0 for queries without a partner.

    Args:
        student, teacher, counted: see :func:`mask_costs`.
        partners (Tensor): the teacher's query of each of the student's, (..., S), or -1.
        dice (str): ``'difference'`` subtracts ``Dice(q_t, q_t)``.
    """
    at = partners.clamp(min=0)[..., None]
    shape = partners.shape[:-1]
    u, v = (
        z.expand(*shape, *z.shape[-2:]).gather(-2, at.expand(*at.shape[:-1], z.shape[-1]))
        for z in teacher
    )
    x, y = student
    share = counted / counted.sum(-1, keepdim=True).clamp(min=1)
    apart = weighted_binary_cross_entropy(y, v, (1.0, 1.0), entropy=False)
    overlap = dice_distance(y.sigmoid(), v.sigmoid(), counted)
    if dice == 'difference':
        overlap = overlap - dice_distance(v.sigmoid(), v.sigmoid(), counted)
    terms = dict(classes=soft_kl(x, u, 1.0), masks=(share * apart).sum(-1), dice=overlap)
    return {term: value * (partners >= 0) for term, value in terms.items()}


def per_row(values: Tensor, rows: Tensor) -> Tensor:
    """Sum over layers of the sums of (L, N, S), each by the mean over ranks of how many rows count,
    (L, N, S) bool, and at least by 1."""
    count = mean_over_ranks(rows.sum((1, 2)).float()).clamp(min=1)
    return (values.sum((1, 2)) / count).sum()


@MODELS.register_module()
class MatchedMasks(Objective):
    """Matched masks and classes of two networks that classify masks; our construction.

    Response-based distillation as by Hinton et al., 2015, of the queries of MaskFormer (Cheng et
    al., NeurIPS 2021), Mask2Former and SAN, matched as in DETR (Carion et al., ECCV 2020). No such
    recipe is published. Query i of one network is about something else than query i of another, so
    the student's queries are matched with those of the teacher that are sure of a class
    (``1 - p(no object) >= 0.5``), at the cost ``2 CE(p_t, p_s) + 5 mean BCE(y_s, s(y_t)) +
    5 Dice``: Mask2Former's, with the teacher's answers as labels and a cross entropy for the
    classes. Masks are compared at random points of the image, the same for all images of a step,
    since all maps would take too much memory.

    Over the pairs, by their number: ``loss_classes`` is ``KL(p_t || p_s)`` over the classes and "no
    object"; ``loss_masks`` the mean over the points of the KL divergence of the masks'
    probabilities; ``loss_dice`` their Dice, which is above 0 where two soft masks agree, and least
    where the student's is sharper. Queries that are left over add 0.1 times the mean of ``-log
    p_s(no object)`` to ``loss_classes``. ``pairs``, in the log, is the number of pairs in an image.

    Nothing depends on the order of queries, nor on their number. Both must have masks of one kind:
    one for each class, or one for each object. scipy matches on the processor.

    Args:
        score (float): least probability of any class at which a query of the teacher teaches.
        points (int): random points of an image.
        layers (str): ``'last'`` or ``'all'`` decoder layers of the student, each against the
            teacher's last one; their losses are added up.
        dice (str): ``'plain'``, or ``'difference'``: less ``Dice(q_t, q_t)``, a constant, so that
            the term is 0 at equal masks, and below 0 at sharper ones.
        no_object (float): weight of queries without a partner, within the term of the classes.
        factors (dict[str, float] | None): of the terms ``'classes'`` (2), ``'masks'`` (5) and
            ``'dice'`` (5), where not these.
        mask_ignore (bool): leave out points with the ignored label, and images that have no other
            ones; of networks that segment instances, which have no label map, points in padding.
        ignore_index (int): the ignored label.
        seed (int): of the points, which depend on it and the iteration alone.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`; it takes no taps.

    Raises:
        ValueError: options out of range; a network that does not classify masks; unequal classes,
            or masks of unequal kinds; taps; no labels with ``mask_ignore``.
    """

    compares_classes = True
    asks_teacher = True  # the queries of one network
    checks_shapes = False
    zero_at_equality = False  # unless the options say so
    label_free = True  # without mask_ignore
    rank_invariant = True
    over_scales = True
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('segmentor',)
    only = {'segmentor': ('MaskFormer', 'Mask2Former', 'SAN')}

    def __init__(
        self,
        *taps: Taps,
        score: float = 0.5,
        points: int = 12544,
        layers: str = 'last',
        dice: str = 'plain',
        no_object: float = 0.1,
        factors: Mapping[str, float] | None = None,
        mask_ignore: bool = True,
        ignore_index: int = 255,
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.score = check_number('MatchedMasks', 'score', score, 0, 1)
        self.points = check_number('MatchedMasks', 'points', points, 1, whole=True)
        self.layers = check_choice('MatchedMasks', 'layers', layers, ('last', 'all'))
        self.dice = check_choice('MatchedMasks', 'dice', dice, ('plain', 'difference'))
        self.no_object = check_number('MatchedMasks', 'no_object', no_object, 0)
        self.factors = check_factors('MatchedMasks', factors, FACTORS)
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('MatchedMasks', 'ignore_index', ignore_index, whole=True)
        self.seed = check_number('MatchedMasks', 'seed', seed, 0, whole=True)
        self.zero_at_equality = self.dice == 'difference' and not self.no_object

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        if self.asked_taps:
            raise ValueError(
                'MatchedMasks compares what the queries of both heads give; it takes no taps. '
                "Methods on class scores of pixels, such as KD, take '…@scores'."
            )
        mask_queries.check_mask_queries('MatchedMasks', student, teacher)
        segmentor.check_same_classes(self, student, teacher)
        taps = mask_queries.taps(student, teacher)
        self.student_taps, self.teacher_taps = map(parse_taps, taps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher, counted = self.answers(trace)
        seen = counted.any(-1)
        sure = (1 - teacher[0].softmax(-1)[..., -1] >= self.score) & seen
        with torch.no_grad():
            costs = mask_costs(student, teacher, counted, self.factors)
        costs = costs.masked_fill(~sure[:, None], _NO_PAIR)
        partners = objects_of(assign(masks=costs)['masks'], sure)
        terms = mask_terms(student, teacher, counted, partners, self.dice)
        paired = partners >= 0
        means = {term: per_row(value, paired) for term, value in terms.items()}
        rest = ~paired & seen
        nothing = -student[0].log_softmax(-1)[..., -1] * rest
        means['classes'] = means['classes'] + self.no_object * per_row(nothing, rest)
        losses = {f'loss_{term}': self.factors[term] * x for term, x in means.items()}
        return losses | {'pairs': paired[-1].sum().float() / len(sure)}

    def answers(self, trace: Trace) -> tuple[Answers, Answers, Tensor]:
        """Of the student in L layers, of the teacher, and which points count, (N, 1, P)."""
        device = trace.inputs.device
        generator = step_generator(self.seed, trace.progress.iteration, 0, device)
        points = torch.rand(self.points, 2, generator=generator, device=device)
        both = mask_queries.answers(trace, points, 1 if self.layers == 'last' else None)
        if not self.mask_ignore:
            return *both, points.new_ones(len(trace.inputs), 1, len(points))
        known = mask_queries.known_points(trace, points, self.ignore_index)
        return *both, known[:, None].float()

    def describe(self) -> list[str]:
        """Which queries are matched."""
        which = 'each decoder layer' if self.layers == 'all' else 'the last decoder layer'
        return [
            f"queries of {which} are matched with the teacher's of a class at {self.score:g} or "
            f'more, by masks at {self.points} points'
        ]
