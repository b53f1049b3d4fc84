"""LD: KL divergence of the box distributions of GFL heads, edge by edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import dense
from mmkd.families.comparable import Misfit, both, check_classes, check_priors, check_same, is_gfl
from mmkd.functional.device import members
from mmkd.functional.logit_distances import mean_kl
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Trace
from mmkd.view import View

_BOX_CHUNK = 16

#: of the three terms
FACTORS = dict(main=0.25, valuable=0.25, classes=10.0)


def overlaps(boxes: Tensor, anchors: Tensor, variant: str = 'paper') -> tuple[Tensor, Tensor]:
    """IoU and DIoU of every box with every anchor, (G, 4) and (P, 4) -> (G, P) each.

    Args:
        variant (str): DIoU as in the ``'paper'``, or as in the ``'code'``, with the overlap over
            the anchor's area instead of the union.
    """
    low, high = (f(boxes[:, None], anchors) for f in (torch.minimum, torch.maximum))
    inter = (low[..., 2:] - high[..., :2]).clamp(min=0).prod(-1)
    area_b, area_a = ((x[:, 2:] - x[:, :2]).prod(-1) for x in (boxes, anchors))
    iou = inter / (area_b[:, None] + area_a - inter).clamp(min=1e-9)
    apart = (boxes[:, None, :2] + boxes[:, None, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    diagonal = (high[..., 2:] - low[..., :2]).square().sum(-1).clamp(min=1e-9)
    overlap = inter / area_a.clamp(min=1e-9) if variant == 'code' else iou
    return iou, overlap - apart.square().sum(-1) / diagonal


def atss_threshold(
    iou: Tensor, boxes: Tensor, anchors: Tensor, counts: list[int], used: Tensor
) -> Tensor:
    """Mean plus standard deviation of the IoUs of the 9 nearest anchors of each level, (G,).

    Args:
        iou, used (Tensor): (G, P) of boxes (G, 4) and anchors (P, 4); other anchors do not count.
        counts (list[int]): anchors of each level.
    """
    apart = boxes[:, None, :2] + boxes[:, None, 2:] - anchors[:, :2] - anchors[:, 2:]
    apart = apart.square().sum(-1).masked_fill(~used, torch.inf)
    candidates = []
    for far, own in zip(apart.split(counts, 1), iou.split(counts, 1), strict=True):
        near, at = far.topk(min(9, far.shape[1]), largest=False)
        candidates.append(own.gather(1, at).masked_fill(near.isinf(), torch.nan))
    found = torch.cat(candidates, 1)
    mean, count = found.nanmean(1, keepdim=True), found.isfinite().sum(1)
    return mean[:, 0] + ((found - mean).square().nansum(1) / (count - 1).clamp(min=1)).sqrt()


def valuable_region(
    anchors: list[Tensor],
    boxes: Tensor,
    images: Tensor,
    used: Tensor,
    gamma: float = 0.25,
    variant: str = 'paper',
) -> Tensor:
    """Anchors with ``gamma t_g <= DIoU < t_g`` for a box g: their IoU with the best such; (N, P).

    Args:
        anchors (list[Tensor]): of each level, (P_l, 4).
        boxes, images (Tensor): ground truth (G, 4) and the image (G,) that each lies in.
        used (Tensor): (N, P) bool, anchors that lie on the image.
        gamma (float): lower bound as a share of the assigner's threshold t_g.
        variant (str): see :func:`overlaps`.
    """
    counts, flat = [len(level) for level in anchors], torch.cat(anchors)
    weight = flat.new_zeros(used.shape)
    for start in range(0, len(boxes), _BOX_CHUNK):  # bounds the (G, P) matrices
        part = slice(start, start + _BOX_CHUNK)
        iou, diou = overlaps(boxes[part], flat, variant)
        top = atss_threshold(iou, boxes[part], flat, counts, used[images[part]])[:, None]
        iou = iou * ((diou >= gamma * top) & (diou < top))
        weight.scatter_reduce_(0, images[part, None].expand_as(iou), iou, 'amax')
    return weight * used


@MODELS.register_module()
class LD(Objective):
    """Localization distillation for dense object detection, for GFL heads.

    Zheng et al., CVPR 2022. ``KL`` is a mean over bins or classes, times tau^2. Compared with
    HikariTJU/LD; its feature term is left out (Mimic or FGD beside it serve).

    * ``loss_main``: ``1 / 4 * sum`` over positives and four edges of ``w KL``, w the student's
      largest class score. As published it grows with the number of positives.
    * ``loss_valuable``: ``1 / 16 * sum`` over the valuable localization region, where an anchor is
      near a box but not assigned, of ``w KL``, w the IoU.
    * ``loss_classes``: KL of the class logits, mean over the positives of each level.

    Args:
        factors (dict[str, float] | None): of the terms ``'main'``, ``'valuable'`` and
            ``'classes'``, where not 0.25, 0.25 and 10.
        tau (float): temperature of the bins.
        tau_class (float): temperature of the classes.
        gamma (float): lower bound of the region as a share of the assigner's threshold.
        variant (str): DIoU of the region as in the ``'paper'``, or as in the ``'code'``, with the
            overlap over the anchor's area.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            the head's whatever is given.

    Raises:
        ValueError: options out of range; other heads than GFL's; unequal classes, priors or
            ``reg_max``.
    """

    needs_ground_truth = True
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    scheduled = ('tau', 'tau_class')
    asks_teacher = True
    over_scales = True
    families = ('anchor',)
    only = {'anchor': ('GFL',)}

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        tau: float = 10.0,
        tau_class: float = 2.0,
        gamma: float = 0.25,
        variant: str = 'paper',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.factors = check_factors('LD', factors, FACTORS)
        self.tau = check_temperature('LD', tau)
        self.tau_class = check_temperature('LD', tau_class, 'tau_class')
        self.gamma = check_number('LD', 'gamma', gamma, 0, 1)
        self.variant = check_choice('LD', 'variant', variant, ('paper', 'code'))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if not (is_gfl(student) and is_gfl(teacher)):
            raise Misfit(
                f'LD needs GFL heads, whose boxes are distributions, but {both(student, teacher)}.'
            )
        heads = [dense.dense_head(model) for model in (student, teacher)]
        check_classes('LD', *heads)
        if self.factors['classes'] and heads[0].cls_out_channels == 1:
            raise ValueError(
                'LD: the heads have one class, and a softmax over one is always 1; set '
                "factors={'classes': 0}, which leaves the boxes."
            )
        check_priors('LD', *heads, self.image_scale)
        bins = [head.reg_max for head in heads]
        check_same('LD', 'reg_max', *bins)
        self.student_taps, self.teacher_taps = predictions.answer_taps(student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        (logits_s, codes_s), (logits_t, codes_t) = predictions.answers(trace)
        positive, valuable, level = self.regions(trace)
        sure = logits_s.detach().sigmoid().amax(-1) * positive
        where = (positive | (valuable > 0)).flatten().nonzero()[:, 0]
        bins = [x.flatten(0, 1)[where].unflatten(-1, (4, -1)) for x in (codes_s, codes_t)]
        apart = mean_kl(*bins, self.tau).sum(-1)
        counts, own = (x.expand_as(positive).flatten()[where] for x in (positive, level))
        logits = [x.flatten(0, 1)[where] for x in (logits_s, logits_t)]
        levels = dense.dense_head(trace.student.model).prior_generator.num_levels
        each = (members(own, levels) & counts[:, None]).sum(0).clamp(min=1)[own]
        kl = mean_kl(*logits, self.tau_class) * counts / each
        sure, valuable = (weight.flatten()[where] for weight in (sure, valuable))
        return {
            'loss_main': self.factors['main'] / 4 * (sure * apart).sum(),
            'loss_valuable': self.factors['valuable'] / 16 * (valuable * apart).sum(),
            'loss_classes': self.factors['classes'] * kl.sum(),
        }

    @torch.no_grad()
    def regions(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
        """Positives (N, P) bool, weights of the valuable region (N, P) and level of each anchor."""
        head = dense.dense_head(trace.student.model)
        _, labels, used = predictions.targets(trace, 3)
        used = used > 0  # weight 0: off the image
        # The targets' own anchors are 0 off each image, so they are no grid for all of them.
        sizes = predictions.sizes_of(trace)
        anchors = [
            dense.level_priors(head.prior_generator, s, i, used.device) for i, s in sizes.items()
        ]
        boxes, _, images = dense.ground_truth(trace.samples, used.device)
        valuable = valuable_region(anchors, boxes, images, used, self.gamma, self.variant)
        numbered = zip(sizes, anchors, strict=True)
        level = torch.cat([labels.new_full((len(a),), i) for i, a in numbered])
        return used & (labels >= 0) & (labels < head.num_classes), valuable, level

    def views(self, trace: Trace) -> list[View]:
        """Positives and the valuable region of each level."""
        positive, valuable, level = self.regions(trace)
        generator = dense.dense_head(trace.student.model).prior_generator
        views = []
        for i, size in predictions.sizes_of(trace).items():
            at, own = (len(positive), *size), level == i
            place = dict(stride=generator.strides[i][0], centre=generator.center_offset)
            views.append(View('positives', positive[:, own].view(at), kind='mask', **place))
            views.append(View('valuable region', valuable[:, own].view(at), **place))
        return views
