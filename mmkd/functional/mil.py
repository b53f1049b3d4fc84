"""Multiple instance learning on proposals: scores, losses and pseudo labels from image labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmkd.functional.boxes import iou_matrix
from mmkd.functional.device import sizes_of_groups

#: probabilities of an image's classes stay this far from 0 and 1
EPSILON = 1e-6
#: label of a proposal from which nothing is learned
IGNORED = -1


class Seeds(NamedTuple):
    """Proposals that are taken for objects.

    Attributes:
        rows (Tensor): which proposals, (S,) long.
        labels (Tensor): their classes, (S,) long.
        scores (Tensor): (S,).
    """

    rows: Tensor
    labels: Tensor
    scores: Tensor


class Targets(NamedTuple):
    """Pseudo labels of all proposals of a batch.

    Attributes:
        labels (Tensor): (R,) long; K is background, :data:`IGNORED` is left out.
        weights (Tensor): score of the seed that a proposal overlaps most, (R,).
        seeds (Tensor): which proposal that seed is, (R,) long.
    """

    labels: Tensor
    weights: Tensor
    seeds: Tensor


class Look(NamedTuple):
    """What one view of the images shows.

    Attributes:
        rois (Tensor): (R, 5), image index and xyxy in pixels of this view.
        features (Tensor): of RoIs, (R, C, P, P).
        outputs (list[Tensor]): of mmkd.MILRoIHead, in float32: ``[classes (R, K), detection (R, K),
            refinement 1 (R, K + 1), …]``, and box deltas (R, 4) where there is a branch for them.
    """

    rois: Tensor
    features: Tensor
    outputs: list[Tensor]


def in_image(x: Tensor, images: Tensor, n: int, reduce: str, fill: float) -> Tensor:
    """``'amax'`` or ``'amin'`` over the proposals of each image, (R, K) -> (N, K).

    Args:
        images (Tensor): image of each proposal, (R,) long, below ``n``.
        fill (float): for images without proposals.
    """
    index = images[:, None].expand_as(x)
    return x.new_full((n, x.shape[1]), fill).scatter_reduce(0, index, x, reduce)


def softmax_in_image(x: Tensor, images: Tensor, n: int) -> Tensor:
    """Softmax over the proposals of each image, column by column, (R, K) -> (R, K).

    Args:
        images (Tensor): image of each proposal, (R,) long, below ``n``.
    """
    top = in_image(x.detach(), images, n, 'amax', -torch.inf)
    power = (x - top[images]).exp()
    return power / x.new_zeros(n, x.shape[1]).index_add(0, images, power)[images]


def proposal_scores(classes: Tensor, detections: Tensor, images: Tensor, n: int) -> Tensor:
    """WSDDN's scores of proposals (Bilen and Vedaldi, CVPR 2016), (R, K).

    ``phi_rc = softmax_c(classes_r) softmax_r(detections_c)``, the second over the proposals of one
    image.

    Args:
        classes, detections (Tensor): (R, K).
    """
    return classes.softmax(1) * softmax_in_image(detections, images, n)


def image_loss(scores: Tensor, images: Tensor, present: Tensor) -> Tensor:
    """Cross entropy of ``y_c = sum_r phi_rc``, summed over classes, mean over images.

    Images without proposals are left out.

    Args:
        scores (Tensor): phi, (R, K).
        images (Tensor): (R,) long.
        present (Tensor): whether an image contains a class, (N, K) bool.
    """
    whole = scores.new_zeros(present.shape).index_add(0, images, scores)
    whole = whole.clamp(EPSILON, 1 - EPSILON)
    entropy = -torch.where(present, whole, 1 - whole).log().sum(1)
    filled = (sizes_of_groups(images, len(present)) > 0).to(entropy)
    return (entropy * filled).sum() / filled.sum().clamp(min=1)


def assign(
    seeds: Seeds,
    boxes: Tensor,
    images: Tensor,
    background: int,
    positive: float = 0.5,
    negative: tuple[float, float] = (0.0, 0.5),
) -> Targets:
    """Label every proposal by the seed of its image that it overlaps most.

    Args:
        boxes (Tensor): proposals, (R, 4).
        images (Tensor): (R,) long.
        background (int): label of the background, K.
        positive (float): least IoU with the seed to get its label.
        negative (tuple[float, float]): IoU from the first to below the second is background. What
            is in between, and every proposal of an image without seeds, is :data:`IGNORED`.
    """
    if not len(seeds.rows):
        none = torch.full_like(images, IGNORED)
        return Targets(none, boxes.new_zeros(len(boxes)), torch.zeros_like(images))
    iou = iou_matrix(boxes, boxes[seeds.rows])
    iou = iou.masked_fill(images[:, None] != images[seeds.rows][None], -1.0)
    best, which = iou.max(1)
    labels = torch.full_like(images, IGNORED)
    labels[(best >= negative[0]) & (best < negative[1])] = background
    labels = torch.where(best >= positive, seeds.labels[which], labels)
    return Targets(labels, seeds.scores[which] * (best >= 0), seeds.rows[which])


def refinement_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, images: Tensor, n: int
) -> Tensor:
    """``1/N sum_images 1/R sum_r w_r CE(logits_r, label_r)``, R an image's proposals.

    Args:
        logits (Tensor): (R, K + 1), background last.
        labels (Tensor): (R,); :data:`IGNORED` adds nothing.
        weights (Tensor): (R,).
        n (int): images.
    """
    kept = labels != IGNORED
    chance = logits.log_softmax(1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    share = 1 / sizes_of_groups(images, n).clamp(min=1).to(chance)
    return -(chance * weights * kept * share[images]).sum() / max(n, 1)


def box_loss(errors: Tensor, weights: Tensor, positive: Tensor) -> Tensor:
    """``sum_r w_r sum_4 smoothL1(errors_r)`` over positives, divided by their number.

    Args:
        errors (Tensor): of encoded boxes, (R, 4).
        weights (Tensor): (R,).
        positive (Tensor): (R,) bool; without any the loss is zero, with a gradient of zero.
    """
    size = errors.abs()
    smooth = torch.where(size < 1, 0.5 * size.square(), size - 0.5).sum(1)
    return (smooth * weights * positive).sum() / positive.sum().clamp(min=1)
