"""Tiny pyramids for the tests of detection methods that look at features only."""

import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.schedule import Progress
from mmkd.tap import Side, Trace

PARTS = {
    'two_stage': 'roi_head',
    'dense': 'bbox_head',
    'segmentor': 'decode_head',
}


def toy(family: str = 'two_stage', neck: bool = True) -> nn.Module:
    """A module that has just the parts by which a family is told."""
    model = nn.Module()
    model.backbone = nn.Identity()
    if neck:
        model.neck = nn.Identity()
    if family == 'classifier':
        model.head = nn.Module()
        model.head.fc = nn.Identity()
    else:
        setattr(model, PARTS[family], nn.Module())
    return model


def levels(widths: list[int], tap: str = 'neck', first: int = 4) -> list[Level]:
    """What a probe with 64 x 64 pixels would see at strides 4, 8, …"""
    strides = [first * 2**k for k in range(len(widths))]
    return [Level((c, 64 // s, 64 // s), s, tap) for c, s in zip(widths, strides, strict=True)]


def prepare(
    objective: Objective,
    student: list[int],
    teacher: list[int] | None = None,
    family: str = 'two_stage',
    model: nn.Module | None = None,
) -> Objective:
    """Bind to toys and set up for levels of these widths."""
    objective.bind(model or toy(family), toy(family))
    objective.setup(levels(student), levels(teacher or student))
    return objective


def trace_of(
    objective: Objective,
    student: list[Tensor],
    teacher: list[Tensor],
    boxes: list | None = None,
    size: tuple[int, int] = (64, 64),
    iteration: int = 0,
    shapes: list[tuple[int, int]] | None = None,
) -> Trace:
    """A step in which both networks showed these maps."""
    n = len(student[0])
    inputs = torch.zeros(n, 3, *size)
    samples = []
    for k, box in enumerate(boxes or [[]] * n):
        instances = InstanceData(
            bboxes=torch.tensor(box, dtype=torch.float32).view(-1, 4),
            labels=torch.zeros(len(box), dtype=torch.long),
        )
        shape = shapes[k] if shapes else size
        samples.append(BaseDataElement(gt_instances=instances, metainfo=dict(img_shape=shape)))
    sides = [
        Side(nn.Identity(), inputs, {tap.source: [tuple(maps)] for tap in taps})
        for maps, taps in ((student, objective.student_taps), (teacher, objective.teacher_taps))
    ]
    return Trace(inputs, samples, *sides, Progress(iteration, 100))


def random_maps(
    n: int, widths: list[int], size: int = 64, seed: int = 0, grad: bool = False
) -> list[Tensor]:
    """(n, C, size / 4, size / 4), then half as large, and so on."""
    generator = torch.Generator().manual_seed(seed)
    sides = [size // (4 * 2**k) for k in range(len(widths))]
    maps = [
        torch.randn(n, c, s, s, generator=generator) for c, s in zip(widths, sides, strict=True)
    ]
    return [m.requires_grad_(grad) for m in maps]


def slow_non_local(block: nn.Module, x: Tensor) -> Tensor:
    """A non-local block with the affinity between every place and every pooled place, in float64."""
    theta, phi, g = (
        F.conv2d(x, w, b)
        for w, b in zip(block.project.weight.chunk(3), block.project.bias.chunk(3), strict=True)
    )
    phi, g = (F.max_pool2d(y, block.pool).flatten(2) for y in (phi, g))
    affinity = theta.flatten(2).transpose(1, 2) @ phi / phi.shape[2]
    y = (affinity @ g.transpose(1, 2)).transpose(1, 2).reshape_as(theta)
    y = F.conv2d(y, block.out.weight)
    y = (y - y.mean((0, 2, 3), True)) / (y.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    return x + y * block.norm.weight.view(-1, 1, 1) + block.norm.bias.view(-1, 1, 1)
