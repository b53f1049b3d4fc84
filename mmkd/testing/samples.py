"""Data samples and batches out of nothing."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

from mmkd.structures import ClassSample


def boxes(*images: Any, num_classes: int = 3, size: tuple[int, int] = (64, 64)) -> list:
    """One sample an image, with ``gt_instances``; each argument holds the boxes, xyxy, of one."""
    samples = []
    for index, image in enumerate(images):
        box = torch.as_tensor(image, dtype=torch.float32).reshape(-1, 4)
        instances = InstanceData(bboxes=box, labels=torch.arange(len(box)) % num_classes)
        sample = _sample(index, size)
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(
            bboxes=box.new_zeros(0, 4), labels=instances.labels[:0]
        )
        samples.append(sample)
    return samples


def label_maps(labels: Tensor) -> list:
    """(N, H, W) long -> samples with ``gt_sem_seg``."""
    samples = [_sample(index, tuple(labels.shape[1:]), 'mmseg') for index in range(len(labels))]
    for sample, label in zip(samples, labels, strict=True):
        sample.set_data(dict(gt_sem_seg=PixelData(data=label[None])))
    return samples


def class_labels(labels: Tensor) -> list:
    """(N,) long -> samples with ``gt_label`` and ``sample_idx``."""
    return [
        ClassSample(metainfo=dict(sample_idx=i)).set_gt_label(label)
        for i, label in enumerate(labels)
    ]


def _sample(index: int, size: tuple[int, int], package: str = 'mmdet') -> BaseDataElement:
    meta = dict(
        img_id=index,
        sample_idx=index,
        img_path=f'{index}.jpg',
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
    )
    try:
        if package == 'mmdet':
            from mmdet.structures import DetDataSample as Sample
        else:
            from mmseg.structures import SegDataSample as Sample
    except ImportError:
        Sample = BaseDataElement
    return Sample(metainfo=meta)


def pixels(n: int = 2, size: tuple[int, int] = (64, 96), seed: int = 0) -> Tensor:
    """(N, 3, H, W): smooth noise, such as a normalised image is."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 6, generator=generator)
    fine = torch.randn(n, 3, *size, generator=generator)
    return nn.functional.interpolate(coarse, size, mode='bilinear') + 0.3 * fine


def detection_batch(
    n: int = 2, size: tuple[int, int] = (64, 96), objects: int = 2, seed: int = 0
) -> tuple[Tensor, list]:
    """Pixels and samples with ``objects`` boxes an image."""
    generator = torch.Generator().manual_seed(seed + 1)
    h, w = size
    images = []
    for _ in range(n):
        corner = torch.rand(objects, 2, generator=generator) * torch.tensor([w / 2, h / 2])
        side = (0.15 + 0.3 * torch.rand(objects, 2, generator=generator)) * torch.tensor([w, h])
        images.append(torch.cat((corner, corner + side), 1))
    return pixels(n, size, seed), boxes(*images, size=size)


def segmentation_batch(
    n: int = 2, size: tuple[int, int] = (64, 96), num_classes: int = 3, seed: int = 0
) -> tuple[Tensor, list]:
    """Pixels and label maps; the last rows are to be ignored (255)."""
    generator = torch.Generator().manual_seed(seed + 1)
    coarse = torch.randint(0, num_classes, (n, 1, 4, 6), generator=generator).float()
    labels = nn.functional.interpolate(coarse, size, mode='nearest')[:, 0].long()
    labels[:, -8:] = 255
    return pixels(n, size, seed), label_maps(labels)


def classification_batch(
    n: int = 8, size: tuple[int, int] = (32, 32), num_classes: int = 3, seed: int = 0
) -> tuple[Tensor, list]:
    """Pixels, each image in a colour of its own, and class labels 0, 1, ….

    The second half repeats the classes of the first.
    """
    colours = torch.randn(n, 3, 1, 1, generator=torch.Generator().manual_seed(seed + 1))
    labels = torch.arange(n) % max(n // 2, 1) % num_classes
    return pixels(n, size, seed) + 2 * colours, class_labels(labels)
