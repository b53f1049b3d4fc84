"""Dense detection heads (RPN, RetinaNet, FCOS, ATSS, GFL, YOLO …): priors, boxes, assignment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import log2
from typing import Any
from weakref import WeakKeyDictionary

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmkd.tap import Trace

_PRIORS: WeakKeyDictionary[Any, OrderedDict] = WeakKeyDictionary()
_MOST_SIZES = 64


def dense_head(model: nn.Module) -> nn.Module | None:
    """The head with priors on the pyramid: ``rpn_head`` or ``bbox_head``."""
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if head is not None:
            return head
    return None


def anchor_generator(model: nn.Module) -> Any:
    """The anchor generator of the dense head, None for heads without anchors."""
    generator = getattr(dense_head(model), 'prior_generator', None)
    return generator if hasattr(generator, 'base_anchors') else None


def anchor_strides(model: nn.Module) -> list[float] | None:
    """Horizontal stride of each level of the anchor generator, None for heads without anchors."""
    generator = anchor_generator(model)
    return None if generator is None else [stride[0] for stride in generator.strides]


def nearest_levels(own: list[float], strides: list[int]) -> list[int] | None:
    """For maps of these strides, the nearest level of anchors; None where there is none.

    Heads state strides of their own, 7.97 of YOLACT, and a picture whose side is no multiple of
    the stride shows another, 30 for SSD's 32. So it is the nearest one, less than half an octave
    away.
    """
    if not all(strides):
        return None
    apart = [[abs(log2(level / stride)) for level in own] for stride in strides]
    found = [row.index(min(row)) for row in apart]
    unique = len(set(found)) == len(set(strides))
    return found if unique and all(min(row) < 0.5 for row in apart) else None


def anchors(
    model: nn.Module, sizes: list[tuple[int, int]], strides: list[int], device: torch.device
) -> list[Tensor]:
    """Anchors of each level, (H * W, A, 4) as xyxy in pixels of the padded input.

    Heads without anchors get one square of side ``8 * stride`` per cell.
    """
    own, generator = anchor_strides(model), anchor_generator(model)
    if own is None:
        return [square_anchors(s, stride, device) for s, stride in zip(sizes, strides, strict=True)]
    levels, places = [], nearest_levels(own, strides)
    assert places is not None, f'no anchors at {strides}'
    for size, index in zip(sizes, places, strict=True):
        flat = level_priors(generator, size, index, device)
        levels.append(flat.view(size[0] * size[1], -1, 4))
    return levels


def level_priors(generator: Any, size: tuple[int, int], level: int, device: torch.device) -> Tensor:
    """Anchors (H * W * A, 4) or points (H * W, 2) of one level; not to be written to.

    They depend on the size of the map alone. mmdet makes them anew from base anchors that it
    uploads each time, which synchronises with the device.
    """
    known = _PRIORS.setdefault(generator, OrderedDict())
    key = (*size, level, device)
    if key not in known:
        known[key] = generator.single_level_grid_priors(tuple(size), level, device=device)
        if len(known) > _MOST_SIZES:
            known.popitem(last=False)
    return known[key]


def cached_priors() -> Iterator[Tensor]:
    """All that :func:`level_priors` keeps."""
    for known in _PRIORS.values():
        yield from known.values()


def square_anchors(size: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """(H * W, 1, 4): squares of side ``8 * stride`` around the middle of each cell."""
    y, x = (torch.arange(n, device=device).float().add(0.5) * stride for n in size)
    y, x = (grid.reshape(-1) for grid in torch.meshgrid(y, x, indexing='ij'))
    half = 4.0 * stride
    return torch.stack((x - half, y - half, x + half, y + half), dim=-1)[:, None]


def ground_truth(samples: list, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (G, 4), labels (G,) and image indices (G,) of a batch; degenerate boxes are dropped.

    Crowd regions are in ``ignored_instances`` and not among them.
    """
    found = [sample.gt_instances for sample in samples]
    every = [getattr(one.bboxes, 'tensor', one.bboxes).to(device).float() for one in found]
    boxes, labels = torch.cat(every), torch.cat([one.labels.to(device) for one in found])
    images = torch.cat([labels.new_full((len(x),), i) for i, x in enumerate(every)])
    keep = (boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1)
    where = keep.nonzero()[:, 0]
    return boxes[where], labels[where], images[where]


def ground_truth_rois(samples: list, device: torch.device) -> Tensor:
    """:func:`ground_truth` as RoIs (G, 5): image index and xyxy."""
    boxes, _, images = ground_truth(samples, device)
    return torch.cat((images[:, None].to(boxes), boxes), 1)


def assigned_levels(
    model: nn.Module, levels: list[Tensor], boxes: Tensor, labels: Tensor
) -> Tensor:
    """(G, L) bool: has the head's assigner a positive anchor for this box on this level?

    Args:
        levels (list[Tensor]): anchors, (H * W, A, 4) each.
        boxes, labels (Tensor): ground truth of one image, (G, 4) and (G,).
    """
    flat = [level.reshape(-1, 4) for level in levels]
    counts = [len(level) for level in flat]
    found = assigned(model, torch.cat(flat), counts, boxes, labels).split(counts)
    result = torch.zeros(len(boxes), len(levels), dtype=torch.bool, device=boxes.device)
    for index, part in enumerate(found):
        result[part[part > 0] - 1, index] = True
    return result


def assigned(
    model: nn.Module, priors: Tensor, counts: list[int], boxes: Tensor, labels: Tensor | None = None
) -> Tensor:
    """(P,) long: one plus the index of the box that the head's assigner assigns to each anchor.

    0 is background and -1 to be ignored.

    Args:
        priors (Tensor): anchors of all levels, (P, 4).
        counts (list[int]): anchors of each level.
        boxes, labels (Tensor): ground truth of one image, (G, 4) and (G,).
    """
    assigner = dense_head(model).assigner
    labels = boxes.new_zeros(len(boxes), dtype=torch.long) if labels is None else labels
    args = [InstanceData(priors=priors), InstanceData(bboxes=boxes, labels=labels)]
    if type(assigner).__name__ == 'ATSSAssigner':
        args.insert(1, counts)
    return assigner.assign(*args).gt_inds


def outputs_tap(model: nn.Module) -> str:
    """Address of the dense head's output in this step: all levels of each part, as one list.

    The method and not the module, since mmdet enters heads both ways.
    """
    name = 'bbox_head' if getattr(model, 'rpn_head', None) is None else 'rpn_head'
    return f'{name}.forward()'


def targets_tap(model: nn.Module) -> str:
    """Address of the dense head's targets in this step."""
    return outputs_tap(model).replace('forward()', 'get_targets()')


def targets(trace: Trace) -> tuple:
    """Return value of ``get_targets()`` of the student's dense head in this step."""
    return trace.student.raw(targets_tap(trace.student.model))[0]
