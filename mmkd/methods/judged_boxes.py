"""JudgedBoxes: a DETR's decoder predicts classes and boxes for anchors, points or RoIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd.families import assignments, dense, is_two_stage, queries, query_decoding, two_stage
from mmkd.families.comparable import Misfit, both, check_class_counts, check_coders, uses_sigmoid
from mmkd.functional.box_distances import centred, corners, giou
from mmkd.functional.device import sizes_of_groups
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.sigmoid_distances import against_rest, gap_weighted_cross_entropy
from mmkd.objective import Objective
from mmkd.options import check_factors, check_number
from mmkd.registry import MODELS
from mmkd.rows import heads
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes

#: of the terms
FACTORS = dict(classes=1.0, boxes=4.0)
#: kinds of queries that a box describes
_KINDS = ('box', 'selected')


class Asked(NamedTuple):
    """What a student says of M places of each image.

    Attributes:
        logits (Tensor): of each class against the rest, (N, M, K).
        codes (Tensor): boxes (N, M, 4), xyxy in pixels, or for RoIs their deltas, (N, M, 4 K or 4).
        places (Tensor): (N, M, 4), xyxy in pixels.
        real (Tensor): (N, M) bool; other places, behind these, only fill the rows.
    """

    logits: Tensor
    codes: Tensor
    places: Tensor
    real: Tensor


@MODELS.register_module()
class JudgedBoxes(Objective):
    """A DETR teaches a detector with anchors, points or RoIs: it judges the boxes of these.

    Wang et al., CVPR 2024 (KD-DETR), report that DINO teaches Faster R-CNN in this way, without
    details: all that follows is our construction. The M surest places of an image, positives of the
    student's assigner or sampler first, are queries of the teacher's decoder: anchors, for points a
    square of eight strides around the cell, RoIs of the first box head, all clipped to the image.
    Nothing is matched: query j answers for place j. With the teacher's probabilities p of all
    classes there, its box, and the student's logits z and box at the same place,

    * ``loss_classes``: ``BCE(z, p) |sigmoid(z) - p|``, summed over the classes;
    * ``loss_boxes``: 1 - GIoU, weighted by max p; 0 where the teacher's box has no area;

    both divided by the sum of max p, at least 1, as a mean over ranks. Of softmax classes z is the
    logit of each against the rest, and RoIs with a box for each class give that of the teacher's
    best. Queries of an image see each other, so of several for one object the teacher is sure of
    one. Images of equally many places take one pass of the decoder together.

    Args:
        queries (int): M; of an image with fewer RoIs, all of them.
        factors (dict[str, float] | None): of the terms ``'classes'`` (1) and ``'boxes'`` (4), where
            not these.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; a teacher that is no DETR whose queries are boxes
            (DAB-DETR, two-stage Deformable DETR, DINO, DDQ); a student without a dense head of
            sigmoid classes and without a box head; unequal classes.
    """

    compares_classes = True
    asks_teacher = True
    checks_shapes = False
    zero_at_equality = False  # teacher and student are never equal
    over_scales = True
    rank_invariant = True
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('two_stage', 'instance', 'anchor', 'anchor_free', 'yolo')
    only = {'anchor_free': ('FCOS', 'VFNet', 'RTMDet'), 'yolo': ('YOLOX',)}
    teacher_families = ('detr',)

    def __init__(
        self, queries: int = 300, factors: Mapping[str, float] | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self.queries = check_number('JudgedBoxes', 'queries', queries, 1, whole=True)
        self.factors = check_factors('JudgedBoxes', factors, FACTORS)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        second = is_two_stage(student)
        if not (second or heads.has_classes(student)) or not takes_boxes(teacher):
            raise Misfit(
                'JudgedBoxes asks a DETR whose queries are boxes (DAB-DETR, two-stage Deformable '
                'DETR, DINO, DDQ) about anchors, points or RoIs of a student with sigmoid classes '
                f'or a box head, but {both(student, teacher)}'
            )
        if second:
            two_stage.check_box_heads('JudgedBoxes', student, student, softmax=False)
            own = two_stage.box_head(student)
            check_coders('JudgedBoxes', own, own)
            if type(own.bbox_coder).__name__ != 'DeltaXYWHBBoxCoder':
                raise Misfit(
                    'JudgedBoxes makes boxes of deltas, which are not what the '
                    f"{type(own.bbox_coder).__name__} of the student's {type(own).__name__} decodes"
                )
            taps = [two_stage.box_head_tap(student), two_stage.rois_tap(student)]
            taps.append(two_stage.targets_tap(student))
        else:
            own = dense.dense_head(student)
            assignments.check_assignment('JudgedBoxes', student)
            taps = [dense.outputs_tap(student), *assignments.assignment_taps(student)]
        check_class_counts('JudgedBoxes', own, teacher.bbox_head)
        self.student_taps = parse_taps(taps)
        self.teacher_taps = parse_taps(
            [*queries.memory_taps(teacher), *queries.point_taps(teacher)]
        )

    def asked(self, trace: Trace) -> Asked:
        """The surest places, and what the student says of them."""
        with_rois = is_two_stage(trace.student.model)
        return (of_rois if with_rois else of_priors)(trace, self.queries)

    @torch.no_grad()
    def judged(self, trace: Trace, places: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's logits of each class against the rest (N, M, K), and its boxes (N, M, 4),
        xyxy in the student's pixels, of places that are real, (N, M), in front of others."""
        side, sizes = trace.teacher, queries.image_sizes(trace.samples, places)[:, None]
        at = query_decoding.points_at(side, centred((places / sizes).clamp(0, 1)))
        scores, boxes = query_decoding.decode_counted(side, at, real.sum(1).tolist())
        return queries.binary_logits(side.model, scores[-1]), corners(boxes[-1]) * sizes

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = self.asked(trace)
        wanted, targets = self.judged(trace, own.places, own.real)
        p = wanted.sigmoid()
        sure = p.amax(-1) * own.real
        boxes = boxes_of(trace.student.model, own, p.argmax(-1))
        apart = (1 - giou(boxes, targets)) * (targets[..., 2:] > targets[..., :2]).all(-1)
        terms = dict(
            classes=gap_weighted_cross_entropy(own.logits, wanted).sum(-1) * own.real,
            boxes=sure * apart,
        )
        total = mean_over_ranks(sure.sum()).clamp(min=1)
        return {f'loss_{term}': self.factors[term] * x.sum() / total for term, x in terms.items()}

    def describe(self) -> list[str]:
        """How many places are judged."""
        return [f"the teacher's decoder judges the {self.queries} surest places of an image"]

    def views(self, trace: Trace) -> list[Boxes]:
        """The ten surest places, with the class that each side gives them."""
        own = self.asked(trace)
        wanted = self.judged(trace, own.places, own.real)[0]
        images = torch.arange(len(wanted)).to(wanted)[:, None, None]
        rois = torch.cat((images.expand(*own.real.shape, 1), own.places), -1)[own.real]
        scores = [logits.sigmoid()[own.real] for logits in (own.logits, wanted)]
        rank = -torch.arange(len(rois), device=rois.device)
        return two_stage.ranked_rois('surest places', rois, scores, rank)


