"""Anchors and boxes of an ordinary image, 800 x 1333 pixels."""

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from torch import Tensor

#: bytes; a matrix of all boxes and all anchors would need more
LIMIT = 200e6


def anchors(strides: list[int], ratios: list[float], **sizes: object) -> list[Tensor]:
    """Those of each level, (n, 4)."""
    generator = AnchorGenerator(strides=strides, ratios=ratios, **sizes)
    maps = [(-(-800 // stride), -(-1344 // stride)) for stride in strides]
    return generator.grid_priors(maps, device='cpu')


def many_boxes(count: int) -> tuple[Tensor, Tensor]:
    """Corners, (count, 4), and the image of each, 0 or 1."""
    found = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) * 400
    found[:, 2:] += found[:, :2]
    return found, torch.arange(count) % 2
