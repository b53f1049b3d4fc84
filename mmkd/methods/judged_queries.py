"""JudgedQueries: a two-stage teacher's box head predicts for the boxes of a DETR's queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import is_two_stage, queries, two_stage
from mmkd.families.comparable import Misfit, both, check_class_counts
from mmkd.functional.box_distances import centred, corners, giou
from mmkd.objective import Objective
from mmkd.options import check_factors, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes

#: of the terms
FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0)
_LEAST = 1e-6


def judged_classes(student: Tensor, wanted: Tensor) -> Tensor:
    """``sum_c BCE(z_c, p_c) |sigmoid(z_c) - p_c|`` of logits z and probabilities p, (..., K)."""
    cross = F.binary_cross_entropy_with_logits(student, wanted, reduction='none')
    return (cross * (student.sigmoid() - wanted).abs()).sum(-1)


@MODELS.register_module()
class JudgedQueries(Objective):
    """A two-stage detector teaches a DETR: its box head runs on the boxes of the student's queries.

    Our construction; no publication has it. The teacher's head runs on the student's regions as in
    Chen et al., NeurIPS 2017: boxes of the last decoder layer are RoIs for the teacher's
    (first) box head, so nothing is matched and any number of queries does. With p, the
    teacher's class probabilities without background, and the box that it makes of the RoI for
    its best class, clipped to the image,

    * ``loss_classes``: ``BCE(z, p) |sigmoid(z) - p|``, summed over the classes;
    * ``loss_boxes``, ``loss_giou``: sum of the absolute differences of cxcywh, as shares of the
      image, and 1 - GIoU, weighted by max p;

    each summed over the RoIs and divided by the sum of max p. RoIs carry no gradient. Images
    without labels teach as well, but not DINO and DDQ, which make denoising queries of boxes.

    Args:
        queries (int): how many of an image are judged, those of highest score.
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (5) and
            ``'giou'`` (2), where not these.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; a student that is no DETR, a teacher without a second
            stage, or unequal classes.
    """

    compares_classes = True
    label_free = True  # but of students that denoise
    asks_teacher = True
    checks_shapes = False
    zero_at_equality = False  # teacher and student are never equal
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('detr',)
    teacher_families = ('two_stage', 'instance')

    def __init__(
        self, queries: int = 100, factors: Mapping[str, float] | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self.queries = check_number('JudgedQueries', 'queries', queries, 1, whole=True)
        self.factors = check_factors('JudgedQueries', factors, FACTORS)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        if queries.kind(student) is None or not is_two_stage(teacher):
            raise Misfit(
                'JudgedQueries lets the second stage of a teacher judge the boxes of a DETR, but '
                f'{both(student, teacher)}'
            )
        two_stage.check_box_heads('JudgedQueries', teacher, teacher, softmax=False)
        heads = student.bbox_head, two_stage.box_head(teacher)
        check_class_counts('JudgedQueries', *heads)
        self.why_labels = queries.why_labels(student)
        self.label_free = not self.why_labels
        self.student_taps = parse_taps(queries.output_taps(student))
        self.teacher_taps = parse_taps(two_stage.features_tap(teacher))

    def best(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, M, K) and boxes (N, M, 4) of the surest queries, and the same boxes as RoIs
        (N * M, 5)."""
        model = trace.student.model
        scores, boxes = (x[-1] for x in queries.outputs(trace.student))
        sure = queries.foreground(model, scores.detach()).amax(-1)
        at = sure.topk(min(self.queries, sure.shape[1])).indices[..., None]
        logits = queries.binary_logits(model, scores)
        logits = logits.gather(1, at.expand(-1, -1, logits.shape[-1]))
        boxes = boxes.gather(1, at.expand(-1, -1, 4))
        sizes = queries.image_sizes(trace.samples, boxes)[:, None]
        images = torch.arange(len(boxes), device=boxes.device).to(boxes)
        images = images[:, None, None].expand(-1, boxes.shape[1], 1)
        rois = torch.cat((images, corners(boxes.detach()) * sizes), -1)
        return logits, boxes, rois.flatten(0, 1)

    def judged(self, trace: Trace, rois: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's probabilities (N, M, K) and boxes (N, M, 4), cxcywh as shares."""
        model, n = trace.teacher.model, len(trace.inputs)
        found = two_stage.judge(model, trace.teacher[two_stage.features_tap(model)], rois)
        p, boxes = (x.unflatten(0, (n, -1)) for x in found)
        shares = boxes / queries.image_sizes(trace.samples, boxes)[:, None]
        return p, centred(shares.clamp(0, 1))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        logits, boxes, rois = self.best(trace)
        p, wanted = self.judged(trace, rois)
        sure = p.amax(-1)
        terms = dict(
            classes=judged_classes(logits, p),
            boxes=sure * (boxes - wanted).abs().sum(-1),
            giou=sure * (1 - giou(corners(boxes), corners(wanted))),
        )
        total = sure.sum().clamp(min=_LEAST)
        return {f'loss_{term}': self.factors[term] * x.sum() / total for term, x in terms.items()}

    def describe(self) -> list[str]:
        """How many queries are judged."""
        return [f"the teacher's box head judges the {self.queries} surest queries of an image"]

    def views(self, trace: Trace) -> list[Boxes]:
        """The ten surest queries, with the class that each side gives them."""
        logits, _, rois = self.best(trace)
        p = self.judged(trace, rois)[0]
        scores = [x.flatten(0, 1) for x in (logits.sigmoid(), p)]
        rank = -torch.arange(len(rois), device=rois.device)
        return two_stage.ranked_rois('surest queries', rois, scores, rank)
