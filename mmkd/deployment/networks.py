"""What of a student goes into a file, from pixels to what its head gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families.comparable import has_anchor_targets, uses_sigmoid
from mmkd.families.segmentor import gives_logits
from mmkd.models import Classifier
from mmkd.pixels import Pixels as Source

#: what may be exported
PARTS = ('whole', 'body')


class Deployed(nn.Module):
    """A student with its normalisation: takes pixels (N, C, H, W) from 0 to 255."""

    names: tuple[str, ...] = ('logits',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval()
        self.channels = Source.of(model).channels

    def normalised(self, pixels: Tensor) -> Tensor:
        """As the data preprocessor does it; resizing and the order of channels are the caller's."""
        preprocessor = self.model.data_preprocessor
        if not self._normalises():
            return pixels
        return (pixels - preprocessor.mean) / preprocessor.std

    def pixels(self, images: Tensor) -> Tensor:
        """What :meth:`normalised` makes these images of."""
        preprocessor = self.model.data_preprocessor
        if not self._normalises():
            return images
        mean, std = (x.to(images.device) for x in (preprocessor.mean, preprocessor.std))
        return images * std + mean

    def _normalises(self) -> bool:
        preprocessor = self.model.data_preprocessor
        return getattr(preprocessor, '_enable_normalize', hasattr(preprocessor, 'mean'))


class Classes(Deployed):
    """For classifiers."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.model(self.normalised(pixels))


class Pixels(Deployed):
    """For segmentors that predict logits of pixels."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        images = self.normalised(pixels)
        return self.model.encode_decode(images, [dict(img_shape=images.shape[2:])])


class Anchors(Deployed):
    """For heads that move anchors by deltas, with sigmoid scores: RetinaNet and its kind."""

    names = ('boxes', 'scores')

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, anchors, 4) in pixels and scores (N, anchors, K), before NMS."""
        images, head = self.normalised(pixels), self.model.bbox_head
        logits, deltas = head(self.model.extract_feat(images))[:2]
        sizes = [tuple(x.shape[2:]) for x in logits]
        anchors = torch.cat(head.prior_generator.grid_priors(sizes, device=images.device))
        anchors = anchors.repeat(len(images), 1)
        moved = _rows(deltas, 4).flatten(0, 1)
        boxes = head.bbox_coder.decode(anchors, moved, max_shape=tuple(images.shape[2:]))
        return boxes.view(len(images), -1, 4), _rows(logits, head.cls_out_channels).sigmoid()


class Body(Deployed):
    """Backbone and neck of any student, and the maps of its RPN."""

    names = ()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, then class and box maps of an RPN."""
        maps = tuple(self.model.extract_feat(self.normalised(pixels)))
        rpn = getattr(self.model, 'rpn_head', None)
        return maps if rpn is None else (*maps, *(x for level in rpn(maps) for x in level))


def _rows(maps: list[Tensor], width: int) -> Tensor:
    """Maps (N, A * width, H, W) of all levels as (N, all anchors, width)."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, width) for x in maps], 1)


def deployed(model: nn.Module, part: str = 'whole') -> Deployed:
    """A student as it goes into a file.

    Args:
        part (str): ``'whole'``, or ``'body'``: backbone, neck and RPN alone.

    Raises:
        ValueError: a network whose predictions are not one pass of tensors.
    """
    if part == 'body' and hasattr(model, 'extract_feat'):
        return Body(model)
    if isinstance(model, Classifier):
        return Classes(model)
    head = getattr(model, 'decode_head', None)
    if isinstance(head, nn.Module) and gives_logits(head):
        return Pixels(model)
    coder = type(getattr(getattr(model, 'bbox_head', None), 'bbox_coder', None)).__name__
    by_deltas = coder == 'DeltaXYWHBBoxCoder' and has_anchor_targets(model)
    if by_deltas and uses_sigmoid(model.bbox_head):
        return Anchors(model)
    raise ValueError(
        f'{type(model).__name__}: export writes classifiers, segmentors with logits of pixels and '
        'detectors with anchors and sigmoid scores, and this is none of them. Take --part body, '
        'which writes backbone, neck and RPN, or MMDeploy (docs/deployment.md).'
    )
