"""Choose boxes, and say on which level of a pyramid they belong; all images at once."""

from __future__ import annotations

import torch
from torch import Tensor


def select_boxes(
    scores: Tensor, boxes: Tensor, iou: float, count: int, before: int = 1000, min_side: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after class-agnostic NMS over all levels together.

    Args:
        scores, boxes (Tensor): (N, P) and (N, P, 4); boxes that are not finite or not larger than
            ``min_side`` both ways are left out.
        iou (float): overlap above which the lesser box goes.
        count (int): at most so many stay of each image.
        before (int): at most so many of each image enter NMS.

    Returns:
        tuple: RoIs (Q, 5), image index and xyxy, best first; and their positions in P, (Q,).
    """
    from mmcv.ops import batched_nms

    good = boxes.isfinite().all(-1) & ((boxes[..., 2:] - boxes[..., :2]) > min_side).all(-1)
    scores = scores.masked_fill(~(good & scores.isfinite()), -1.0)
    top, places = scores.topk(min(before, scores.shape[1]), dim=1)
    images = torch.arange(len(scores), device=scores.device)[:, None].expand_as(places)
    valid = top >= 0
    top, places, images = top[valid], places[valid], images[valid]
    found = boxes[images, places]
    if len(found):
        keep = batched_nms(found, top, images, dict(type='nms', iou_threshold=iou))[1]
        keep = keep[rank_in_group(images[keep]) < count]
        found, places, images = found[keep], places[keep], images[keep]
    return torch.cat((images[:, None].to(found), found), 1), places


def rank_in_group(groups: Tensor) -> Tensor:
    """Number of earlier entries of the same group, (R,) -> (R,)."""
    if not len(groups):
        return groups
    same = torch.nn.functional.one_hot(groups.long())
    return same.cumsum(0).gather(1, groups.long()[:, None])[:, 0] - 1


def spread(groups: Tensor, quotas: Tensor) -> Tensor:
    """Keep ``quotas[g]`` entries of each group g, evenly spread over its order; (R,) bool.

    Args:
        groups (Tensor): (R,) long.
        quotas (Tensor): (G,) long; more than a group has keeps all of it.
    """
    sizes = torch.bincount(groups, minlength=len(quotas))
    quota, size = torch.minimum(quotas, sizes)[groups], sizes[groups]
    rank = rank_in_group(groups)
    return rank * quota // size < (rank + 1) * quota // size


def box_levels(boxes: Tensor, strides: list[int]) -> Tensor:
    """Level of each box by the rule of FPN, (R, 4) -> (R,).

    A box of side 112 or more belongs to stride 8, of 224 to stride 16, and so on: 14 cells a side.
    For a pyramid that starts at stride 4 that is mmdet's ``finest_scale=56``.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    above = torch.tensor(strides[1:], device=boxes.device, dtype=boxes.dtype)
    return (side[:, None] / 14 + 1e-5 >= above).sum(1)
