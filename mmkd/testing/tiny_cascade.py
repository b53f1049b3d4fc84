"""A tiny Cascade R-CNN."""

from __future__ import annotations

import copy
from typing import Any

from mmkd.testing.tiny_models import merged, tiny_faster_rcnn


def tiny_cascade_rcnn(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', stages: int = 3, **changes: Any
) -> dict:
    """:func:`tiny_faster_rcnn` with ``stages`` box heads, of which each refines the boxes of the
    one before and demands more overlap."""
    model = tiny_faster_rcnn(width, num_classes, norm)
    model['type'] = 'mmdet.CascadeRCNN'
    head = dict(model['roi_head']['bbox_head'], reg_class_agnostic=True)
    model['roi_head'].update(
        type='CascadeRoIHead',
        num_stages=stages,
        stage_loss_weights=[0.5**i for i in range(stages)],
        bbox_head=[copy.deepcopy(head) for _ in range(stages)],
    )
    rcnn = model['train_cfg']['rcnn']
    model['train_cfg']['rcnn'] = [
        merged(copy.deepcopy(rcnn), dict(assigner=dict.fromkeys(('pos_iou_thr', 'neg_iou_thr'), x)))
        for x in (0.5 + 0.1 * i for i in range(stages))
    ]
    return merged(model, changes)
