"""A student on images of half the size, and teachers on the full images."""

from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.registry import MODELS


@MODELS.register_module()
class HalfScale(nn.Module):
    """Halves the batches on which a detector trains; its teachers still see the full images.

    ``data_preprocessor=dict(…, batch_augments=[dict(type='mmkd.HalfScale')])`` of the student.
    Every 2 x 2 pixels become their mean, so one pixel of the student lies exactly over four of the
    teacher. Boxes and sizes are halved with them; each sample keeps the full one beside it, which
    stock models ignore. It acts in training only: let the test pipeline resize to half the size.

    Raises:
        ValueError: a batch of odd height or width, or with masks or segmentation maps.
    """

    def forward(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        """(N, 3, H, W) and samples of it -> (N, 3, H / 2, W / 2) and samples of that."""
        if inputs.shape[2] % 2 or inputs.shape[3] % 2:
            raise ValueError(
                f'HalfScale cannot halve a batch of {tuple(inputs.shape[2:])} pixels. Let the '
                'data_preprocessor pad it: pad_size_divisor=32.'
            )
        pairs = zip(data_samples, inputs, strict=True)
        return F.avg_pool2d(inputs, 2), [_halved(sample, pixels) for sample, pixels in pairs]


def _halved(sample: BaseDataElement, pixels: Tensor) -> BaseDataElement:
    """A sample of half the size, with the given one and its pixels as ``full_scale``."""
    full, small = sample.new(), sample.new()
    full.inputs = pixels
    small.full_scale = full
    for key in ('img_shape', 'pad_shape', 'batch_input_shape'):
        if key in sample:
            small.set_metainfo({key: tuple(-(-side // 2) for side in sample.metainfo[key][:2])})
    if 'scale_factor' in sample:
        small.set_metainfo(dict(scale_factor=tuple(f / 2 for f in sample.scale_factor)))
    for name in ('gt_instances', 'ignored_instances', 'proposals'):
        if name in sample:
            setattr(small, name, _halved_boxes(getattr(sample, name)))
    if 'gt_sem_seg' in sample or 'masks' in sample.get('gt_instances', ()):
        raise ValueError(
            'HalfScale halves boxes only, but the batch has masks or segmentation maps; train a '
            'detector of boxes.'
        )
    return small


def _halved_boxes(instances: InstanceData) -> InstanceData:
    small = instances.new()
    small.bboxes = instances.bboxes * 0.5
    return small


def seen_by_teachers(inputs: Tensor, samples: list) -> tuple[Tensor, list]:
    """The batch as it was before :class:`HalfScale`; the given one if that was not there."""
    if not samples or 'full_scale' not in samples[0]:
        return inputs, samples
    full = [sample.full_scale for sample in samples]
    return torch.stack([sample.inputs for sample in full]), full


def teacher_scale(student: nn.Module) -> int:
    """How many times as large as the student's are the images that its teachers see: 1 or 2."""
    return 2 if any(isinstance(module, HalfScale) for module in student.modules()) else 1
