"""mmkd's operators against those that mmcv compiles, in turn and in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmkd.analysis.batches import random_batch
from mmkd.analysis.benchmark import Cost, measure
from mmkd.operators.extension import compiled_operators, own_operators, using
from mmkd.operators.missing import compile_command
from mmkd.teacher import build_model


def benchmark_operators(
    config: Config | None = None,
    size: tuple[int, int] = (256, 256),
    batch: int = 2,
    rounds: int = 7,
    boxes: int = 8,
) -> dict[str, Cost]:
    """Time operators, and a step of a config's student, with mmkd's and with compiled operators.

    Args:
        config (Config | None): of a model or of a distillation.
        size (tuple[int, int]): height and width of the student's batch.
        batch, rounds, boxes (int): images, measured rounds, ground-truth boxes an image.

    Raises:
        ValueError: where mmcv has no compiled operators.
    """
    compiled = compiled_operators()
    if not compiled:
        raise ValueError(
            'benchmark operators compares with compiled operators, and mmcv has none here. '
            f'Run: {compile_command()}'
        )
    tasks = {'RoIAlign': roi_align(), 'NMS': nms(), 'deformable convolution': deform_conv()}
    if config is not None:
        tasks['step'] = student_step(config, size, batch, boxes)
    steps, floors = {}, {}
    for name, task in tasks.items():
        for label, operators in (('compiled', compiled), ("mmkd's", own_operators())):
            steps[f'{name}, {label}'] = partial(with_operators, operators, task)
            floors[f'{name}, {label}'] = f'{name}, compiled'
    return measure(steps, rounds, floors)


def with_operators(operators: dict[str, Callable], task: Callable[[], Any]) -> None:
    with using(operators):
        task()


def roi_align(count: int = 1024, channels: int = 256, cells: int = 64) -> Callable[[], Any]:
    """Forward and backward of RoIs of 6 to 24 cells a side, in 7 x 7 bins."""
    from mmcv.ops import roi_align

    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, channels, cells, cells, generator=generator, requires_grad=True)
    sides = torch.rand(count, 2, generator=generator) * 18 + 6
    corners = torch.rand(count, 2, generator=generator) * (cells - sides)
    image = torch.arange(count)[:, None] % 2
    rois = torch.cat([image, corners, corners + sides], 1)
    return lambda: roi_align(maps, rois, 7, 1.0, 0, 'avg', True).sum().backward()


def nms(count: int = 4000) -> Callable[[], Any]:
    """Boxes of a picture, at the threshold of region proposals."""
    from mmcv.ops import nms

    boxes, scores = _boxes(count)
    return lambda: nms(boxes, scores, 0.7)


def _boxes(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * 500
    sides = torch.rand(count, 2, generator=generator) * 100 + 10
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=generator)


def deform_conv(channels: int = 256, cells: int = 32) -> Callable[[], Any]:
    """Forward and backward of a 3 x 3 layer with a mask."""
    from mmcv.ops import ModulatedDeformConv2dPack

    torch.manual_seed(0)
    layer = ModulatedDeformConv2dPack(channels, channels, 3, padding=1)
    maps = torch.randn(2, channels, cells, cells, requires_grad=True)
    return lambda: layer(maps).sum().backward()


def student_step(
    config: Config, size: tuple[int, int], batch: int, boxes: int
) -> Callable[[], Any]:
    """Forward and backward of the student alone, with random weights."""
    torch.manual_seed(0)
    model = build_model(config).train()
    inputs, samples = random_batch(model, size, batch, boxes)

    def step() -> None:
        loss, _ = model.parse_losses(model(inputs, samples, mode='loss'))
        loss.backward()
        model.zero_grad()  # here, so that every step starts without gradients

    return step
