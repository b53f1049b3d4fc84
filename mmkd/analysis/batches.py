"""Batches without data: random pixels, and ground truth of the kind that a model trains on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmkd.families import family_of, segmentor
from mmkd.pixels import Pixels
from mmkd.plan.probe import dummy_samples
from mmkd.structures import ClassSample

#: proposals of an image beside its objects, for detectors that learn from image labels
PROPOSALS = 300


def random_batch(
    model: nn.Module, size: tuple[int, int], batch: int, boxes: int, device: str = 'cpu'
) -> tuple[Tensor, list]:
    """Random pixels (N, C, H, W) and ground truth of the kind that the model trains on.

    Args:
        model (nn.Module): the student.
        size (tuple[int, int]): height and width.
        batch, boxes (int): images, and objects an image.
    """
    generator = torch.Generator().manual_seed(0)
    channels = Pixels.of(model).channels
    inputs = torch.randn(batch, channels, *size, generator=generator).to(device)
    family, samples = family_of(model), []
    for index in range(batch):
        (sample,) = dummy_samples(size[0])
        shape = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
        sample.set_metainfo(dict(shape, img_id=index))
        if hasattr(model, 'panoptic_head'):
            sample.gt_instances = _random_boxes(size, boxes, generator, device)
            _add_masks(model, sample, size, device)
            if segmentor.classifies_pixels(model):
                _label_pixels(sample, segmentor.classes(model), size, generator, device)
                sample.gt_sem_seg = PixelData(sem_seg=sample.gt_sem_seg.data)
            else:
                del sample.gt_sem_seg  # of instances alone there is none
        elif family == 'segmentor':
            _label_pixels(sample, max(segmentor.classes(model), 2), size, generator, device)
        elif family == 'classifier':
            half = max(batch // 2, 1)  # which the other half repeats, for methods on pairs
            sample = ClassSample(metainfo=dict(shape, sample_idx=index))
            sample.set_gt_label(index % half % model.num_classes)
        else:
            sample.gt_instances = _random_boxes(size, boxes, generator, device)
            _add_masks(model, sample, size, device)
            if family == 'weak':
                sample.proposals = _random_proposals(sample, size, generator, device)
        samples.append(sample)
    return inputs, samples


def _label_pixels(
    sample: Any, classes: int, size: tuple[int, int], generator: torch.Generator, device: str
) -> None:
    """Labels in blocks of a sixteenth of the image, and their edges, which PIDNet learns."""
    coarse = torch.randint(classes, (1, 1, 16, 16), generator=generator).float()
    labels = nn.functional.interpolate(coarse, size, mode='nearest')[0].long()
    sample.set_field(PixelData(data=labels.to(device)), 'gt_sem_seg')
    edges = torch.zeros_like(labels)
    edges[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).long()
    edges[:, :, 1:] |= (labels[:, :, 1:] != labels[:, :, :-1]).long()
    sample.set_field(PixelData(data=edges.to(device)), 'gt_edge_map')


def _random_boxes(
    size: tuple[int, int], count: int, generator: torch.Generator, device: str
) -> InstanceData:
    """Boxes between a twelfth and a half of the image, anywhere in it."""
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    wh = (torch.rand(count, 2, generator=generator) * 0.42 + 0.08) * extent
    low = torch.rand(count, 2, generator=generator) * (extent - wh)
    labels = torch.zeros(count, dtype=torch.long)
    return InstanceData(bboxes=torch.cat((low, low + wh), 1).to(device), labels=labels.to(device))


def _random_proposals(
    sample: Any, size: tuple[int, int], generator: torch.Generator, device: str
) -> InstanceData:
    """The objects and boxes anywhere, with random scores."""
    spare = _random_boxes(size, PROPOSALS, generator, device).bboxes
    boxes = torch.cat((sample.gt_instances.bboxes, spare))
    return InstanceData(bboxes=boxes, scores=torch.rand(len(boxes), generator=generator).to(device))


def _add_masks(model: nn.Module, sample: Any, size: tuple[int, int], device: str) -> None:
    """Full boxes as masks, and a map of stuff, for models that have parts for them."""
    names = [name for name, _ in model.named_children()]
    parts = ' '.join([*names, *(type(m).__name__ for m in model.modules())]).lower()
    if 'mask' in parts or 'solo' in parts or 'panoptic' in parts:
        from mmdet.structures.mask import BitmapMasks

        found = sample.gt_instances
        masks = np.zeros((len(found), *size), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, found.bboxes.long().tolist(), strict=True):
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        found.masks = BitmapMasks(masks, *size)
    if 'semantic' in parts or 'fpnhead' in parts or 'panoptic' in parts:
        labels = torch.zeros(1, *size, dtype=torch.long, device=device)
        sample.gt_sem_seg = PixelData(sem_seg=labels)
