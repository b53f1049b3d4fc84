"""Answers of two decoders that were asked about the same points, as KD-DETR compares them."""

from __future__ import annotations

from torch import Tensor

from mmkd.functional.box_distances import corners, giou
from mmkd.functional.logit_distances import bernoulli_kl, soft_kl

#: what the sum of the classes' distances is divided by, see :func:`class_norm`
NORMS = ('per_image', 'code', 'weights')
#: images of KD-DETR's batch
_BATCH = 8
_LEAST = 1e-8


def class_divergence(student: Tensor, teacher: Tensor, tau: float = 10.0) -> Tensor:
    """``tau^2 KL(softmax(t / tau) || softmax(s / tau)) / K`` of logits (..., K) that broadcast."""
    return soft_kl(student, teacher.expand_as(student), tau) / student.shape[-1]


def binary_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``sum_c KL(p_t,c || p_s,c)`` of Bernoulli variables, student's logits (..., K) and teacher's
    probabilities that broadcast to them."""
    return bernoulli_kl(student, teacher.expand_as(student)).sum(-1)


def class_norm(sure: Tensor, how: str) -> Tensor | float:
    """What the sum of class distances over all points of a batch is divided by.

    Args:
        sure (Tensor): weights of the points, (N, R).
        how (str): the sum of the weights (``'weights'``), nothing (``'code'``), or an eighth of the
            number of images (``'per_image'``), which is the same for 8 images.
    """
    if how == 'weights':
        return sure.sum().clamp(min=_LEAST)
    return len(sure) / _BATCH if how == 'per_image' else 1.0


def box_terms(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute difference of cxcywh, and 1 - GIoU, of boxes (..., 4) that broadcast."""
    shift = (student - teacher).abs().mean(-1)
    return shift, 1 - giou(corners(student), corners(teacher))


def point_terms(
    apart: Tensor, student: Tensor, teacher: Tensor, sure: Tensor, norm: str
) -> dict[str, Tensor]:
    """``classes``, ``boxes`` and ``giou`` of R points, summed over the decoder layers.

    Args:
        apart (Tensor): distance of the classes, (L, N, R).
        student, teacher (Tensor): boxes (L, N, R, 4) and (N, R, 4), cxcywh.
        sure (Tensor): weight of each point, (N, R); distances of boxes are divided by their sum.
        norm (str): of the classes, see :func:`class_norm`.
    """
    shift, overlap = box_terms(student, teacher)
    total = sure.sum().clamp(min=_LEAST)
    return dict(
        classes=(sure * apart).sum() / class_norm(sure, norm),
        boxes=(sure * shift).sum() / total,
        giou=(sure * overlap).sum() / total,
    )
