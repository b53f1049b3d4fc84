"""Queries that classify masks, of two networks: what they mean, and what they say at points."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import queries, segmentor
from mmkd.families.comparable import Misfit, check_same, listed
from mmkd.families.mask_classes import classifies_masks, knows_things_alone, mask_layers
from mmkd.functional.device import upload
from mmkd.functional.mask_scores import MaskScores
from mmkd.scales import full_size
from mmkd.tap import Trace

#: logits of classes (..., Q, K + 1), "no object" last, and of masks at P points (..., Q, P)
Answers = tuple[Tensor, Tensor]


def masks_of(model: nn.Module) -> str:
    """What a mask stands for: ``'classes'``, ``'objects'`` or ``'objects and stuff'``."""
    head = segmentor.decode_head(model)[0]
    if not hasattr(model, 'panoptic_head') or not head.num_things_classes:
        return 'classes'
    return 'objects' if knows_things_alone(head) else 'objects and stuff'


def check_mask_queries(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both must classify masks, which stand for the same.

    Raises:
        Misfit: a head that classifies pixels; masks of objects beside masks of classes; unequally
            many classes that are things.
    """
    segmentor.check_segmentors(owner, student, teacher)
    sides = dict(student=student, teacher=teacher)
    heads = {side: segmentor.decode_head(model)[0] for side, model in sides.items()}
    others = [
        f'the {side} is {type(sides[side]).__name__} with {type(head).__name__}'
        for side, head in heads.items()
        if not classifies_masks(head)
    ]
    if others:
        raise Misfit(
            f'{owner} matches queries that classify masks (MaskFormer, Mask2Former, SAN), but '
            f'{listed(others)}, which has none; methods on class scores of pixels take both kinds',
            prefer=('CWD',),
        )
    kinds = {side: masks_of(model) for side, model in sides.items()}
    if len(set(kinds.values())) > 1:
        raise Misfit(
            f"{owner} matches masks that stand for the same, but the student's are those of "
            f"{kinds['student']} and the teacher's of {kinds['teacher']}{_way(heads)}",
            prefer=('CWD',),
        )
    if kinds['student'] == 'objects and stuff':
        counts = [head.num_things_classes for head in heads.values()]
        check_same(owner, 'counts of classes that are things', *counts)


def _way(heads: dict[str, nn.Module]) -> str:
    """How a network that segments instances is compared by pixels."""
    for side, head in heads.items():
        if knows_things_alone(head):
            tap = f'panoptic_head.forward()@scores(background={head.num_classes})'
            return f"; methods on class scores of pixels take the {side} with the tap '{tap}'"
    return ''


def taps(student: nn.Module, teacher: nn.Module) -> tuple[str, str]:
    """Addresses that :func:`answers` needs, of the teacher with its last decoder layer alone."""
    own, other = (segmentor.decode_head(model)[1] for model in (student, teacher))
    return f'{own}.forward()', f'{other}.forward()@scores'


def answers(trace: Trace, points: Tensor, layers: int | None = None) -> tuple[Answers, Answers]:
    """What both networks say: the student's in L layers, (L, N, S, K + 1) and (L, N, S, P), and
    the teacher's in its last, (N, T, K + 1) and (N, T, P), without gradients.

    Args:
        points (Tensor): x and y as shares of the student's image, (P, 2).
        layers (int | None): the last so many of the student; None: all.
    """
    own, other = taps(trace.student.model, trace.teacher.model)
    head = segmentor.decode_head(trace.student.model)[0]
    found = mask_layers(head, trace.student.raw(own)[-1])[-(layers or 0) :]
    masks = torch.stack([at_points(y, points) for _, y in found])
    (judge,) = trace.teacher.maps(other)
    assert isinstance(judge, MaskScores)
    judge = judge.detach().cropped(trace.teacher.inputs, full_size(trace))
    return (torch.stack([x for x, _ in found]), masks), (
        judge.classes,
        at_points(judge.masks, points),
    )


def at_points(masks: Tensor, points: Tensor) -> Tensor:
    """Maps (N, Q, h, w) at points (P, 2), bilinear, as (N, Q, P)."""
    grid = (2 * points - 1).to(masks).expand(len(masks), 1, -1, -1)
    return F.grid_sample(masks, grid, padding_mode='border', align_corners=False)[:, :, 0]


def known_points(trace: Trace, points: Tensor, ignore_index: int) -> Tensor:
    """Which points (P, 2) of each image have a label, (N, P) bool.

    Of networks that segment instances, which have no label map, all that lie in no padding.

    Raises:
        ValueError: a sample without ``gt_sem_seg``.
    """
    if masks_of(trace.student.model) != 'objects':
        labels = segmentor.labels(trace.samples)
        h, w = labels.shape[1:]
        x, y = (points * upload([w, h], points)).long().unbind(-1)
        return labels[:, y, x] != ignore_index
    h, w = trace.inputs.shape[2:]
    sizes = queries.image_sizes(trace.samples, points)[:, None, :2]
    return (points * upload([w, h], points) < sizes).all(-1)
