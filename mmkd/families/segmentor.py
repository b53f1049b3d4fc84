"""Semantic segmentors (mmseg encoder-decoders): where the logits are, labels, valid pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def decode_head(model: nn.Module) -> tuple[nn.Module, str]:
    """The (last) decode head and its path."""
    head = model.decode_head
    if isinstance(head, nn.ModuleList):
        return head[-1], f'decode_head.{len(head) - 1}'
    return head, 'decode_head'


def logits_tap(model: nn.Module) -> str:
    """Address of the logits (N, K, h, w) before they are resized.

    Raises:
        ValueError: a head that has no per-pixel classifier.
    """
    head, path = decode_head(model)
    if not isinstance(getattr(head, 'conv_seg', None), nn.Module):
        raise ValueError(
            f'{type(head).__name__} has no conv_seg, so there are no per-pixel class logits to '
            'distil. Use a feature method on its backbone or neck, e.g. CWD with '
            "student='backbone[3]'."
        )
    return f'{path}.conv_seg'


def classes(model: nn.Module) -> int:
    """Channels K of the logits; 1 for a binary sigmoid head."""
    head = decode_head(model)[0]
    return int(getattr(head, 'out_channels', None) or head.num_classes)


def labels(samples: list) -> Tensor:
    """Ground truth of a batch, (N, H, W) long.

    Raises:
        ValueError: a sample without ``gt_sem_seg``.
    """
    if any('gt_sem_seg' not in sample for sample in samples):
        raise ValueError(
            'This objective needs segmentation labels, but the batch has samples without '
            'gt_sem_seg. Add LoadAnnotations and PackSegInputs to the training pipeline.'
        )
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples]).long()


def valid_pixels(samples: list, size: tuple[int, int], ignore_index: int = 255) -> Tensor:
    """(N, h, w) bool: labels, resized by nearest neighbour, that are not ``ignore_index``."""
    target = labels(samples)
    resized = F.interpolate(target[:, None].float(), size, mode='nearest')[:, 0]
    return resized.long() != ignore_index
