"""Probe tensors and tiny segmentors for the tests of segmentation methods."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from mmkd.analysis.benchmark import peak_bytes
from mmkd.objective import Objective
from mmkd.plan.probe import levels_at, probe
from mmkd.registry import MODELS
from mmkd.tap import Recorder, Trace


def probe_tensors() -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher (2, 3, 4, 4) in float64 and labels (2, 4, 4), made by rule."""
    i = torch.arange(96, dtype=torch.float64)
    student = ((7 * i) % 11 / 5 - 1).view(2, 3, 4, 4)
    teacher = ((5 * i + 3) % 13 / 6 - 1).view(2, 3, 4, 4)
    n, y, x = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing='ij')
    labels = (y + 2 * x + n) % 3
    labels[0, 0, 0] = labels[1, 3, 3] = 255
    return student, teacher, labels


class ToyHead(nn.Module):
    def __init__(self, width: int, num_classes: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.num_classes, self.out_channels = num_classes, out_channels or num_classes
        self.bottleneck = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(width, self.out_channels, 1)

    def forward(self, feats: tuple) -> Tensor:
        return self.conv_seg(self.dropout(self.bottleneck(feats[-1])))


class ToyMaskHead(nn.Module):
    """Classes and masks of queries, as the heads of MaskFormer and Mask2Former give them."""

    def __init__(self, width: int, num_classes: int, queries: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.query = nn.Parameter(torch.randn(queries, width))
        self.cls_embed = nn.Linear(width, num_classes + 1)
        self.mask_embed = nn.Linear(width, width)

    def forward(self, feats: tuple) -> tuple[list[Tensor], list[Tensor]]:
        looking = self.query + feats[-1].mean((2, 3))[:, None]
        masks = torch.einsum('nqc,nchw->nqhw', self.mask_embed(looking), feats[-1])
        return [self.cls_embed(looking)], [masks]


class ToyBackbone(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> tuple:
        return (self.conv(x),)


class ToySegmentor(nn.Module):
    align_corners = False

    def __init__(
        self,
        width: int = 4,
        num_classes: int = 3,
        out_channels: int | None = None,
        stride: int = 8,
        auxiliary: bool = False,
        queries: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = ToyBackbone(width, stride)
        self.decode_head = (
            ToyMaskHead(width, num_classes, queries)
            if queries
            else ToyHead(width, num_classes, out_channels)
        )
        if auxiliary:
            self.auxiliary_head = ToyHead(width, num_classes, out_channels)

    def extract_feat(self, inputs: Tensor) -> tuple:
        return self.backbone(inputs)

    def forward(self, inputs: Tensor, samples: list | None = None, mode: str = 'tensor') -> Tensor:
        feats = self.extract_feat(inputs)
        if mode == 'loss' and hasattr(self, 'auxiliary_head'):
            self.auxiliary_head(feats)
        return self.decode_head(feats)


def toy_for(name: str, width: int = 4, *args: Any, **options: Any) -> ToySegmentor:
    """Of a width, as many queries as that where the method is for networks that classify masks."""
    masks = 'segmentor' in MODELS.get(f'mmkd.{name}').only
    return ToySegmentor(width, *args, queries=width * masks, **options)


class ToyClassifier(nn.Module):
    """Class logits of images: ``head.fc``."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.backbone = ToyBackbone(4, 8)
        self.head = nn.Module()
        self.head.fc = nn.Linear(4, num_classes)

    def forward(self, inputs: Tensor, samples: list | None = None, mode: str = 'tensor') -> Tensor:
        return self.head.fc(self.backbone(inputs)[0].mean((2, 3)))


def samples_of(labels: Tensor) -> list[BaseDataElement]:
    """(N, H, W) -> data samples with ``gt_sem_seg``."""
    return [BaseDataElement(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def prepare(objective: Objective, student: nn.Module, teacher: nn.Module) -> Objective:
    """What the plan does at build."""
    objective.bind(student, teacher)
    sides = [
        levels_at(probe(model, taps), taps)
        for model, taps in ((student, objective.student_taps), (teacher, objective.teacher_taps))
    ]
    objective.setup(*sides)
    return objective


def make_step(
    objective: Objective,
    student: nn.Module,
    teacher: nn.Module,
    size: tuple[int, int] = (32, 48),
    labels: Tensor | None = None,
) -> Trace:
    """One training step of both networks on two random images."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, *size, generator=generator)
    if labels is None:
        labels = torch.randint(0, 3, (2, *size), generator=generator)
    with Recorder(student, objective.student_taps).record(inputs) as student_side:
        student(inputs, mode='loss')
    with torch.no_grad(), Recorder(teacher, objective.teacher_taps).record(inputs) as teacher_side:
        teacher.eval()(inputs)
    return Trace(inputs, samples_of(labels), student_side, teacher_side)


def crop_maps(n: int, channels: int) -> list[Tensor]:
    """Of two networks at stride 8 on crops of 512 x 1024: one matrix of all pairs takes 268 MB."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, 64, 128, generator=generator) for _ in range(2)]


def crop_labels(n: int = 2) -> Tensor:
    """Labels of these crops, of 150 classes."""
    return torch.arange(n * 512 * 1024).view(n, 512, 1024) % 150


def check_memory(loss: Callable[[Tensor, Tensor], Tensor], n: int, channels: int) -> None:
    """Loss and backward of these maps need less than 1 GB."""
    student, teacher = crop_maps(n, channels)
    student.requires_grad_()
    peak = peak_bytes(lambda: loss(student, teacher).backward())
    assert student.grad.any()
    assert peak < 1e9, f'{peak / 1e6:.0f} MB'
