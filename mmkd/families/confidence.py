"""How sure a head is of its best class, at each prior or pixel, as a function of features."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.families import family_of, segmentor, two_stage
from mmkd.families.comparable import Misfit, definer, is_yolov3, kind_of, named, uses_sigmoid
from mmkd.families.dense import dense_head
from mmkd.families.mask_classes import classifies_masks
from mmkd.functional.mask_scores import MaskScores
from mmkd.tap import Tap

#: heads that in evaluation take one map, not a tuple
TAKE_A_MAP = ('DDRHead', 'PIDHead')


def features_tap(model: nn.Module) -> str:
    """Address of the maps that :func:`best_scores` takes: a detector's neck, else the backbone."""
    return 'backbone' if family_of(model) == 'segmentor' else two_stage.features_tap(model)


def check_scores(owner: str, side: str, model: nn.Module) -> None:
    """The model must have a head that classifies from features alone, else Misfit.

    Those are heads of detectors with a sigmoid for each class (RPN, RetinaNet, FCOS, ATSS, GFL,
    YOLO …) and heads of segmentors with logits of pixels.
    """
    if family_of(model) == 'segmentor':
        if segmentor.classifies_pixels(model) and hasattr(model, 'backbone'):
            return
    elif family_of(model) not in ('detr', 'other'):
        head = dense_head(model)
        known = is_yolov3(model) or (uses_sigmoid(head) and hasattr(head, 'cls_out_channels'))
        if known and head is not None and _needs_only_features(head):
            return
    raise Misfit(
        f'{owner} runs a head on features alone, to see which of them it classifies by, but the '
        f'{side} is {named(model)}, whose head needs more or has no class scores of its own '
        'for each prior or pixel.'
    )


def _needs_only_features(head: nn.Module) -> bool:
    needed = [p for p in signature(head.forward).parameters.values() if p.default is p.empty]
    return len(needed) == 1


def best_scores(model: nn.Module, feats: Sequence[Tensor]) -> Tensor:
    """Probability of the best class of each prior of all levels, or of each pixel; (N, P).

    Differentiable with respect to the features. Scores of YOLO count times objectness; TOOD's head
    gives probabilities.

    Args:
        feats (Sequence[Tensor]): what the model gives at :func:`features_tap`.
    """
    dtype = next(model.parameters()).dtype
    maps = tuple(x.to(dtype) for x in feats)
    if family_of(model) == 'segmentor':
        logits = _pixel_logits(model, maps).float()
        scores = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
        return scores.amax(1).flatten(1)
    head = dense_head(model)
    assert head is not None
    outputs = [[level.float() for level in part] for part in head(maps)]
    if is_yolov3(model):
        return _flat([_of_yolov3(level, head.num_attrib) for level in outputs[0]])
    found = [level.unflatten(1, (-1, head.cls_out_channels)) for level in outputs[0]]
    given = kind_of(model) == 'decoded'
    scores = [(level if given else level.sigmoid()).amax(2) for level in found]
    if definer(head, 'forward_single') == 'YOLOXHead':
        scores = [s * obj.sigmoid() for s, obj in zip(scores, outputs[2], strict=True)]
    return _flat(scores)


def _flat(levels: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(1) for level in levels], 1)


def _of_yolov3(level: Tensor, numbers: int) -> Tensor:
    """(N, A * (5 + K), H, W): four of a box, objectness, classes."""
    found = level.unflatten(1, (-1, numbers))[:, :, 4:].sigmoid()
    return found[:, :, 0] * found[:, :, 1:].amax(2)


def _pixel_logits(model: nn.Module, maps: tuple[Tensor, ...]) -> Tensor:
    """Logits (N, K, h, w) of the last decode head that has such; of K-Net its last ones."""
    feats = model.neck(maps) if getattr(model, 'neck', None) is not None else maps
    own = segmentor.decode_head(model)[0]
    if classifies_masks(own):
        size = maps[0].shape[2:]  # of images without padding, in whatever unit
        meta = dict(img_shape=size, batch_input_shape=size)
        samples = [BaseDataElement(metainfo=meta) for _ in maps[0]]
        return MaskScores.of(own.forward(feats, samples)).at()
    heads = model.decode_head
    if not isinstance(heads, nn.ModuleList):
        logits = heads.forward(feats[0] if definer(heads, 'forward') in TAKE_A_MAP else feats)
        return logits[-1] if isinstance(logits, (list, tuple)) else logits
    first, *others = heads
    logits = first.forward(feats)
    for head in filter(segmentor.gives_logits, others):
        logits = head.forward(feats, logits)
    return logits


def levels_of(tap: Tap, count: int) -> list[int]:
    """Which of ``count`` maps a tap with an index chooses."""
    every = list(range(count))
    if tap.index is None or isinstance(tap.index, slice):
        return every if tap.index is None else every[tap.index]
    return [every[tap.index]]
