"""Toy networks of a few hundred parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import Tensor, nn

from mmkd.registry import MODELS


@MODELS.register_module()
class ToyNet(BaseModel):
    """Backbone, two-level neck and class logits in a few hundred parameters.

    Args:
        width (int): channels of the neck.
        num_classes (int): outputs of ``head.fc``.
        norm (str): ``'BN'``, ``'GN'`` or ``'none'``.
        dropout (float): of the head.
        inplace (bool): the neck's activations overwrite the outputs of its convolutions.
        data_preprocessor (dict | None): arguments of mmengine's ImgDataPreprocessor.
    """

    def __init__(
        self,
        width: int = 4,
        num_classes: int = 3,
        norm: str = 'none',
        dropout: float = 0.0,
        inplace: bool = False,
        data_preprocessor: dict | None = None,
    ) -> None:
        own = dict(mean=[0.0] * 3, std=[1.0] * 3) | dict(data_preprocessor or {})
        own.pop('type', None)
        super().__init__(data_preprocessor=ImgDataPreprocessor(**own))
        norms = dict(BN=nn.BatchNorm2d, GN=lambda c: nn.GroupNorm(2, c), none=nn.Identity)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=8, padding=1), norms[norm](width), nn.ReLU()
        )
        self.neck = ToyNeck(width, inplace)
        self.head = ToyHead(width, num_classes, dropout)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.neck(self.backbone(inputs))

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Any:
        logits = self.head(self.extract_feat(inputs))
        if mode == 'loss':
            target = torch.stack([_label_of(s) for s in data_samples or []])
            return dict(loss_cls=nn.functional.cross_entropy(logits, target))
        return logits if mode == 'tensor' else list(logits)


class ToyNeck(nn.Module):
    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.ReLU(inplace=inplace)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(self.conv(x))
        return x, self.down(x)


class ToyHead(nn.Module):
    """Called once a level inside, so ``head.shared`` fires twice."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.shared = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, feats: Iterable[Tensor]) -> Tensor:
        pooled = torch.stack([self.shared(f).mean((2, 3)) for f in feats]).sum(0)
        return self.fc(self.dropout(pooled))


def _label_of(sample: Any) -> Tensor:
    return sample.gt_label.squeeze() if 'gt_label' in sample else torch.tensor(0)