def takes_boxes(model: nn.Module) -> bool:
    """Whether a box is all that a query of this decoder needs."""
    kind = queries.kind(model)
    return kind in _KINDS and (kind != 'box' or int(model.decoder.query_dim) == 4)


def urgency(logits: Tensor, positive: Tensor) -> Tensor:
    """The largest logit of each row (..., K) from 0 on, above which positives are lifted, (...)."""
    best = logits.detach().amax(-1)
    best = best - best.min()
    return best + (best.max() + 1) * positive


def of_priors(trace: Trace, count: int) -> Asked:
    """The priors of a dense head with the highest scores, positives first, (N, count) at most."""
    model, outputs = trace.student.model, trace.student[dense.outputs_tap(trace.student.model)]
    generator = dense.dense_head(model).prior_generator
    found = heads.Answer(model, outputs, list(range(generator.num_levels)))
    strides = [stride[0] for stride in generator.strides]
    grid = dense.anchors(model, list(found.sizes.values()), strides, outputs[0].device)
    anchors = torch.cat([level.flatten(0, 1) for level in grid])
    limits = queries.image_sizes(trace.samples, anchors)[:, None]
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    inside = ((middle >= 0) & (middle < limits[..., :2])).all(-1)
    positive = assignments.assignment(trace).positive
    order = urgency(found.logits, positive).masked_fill(~inside & ~positive, -1)
    best = order.topk(min(count, len(anchors)))
    at = best.indices[..., None]
    places = anchors[at[..., 0]]
    logits = found.logits.gather(1, at.expand(-1, -1, found.logits.shape[-1]))
    return Asked(logits, found.boxes().gather(1, at.expand(-1, -1, 4)), places, best.values >= 0)


def of_rois(trace: Trace, count: int) -> Asked:
    """The RoIs of the (first) box head with the highest scores, positives first, (N, count)."""
    model, n = trace.student.model, len(trace.inputs)
    head = two_stage.box_head(model)
    # The last call is that of the losses: samplers that mine (OHEM) run the head before it.
    scores, deltas = (x.float() for x in trace.student.raw(two_stage.box_head_tap(model))[-1][:2])
    rois = trace.student[two_stage.rois_tap(model)][-1].detach()
    classes = int(head.num_classes)
    logits = scores[:, :classes] if uses_sigmoid(head) else against_rest(scores)
    if not len(rois):  # nothing to ask about, but a graph
        rows = [x.new_zeros(n, count, x.shape[1]) + x.sum() for x in (logits, deltas)]
        return Asked(
            *rows, rois.new_zeros(n, count, 4), rows[0].new_zeros(n, count, dtype=torch.bool)
        )
    labels = two_stage.targets(trace)[0]
    images = rois[:, 0].long()
    order = urgency(logits, (labels >= 0) & (labels < classes)).argsort(descending=True)
    order = order[images[order].argsort(stable=True)]
    counts = sizes_of_groups(images, n)
    rank = torch.arange(count, device=images.device)
    starts = (counts.cumsum(0) - counts)[:, None]
    row = starts + rank % counts.clamp(min=1)[:, None]
    real = rank < counts[:, None]
    at = order[row.clamp(max=len(rois) - 1)]
    return Asked(logits[at], deltas[at], rois[at][..., 1:], real)


def boxes_of(model: nn.Module, own: Asked, labels: Tensor) -> Tensor:
    """The student's boxes (N, M, 4), xyxy in pixels; of RoIs those of the classes (N, M)."""
    if not is_two_stage(model):
        return own.codes
    deltas = two_stage.of_class(own.codes.flatten(0, 1), labels.flatten())
    coder = two_stage.box_head(model).bbox_coder
    return coder.decode(own.places.flatten(0, 1), deltas).view_as(own.places)
