"""Heads that classify masks, not pixels: MaskFormer and Mask2Former (mmseg, mmdet), SAN."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def classifies_masks(head: nn.Module) -> bool:
    """Whether ``forward()`` gives classes (N, Q, K + 1) and masks (N, Q, h, w) of queries."""
    if hasattr(head, 'side_adapter_network'):
        return True
    outputs = getattr(getattr(head, 'cls_embed', None), 'out_features', None)
    return hasattr(head, 'mask_embed') and outputs == getattr(head, 'num_classes', -1) + 1


def knows_things_alone(head: nn.Module) -> bool:
    """Whether it segments instances: no class is that of what lies between them."""
    return getattr(head, 'num_stuff_classes', None) == 0


def mask_layers(head: nn.Module, value: Any) -> list[tuple[Tensor, Tensor]]:
    """(classes, masks), (N, Q, K + 1) and (N, Q, h, w), of each decoder layer.

    What Mask2Former predicts from its queries alone, before the first layer, is left out.

    Args:
        value (Any): what ``forward()`` of the head gave.
    """
    parts = sorted(value, key=lambda part: part[-1].ndim)
    layers = [(x.float(), y.float()) for x, y in zip(*parts, strict=True)]
    count = getattr(head, 'num_transformer_decoder_layers', len(layers))
    return layers[-count:]


@contextlib.contextmanager
def words_left_out(model: nn.Module) -> Iterator[None]:
    """While only shapes matter, SAN's text encoder says numbers without reading its words.

    It takes minutes on a CPU, and keeps what it said on that device.
    """
    encoder = getattr(model, 'text_encoder', None)
    if not hasattr(encoder, 'text_projection'):
        yield
        return
    projection, background = encoder.text_projection, getattr(encoder, 'bg_embed', None)
    count = model.decode_head.num_classes + (background is None)
    words = torch.linspace(-1, 1, count * projection.shape[1]).view(count, -1).to(projection)

    def forward() -> Tensor:
        return words if background is None else torch.cat((words, background))

    encoder.__dict__['forward'] = forward
    try:
        yield
    finally:
        del encoder.__dict__['forward']
