"""What the assigner of a dense head decided in this step, one row for each prior."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmkd.families.comparable import Misfit, definer, kind_of, named
from mmkd.families.dense import dense_head, level_priors, outputs_tap
from mmkd.functional.gather import mean_over_ranks
from mmkd.tap import Trace

#: classes that define a head's targets, and those whose loss learns from them
_LOSSES = {
    'AnchorHead': ('AnchorHead',),
    'ATSSHead': ('ATSSHead',),
    'GFLHead': ('GFLHead',),
    'PAAHead': ('PAAHead',),
    'FCOSHead': ('FCOSHead',),
    'VFNetHead': ('VFNetHead',),
    'TOODHead': ('TOODHead',),
    'RTMDetHead': ('RTMDetHead', 'RTMDetInsHead'),
    'YOLOXHead': ('YOLOXHead',),
}
#: of them, those that return labels, weights and boxes of each level, (N, P_l), from this place on
_BY_LEVEL = {'AnchorHead': 0, 'ATSSHead': 1, 'GFLHead': 1, 'TOODHead': 1, 'RTMDetHead': 1}


class Assignment(NamedTuple):
    """Objects and what is ignored.

    Attributes:
        positive (Tensor): (N, P) bool, priors that belong to an object.
        weights (Tensor): (N, P), label weights; 0 for priors that are ignored or beside the image.
    """

    positive: Tensor
    weights: Tensor

    def positives(self) -> Tensor:
        """Number of positives of this rank's batch, at least one of each image."""
        return self.positive.sum(1).clamp(min=1).sum().float()

    def normaliser(self) -> Tensor:
        """:meth:`positives` as a mean over ranks."""
        return mean_over_ranks(self.positives())


def assigner_kind(model: nn.Module) -> str | None:
    """Name of the class whose targets a dense head learns from; None for unknown ones."""
    head = dense_head(model)
    kind = kind_of(model)
    own = definer(head, '_get_targets_single' if kind == 'yolox' else 'get_targets')
    known = kind is not None and definer(head, 'loss_by_feat') in _LOSSES.get(own, ())
    return own if known else None


def check_assignment(owner: str, student: nn.Module) -> None:
    """Refuse a student whose targets are unknown, by Misfit."""
    if assigner_kind(student) is None:
        raise Misfit(
            f'{owner} reads which priors the assigner made positive, but does not know the targets '
            f'of the student {named(student)}.'
        )


def assignment_taps(model: nn.Module) -> list[str]:
    """Addresses that :func:`assignment` and :func:`target_boxes` read."""
    head, kind = outputs_tap(model).removesuffix('.forward()'), assigner_kind(model)
    if kind == 'YOLOXHead':
        return [f'{head}._get_targets_single()']
    again = [f'{head}.paa_reassign()'] if kind == 'PAAHead' else []  # which has the last word
    return [f'{head}.get_targets()', *again]


def _raw(trace: Trace) -> list:
    """What the methods of :func:`assignment_taps` returned, call by call."""
    model = trace.student.model
    return [call for tap in assignment_taps(model) for call in trace.student.raw(tap)]


@torch.no_grad()
def assignment(trace: Trace) -> Assignment:
    """Targets of the student's assigner in this step."""
    model, n = trace.student.model, len(trace.inputs)
    head, kind, calls = dense_head(model), assigner_kind(model), _raw(trace)
    if kind == 'YOLOXHead':  # one call for each image, whose mask comes first
        positive = torch.stack([call[0] for call in calls])
        return Assignment(positive, torch.ones_like(positive, dtype=torch.float32))
    if kind == 'PAAHead':  # after the first call one for each image
        labels, weights = (torch.stack([call[i] for call in calls[1:]]) for i in (0, 1))
    elif kind in _BY_LEVEL:
        labels, weights = (torch.cat(calls[0][_BY_LEVEL[kind] + i], 1) for i in (0, 1))
    else:  # FCOS, VFNet: all images of a level, level by level
        labels = _levels_first(calls[0][0], n)
        given = calls[0][1] if kind == 'VFNetHead' else None
        lengths = [len(level) for level in calls[0][0]]
        weights = torch.ones_like(labels, dtype=torch.float32)
        weights = weights if given is None else _levels_first(given.split(lengths), n)
    return Assignment((labels >= 0) & (labels < head.num_classes), weights)


def _levels_first(levels: list[Tensor] | tuple[Tensor, ...], n: int) -> Tensor:
    """Levels of N * P_l rows as (N, P, ...)."""
    return torch.cat([level.unflatten(0, (n, -1)) for level in levels], 1)


@torch.no_grad()
def target_boxes(trace: Trace, sizes: dict[int, tuple[int, int]]) -> Tensor:
    """Ground truth of each positive prior, (N, P, 4) as xyxy in pixels; other rows mean nothing.

    Args:
        sizes (dict[int, tuple[int, int]]): (H, W) of each level.
    """
    model, n = trace.student.model, len(trace.inputs)
    head, kind, calls = dense_head(model), assigner_kind(model), _raw(trace)
    if kind == 'YOLOXHead':  # boxes of positives alone, in their order
        masks, found = zip(*((call[0], call[3]) for call in calls), strict=True)
        mask = torch.stack(masks)[..., None].expand(-1, -1, 4)
        return torch.cat(found).new_zeros(mask.shape).masked_scatter(mask, torch.cat(found))
    generator = head.prior_generator
    device = trace.inputs.device
    levels = [level_priors(generator, size, i, device) for i, size in sizes.items()]
    if kind in ('FCOSHead', 'VFNetHead'):
        strides = zip(calls[0][2 if kind == 'VFNetHead' else 1], generator.strides, strict=True)
        by_stride = getattr(head, 'norm_on_bbox', False)
        edges = _levels_first([e * s[0] if by_stride else e for e, s in strides], n)
        points = torch.cat(levels)
        return torch.cat((points - edges[..., :2], points + edges[..., 2:]), -1)
    if kind == 'PAAHead':
        boxes = torch.stack(calls[0][2])
    else:
        boxes = torch.cat(calls[0][_BY_LEVEL[str(kind)] + 2], 1)
    if head.reg_decoded_bbox or kind in ('GFLHead', 'RTMDetHead'):
        return boxes
    flat = torch.cat(levels).repeat(n, 1)
    return head.bbox_coder.decode(flat, boxes.reshape(-1, 4)).view_as(boxes)
