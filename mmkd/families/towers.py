"""Dense heads with two towers of convolutions (RetinaNet, ATSS, GFL, FCOS), run from inside."""

from __future__ import annotations

import copy
from operator import itemgetter

import torch
from torch import Tensor, nn

from mmkd.families.comparable import Misfit, both, check_comparable, check_same, definer, has_codes
from mmkd.families.dense import dense_head, outputs_tap, targets
from mmkd.families.two_stage import features_tap
from mmkd.tap import Trace

#: for classes and for boxes
TOWERS = ('cls_convs', 'reg_convs')
KINDS = ('RetinaHead', 'ATSSHead', 'GFLHead', 'FCOSHead')


def tower_kind(model: nn.Module) -> str | None:
    """One of :data:`KINDS` for a dense head with layers, targets and losses of that class."""
    methods = ('forward_single', 'get_targets', 'loss_by_feat')
    own = {definer(dense_head(model), method) for method in methods} - {'AnchorHead'}
    known = len(own) == 1 and own <= set(KINDS) and has_codes(model)
    return own.pop() if known else None


def widths(model: nn.Module) -> list[list[int]]:
    """Channels behind each convolution of both towers."""
    return [[c.out_channels for c in getattr(dense_head(model), name)] for name in TOWERS]


def check_towers(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Two heads of one kind and depth, with equal classes, priors and box codes, else Misfit."""
    kinds = [tower_kind(model) for model in (student, teacher)]
    if kinds[0] is None or kinds[0] != kinds[1]:
        raise Misfit(
            f"{owner} needs two heads of one kind, RetinaNet's, ATSS's, GFL's or FCOS's, but "
            f'{both(student, teacher)}.'
        )
    check_comparable(owner, student, teacher)
    bins = [getattr(dense_head(model), 'reg_max', None) for model in (student, teacher)]
    check_same(owner, 'reg_max', *bins)
    depths = [[len(tower) for tower in widths(model)] for model in (student, teacher)]
    check_same(owner, 'depths', *depths)


def check_widths(owner: str, student: nn.Module, teacher: nn.Module, stop: int) -> None:
    """Equal channels where convolution ``stop`` of both towers ends, else ValueError."""
    models = student, teacher
    found = [[tower[stop - 1] for tower in widths(model)] for model in models]
    if stop == 0:
        found = [[int(dense_head(model).in_channels)] for model in models]
    check_same(owner, 'widths', *found)


def features_taps(model: nn.Module, stop: int, activated: bool = False) -> list[str]:
    """Addresses of the output of convolution ``stop`` (from 1) of each tower.

    Maps (N, C, H_l, W_l) of all levels: normalised, and ``activated`` or not. 0 is the input of
    both towers, one address.
    """
    if stop == 0:
        return [features_tap(model)]
    head = outputs_tap(model).removesuffix('.forward()')
    place = '' if activated else '.activate@in[0]'
    return [f'{head}.{name}.{stop - 1}{place}' for name in TOWERS]


def carry_on(model: nn.Module, towers: list[list[Tensor]], stop: int) -> list[Tensor]:
    """Outputs of a frozen model's head for features behind convolution ``stop`` of its towers.

    Gradients pass through it.

    Args:
        towers (list[list[Tensor]]): activated maps of all levels, (N, C, H_l, W_l), of each tower.

    Returns:
        list[Tensor]: as of :func:`mmkd.rows.predictions.head_outputs`.
    """
    head = dense_head(model)
    tail, dtype = copy.copy(head), next(head.parameters()).dtype
    for i, name in enumerate(TOWERS):  # in the copy's __dict__, where it hides the child
        tail.__dict__[name] = [itemgetter(i), *getattr(head, name)[stop:]]
    outputs = tail([tuple(x.to(dtype) for x in level) for level in zip(*towers, strict=True)])
    return [m.float() for part in outputs for m in part]


@torch.no_grad()
def assignment(trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of the student's assigner in this step.

    Returns:
        tuple: label weights (N, P), 0 for ignored anchors; positives (N, P) bool; the divisor of
        the losses of positives on this rank: their number, or for FCOS the sum of their centerness
        targets.
    """
    model = trace.student.model
    head, kind, found = dense_head(model), tower_kind(model), targets(trace)
    if kind == 'FCOSHead':  # labels and distances of all images, level by level
        n = len(trace.inputs)
        labels, edges = (torch.cat([x.unflatten(0, (n, -1)) for x in y], 1) for y in found)
        positive = (labels >= 0) & (labels < head.num_classes)
        count = head.centerness_target(edges[positive]).sum()
        return torch.ones_like(labels, dtype=count.dtype), positive, count
    first = 0 if kind == 'RetinaHead' else 1  # the others give anchors, too
    labels, weights = (torch.cat(x, 1) for x in found[first : first + 2])
    positive = (labels >= 0) & (labels < head.num_classes)
    return weights, positive, weights.new_full((), float(found[-1]))
