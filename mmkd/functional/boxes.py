"""Boxes of all images at once: IoU, selection, levels of a pyramid, RoI features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmkd.functional.device import members, sizes_of_groups


def iou_matrix(boxes: Tensor, anchors: Tensor, offset: float = 0.0) -> Tensor:
    """IoU of every box with every anchor, (G, 4) and (P, 4) -> (G, P).

    ``offset=1`` counts pixels inclusively, as the authors' code does.
    """
    low = torch.maximum(boxes[:, None, :2], anchors[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], anchors[None, :, 2:])
    inter = (high - low + offset).clamp_(min=0).prod(-1)
    area_b, area_a = ((x[:, 2:] - x[:, :2] + offset).prod(-1) for x in (boxes, anchors))
    return inter / (area_b[:, None] + area_a[None] - inter).clamp_(min=1e-9)


def select_boxes(
    scores: Tensor, boxes: Tensor, iou: float, count: int, before: int = 1000, min_side: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after class-agnostic NMS over all levels together.

    Args:
        scores, boxes (Tensor): (N, P) and (N, P, 4); boxes that are not finite or not larger than
            ``min_side`` both ways are left out.
        iou (float): IoU above which the box of lower score is removed.
        count (int): largest number of boxes kept of each image.
        before (int): largest number of boxes of each image before NMS.

    Returns:
        tuple: RoIs (Q, 5), image index and xyxy, best first; and their positions in P, (Q,).
    """
    from mmcv.ops import batched_nms

    good = boxes.isfinite().all(-1) & ((boxes[..., 2:] - boxes[..., :2]) > min_side).all(-1)
    scores = scores.masked_fill(~(good & scores.isfinite()), -1.0)
    top, places = scores.topk(min(before, scores.shape[1]), dim=1)
    images = torch.arange(len(scores), device=scores.device)[:, None].expand_as(places)
    top, places, images = (x.flatten() for x in (top, places, images))
    # Those left out go through NMS as points, which come last and take no box away.
    found = boxes[images, places].masked_fill((top < 0)[:, None], 0.0)
    if len(found):
        keep = batched_nms(found, top, images, dict(type='nms', iou_threshold=iou))[1]
        first = rank_in_group(images[keep], len(scores)) < count
        keep = keep[(first & (top[keep] >= 0)).nonzero()[:, 0]]
        found, places, images = found[keep], places[keep], images[keep]
    return torch.cat((images[:, None].to(found), found), 1), places


