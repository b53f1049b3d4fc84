"""A tiny weakly supervised detector, and batches for it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmkd.testing.samples import detection_batch
from mmkd.testing.tiny_models import MEAN, STD, merged


def tiny_weak(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """mmkd.WeakDetector on three stages of a ResNet-18 of ``width``, stride 16, two refinements."""
    model = dict(
        type='mmkd.WeakDetector',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True
        ),
        backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=width,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            norm_cfg=dict(type='GN', num_groups=2) if norm == 'GN' else dict(type=norm),
            norm_eval=False,
        ),
        roi_head=dict(
            type='mmkd.MILRoIHead',
            num_classes=num_classes,
            in_channels=4 * width,
            width=2 * width,
            roi_size=3,
            dropout=0.0,
            refinements=2,
            boxes=True,
        ),
    )
    return merged(model, changes)


def weak_batch(
    n: int = 2, size: tuple[int, int] = (64, 96), objects: int = 2, seed: int = 0, spare: int = 20
) -> tuple[Tensor, list]:
    """Pixels and samples of :func:`~mmkd.testing.detection_batch`; the proposals of an image are
    its objects and ``spare`` boxes more, with random scores."""
    inputs, samples = detection_batch(n, size, objects, seed)
    generator = torch.Generator().manual_seed(seed + 2)
    limits = torch.tensor([size[1], size[0]])
    for sample in samples:
        corner = torch.rand(spare, 2, generator=generator) * 0.7 * limits
        side = (0.15 + 0.35 * torch.rand(spare, 2, generator=generator)) * limits
        boxes = torch.cat((corner, torch.minimum(corner + side, limits.float())), 1)
        boxes = torch.cat((sample.gt_instances.bboxes, boxes))
        scores = torch.rand(len(boxes), generator=generator)
        sample.proposals = InstanceData(bboxes=boxes, scores=scores)
    return inputs, samples
