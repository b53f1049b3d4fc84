"""A student on images of another size, and teachers on the full images."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, gcd, lcm
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

#: largest denominator of a scale
FINEST = 16


@MODELS.register_module()
class Rescale(nn.Module):
    """Shrinks the batches on which a student trains; its teachers still see the full images.

    ``data_preprocessor=dict(…, batch_augments=[dict(type='mmkd.Rescale', scale=0.5)])`` of the
    student. At 1/k every k x k pixels become their mean, so that one pixel of the student lies
    exactly over k x k of the teacher; at other scales pixels are interpolated (bilinear, smoothed).
    Boxes and sizes are scaled with them, label maps by the nearest pixel; each sample keeps the
    full one beside it, which stock models ignore. It acts in training only: let the test pipeline
    resize to the student's size.

    Args:
        scale (float): side of the student's images over that of the full ones, a fraction such as
            1 / 2, 2 / 3 or 3 / 4. Above 1, with a warning, the student sees larger images.

    Raises:
        ValueError: a scale that is no such fraction; in a step a batch whose scaled height or
            width is no whole number, or instance masks at another scale than 1/2.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        owner = type(self).__name__
        number = check_number(owner, 'scale', scale, above=0)
        self.scale = Fraction(number).limit_denominator(FINEST)
        if abs(float(self.scale) - number) > 1e-6 or not self.scale:
            raise ValueError(
                f'{owner}: scale must be a fraction with a denominator of at most {FINEST}, such '
                f'as 1 / 2 or 2 / 3, found {scale}.'
            )
        if self.scale > 1:
            print_log(
                f'{owner}: at scale {self.scale} the student sees larger images than its teachers.',
                logger='current',
                level=30,
            )

    def forward(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        """(N, C, H, W) and samples of it -> (N, C, scale H, scale W) and samples of that."""
        if self.scale == 1:
            return inputs, data_samples
        size = [side * self.scale for side in inputs.shape[2:]]
        if any(side.denominator > 1 for side in size):
            raise ValueError(
                f'{type(self).__name__} cannot bring a batch of {tuple(inputs.shape[2:])} pixels '
                f'to {self.scale} of its sides. Let the data_preprocessor pad it: '
                f'{_padding(inputs, 32 * self.scale.denominator)}.'
            )
        small = pixels_at(inputs, (int(size[0]), int(size[1])))
        pairs = zip(data_samples, inputs, strict=True)
        return small, [_scaled(sample, pixels, self.scale) for sample, pixels in pairs]


@MODELS.register_module()
class HalfScale(Rescale):
    """:class:`Rescale` to 1/2."""

    def __init__(self) -> None:
        super().__init__(0.5)


class BatchAugments(nn.ModuleList):
    """Augmentations of a batch, one after the other."""

    def forward(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        """(N, C, H, W) and samples of it -> both as the last one gives them."""
        for augment in self:
            inputs, data_samples = augment(inputs, data_samples)
        return inputs, data_samples


def build_augments(model: nn.Module) -> None:
    """Build the ``batch_augments`` that mmseg's data preprocessor leaves as they are written."""
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    found = getattr(preprocessor, 'batch_augments', None)
    if found is None or isinstance(found, nn.Module) or callable(found):
        return
    if isinstance(found, dict):
        found = [found]
    preprocessor.batch_augments = BatchAugments([MODELS.build(one) for one in found])


def _padding(inputs: Tensor, divisor: int) -> str:
    option = 'size or size_divisor' if inputs.dim() < 4 else 'pad_size_divisor'
    return f'{option}={divisor}'


def pixels_at(inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, h, w): means of blocks where these are whole, else interpolated."""
    blocks = [old // new for old, new in zip(inputs.shape[2:], size, strict=True)]
    if all(new * k == old for new, k, old in zip(size, blocks, inputs.shape[2:], strict=True)):
        return F.avg_pool2d(inputs, blocks)
    return F.interpolate(inputs, size, mode='bilinear', antialias=True, align_corners=False)


def _scaled(sample: BaseDataElement, pixels: Tensor, scale: Fraction) -> BaseDataElement:
    """A sample of another size, with the given one and its pixels as ``full_scale``."""
    full, small = sample.new(), sample.new()
    full.inputs = pixels
    small.full_scale = full
    for key in ('img_shape', 'pad_shape', 'batch_input_shape'):
        if key in sample:
            sides = sample.metainfo[key][:2]
            small.set_metainfo({key: tuple(ceil(side * scale) for side in sides)})
    if 'scale_factor' in sample:
        factors = tuple(f * float(scale) for f in sample.scale_factor)
        small.set_metainfo(dict(scale_factor=factors))
    for name in ('gt_instances', 'ignored_instances', 'proposals'):
        if name in sample:
            setattr(small, name, _scaled_instances(getattr(sample, name), scale))
    for name, value in sample.items():
        if isinstance(value, PixelData):
            setattr(small, name, _scaled_pixels(value, scale))
    return small


def _scaled_instances(instances: InstanceData, scale: Fraction) -> InstanceData:
    small = instances.new()
    if 'bboxes' in instances:
        small.bboxes = instances.bboxes * scale.numerator / scale.denominator
    if 'masks' in instances:
        if scale != Fraction(1, 2):
            raise ValueError(
                f'Rescale: the batch has instance masks, which are scaled to 1/2 only, found '
                f'{scale}. Set scale=0.5, or train a detector of boxes.'
            )
        small.masks = _halved_masks(instances.masks)
    return small


def _halved_masks(masks: Any) -> Any:
    """Bitmaps by the nearest pixel, as label maps; polygons by their corners."""
    h, w = (-(-side // 2) for side in (masks.height, masks.width))
    if not hasattr(masks, 'masks') or not hasattr(masks.masks, 'shape'):
        return masks.resize((h, w))
    rows, columns = (
        [min(2 * i + 1, side - 1) for i in range(new)]
        for new, side in ((h, masks.height), (w, masks.width))
    )
    return type(masks)(masks.masks[:, rows][:, :, columns], h, w)


def _scaled_pixels(maps: PixelData, scale: Fraction) -> PixelData:
    """Every map (C, H, W) by the pixel under the middle of each new one."""
    small = {}
    for name, x in maps.items():
        size = [ceil(side * scale) for side in x.shape[-2:]]
        found = F.interpolate(x[None].double(), size, mode='nearest-exact')[0]
        small[name] = found.to(x.dtype)
    return PixelData(**small)


def seen_by_teachers(inputs: Tensor, samples: list) -> tuple[Tensor, list]:
    """The batch as it was before :class:`Rescale`; the given one if that was not there."""
    if not samples or 'full_scale' not in samples[0]:
        return inputs, samples
    full = [sample.full_scale for sample in samples]
    return torch.stack([sample.inputs for sample in full]), full


def scale_of(student: nn.Module) -> Fraction:
    """Side of the student's images in training over that of its teachers'; 1 without Rescale.

    Raises:
        ValueError: several of them.
    """
    found = [module.scale for module in student.modules() if isinstance(module, Rescale)]
    if len(found) > 1:
        raise ValueError(
            f"the student's data_preprocessor has {len(found)} entries of Rescale or HalfScale; "
            'write one, with the product of their scales.'
        )
    return found[0] if found else Fraction(1)


def full_size(trace: Trace) -> tuple[int, int]:
    """(H, W) of the images of the learner's teachers, without padding of their own."""
    height, width = (ceil(side / trace.scale) for side in trace.inputs.shape[2:])
    return height, width


def in_teachers_pixels(rois: Tensor, trace: Trace) -> Tensor:
    """RoIs (R, 5) of the learner's images as they lie in its teachers'."""
    return _scaled_rois(rois, 1 / trace.scale)


def in_own_pixels(rois: Tensor, trace: Trace) -> Tensor:
    """RoIs (R, 5) of a teacher's images as they lie in the learner's."""
    return _scaled_rois(rois, trace.scale)


def _scaled_rois(rois: Tensor, scale: Fraction) -> Tensor:
    if scale == 1:
        return rois
    return torch.cat((rois[:, :1], rois[:, 1:] * scale.numerator / scale.denominator), 1)


def divisor_for(student: int, teacher: int, scale: Fraction) -> int:
    """Pixels of which both sides of full batches are multiples where maps of these strides cover
    them without a rest."""
    steps = student * scale.denominator
    return lcm(teacher, steps // gcd(steps, scale.numerator))
