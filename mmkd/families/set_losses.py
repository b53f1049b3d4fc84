"""The losses of a DETR for an assignment that is given, and the assignment that it would make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.families import queries
from mmkd.functional.box_distances import corners, giou, iou
from mmkd.functional.gather import mean_over_ranks

#: of a pair of a query and an object that cannot be, since the image has fewer objects
_NO_PAIR = 1e3


def object_costs(
    probabilities: Tensor, boxes: Tensor, truth: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """DETR's cost of matching queries with objects, ``-p(label) + 5 |b - g|_1 - 2 GIoU``.

    Args:
        probabilities, boxes (Tensor): (L, N, Q, K) and (L, N, Q, 4), cxcywh.
        truth (tuple): of :func:`~mmkd.families.queries.ground_truth`.

    Returns:
        Tensor: (L, N, Q, G); columns that are no objects cost more than any other.
    """
    objects, labels, real = truth
    at = labels[None, :, None].expand(*probabilities.shape[:3], -1)
    shift = (boxes[..., :, None, :] - objects[:, None]).abs().sum(-1)
    overlap = giou(corners(boxes)[..., :, None, :], corners(objects)[:, None])
    costs = 5 * shift - 2 * overlap - probabilities.gather(-1, at)
    return costs.masked_fill(~real[:, None], _NO_PAIR)


def objects_of(partners: Tensor, real: Tensor) -> Tensor:
    """Which object each query was assigned, (L, N, Q) long, -1 for none, from (L, N, Q) columns."""
    known = real[None].expand(len(partners), -1, -1).gather(-1, partners.clamp(min=0))
    return torch.where((partners >= 0) & known, partners, -1)


def set_losses(
    model: nn.Module,
    scores: Tensor,
    boxes: Tensor,
    assigned: Tensor,
    truth: tuple[Tensor, Tensor, Tensor],
    samples: Sequence,
) -> dict[str, Tensor]:
    """``cls``, ``bbox`` and ``iou`` of DETR's own head, summed over the decoder layers.

    As mmdet's ``DETRHead.loss_by_feat`` for a given assignment, but for images without objects,
    which count nothing here.

    Args:
        scores, boxes (Tensor): (L, N, Q, C) and (L, N, Q, 4), cxcywh.
        assigned (Tensor): object of each query, (L, N, Q), -1 for background.
        truth (tuple): of :func:`~mmkd.families.queries.ground_truth`.
    """
    head, (objects, names, real) = model.bbox_head, truth
    weights = real.any(1).float()[:, None].expand(-1, boxes.shape[2])
    sizes = queries.image_sizes(list(samples), boxes)[:, None].expand(-1, boxes.shape[2], -1)
    total: dict[str, Tensor] = {}
    for z, b, own in zip(scores, boxes, assigned, strict=True):
        positive, at = own >= 0, own.clamp(min=0)
        labels = torch.where(positive, names.gather(1, at), head.num_classes)
        targets = objects.gather(1, at[..., None].expand(-1, -1, 4))
        part = _one_layer(head, z, b, labels, targets, positive, weights, sizes)
        total = {k: total[k] + v for k, v in part.items()} if total else part
    return total


def _one_layer(
    head: nn.Module,
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    targets: Tensor,
    positive: Tensor,
    weights: Tensor,
    sizes: Tensor,
) -> dict[str, Tensor]:
    count = positive.sum().float()
    weight = count + (weights.sum() - count) * head.bg_cls_weight
    if head.sync_cls_avg_factor:
        weight = mean_over_ranks(weight)
    count, weight = mean_over_ranks(count).clamp(min=1), weight.clamp(min=1)
    scores, boxes, labels, targets, sizes = (
        x.flatten(0, 1) for x in (scores, boxes, labels, targets, sizes)
    )
    ones = positive.flatten().float()
    wanted: Tensor | tuple[Tensor, Tensor] = labels
    if type(head.loss_cls).__name__ == 'QualityFocalLoss':
        wanted = labels, iou(corners(boxes.detach()), corners(targets)) * ones
    return dict(
        cls=head.loss_cls(scores, wanted, weights.flatten(), avg_factor=weight),
        bbox=head.loss_bbox(boxes, targets, ones[:, None].expand(-1, 4), avg_factor=count),
        iou=head.loss_iou(
            corners(boxes) * sizes,
            corners(targets) * sizes,
            ones[:, None].expand(-1, 4),
            avg_factor=count,
        ),
    )
