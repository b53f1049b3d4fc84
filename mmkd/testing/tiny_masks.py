"""Tiny Mask R-CNN and Cascade Mask R-CNN, and batches with masks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor

from mmkd.testing.samples import detection_batch
from mmkd.testing.tiny_cascade import tiny_cascade_rcnn
from mmkd.testing.tiny_models import merged, tiny_faster_rcnn


def tiny_mask_rcnn(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """:func:`tiny_faster_rcnn` with masks of 8 x 8 cells a RoI."""
    model = tiny_faster_rcnn(width, num_classes, norm)
    model['type'] = 'mmdet.MaskRCNN'
    _add_masks(model, width, num_classes)
    model['train_cfg']['rcnn']['mask_size'] = 8
    return merged(model, changes)


def tiny_cascade_mask_rcnn(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', stages: int = 2, **changes: Any
) -> dict:
    """:func:`tiny_cascade_rcnn` with masks of 8 x 8 cells a RoI in each stage."""
    model = tiny_cascade_rcnn(width, num_classes, norm, stages)
    _add_masks(model, width, num_classes)
    roi_head = model['roi_head']
    roi_head['mask_head'] = [copy.deepcopy(roi_head['mask_head']) for _ in range(stages)]
    for stage in model['train_cfg']['rcnn']:
        stage['mask_size'] = 8
    return merged(model, changes)


def _add_masks(model: dict, width: int, num_classes: int) -> None:
    extractor = copy.deepcopy(model['roi_head']['bbox_roi_extractor'])
    extractor['roi_layer']['output_size'] = 4
    model['roi_head'].update(
        mask_roi_extractor=extractor,
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=1,
            in_channels=2 * width,
            conv_out_channels=2 * width,
            num_classes=num_classes,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    )
    model['test_cfg']['rcnn']['mask_thr_binary'] = 0.5


def mask_batch(
    n: int = 2, size: tuple[int, int] = (64, 96), objects: int = 2, seed: int = 0
) -> tuple[Tensor, list]:
    """:func:`detection_batch` with the mask of an ellipse in each box."""
    inputs, samples = detection_batch(n, size, objects, seed)
    for sample in samples:
        add_masks(sample)
    return inputs, samples


def add_masks(sample: Any) -> None:
    """Give a sample's objects the masks of ellipses in their boxes."""
    from mmdet.structures.mask import BitmapMasks

    (height, width), boxes = sample.batch_input_shape, sample.gt_instances.bboxes.tolist()
    masks = np.zeros((len(boxes), height, width), np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        u, v = (x - (x1 + x2) / 2) / (x2 - x1), (y - (y1 + y2) / 2) / (y2 - y1)
        mask[u**2 + v**2 < 0.25] = 1
    sample.gt_instances.masks = BitmapMasks(masks, height, width)
