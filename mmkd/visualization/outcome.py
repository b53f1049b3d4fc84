"""Predictions of a model of any family for an image, as a captioned picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmkd.visualization import canvas
from mmkd.visualization.shown import PANEL, Shown
from mmkd.visualization.truth import (
    ShownObjects,
    annotated_map,
    annotated_objects,
    ground_truth,
    map_picture,
    name_of,
    values_of,
)

TOP = 5  # classes of a classifier that are listed
DRAWN = 20  # detections of an image; with more of them nothing can be told apart
_INSTANCE_OFFSET = 1000  # mmdet's: class + 1000 * number of the object


def truth_panel(shown: Shown, width: int = PANEL) -> np.ndarray:
    """The annotated image; a classifier's class stands in the caption."""
    caption = 'ground truth'
    if 'gt_label' in shown.sample:
        caption += f': {shown.class_name(int(shown.sample.gt_label[0]))}'
    return canvas.captioned(ground_truth(shown, width), caption, name_of(shown))


def outcome_panel(
    shown: Shown, result: Any, caption: str, threshold: float = 0.4, width: int = PANEL
) -> np.ndarray:
    """One model's prediction.

    Args:
        shown (Shown): the image, with its annotations.
        result (Any): the data sample that the model returned.
        caption (str): the model's name.
        threshold (float): objects of a lower score are left out.
        width (int): of the picture, in pixels.

    Raises:
        ValueError: the sample holds no prediction that can be drawn.
    """
    if 'pred_score' in result:
        return _classes_panel(shown, result.pred_score.float().cpu().numpy(), caption, width)
    if 'pred_sem_seg' in result:
        return _map_panel(shown, shown.place(values_of(result.pred_sem_seg)), caption, width)
    if 'pred_panoptic_seg' in result:
        labels = shown.place(values_of(result.pred_panoptic_seg) % _INSTANCE_OFFSET)
        return canvas.captioned(map_picture(shown, labels, width), caption)
    if 'pred_instances' in result:
        return _objects_panel(shown, detected(shown, result, threshold), caption, width)
    raise ValueError(
        f'{caption}: found no boxes, masks, label map or class scores to draw, only '
        f'{sorted(result.keys())}. Leave out --show.'
    )


# ------------------------------------------------------------------------------------------ objects


def detected(shown: Shown, result: Any, threshold: float) -> ShownObjects:
    """Detections from a score on, the surest first."""
    found = result.pred_instances
    found = found[found.scores >= threshold]
    found = found[found.scores.argsort(descending=True)].cpu()
    masks = [shown.place(mask.numpy()) > 0 for mask in found.get('masks', ())]
    boxes = found.bboxes
    boxes = getattr(boxes, 'tensor', boxes).numpy() * np.tile(shown.scale, 2)
    if len(masks) and not boxes.any():  # networks of masks alone say so with empty boxes
        boxes = np.array([_extent(mask) for mask in masks])
    return ShownObjects(boxes, found.labels.tolist(), found.scores.tolist(), masks)


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    y, x = np.nonzero(mask)
    return (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 0, 0)


def _objects_panel(shown: Shown, found: ShownObjects, caption: str, width: int) -> np.ndarray:
    truth, count = annotated_objects(shown), len(found.boxes)
    if truth is None:
        detail = f'{count} object{"s" * (count != 1)}'
    else:
        hits = matches(found.boxes, found.labels, truth.boxes, truth.labels)
        wrong = f', {count - hits} wrong' if count > hits else ''
        detail = f'{hits} of {len(truth.boxes)} found{wrong}'
    if count > DRAWN:
        detail += f'; the surest {DRAWN} are drawn'
    return canvas.captioned(found.first(DRAWN).picture(shown, width), caption, detail)


def matches(
    boxes: np.ndarray, labels: Sequence[int], truth: np.ndarray, names: Sequence[int]
) -> int:
    """How many objects are found: boxes in the order of their scores, IoU of at least 0.5.

    Args:
        boxes, labels: detections (R, 4) and their classes.
        truth, names: objects (G, 4) and their classes.
    """
    free, found = set(range(len(truth))), 0
    for box, label in zip(boxes, labels, strict=True):
        fitting = [(_iou(box, truth[g]), g) for g in free if names[g] == label]
        overlap, best = max(fitting, default=(0.0, -1))
        if overlap >= 0.5:
            free.remove(best)
            found += 1
    return found


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = float(np.prod(np.clip(high - low, 0, None)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return inter / max(areas - inter, 1e-9)


# --------------------------------------------------------------------------------- maps and classes


def _map_panel(shown: Shown, labels: np.ndarray, caption: str, width: int) -> np.ndarray:
    truth, detail = annotated_map(shown), ''
    if truth is not None:
        known = (truth >= 0) & (truth < (len(shown.classes) or 255))
        if known.any():
            detail = f'{100 * (labels == truth)[known].mean():.1f} % of the labelled pixels right'
    return canvas.captioned(map_picture(shown, labels, width), caption, detail)


def _classes_panel(shown: Shown, scores: np.ndarray, caption: str, width: int) -> np.ndarray:
    """The image, and bars of the classes that score highest; the true one is bold."""
    order = np.argsort(-scores, kind='stable')
    truth, detail = shown.sample.get('gt_label'), ''
    if truth is not None:
        truth = int(truth[0])
        rank = int(np.nonzero(order == truth)[0][0]) + 1
        detail = 'right' if rank == 1 else f'wrong, the true class is number {rank}'
    bars = [_bar(shown, int(k), float(scores[k]), k == truth, width) for k in order[:TOP]]
    image = canvas.enlarge(shown.image, width)
    return canvas.captioned(canvas.below([image, *bars], 4), caption, detail)


def _bar(shown: Shown, label: int, score: float, right: bool, width: int) -> np.ndarray:
    bar = canvas.blank(width, 18)
    bar[1:17, : round(score * width)] = (235, 215, 195)
    name = canvas.shorten(shown.class_name(label), width - 50, 12, bold=right)
    canvas.write(bar, name, (4, 1), 12, bold=right)
    canvas.write(bar, f'{score:.2f}', (width - 36, 1), 12, canvas.GREY)
    return bar
