"""MatchedDetections: the detections of a dense teacher are soft targets of a DETR's queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import dense, is_two_stage, queries
from mmkd.families.comparable import Misfit, both, check_class_counts, kind_of
from mmkd.families.set_losses import objects_of
from mmkd.functional.box_distances import centred
from mmkd.functional.boxes import rank_in_group, select_boxes
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.set_matching import assign, pair_costs, pair_terms
from mmkd.objective import Objective
from mmkd.options import check_factors, check_number
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes

#: of the terms, and of the costs of the matching
FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0)
#: of a pair of a query and a detection that is not there
_NO_PAIR = 1e5


@MODELS.register_module()
class MatchedDetections(Objective):
    """A one-stage detector teaches a DETR: its detections are soft targets.

    Our construction. The matching is that of DETRDistill (Chang et al., ICCV 2023), with the boxes
    that the teacher keeps after NMS in place of another DETR's queries: in each decoder layer the
    student's queries are matched with them at the cost ``BCE(z, p) + 5 |b - d|_1 - 2 GIoU``, where
    p are the teacher's probabilities of all classes at a detection d. The losses ``loss_classes``
    (less the entropy of p), ``loss_boxes`` and ``loss_giou`` are the same over the pairs, by their
    number, summed over the layers. Queries without a detection count nothing, so the student learns
    from ground truth alone where there is nothing. NMS orders boxes as the teacher's own does: by
    score times centerness (FCOS, ATSS) or IoU (PAA) where its head predicts one. Images without
    labels teach as well, but not DINO and DDQ, which make denoising queries of boxes.

    Args:
        count (int): detections of an image at most, those of highest rank.
        score (float): least class probability of a detection.
        iou (float): IoU above which NMS, over all classes together, removes the box of lower score.
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (5) and
            ``'giou'`` (2), where not these.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; a student that is no DETR, a teacher without a dense head
            of sigmoid classes whose boxes can be decoded, or unequal classes.
    """

    compares_classes = True
    label_free = True  # but of students that denoise
    checks_shapes = False
    zero_at_equality = False  # teacher and student are never equal
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('detr',)
    teacher_families = ('anchor', 'anchor_free')

    def __init__(
        self,
        count: int = 100,
        score: float = 0.05,
        iou: float = 0.6,
        factors: Mapping[str, float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.count = check_number('MatchedDetections', 'count', count, 1, whole=True)
        self.score = check_number('MatchedDetections', 'score', score, 0, 1)
        self.iou = check_number('MatchedDetections', 'iou', iou, 0, 1)
        self.factors = check_factors('MatchedDetections', factors, FACTORS)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        judge = None if is_two_stage(teacher) else kind_of(teacher)
        if queries.kind(student) is None or judge is None:
            raise Misfit(
                'MatchedDetections needs a DETR as student and a one-stage teacher whose sigmoid '
                f'classes and boxes can be decoded, but {both(student, teacher)}'
            )
        heads = student.bbox_head, dense.dense_head(teacher)
        check_class_counts('MatchedDetections', *heads)
        self.why_labels = queries.why_labels(student)
        self.label_free = not self.why_labels
        self.student_taps = parse_taps(queries.output_taps(student))
        self.teacher_taps = parse_taps(dense.outputs_tap(teacher))

    @torch.no_grad()
    def detections(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Probabilities (N, D, K) and boxes (N, D, 4), cxcywh as shares, of the teacher's
        detections, which are real, (N, D), and the same boxes as RoIs (R, 5)."""
        model = trace.teacher.model
        outputs = trace.teacher[dense.outputs_tap(model)]
        logits, codes = predictions.split(model, outputs)
        sizes = predictions.level_sizes(model, outputs)
        boxes = predictions.decode(model, codes, sizes, trace.samples)
        p = logits.sigmoid()
        order = predictions.ranking(model, outputs, logits)
        order = order.masked_fill(p.amax(-1) < self.score, -1.0)
        rois, places = select_boxes(order, boxes, self.iou, self.count)
        n, images = len(p), rois[:, 0].long()
        rank = rank_in_group(images, n)
        found = p.new_zeros(n, self.count, p.shape[-1])
        where = p.new_zeros(n, self.count, 4)
        real = torch.zeros(n, self.count, dtype=torch.bool, device=p.device)
        found[images, rank] = p[images, places]
        where[images, rank] = rois[:, 1:]
        real[images, rank] = torch.ones_like(rank, dtype=torch.bool)
        return (
            found,
            centred(where / queries.image_sizes(trace.samples, where)[:, None]),
            real,
            rois,
        )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        scores, boxes = queries.outputs(trace.student)
        wanted, targets, real, _ = self.detections(trace)
        logits = queries.binary_logits(trace.student.model, scores)
        wanted, targets = (x.expand(len(boxes), *x.shape) for x in (wanted, targets))
        with torch.no_grad():  # else all pairs of all layers are kept for a backward pass
            costs = pair_costs(logits, boxes, wanted, targets, self.factors)
            costs = costs.masked_fill(~real[:, None], _NO_PAIR)
        partners = objects_of(assign(detections=costs)['detections'], real)
        count = mean_over_ranks((partners >= 0).sum((1, 2)).float())
        terms = pair_terms(logits, boxes, wanted, targets, partners)
        return {
            f'loss_{term}': self.factors[term] * (x.sum((1, 2)) / count.clamp(min=1)).sum()
            for term, x in terms.items()
        }

    def describe(self) -> list[str]:
        """What the student's queries are matched with."""
        return [f'at most {self.count} detections of an image, with a score of {self.score}']

    def views(self, trace: Trace) -> list[Boxes]:
        """The teacher's detections."""
        found, _, real, rois = self.detections(trace)
        shown = rois[rois[:, 0].argsort(stable=True)]  # as the rows of the images
        p = found[real]
        return [Boxes('detections', shown, p.argmax(-1), p.amax(-1), 'teacher')]
