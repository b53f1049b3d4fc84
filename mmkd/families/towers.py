"""Dense heads with two towers of convolutions (RetinaNet, GFL, FCOS, RTMDet …), run from inside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from operator import itemgetter

import torch
from torch import Tensor, nn

from mmkd.families import assignments
from mmkd.families.comparable import (
    Misfit,
    both,
    check_classes,
    check_comparable,
    check_priors,
    check_same,
    definer,
    has_codes,
)
from mmkd.families.dense import dense_head, outputs_tap, targets
from mmkd.families.two_stage import features_tap
from mmkd.tap import Side, Trace

#: for classes and for boxes
TOWERS = ('cls_convs', 'reg_convs')
KINDS = ('RetinaHead', 'ATSSHead', 'GFLHead', 'FCOSHead', 'RTMDetHead', 'YOLOXHead')
#: classes whose ``forward`` runs towers that RTMDet and YOLOX have
_FORWARDS = ('RTMDetHead', 'RTMDetSepBNHead', 'YOLOXHead')


def tower_kind(model: nn.Module) -> str | None:
    """One of :data:`KINDS` for a dense head with layers, targets and losses of that class."""
    head = dense_head(model)
    if definer(head, 'forward') in _FORWARDS:
        single = definer(head, 'forward_single')
        known = single == 'YOLOXHead' or definer(head, 'forward') != 'YOLOXHead'
        return assignments.assigner_kind(model) if known else None
    methods = ('forward_single', 'get_targets', 'loss_by_feat')
    own = {definer(head, method) for method in methods} - {'AnchorHead'}
    known = len(own) == 1 and own <= set(KINDS) and has_codes(model)
    return own.pop() if known else None


def _places(model: nn.Module) -> list[list[str]]:
    """Names of both towers in the head: one for all levels, or one of each."""
    head, found = dense_head(model), []
    for name in TOWERS:
        name = name if hasattr(head, name) else f'multi_level_{name}'
        parts = getattr(head, name)
        each = len(parts) and isinstance(parts[0], (nn.ModuleList, nn.Sequential))
        found.append([f'{name}.{i}' for i in range(len(parts))] if each else [name])
    return found


def _tower(model: nn.Module, place: str) -> list[nn.Module]:
    """The convolutions of a tower."""
    head = dense_head(model)
    assert head is not None
    return list(head.get_submodule(place))


def _end(conv: nn.Module) -> tuple[nn.Module, str]:
    """The layer that ends a convolution, and its path in it: of separable ones the second half."""
    last = getattr(conv, 'pointwise_conv', conv)
    return last, '' if last is conv else '.pointwise_conv'


def depths(model: nn.Module) -> list[list[int]]:
    """Convolutions of both towers, of each level that has its own."""
    return [[len(_tower(model, place)) for place in tower] for tower in _places(model)]


def widths(model: nn.Module, stop: int) -> list[list[int]]:
    """Channels behind convolution ``stop`` (from 1) of both towers, as many as they have taps; 0 is
    what enters the head."""
    if stop == 0:
        return [[int(dense_head(model).in_channels)]]
    return [
        [int(_end(_tower(model, place)[stop - 1])[0].out_channels) for place in tower]
        for tower in _places(model)
    ]


def activations(model: nn.Module, stop: int) -> list[list[Callable[[Tensor], Tensor]]]:
    """What follows the normalised output of convolution ``stop`` of both towers, at each level."""
    levels, found = dense_head(model).prior_generator.num_levels, []
    for tower in _places(model):
        last = [_end(_tower(model, place)[stop - 1])[0] for place in tower]
        each = [getattr(layer, 'activate', nn.Identity()) for layer in last]
        found.append(each if len(each) > 1 else each * levels)
    return found


def check_towers(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Two heads of one kind and depth, with equal classes, priors and box codes, else Misfit."""
    models = student, teacher
    kinds = [tower_kind(model) for model in models]
    if kinds[0] is None or kinds[0] != kinds[1]:
        raise Misfit(
            f"{owner} needs two heads of one kind, RetinaNet's, ATSS's, GFL's, FCOS's, RTMDet's or "
            f"YOLOX's, but {both(student, teacher)}."
        )
    if all(map(has_codes, models)):
        check_comparable(owner, student, teacher)
    else:  # the teacher's head gives both boxes, so that the student's may have another code
        heads = [dense_head(model) for model in models]
        check_classes(owner, *heads)
        check_priors(owner, *heads)
    bins = [getattr(dense_head(model), 'reg_max', None) for model in models]
    check_same(owner, 'reg_max', *bins)
    check_same(owner, 'depths', *([max(tower) for tower in depths(model)] for model in models))


def features_taps(model: nn.Module, stop: int, activated: bool = False) -> list[list[str]]:
    """Addresses of the output of convolution ``stop`` (from 1), of each tower.

    Together they give maps (N, C, H_l, W_l) of all levels: normalised, and ``activated`` or not. 0
    is the input of both towers, one list of one address.
    """
    if stop == 0:
        return [[features_tap(model)]]
    head = outputs_tap(model).removesuffix('.forward()')
    found = []
    for tower in _places(model):
        ends = [_end(_tower(model, place)[stop - 1]) for place in tower]
        found.append(
            [
                f'{head}.{place}.{stop - 1}'
                + (f'{inner}.activate@in[0]' if not activated and last.with_activation else '')
                for place, (last, inner) in zip(tower, ends, strict=True)
            ]
        )
    return found


def ends(side: Side, stop: int, activated: bool = False) -> list[list[Tensor]]:
    """The maps at :func:`features_taps` of all levels, of each tower."""
    taps = features_taps(side.model, stop, activated)
    return [[x for tap in tower for x in side[tap]] for tower in taps]


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
    for i, places in enumerate(_places(model)):  # in the copy's __dict__, where they hide children
        rests = [[itemgetter(i), *_tower(model, place)[stop:]] for place in places]
        name, _, each = places[0].partition('.')
        whole = name.startswith('multi_level_')  # which are called, not run layer by layer
        tail.__dict__[name] = [_run(r) if whole else r for r in rests] if each else rests[0]
    outputs = tail([tuple(x.to(dtype) for x in level) for level in zip(*towers, strict=True)])
    return [m.float() for part in outputs for m in part]


def _run(layers: Sequence[Callable]) -> Callable:
    def run(x: object) -> object:
        for layer in layers:
            x = layer(x)
        return x

    return run


@torch.no_grad()
def assignment(trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of the student's assigner in this step.

    Returns:
        tuple: label weights (N, P), 0 for ignored anchors; positives (N, P) bool; the divisor of
        the losses of positives on this rank: their number, at least one of each image, or for FCOS
        the sum of their centerness targets.
    """
    model = trace.student.model
    head, kind = dense_head(model), tower_kind(model)
    if kind in ('RTMDetHead', 'YOLOXHead'):
        step = assignments.assignment(trace)
        return step.weights, step.positive, step.positives()
    found = targets(trace)
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
