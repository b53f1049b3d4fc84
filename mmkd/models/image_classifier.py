"""An image classifier around any backbone: the place where backbones are pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families.classifier import labels
from mmkd.options import check_number
from mmkd.pixels import Pixels
from mmkd.registry import MODELS
from mmkd.structures import ClassSample
from mmkd.untouched import evaluation, untouched_random_state

PROBE_SIZE = 64
OWN_PREPROCESSOR = 'mmkd.ClassificationDataPreprocessor'


@MODELS.register_module()
class Classifier(BaseModel):
    """Backbone, global average pooling, a linear layer, cross entropy.

    The last map of the backbone is pooled (tap ``pool``, the embedding) and judged (tap
    ``head.fc``, the logits). Parameters are called ``backbone.*`` and ``head.fc.*``, as in
    mmpretrain, whose checkpoints load; ``init_cfg=dict(type='Pretrained', checkpoint=…,
    prefix='backbone.')`` takes the backbone into a detector or segmentor.

    Args:
        backbone (dict): any registered backbone, such as ``dict(type='mmdet.ResNet', depth=18)``;
            its width is found by a probe.
        num_classes (int): outputs of ``head.fc``.
        label_smoothing (float): share of the target that all classes get alike (Szegedy et al.
            2016); 0 for plain cross entropy.
        projector (dict | None): a module between backbone and pooling with ``out_channels``, such
            as ``dict(type='mmkd.BottleneckProjector', out_channels=256)``; told ``in_channels``.
        data_preprocessor (dict | None): of type ``mmkd.ClassificationDataPreprocessor`` if it
            names none.
        init_cfg (dict | None): as everywhere in mmengine.

    Raises:
        ValueError: fewer than one class; smoothing outside [0, 1); a backbone whose last output
            is no map (N, C, H, W).
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        label_smoothing: float = 0.0,
        projector: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        num_classes = check_number('Classifier', 'num_classes', num_classes, 1, whole=True)
        check_number('Classifier', 'label_smoothing', label_smoothing, 0, below=1)
        preprocessor = dict(type=OWN_PREPROCESSOR) | (data_preprocessor or {})
        if preprocessor['type'] == OWN_PREPROCESSOR:
            preprocessor.setdefault('num_classes', num_classes)
        super().__init__(data_preprocessor=preprocessor, init_cfg=init_cfg)
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.backbone = MODELS.build(backbone)
        if getattr(self.backbone, 'norm_eval', False):
            print_log(
                f'Classifier: the {type(self.backbone).__name__} has norm_eval=True, so its '
                'BatchNorms learn no statistics; set norm_eval=False to train it from scratch.',
                logger='current',
                level=WARNING,
            )
        self.pool = GlobalAveragePool()
        width = _width(self.backbone, Pixels.of(self).channels)
        self.projector = None
        if projector is not None:
            self.projector = MODELS.build(dict(projector, in_channels=width))
            width = self.projector.out_channels
        self.head = LinearHead(width, num_classes)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The maps of the backbone, (N, C, H, W) each."""
        maps = self.backbone(inputs)
        return tuple(maps) if isinstance(maps, Sequence) else (maps,)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Any:
        """mmengine's three modes: logits (N, K), a mapping of losses, or samples with scores."""
        last = self.extract_feat(inputs)[-1]
        embedding = self.pool(last if self.projector is None else self.projector(last))
        logits = self.head(embedding)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            samples = data_samples or [ClassSample() for _ in logits]
            rows = (logits.float().softmax(1), logits.float(), embedding.float())
            return [
                sample.set_prediction(*row) for sample, *row in zip(samples, *rows, strict=True)
            ]
        if mode == 'loss':
            return {'loss_cls': self._loss(logits, data_samples or [])}
        raise ValueError(f"Classifier: mode must be 'tensor', 'predict' or 'loss', found {mode!r}.")

    def _loss(self, logits: Tensor, samples: list) -> Tensor:
        target = soft_or_hard_target(samples, self.num_classes, logits.device)
        return F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)


def soft_or_hard_target(samples: list, num_classes: int, device: torch.device) -> Tensor:
    """(N,) class indices, or of a batch of mixtures (N, K) shares, as cross entropy takes them.

    Raises:
        ValueError: a sample without ``gt_label``.
    """
    target = labels(samples, device)
    if not any('gt_score' in sample for sample in samples):
        return target
    shares = F.one_hot(target, num_classes).float()
    for row, sample in zip(shares, samples, strict=True):
        if 'gt_score' in sample:
            row.copy_(sample.gt_score)
    return shares


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C), a module of its own so that the embedding has an address."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class LinearHead(BaseModule):
    """(N, D) -> logits (N, K) by ``fc``."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(init_cfg=dict(type='Normal', layer='Linear', std=0.01))
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@torch.no_grad()
def _width(backbone: nn.Module, channels: int) -> int:
    """Channels of the backbone's last map, found by showing it an image of so many."""
    image = torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE)
    with untouched_random_state(), evaluation(backbone):
        maps = backbone(image)
    last = maps[-1] if isinstance(maps, Sequence) else maps
    if not isinstance(last, Tensor) or last.dim() != 4:
        found = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise ValueError(
            f'Classifier pools a map (N, C, H, W), but the last output of '
            f'{type(backbone).__name__} is {found}.'
        )
    return last.shape[1]
