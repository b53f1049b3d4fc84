"""Detections of several models side by side, found and missed objects counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from mmkd.visualization import canvas
from mmkd.visualization.page import PANEL, Shown, boxes_on, ground_truth


@torch.no_grad()
def detect(model: nn.Module, dataset: Any, indices: Sequence[int]) -> list[Any]:
    """A model's data samples with ``pred_instances``, of some images of a test dataset."""
    model.eval()
    return [model.test_step(pseudo_collate([dataset[i]]))[0] for i in indices]


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


def detection_panel(
    shown: Shown, result: Any, caption: str, threshold: float = 0.4, width: int = PANEL
) -> np.ndarray:
    """One model's detections above a score, and how many of the objects they find."""
    found = result.pred_instances
    found = found[found.scores >= threshold]
    found = found[found.scores.argsort(descending=True)]
    boxes, labels = found.bboxes.cpu().numpy(), found.labels.tolist()
    truth = shown.sample.gt_instances
    objects = torch.as_tensor(getattr(truth.bboxes, 'tensor', truth.bboxes)).cpu().numpy()
    hits = matches(boxes, labels, objects, torch.as_tensor(truth.labels).tolist())
    names = [
        f'{shown.classes[k]} {s:.2f}' for k, s in zip(labels, found.scores.tolist(), strict=True)
    ]
    wrong = len(boxes) - hits
    detail = f'{hits} of {len(objects)} found' + (f', {wrong} wrong' if wrong else '')
    return canvas.captioned(boxes_on(shown, boxes, labels, names, width), caption, detail)


def comparison(
    shown: Sequence[Shown], results: Mapping[str, Sequence[Any]], threshold: float = 0.4
) -> np.ndarray:
    """A row for each image: ground truth, then the detections of each named model."""
    rows = []
    for index, one in enumerate(shown):
        panels = [canvas.captioned(ground_truth(one), 'ground truth', one.name)]
        for name, samples in results.items():
            panels.append(detection_panel(one, samples[index], name, threshold))
        rows.append(canvas.beside(panels))
    return canvas.below(rows, 14)


def curves(
    lines: Mapping[str, Mapping[int, float]], caption: str, detail: str, size: tuple[int, int]
) -> np.ndarray:
    """A small chart: a value over epochs for each name, the last one written beside its end."""
    width, height = size
    chart = canvas.blank(width, height)
    points = [(x, y) for line in lines.values() for x, y in line.items()]
    last = max((x for x, _ in points), default=1)
    top = max((y for _, y in points), default=1.0) * 1.08 or 1.0
    left, right, bottom = 8, width - 118, height - 20

    def at(x: float, y: float) -> tuple[int, int]:
        return round(left + (right - left) * x / last), round(bottom - (bottom - 4) * y / top)

    cv2.line(chart, at(0, 0), at(last, 0), canvas.GREY, 1)
    for x in sorted({x for x, _ in points}):
        canvas.write(chart, str(x), (at(x, 0)[0] - 4, bottom + 2), 11, canvas.GREY)
    used: list[int] = []
    for index, (name, line) in sorted(enumerate(lines.items()), key=lambda item: -_end(item[1][1])):
        colour = canvas.COLOURS[index]
        path = np.array([at(0, 0), *(at(x, y) for x, y in sorted(line.items()))], np.int32)
        cv2.polylines(chart, [path], False, colour, 2, cv2.LINE_AA)
        y = max([path[-1][1] - 8, *(u + 15 for u in used)])
        used.append(y)
        canvas.write(chart, f'{name} {_end(line):.1f}', (path[-1][0] + 5, y), 11, colour, bold=True)
    return canvas.captioned(chart, caption, detail)


def _end(line: Mapping[int, float]) -> float:
    return line[max(line)] if line else 0.0
