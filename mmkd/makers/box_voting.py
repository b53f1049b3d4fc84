"""Boxes of one class that several views of an image gave: suppressed, then averaged (voting)."""

from __future__ import annotations

import numpy as np

from mmkd.makers.merge_detections import overlap

RULES = ('max', 'consensus')


def mirrored(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes (P, 4) xyxy of an image of this width, in the image flipped from left to right."""
    x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    return np.stack((width - x2, y1, width - x1, y2), 1)


def vote(
    boxes: np.ndarray,
    scores: np.ndarray,
    views: int = 1,
    suppress: float = 0.5,
    same: float = 0.8,
    rule: str = 'max',
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of all views become one for each object (Radosavovic et al., CVPR 2018; Detectron).

    The best boxes that overlap no better one by ``suppress`` stay. Each becomes the mean, weighted
    by scores, of all pooled boxes that overlap it by ``same``.

    Args:
        boxes (np.ndarray): (P, 4) xyxy, of one class in one image, of all views.
        scores (np.ndarray): (P,).
        views (int): how many views there were, V.
        rule (str): ``'max'``: a box keeps its score; ``'consensus'``: the sum of the scores of the
            boxes that voted, over V, at most 1, so that a box which few views saw counts less.

    Returns:
        tuple: boxes (Q, 4) and scores (Q,), best first, and the weights of the pooled boxes in
            each of them (Q, P), of sum 1.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    left, kept = np.argsort(-scores, kind='stable'), []
    while len(left):
        first, rest = left[0], left[1:]
        kept.append(first)
        left = rest[overlap(boxes[first], boxes[rest]) < suppress]
    weights, given = np.zeros((len(kept), len(boxes))), np.zeros(len(kept))
    for row, index in enumerate(kept):
        own = overlap(boxes[index], boxes) >= same
        own[index] = True
        total = scores[own].sum()
        if total > 0:
            weights[row, own] = scores[own] / total
        else:
            weights[row, index] = 1
        given[row] = scores[index] if rule == 'max' else min(total / views, 1.0)
    order = np.argsort(-given, kind='stable')
    weights = weights[order]
    return weights @ boxes, given[order], weights