def best_apart(
    scores: Tensor, boxes: Tensor, iou: float, count: int, min_side: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The first boxes that class-agnostic NMS keeps of each image; waits for nothing.

    For a small ``count``: the best box that is left is taken, ``count`` times.

    Args:
        scores, boxes (Tensor): (N, P) and (N, P, 4); scores are not negative. Boxes that are not
            finite or not larger than ``min_side`` both ways are left out.
        iou (float): IoU above which the box of lower score is removed.
        count (int): largest number of boxes kept of each image.

    Returns:
        tuple: positions in P, (N, count), best first, and whether there was a box left, (N, count).
    """
    good = boxes.isfinite().all(-1) & ((boxes[..., 2:] - boxes[..., :2]) > min_side).all(-1)
    left = scores.masked_fill(~(good & scores.isfinite()), -1.0)
    boxes = boxes.masked_fill(~good[..., None], 0.0)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    found = []
    for _ in range(count):
        best, at = left.max(1, keepdim=True)
        own = boxes.gather(1, at[..., None].expand(-1, -1, 4))
        sides = torch.minimum(own[..., 2:], boxes[..., 2:]) - torch.maximum(
            own[..., :2], boxes[..., :2]
        )
        inter = sides.clamp(min=0).prod(-1)
        close = inter / (area + area.gather(1, at) - inter) > iou
        left = left.masked_fill(close, -1.0).scatter(1, at, -1.0)
        found.append((at, best >= 0))
    places, real = (torch.cat(x, 1) for x in zip(*found, strict=True))
    return places, real


def rank_in_group(groups: Tensor, count: int | None = None) -> Tensor:
    """Number of earlier entries of the same group, (R,) -> (R,).

    Args:
        count (int | None): number of groups; without it this synchronises with the device.
    """
    if not len(groups):
        return groups
    same = members(groups, 1 + int(groups.max()) if count is None else count)
    return same.cumsum(0).gather(1, groups.long()[:, None])[:, 0] - 1


def thin_out(groups: Tensor, quotas: Tensor) -> Tensor:
    """Keep ``quotas[g]`` entries of each group g, at even distances in its order; (R,) bool.

    Args:
        groups (Tensor): (R,) long.
        quotas (Tensor): (G,) long; a quota above a group's size keeps the whole group.
    """
    sizes = sizes_of_groups(groups, len(quotas))
    quota, size = torch.minimum(quotas, sizes)[groups], sizes[groups]
    rank = rank_in_group(groups, len(quotas))
    return rank * quota // size < (rank + 1) * quota // size


def box_levels(boxes: Tensor, strides: list[int]) -> Tensor:
    """Level of each box by the rule of FPN, (R, 4) -> (R,).

    A box of side 112 or more belongs to stride 8, of 224 to stride 16, and so on: 14 cells a side.
    For a pyramid that starts at stride 4 that is mmdet's ``finest_scale=56``.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    above = [side / 14 + 1e-5 >= stride for stride in strides[1:]]
    return sum((x.long() for x in above), torch.zeros_like(side, dtype=torch.long))


def by_level(rois: Tensor, strides: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """RoIs (R, 5) sorted by the level of :func:`box_levels`, finest first; synchronises once.

    Returns:
        tuple: the RoIs of each level, and the new position of each RoI, (R,).
    """
    level = box_levels(rois[:, 1:], sorted(strides))
    order = level.argsort(stable=True)
    return list(rois[order].split(sizes_of_groups(level, len(strides)).tolist())), order.argsort()


def by_level_and_image(
    rois: Tensor, real: Tensor, strides: Sequence[int], n: int
) -> tuple[Tensor, list[list[int]]]:
    """Order of the real ones among RoIs (R, 5) by level, finest first, then by image; waits once.

    Args:
        real (Tensor): (R,) bool.
        n (int): images.

    Returns:
        tuple: positions in R, and the number of RoIs of each image on each level.
    """
    group = box_levels(rois[:, 1:], sorted(strides)) * n + rois[:, 0].long()
    count = len(strides) * n
    group = group.masked_fill(~real, count)
    sizes = sizes_of_groups(group, count).tolist()
    order = group.argsort(stable=True)[: sum(sizes)]
    return order, [sizes[i : i + n] for i in range(0, count, n)]


def roi_features(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    rois: Tensor,
    size: int,
    sampling: int,
    adapter: Callable[[Tensor], Tensor] | None = None,
    placed: tuple[list[Tensor], Tensor] | None = None,
) -> Tensor:
    """RoI-aligned features of one network, (R, C, size, size) in the order of rois.

    Args:
        maps (Sequence[Tensor]): (N, C, H, W) each.
        rois (Tensor): (R, 5); features come from the level of :func:`box_levels`.
        sampling (int): sampling points per bin and direction, 0 for as many as cells.
        adapter (callable | None): applied to the maps with RoIs.
        placed (tuple | None): of :func:`by_level`, where it is known already.
    """
    levels = sorted(zip(strides, maps, strict=True), key=lambda level: level[0])
    parts, back = placed or by_level(rois, strides)
    found = []
    for i, ((stride, x), own) in enumerate(zip(levels, parts, strict=True)):
        if len(own) or adapter is None or (i == len(levels) - 1 and not found):
            x = x if adapter is None else adapter(x)
            found.append(_align(x, own, size, stride, sampling))
    return torch.cat(found)[back]


def aligned(
    levels: list[tuple[int, Tensor, Tensor]], rois: Tensor, size: int, sampling: int
) -> tuple[Tensor, Tensor]:
    """:func:`roi_features` of student and teacher.

    Args:
        levels (list): stride and maps of student and teacher, (N, C, H, W) each.
    """
    strides, student, teacher = zip(*levels, strict=True)
    placed = by_level(rois, strides)
    return (
        roi_features(student, strides, rois, size, sampling, None, placed),
        roi_features(teacher, strides, rois, size, sampling, None, placed),
    )


def _align(x: Tensor, rois: Tensor, size: int, stride: int, sampling: int) -> Tensor:
    from mmcv.ops import roi_align

    if not len(rois):  # no RoI, but the way back to the map
        return x[:0, :, :1, :1].expand(-1, -1, size, size)
    return roi_align(x, rois, size, 1 / stride, sampling, 'avg', True)
