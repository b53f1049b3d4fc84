"""Transforms for classification that mmcv has not; the others (flip, resize, crop) are mmcv's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile

from mmkd.options import check_number
from mmkd.registry import TRANSFORMS
from mmkd.structures import ClassSample

META = ('sample_idx', 'img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction')


@TRANSFORMS.register_module()
class LoadImageOnce(BaseTransform):
    """mmcv's ``LoadImageFromFile`` with a memory: each file is read and decoded once a process.

    For small datasets, which training on a CPU would otherwise decode in every epoch. Workers keep
    what they read while they live (``persistent_workers=True``).

    Args:
        **kwargs: of :class:`mmcv.transforms.LoadImageFromFile`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.load = LoadImageFromFile(**kwargs)
        self.images: dict[str, np.ndarray] = {}

    def transform(self, results: dict) -> dict | None:
        image = self.images.get(results['img_path'])
        if image is None:
            loaded = self.load(results)
            if loaded is None:
                return None
            image = self.images[results['img_path']] = loaded['img']
        shape = image.shape[:2]
        return dict(results, img=image.copy(), img_shape=shape, ori_shape=shape)


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """A part of random area and shape, resized to a square (Szegedy et al., CVPR 2015).

    Ten attempts are made to draw a part that lies inside the image; then the largest middle part of
    a permitted shape is taken.

    Args:
        scale (int): side of the result.
        area (tuple[float, float]): smallest and largest share of the image's area.
        aspect (tuple[float, float]): smallest and largest width over height.

    Raises:
        ValueError: a side below 1, or bounds not above 0 and in order.
    """

    def __init__(
        self,
        scale: int,
        area: Sequence[float] = (0.08, 1.0),
        aspect: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        self.scale = check_number('RandomResizedCrop', 'scale', scale, 1, whole=True)
        self.area, self.aspect = _bounds('area', area), _bounds('aspect', aspect)

    def transform(self, results: dict) -> dict:
        image = results['img']
        top, left, height, width = self.draw(*image.shape[:2])
        part = image[top : top + height, left : left + width]
        image = mmcv.imresize(part, (self.scale, self.scale))
        return dict(results, img=image, img_shape=image.shape[:2])

    def draw(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the part of an image of this size."""
        for _ in range(10):
            area = height * width * np.random.uniform(*self.area)
            aspect = math.exp(np.random.uniform(*np.log(self.aspect)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)
                return top, np.random.randint(width - w + 1), h, w
        h = min(height, max(1, round(width / self.aspect[0])))
        w = min(width, max(1, round(height * self.aspect[1])))
        return (height - h) // 2, (width - w) // 2, h, w


def _bounds(name: str, pair: Sequence[float]) -> tuple[float, float]:
    """Two numbers above 0 in order, else ValueError."""
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f'RandomResizedCrop: {name} must be two numbers, found {pair!r}.')
    low = check_number('RandomResizedCrop', f'the lower bound of {name}', pair[0], above=0)
    return low, check_number('RandomResizedCrop', f'the upper bound of {name}', pair[1], low)


@TRANSFORMS.register_module()
class RandomCrop(BaseTransform):
    """A random square part, of the image with zeros around it: ``size=32, padding=4`` for CIFAR.

    Args:
        size (int): side of the part.
        padding (int): pixels added on each side before.

    Raises:
        ValueError: a side below 1 or padding below 0; an image that is smaller than the part.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        self.size = check_number('RandomCrop', 'size', size, 1, whole=True)
        self.padding = check_number('RandomCrop', 'padding', padding, 0, whole=True)

    def transform(self, results: dict) -> dict:
        image, border, size = results['img'], self.padding, self.size
        height, width = (side + 2 * border for side in image.shape[:2])
        if min(height, width) < size:
            raise ValueError(
                f'RandomCrop: no part of {size} pixels fits into {results.get("img_path", "")} of '
                f'{width} x {height}; resize before, or use mmkd.RandomResizedCrop.'
            )
        padded = np.zeros((height, width, *image.shape[2:]), image.dtype)
        padded[border : height - border, border : width - border] = image
        top, left = np.random.randint(height - size + 1), np.random.randint(width - size + 1)
        part = padded[top : top + size, left : left + size]
        return dict(results, img=part, img_shape=(size, size))


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Brightness, contrast, saturation and hue changed by random amounts, in random order.

    Args:
        brightness, contrast, saturation (float): factors are drawn from [1 - x, 1 + x].
        hue (float): shares of the colour circle are drawn from [-x, x], at most 0.5.

    Raises:
        ValueError: an amount below 0 or a hue above 0.5.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        amounts = dict(brightness=brightness, contrast=contrast, saturation=saturation)
        for name, amount in amounts.items():
            check_number('ColorJitter', name, amount, 0)
        check_number('ColorJitter', 'hue', hue, 0, 0.5)
        changes = [
            (mmcv.adjust_brightness, 1, brightness),
            (mmcv.adjust_contrast, 1, contrast),
            (mmcv.adjust_color, 1, saturation),
            (mmcv.adjust_hue, 0, hue),
        ]
        self.changes = [change for change in changes if change[2]]

    def transform(self, results: dict) -> dict:
        image = results['img']
        for index in np.random.permutation(len(self.changes)):
            change, middle, amount = self.changes[index]
            value = middle + np.random.uniform(-amount, amount)
            image = change(image, max(value, 0) if middle else value)
        return dict(results, img=image)


@TRANSFORMS.register_module()
class PackClassInputs(BaseTransform):
    """The end of a pipeline: ``inputs`` (3, H, W) and ``data_samples``, a ClassSample.

    ``gt_label`` is the class, ``gt_score`` (K,) the share or probability of each, where known.

    Args:
        meta_keys (Sequence[str]): keys that are copied into ``metainfo`` if present.

    Raises:
        ValueError: an image that has not three channels.
    """

    def __init__(self, meta_keys: Sequence[str] = META) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        image = results['img']
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f'PackClassInputs: {results.get("img_path", "an image")} has the shape '
                f"{image.shape}, where (H, W, 3) is needed; load it with color_type='color'."
            )
        meta = {key: results[key] for key in self.meta_keys if key in results}
        sample = ClassSample(metainfo=meta)
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        if 'gt_score' in results:
            sample.set_gt_score(torch.as_tensor(results['gt_score'], dtype=torch.float32))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return dict(inputs=pixels, data_samples=sample)
