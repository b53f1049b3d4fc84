"""GID: features, relations and responses of the instances on which both networks disagree most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import is_two_stage, two_stage
from mmkd.families.comparable import check_assigner, check_coders, check_comparable
from mmkd.families.pyramid import among, bind_pyramid, tap_beside
from mmkd.functional.boxes import best_apart, by_level_and_image, roi_features
from mmkd.functional.convolved_crops import adapted_crops
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.relations import relation_loss
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes

#: of the four terms
FACTORS = dict(feature=5e-4, relation=40.0, classes=0.1, boxes=1.0)
#: predictions of each image before the NMS
CANDIDATES = 3000


class Instances(NamedTuple):
    """The general instances of a batch, sorted by level of the pyramid and then by image.

    Attributes:
        rois: (Q, 5), image index and xyxy.
        labels: (Q,), class of the largest difference.
        scores: (Q,).
        sizes: how many each image has on each level, finest first.
    """

    rois: Tensor
    labels: Tensor
    scores: Tensor
    sizes: list[list[int]]


def instance_scores(student: Tensor, teacher: Tensor, variant: str = 'paper') -> Tensor:
    """``max_c |P_t - P_s|``, or the code's ``|max_c P_t - max_c P_s|``; (..., K) -> (...)."""
    if variant == 'paper':
        return (teacher - student).abs().amax(-1)
    return (teacher.amax(-1) - student.amax(-1)).abs()


def feature_loss(student: Tensor, teacher: Tensor, variant: str = 'code') -> Tensor:
    """Distance of instances, (Q, C, h, w) each: ``sum ||t - s||^2 / (Q h w)``, as the code, or
    ``mean_i ||t_i - s_i||``, as the paper."""
    square = (teacher - student).square().flatten(1).sum(1)
    if variant == 'paper':
        return (square + 1e-12).sqrt().sum() / max(len(square), 1)
    return square.sum() / max(len(square) * student.shape[2] * student.shape[3], 1)


