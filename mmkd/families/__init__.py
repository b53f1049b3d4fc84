"""What differs between model families, as plain functions."""

from __future__ import annotations

from torch import nn

FAMILIES = ('two_stage', 'dense', 'detr', 'segmentor', 'classifier')


def family_of(model: nn.Module) -> str:
    """``'two_stage'``, ``'dense'``, ``'detr'``, ``'segmentor'``, ``'classifier'`` or ``'other'``.

    Decided by the parts that a model has, so subclasses and forks need no entry anywhere.
    """
    if getattr(model, 'roi_head', None) is not None:
        return 'two_stage'
    if getattr(model, 'decode_head', None) is not None:
        return 'segmentor'
    if getattr(model, 'bbox_head', None) is not None:
        return 'detr' if hasattr(model, 'decoder') else 'dense'
    if hasattr(getattr(model, 'head', None), 'fc'):
        return 'classifier'
    return 'other'
