"""Two-stage detectors: the first box head and its regions of interest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def first_stage(model: nn.Module, part: str) -> tuple[nn.Module, str]:
    """``roi_head.<part>`` and its path; of a cascade the first stage."""
    module = getattr(model.roi_head, part)
    if isinstance(module, nn.ModuleList):
        return module[0], f'roi_head.{part}.0'
    return module, f'roi_head.{part}'


def box_head(model: nn.Module) -> nn.Module:
    """The (first) box head."""
    return first_stage(model, 'bbox_head')[0]


def rois_tap(model: nn.Module) -> str:
    """Address of the RoIs (R, 5) that the model's box head sees in this step."""
    return first_stage(model, 'bbox_roi_extractor')[1] + '@in[1]'


def box_head_tap(model: nn.Module) -> str:
    """Address of the box head's output: class scores (R, K + 1), then box deltas."""
    return first_stage(model, 'bbox_head')[1]


@torch.no_grad()
def roi_outputs(model: nn.Module, feats: list[Tensor], rois: Tensor) -> tuple[Any, Any]:
    """What a frozen model's (first) box head says of given RoIs.

    Args:
        feats (list[Tensor]): its neck's output, (N, C, H_l, W_l) each.
        rois (Tensor): (R, 5), image index and xyxy in pixels of the padded input.

    Returns:
        tuple: class scores (R, K + 1) in float32, background last, and box deltas.
    """
    extractor = first_stage(model, 'bbox_roi_extractor')[0]
    head = box_head(model)
    dtype = next(head.parameters()).dtype
    # RoIAlign has no low-precision CPU kernel, and its coordinates deserve float32 anyway.
    pooled = extractor(tuple(f.float() for f in feats[: extractor.num_inputs]), rois.float())
    if getattr(model.roi_head, 'with_shared_head', False):
        pooled = model.roi_head.shared_head(pooled.to(dtype))
    scores, deltas = head(pooled.to(dtype))[:2]
    return scores.float(), deltas.float() if deltas is not None else None