def second_stage_terms(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Mean KL of class logits (Q, K + 1), and L1 of box codes of the teacher's top class."""
    (z_s, r_s), (z_t, r_t) = student, teacher
    likeliest, count = z_t[:, :-1].argmax(-1), max(len(z_t), 1)
    apart = two_stage.of_class(r_s, likeliest) - two_stage.of_class(r_t, likeliest)
    return dict(classes=soft_kl(z_s, z_t, 1.0).sum() / count, boxes=apart.abs().sum() / count)


@MODELS.register_module()
class GID(PairObjective):
    """General instance distillation for object detection.

    Dai et al., CVPR 2021. The K predictions of an image on which student and teacher differ most,
    after NMS, are its general instances; each has the box of the network with the higher score. On
    them: distance of RoI-aligned features, distance of their relations, and where the student's
    assigner makes priors positive for these boxes, binary cross entropy to the teacher's scores
    (not 0 where both agree) and L1 of the encoded boxes. For two-stage detectors these are the
    RPN's predictions. Compared with daixinghome/Distill_GID_detectron2, whose adapter is never
    applied. The mixture of the paper's box rule with the code's feature term, and all factors for
    FCOS and two-stage detectors, are ours: there is no published result for them.

    Args:
        factors (dict[str, float] | None): of the terms ``'feature'``, ``'relation'``, ``'classes'``
            and ``'boxes'``, where not 5e-4, 40, 0.1 and 1.
        beta (float): the box term is smooth L1 with this threshold, as one of the authors' configs
            has it (0.1); 0 is L1.
        second_stage (float): for two-stage detectors, factor of a response term of both (first) box
            heads on the instances: KL of the classes and L1 of the encoded box of the teacher's
            most probable class. There is no public code of it.
        instances (int): K, of each image.
        iou (float): threshold of the NMS, over all levels and classes together.
        min_side (float): smaller predictions are left out, in pixels.
        score_variant (str): ``'paper'`` or ``'code'``, see :func:`instance_scores`.
        feature_variant (str): ``'code'``, to which the factor of 5e-4 belongs, or ``'paper'``, see
            :func:`feature_loss`.
        relation_scope (str): pairs of the whole ``'batch'`` or of each ``'image'``.
        pooled (int): size of the aligned features.
        adapt (str | None): one adapter for all levels, in front of RoIAlign.
        student, teacher, weight, teacher_name, resize, level_map, in_channels, out_channels: see
            :class:`~mmkd.objective.PairObjective`; the taps are the pyramid's.

    Raises:
        ValueError: options out of range; heads of unequal kind, classes, priors or box coders;
            heads whose boxes cannot be decoded or whose assigner needs predictions.
    """

    zero_at_equality = False
    term_factors = {
        f'loss_{stage}{name}': f'factors.{name}' for stage in ('', 'second_') for name in FACTORS
    }
    asks_teacher = True
    label_free = False
    families = ('two_stage', 'instance', 'anchor', 'anchor_free')
    only = {'anchor_free': ('FCOS',)}

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        beta: float = 0.0,
        second_stage: float = 0.0,
        instances: int = 10,
        iou: float = 0.3,
        min_side: float = 10.0,
        score_variant: str = 'paper',
        feature_variant: str = 'code',
        relation_scope: str = 'batch',
        pooled: int = 10,
        adapt: str | None = 'conv3x3',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, **pair)
        self.factors = check_factors('GID', factors, FACTORS)
        self.beta = check_number('GID', 'beta', beta, 0)
        self.second_stage = check_number('GID', 'second_stage', second_stage, 0)
        self.instances = check_number('GID', 'instances', instances, 1, whole=True)
        self.pooled = check_number('GID', 'pooled', pooled, 1, whole=True)
        self.iou = check_number('GID', 'iou', iou, 0, 1)
        self.min_side = check_number('GID', 'min_side', min_side, 0)
        variants = dict(score_variant=score_variant, feature_variant=feature_variant)
        self.score_variant, self.feature_variant = (
            check_choice('GID', name, value, ('paper', 'code')) for name, value in variants.items()
        )
        self.scope = check_choice('GID', 'relation_scope', relation_scope, ('batch', 'image'))
        self.maps_at: tuple[set[str], set[str]] = (set(), set())
        self.strides: list[int] = []

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        bind_pyramid(self, student, teacher)
        check_comparable('GID', student, teacher, self.image_scale)
        check_assigner('GID', student)
        own, others = predictions.answer_taps(student, teacher)
        if self.second_stage:
            two_stage.check_box_heads('GID', student, teacher, softmax=True)
            heads = [two_stage.box_head(model) for model in (student, teacher)]
            check_coders('GID', *heads, way='second_stage=0 leaves box heads out')
            own += parse_taps(two_stage.features_tap(student))
        self.maps_at = tap_beside(self, (own, others))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student, teacher = among(student, self.maps_at[0]), among(teacher, self.maps_at[1])
        super().setup(student, teacher)
        pairs = [(student[i], teacher[j]) for i, j in self.pairs] if student else []
        self.strides = [s.stride or 0 for s, _ in pairs]
        if 0 in (self.strides or [0]) or len({(s.channels, t.channels) for s, t in pairs}) > 1:
            raise ValueError(
                'GID needs a pyramid of one width and known strides, found '
                f"{', '.join(str(s) for s, _ in pairs) or 'no shapes'}. Tap the 'neck'."
            )
        for name in list(self.adapters)[1:]:
            del self.adapters[name]

    def adapter(self, pair: int) -> nn.Module | None:
        return super().adapter(0)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        answers = predictions.answers(trace)
        found = self.general_instances(trace, answers)
        rois, (student, teacher) = found.rois, self._crops(trace, found)
        images = rois[:, 0] if self.scope == 'image' else None
        terms = self._response(trace, answers, found)
        terms['feature'] = feature_loss(student, teacher, self.feature_variant)
        terms['relation'] = relation_loss(student, teacher, images)
        losses = {f'loss_{name}': self.factors[name] * term for name, term in terms.items()}
        if self.second_stage:
            for name, term in second_stage_terms(*two_stage.answers_to(trace, rois)).items():
                losses[f'loss_second_{name}'] = self.second_stage * self.factors[name] * term
        return losses | {'instances': rois.new_full((), len(rois))}

    @torch.no_grad()
    def general_instances(self, trace: Trace, answers: tuple) -> Instances:
        """The K of each image; waits once for the device, to know their number."""
        model = trace.student.model
        p_s, p_t = (logits.sigmoid() for logits, _ in answers)
        sizes = predictions.sizes_of(trace)
        b_s, b_t = (predictions.decode(model, codes, sizes, trace.samples) for _, codes in answers)
        surer = (p_t.amax(-1) > p_s.amax(-1))[..., None]
        scores = instance_scores(p_s, p_t, self.score_variant)
        boxes = torch.where(surer, b_t, b_s)
        best, among = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)
        candidates = boxes.gather(1, among[..., None].expand(-1, -1, 4))
        places, real = best_apart(best, candidates, self.iou, self.instances, self.min_side)
        places = among.gather(1, places)
        images = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
        at, n = (images.flatten(), places.flatten()), len(places)
        rois = torch.cat((at[0][:, None].to(boxes), boxes[at]), 1)
        order, counts = by_level_and_image(rois, real.flatten(), self.strides, n)
        image, place = at[0][order], at[1][order]
        labels = (p_t[image, place] - p_s[image, place]).abs().argmax(-1)
        return Instances(rois[order], labels, scores[image, place], counts)

    def _crops(self, trace: Trace, found: Instances) -> tuple[Tensor, Tensor]:
        """Aligned features of both sides, (Q, C, pooled, pooled) each."""
        levels = sorted(zip(self.strides, self.maps(trace), strict=True), key=lambda x: x[0])
        student = [(stride, s) for stride, (s, _) in levels]
        read = self.pooled, 2
        parts = list(found.rois.split([sum(own) for own in found.sizes]))
        placed = parts, torch.arange(len(found.rois), device=found.rois.device)
        strides, teacher = zip(*((stride, t) for stride, (_, t) in levels), strict=True)
        return (
            adapted_crops(self.adapter(0), student, found.rois, found.sizes, *read),
            roi_features(teacher, strides, found.rois, *read, None, placed),
        )

    def _response(self, trace: Trace, answers: tuple, found: Instances) -> dict[str, Tensor]:
        model = trace.student.model
        (logits_s, codes_s), (logits_t, codes_t) = answers
        each = [sum(own) for own in zip(*found.sizes, strict=True)]
        mask = predictions.positives(model, predictions.sizes_of(trace), found.rois, each)
        where = mask.flatten().nonzero()[:, 0]
        own, wanted = (x.flatten(0, 1)[where] for x in (logits_s, logits_t))
        cross = F.binary_cross_entropy_with_logits(own, wanted.sigmoid(), reduction='sum')
        four = [predictions.expected(model, x.flatten(0, 1)[where]) for x in (codes_s, codes_t)]
        apart = F.smooth_l1_loss(*four, reduction='sum', beta=self.beta)
        count = max(len(where), 1)
        return dict(classes=cross / count, boxes=apart / count)

    def views(self, trace: Trace) -> list[Boxes]:
        """The general instances with their scores and, if any, the class of largest difference."""
        rois, labels, scores, _ = self.general_instances(trace, predictions.answers(trace))
        classless = is_two_stage(trace.student.model)  # an RPN tells objects from background
        return [Boxes('general instances', rois, None if classless else labels, scores)]
