"""DETRDistill: matched queries, features where the teacher's queries look, and those queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters import build_adapter
from mmkd.families import queries, query_decoding
from mmkd.families.set_losses import object_costs, objects_of, set_losses
from mmkd.functional.box_distances import centred, corners, iou
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.set_matching import assign, pair_costs, pair_terms
from mmkd.levels import Level, pair_levels
from mmkd.objective import Objective, equal_size
from mmkd.options import check_choice, check_factors
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps

#: of the terms; the first three weigh the costs of the matching, too
FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0, features=1.0, prior=1.0)
PAIRED = ('classes', 'boxes', 'giou')
#: (query, class) pairs of the teacher that say where its features matter
_TOP = 100
_LEAST = 1e-2
_NECK = 'neck'
Truth = tuple[Tensor, Tensor, Tensor]


def attended(features: Tensor, embeddings: Tensor, quality: Tensor) -> Tensor:
    """``clamp(sum_n k_n cos(q_n, F_yx), min 0.01)``, divided by its maximum over the image.

    Args:
        features (Tensor): the teacher's F, (N, C, H, W).
        embeddings (Tensor): q of M queries for each decoder layer, (L, N, M, C).
        quality (Tensor): k, (L, N, M).

    Returns:
        Tensor: (L, N, H, W).
    """
    # The cosine is linear in the normalised query: one vector stands for all of them.
    looking = (quality[..., None] * F.normalize(embeddings, dim=-1)).sum(-2)
    found = torch.einsum('lnc,nchw->lnhw', looking, F.normalize(features, dim=1))
    found = found.clamp(min=_LEAST)
    return found / found.amax((-2, -1), keepdim=True)


def feature_distance(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """``sum_l mean (w_l T - w_l S)^2`` of maps (N, C, H, W) and weights (L, N, H, W)."""
    gap = (teacher - student).square().mean(1)
    return (weight.square() * gap).mean((-3, -2, -1)).sum()


def best_queries(
    probabilities: Tensor, boxes: Tensor, hidden: Tensor, truth: Truth
) -> tuple[Tensor, Tensor]:
    """Embeddings (L, N, M, D) and quality (L, N, M) of the highest (query, class) scores.

    The quality is the score times the largest IoU with an object; the score where there is none.

    Args:
        probabilities, boxes, hidden (Tensor): (L, N, Q, K), (L, N, Q, 4) and (L, N, Q, D).
        truth (tuple): of :func:`~mmkd.families.queries.ground_truth`.
    """
    objects, _, real = truth
    flat = probabilities.flatten(2)
    scores, at = flat.topk(min(_TOP, flat.shape[-1]))
    rows = (at // probabilities.shape[-1])[..., None]
    places = boxes.gather(2, rows.expand(-1, -1, -1, 4))
    overlap = iou(corners(places)[..., None, :], corners(objects)[:, None])
    best = overlap.masked_fill(~real[:, None], 0.0).amax(-1)
    quality = torch.where(real.any(-1)[:, None], scores * best, scores)
    return hidden.gather(2, rows.expand(-1, -1, -1, hidden.shape[-1])), quality


@MODELS.register_module()
class DETRDistill(Objective):
    """DETRDistill: a universal knowledge distillation framework for DETR-families.

    Chang et al., ICCV 2023; written from the equations, compared with BIVLab-USTC/DETRDistill
    (one-stage Deformable DETR). Each decoder layer of the student is compared with the teacher's
    of the same number, counted from the last one where the depths differ (which is ours):

    * ``loss_classes``, ``loss_boxes``, ``loss_giou``: student's and teacher's queries are matched
      by the Hungarian algorithm, at the cost ``BCE(z_s, p_t) + 5 |b_s - b_t|_1 - 2 GIoU``. Losses
      are the same over the pairs, by their number, in the form that is 0 where both agree: the
      authors' cross entropy is larger by the teacher's entropy, a constant. Nothing depends on the
      order of queries, nor on their number: queries without a partner count nothing.
    * ``loss_features``: of the necks, square error weighted by the cosine between the teacher's
      features and its best queries' embeddings, each counted by score and IoU with an object; a
      1x1 convolution where the necks' widths differ.
    * ``loss_prior_cls``, ``loss_prior_bbox``, ``loss_prior_iou``: the student decodes the teacher's
      queries in a pass of their own, for its own losses, with the objects that the teacher's
      queries were matched with (by the cost of DETR). The paper does so, since matching flips from
      step to step early in training.

    The authors' code also has a contrastive term, which the paper does not, and which is left out.
    Images without labels teach matched queries alone (factors 0 of features and prior, and
    ``negatives='all'``), and not DINO and DDQ, which make denoising queries of boxes.
    scipy matches on the processor: 6 layers of 300 queries take about 0.1 s for an image and step.

    Args:
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (5),
            ``'giou'`` (2), ``'features'`` (1) and ``'prior'`` (1), where not these.
        negatives (str): teacher's queries without an object teach classes and boxes (``'all'``, the
            code), their ``'box'`` alone (the paper), or ``'none'`` of both.
        assignment (str): of the prior's queries: the ``'teacher'``'s (the paper) or the student's
            ``'own'``, made anew in each layer (what the code does).
        adapt (str | None): adapter of the neck's maps, see
            :class:`~mmkd.objective.PairObjective`.
        level_map (str | list[tuple[int, int]] | None): pairs of the necks' levels, likewise.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; two networks that are not DETRs of the same classes;
            levels without a partner; for the prior, decoders that do not understand each other's
            queries.
    """

    compares_classes = True
    asks_teacher = True  # the queries of one network
    checks_shapes = False
    term_factors = {
        **{f'loss_{term}': f'factors.{term}' for term in (*PAIRED, 'features')},
        **{f'loss_prior_{term}': 'factors.prior' for term in ('cls', 'bbox', 'iou')},
    }
    zero_at_equality = False  # the prior's losses are those of a detector
    families = ('detr',)

    def __init__(
        self,
        factors: Mapping[str, float] | None = None,
        negatives: str = 'all',
        assignment: str = 'teacher',
        adapt: str | None = 'auto',
        level_map: str | list | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.factors = check_factors('DETRDistill', factors, FACTORS)
        self.negatives = check_choice('DETRDistill', 'negatives', negatives, ('all', 'box', 'none'))
        self.assignment = check_choice('DETRDistill', 'assignment', assignment, ('teacher', 'own'))
        self.adapt, self.level_map = adapt, level_map
        self.pairs: list[tuple[int, int]] = []
        self.adapters = nn.ModuleDict()

    @property
    def reads_objects(self) -> bool:
        """Whether a term reads ground truth: any but the matched queries."""
        return bool(self.factors['prior'] or self.factors['features']) or self.negatives != 'all'

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        queries.check_decoders('DETRDistill', student, teacher)
        assert teacher is not None
        self.why_labels = queries.why_labels(student)
        if self.reads_objects and not self.why_labels:
            self.why_labels = (
                'the objects of an image count in all but the matched queries; set '
                "factors={'prior': 0, 'features': 0} and negatives='all'"
            )
        self.label_free = not self.why_labels
        own, judged = queries.output_taps(student), queries.output_taps(teacher)
        if self.factors['prior']:
            way = "set factors={'prior': 0}, and the queries are matched alone"
            queries.check_shared_points('DETRDistill', student, teacher, way)
            own += queries.memory_taps(student)
            judged += queries.point_taps(teacher)
        if self.factors['features']:
            own += [_NECK]
            judged += [_NECK, queries.HIDDEN]
        self.student_taps, self.teacher_taps = (parse_taps(dict.fromkeys(x)) for x in (own, judged))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not self.factors['features']:
            return
        if student is None or teacher is None:
            raise ValueError(
                "DETRDistill: the necks could not be probed; set factors={'features': 0}."
            )
        levels = [[level for level in side if level.tap == _NECK] for side in (student, teacher)]
        (width,) = {level.shape[-1] for level in teacher if level.tap == queries.HIDDEN}
        if levels[1][0].channels != width:
            raise ValueError(
                f"DETRDistill weighs the teacher's features by its queries, but its neck has "
                f'{levels[1][0].channels} channels and its decoder {width}; set '
                "factors={'features': 0}."
            )
        self.pairs = pair_levels(*levels, self.level_map, False, 'DETRDistill', ('level_map',))
        for k, (i, j) in enumerate(self.pairs):
            adapter = build_adapter(self.adapt, levels[0][i], levels[1][j], 'DETRDistill')
            if adapter is not None:
                self.adapters[f'{k}'] = adapter

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own, judged = queries.outputs(trace.student), queries.outputs(trace.teacher)
        scores, boxes = own
        wanted = queries.foreground(trace.teacher.model, judged[0].detach())
        targets = centred(corners(judged[1].detach()).clamp(0, 1))
        depth = min(len(scores), len(wanted))
        logits = queries.binary_logits(trace.student.model, scores[-depth:])
        pairs = logits, boxes[-depth:], wanted[-depth:], targets[-depth:]
        with torch.no_grad():  # else all pairs of all layers are kept for a backward pass
            costs = dict(queries=pair_costs(*pairs, self.factors))
        if not self.reads_objects:
            return self.matched(pairs, assign(**costs)['queries'], None)
        truth = queries.ground_truth(trace.samples, boxes)
        if self.factors['prior'] or self.negatives != 'all':
            costs['objects'] = object_costs(wanted, judged[1].detach(), truth)
        again = None
        if self.factors['prior']:
            model, given = trace.student.model, queries.memory(trace.student)
            again = query_decoding.decode(model, given, queries.points(trace.teacher))
            if self.assignment == 'own':
                found = queries.foreground(model, again[0].detach())
                costs['objects of the student'] = object_costs(found, again[1].detach(), truth)
        partners = assign(**costs)
        objects = objects_of(partners['objects'], truth[2]) if 'objects' in partners else None
        losses = self.matched(pairs, partners['queries'], objects)
        if again is not None:
            own_way = partners.get('objects of the student')
            assigned = objects if own_way is None else objects_of(own_way, truth[2])
            assert assigned is not None
            places = torch.arange(len(again[0])) - len(again[0]) + len(assigned)
            assigned = assigned[places.clamp(min=0)]
            prior = set_losses(trace.student.model, *again, assigned, truth, trace.samples)
            losses |= {f'loss_prior_{k}': self.factors['prior'] * v for k, v in prior.items()}
        if self.factors['features']:
            losses['loss_features'] = self.factors['features'] * self.features(
                trace, wanted, judged[1].detach(), truth
            )
        return losses

    def matched(
        self, pairs: tuple[Tensor, ...], partners: Tensor, objects: Tensor | None
    ) -> dict[str, Tensor]:
        """Losses of the pairs, summed over layers.

        Args:
            pairs (tuple): the student's logits and boxes, the teacher's probabilities and boxes.
            partners (Tensor): the teacher's query of each of the student's, (L, N, Q), or -1.
            objects (Tensor | None): object of each of the teacher's queries, or -1.
        """
        paired = partners >= 0
        counted = dict.fromkeys(PAIRED, paired)
        if self.negatives != 'all' and objects is not None:
            about = objects[-len(paired) :].gather(2, partners.clamp(min=0)) >= 0
            terms = ('classes',) if self.negatives == 'box' else PAIRED
            counted |= dict.fromkeys(terms, paired & about)
        losses = {}
        for term, value in pair_terms(*pairs, partners).items():
            count = mean_over_ranks(counted[term].float().sum((1, 2))).clamp(min=1)
            total = (value * counted[term]).sum((1, 2))
            losses[f'loss_{term}'] = self.factors[term] * (total / count).sum()
        return losses

    def features(self, trace: Trace, wanted: Tensor, boxes: Tensor, truth: Truth) -> Tensor:
        """Weighted square error of the necks' maps, summed over the levels and decoder layers."""
        embeddings, quality = best_queries(wanted, boxes, queries.hidden(trace.teacher), truth)
        student, teacher = trace.student[_NECK], trace.teacher[_NECK]
        total = boxes.new_zeros(())
        for k, (i, j) in enumerate(self.pairs):
            s, t = equal_size('DETRDistill', student[i], teacher[j].detach(), trace)
            s = self.adapters[f'{k}'](s) if f'{k}' in self.adapters else s
            total = total + feature_distance(s, t, attended(t, embeddings, quality))
        return total

    def describe(self) -> list[str]:
        """What the queries are used for."""
        lines = ["the student's queries are matched with the teacher's in each decoder layer"]
        lines += ["the student also decodes the teacher's queries"] * bool(self.factors['prior'])
        return lines + [f'neck level {i} <- neck level {j}' for i, j in self.pairs]
