"""The annotations of an image, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmkd.structures import LABELLED
from mmkd.visualization import canvas
from mmkd.visualization.shown import PANEL, Shown, boxes_on


@dataclass
class ShownObjects:
    """Annotated or detected, in pixels of the shown image.

    Attributes:
        boxes (np.ndarray): (R, 4), xyxy.
        labels (list[int]): R class indices.
        scores (list[float]): R, in [0, 1]; empty for annotations.
        masks (Sequence): R masks (H, W) bool, or none.
    """

    boxes: np.ndarray
    labels: list[int]
    scores: Sequence[float] = ()
    masks: Sequence[np.ndarray] = ()

    def first(self, count: int) -> ShownObjects:
        """The first ``count`` of them; the surest, where the surest come first."""
        parts = (self.boxes, self.labels, self.scores, self.masks)
        return ShownObjects(*(part[:count] for part in parts))

    def picture(self, shown: Shown, width: int = PANEL) -> np.ndarray:
        """Masks and boxes with the names of their classes, and their scores."""
        names = [shown.class_name(label) for label in self.labels]
        if len(self.scores):
            names = [f'{n} {s:.2f}' for n, s in zip(names, self.scores, strict=True)]
        image = shown.image
        for mask, label in zip(self.masks, self.labels, strict=False):
            image = canvas.tint(image, mask, shown.colour(label))
        return boxes_on(shown, self.boxes, self.labels, names, width, image)


def annotated_objects(shown: Shown) -> ShownObjects | None:
    """The boxes and masks of a sample; None where nothing is annotated."""
    found = shown.sample.get('gt_instances')
    if not _has_objects(found):
        return None
    boxes = torch.as_tensor(getattr(found.bboxes, 'tensor', found.bboxes)).detach().cpu().numpy()
    masks = found.masks.to_ndarray() if 'masks' in found else ()
    labels = torch.as_tensor(found.labels).tolist()
    return ShownObjects(boxes, labels, masks=[shown.cut(mask) > 0 for mask in masks])


def _has_objects(found: Any) -> bool:
    return found is not None and 'bboxes' in found and 'labels' in found


def name_of(shown: Shown) -> str:
    """The image's name, with its classes if they alone are known, or that nothing was loaded."""
    sample, name = shown.sample, shown.name
    found = sample.get('gt_instances')
    if not sample.metainfo.get(LABELLED, True):
        return f'{name}, without labels'
    if found is not None and 'labels' in found and 'bboxes' not in found:
        return f'{name}: {", ".join(map(shown.class_name, found.labels.tolist()))}'
    known = _has_objects(found) or 'gt_sem_seg' in sample or 'gt_label' in sample
    return name if known else f'{name}, no annotations loaded'


def annotated_map(shown: Shown) -> np.ndarray | None:
    """(H, W) class indices of a sample's label map; None where it has none."""
    if 'gt_sem_seg' not in shown.sample:
        return None
    return shown.cut(values_of(shown.sample.gt_sem_seg))


def values_of(pixels: Any) -> np.ndarray:
    """(H, W) of a PixelData: mmseg calls its field ``data``, mmdet ``sem_seg``."""
    return next(iter(pixels.values())).squeeze(0).cpu().numpy()


def map_picture(shown: Shown, labels: np.ndarray, width: int = PANEL) -> np.ndarray:
    """Class indices (H, W) in colours over the pale image; other pixels stay pale."""
    image = canvas.enlarge(shown.image, width)
    count = len(shown.classes) or int(labels[labels < 255].max(initial=0)) + 1
    drawn = canvas.resize_labels(labels, image.shape[1::-1])
    return canvas.overlay_classes(image, drawn, shown.palette, count)


def ground_truth(shown: Shown, width: int = PANEL) -> np.ndarray:
    """The image with its annotated objects or label map, or as it is where it has none."""
    labels = annotated_map(shown)
    if labels is not None:
        return map_picture(shown, labels, width)
    objects = annotated_objects(shown) or ShownObjects(np.zeros((0, 4)), [])
    return objects.picture(shown, width)
