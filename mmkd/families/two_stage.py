"""Two-stage detectors: the first box head and its regions of interest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.borrowed import replaced
from mmkd.families import is_weak
from mmkd.families.class_map import ClassMap
from mmkd.families.comparable import Misfit, both, check_classes, uses_sigmoid
from mmkd.functional.boxes import rank_in_group
from mmkd.functional.device import sizes_of_groups
from mmkd.scales import in_teachers_pixels
from mmkd.tap import Tap, Trace, parse_taps
from mmkd.view import Boxes


def first_stage(model: nn.Module, part: str, stage: int = 0) -> tuple[nn.Module, str]:
    """``roi_head.<part>`` and its path; of a cascade the first stage, or another."""
    module = getattr(model.roi_head, part)
    if isinstance(module, nn.ModuleList):
        return module[stage], f'roi_head.{part}.{stage}'
    return module, f'roi_head.{part}'


def box_head(model: nn.Module) -> nn.Module:
    """The (first) box head."""
    return first_stage(model, 'bbox_head')[0]


@contextlib.contextmanager
def few_proposals(model: nn.Module, most: int = 8) -> Iterator[None]:
    """While only shapes matter, the heads of regions see that many proposals of each image.

    The RPN of a stock config keeps 1,000; a cascade with mask heads takes half a minute for them on
    one core.
    """
    rpn = getattr(model, 'rpn_head', None)
    config = getattr(rpn, 'test_cfg', None)
    if not isinstance(config, Mapping) or config.get('max_per_img', 0) <= most:
        yield
        return
    with replaced(rpn, dict(test_cfg=type(config)(config, max_per_img=most))):
        yield


def rois_tap(model: nn.Module, stage: int = 0) -> str:
    """Address of the RoIs (R, 5) of the model's box head in this step."""
    return first_stage(model, 'bbox_roi_extractor', stage)[1] + '@in[1]'


def box_head_tap(model: nn.Module, stage: int = 0) -> str:
    """Address of the box head's output: class scores (R, K + 1), then box deltas."""
    return first_stage(model, 'bbox_head', stage)[1]


def targets_tap(model: nn.Module) -> str:
    """Address of the (first) box head's targets in this step."""
    return box_head_tap(model) + '.get_targets()'


def levels(model: nn.Module) -> int:
    """Number of pyramid levels that the RoI extractor reads."""
    return int(first_stage(model, 'bbox_roi_extractor')[0].num_inputs)


def of_class(deltas: Tensor, labels: Tensor) -> Tensor:
    """The four numbers of one class each, (R, 4 K) or (R, 4) and (R,) -> (R, 4)."""
    if deltas.shape[1] == 4:
        return deltas
    rows = torch.arange(len(labels), device=labels.device)
    return deltas.unflatten(1, (-1, 4))[rows, labels]


def features_tap(model: nn.Module) -> str:
    """Address of the maps that :func:`roi_outputs` takes."""
    return 'backbone' if getattr(model, 'neck', None) is None else 'neck'


def check_box_heads(
    owner: str,
    student: nn.Module,
    teacher: nn.Module,
    softmax: bool,
    class_map: ClassMap | None = None,
) -> None:
    """Both must be two-stage and classify RoIs into the same classes, else Misfit.

    Args:
        softmax (bool): scores must compete, background among them.
        class_map (ClassMap | None): which of the student's classes the teacher knows.
    """
    second = [getattr(model, 'roi_head', None) for model in (student, teacher)]
    weak = any(map(is_weak, (student, teacher)))
    if weak or any(getattr(stage, 'bbox_head', None) is None for stage in second):
        raise Misfit(
            f'{owner} compares the box heads of two second stages on the same RoIs, but '
            f'{both(student, teacher)}.'
        )
    heads = [box_head(model) for model in (student, teacher)]
    for side, head in zip(('student', 'teacher'), heads, strict=True):
        needed = [p for p in signature(head.forward).parameters.values() if p.default is p.empty]
        if len(needed) > 1:  # Sparse R-CNN's also takes a query of each box
            raise Misfit(
                f"{owner} runs box heads on the features of RoIs, but the {side}'s "
                f'{type(head).__name__} takes {needed[1].name} beside them.'
            )
    if softmax and any(map(uses_sigmoid, heads)):
        kinds = ['sigmoid' if uses_sigmoid(head) else 'softmax' for head in heads]
        raise Misfit(
            f"{owner} needs softmax class scores, but the student's box head has {kinds[0]} and "
            f"the teacher's {kinds[1]} scores."
        )
    check_classes(owner, *heads, class_map)


@torch.no_grad()
def roi_outputs(
    model: nn.Module, feats: list[Tensor], rois: Tensor, stage: int = 0
) -> tuple[Any, Any]:
    """:func:`box_outputs` of a frozen model, or of one that is not to learn from them."""
    return box_outputs(model, feats, rois, stage)


def box_outputs(
    model: nn.Module, feats: list[Tensor], rois: Tensor, stage: int = 0
) -> tuple[Any, Any]:
    """Outputs of a model's box head for given RoIs.

    Args:
        feats (list[Tensor]): its neck's output, (N, C, H_l, W_l) each.
        rois (Tensor): (R, 5), image index and xyxy in pixels of the padded input.
        stage (int): of a cascade, from 0.

    Returns:
        tuple: class scores (R, K + 1) in float32, background last, and box deltas.
    """
    extractor = first_stage(model, 'bbox_roi_extractor', stage)[0]
    head = first_stage(model, 'bbox_head', stage)[0]
    dtype = next(head.parameters()).dtype
    # RoIAlign has no low-precision CPU kernel, and its coordinates deserve float32 anyway.
    pooled = pool(extractor, [f.float() for f in feats[: extractor.num_inputs]], rois.float())
    if getattr(model.roi_head, 'with_shared_head', False):
        pooled = model.roi_head.shared_head(pooled.to(dtype))
    scores, deltas = head(pooled.to(dtype))[:2]
    return scores.float(), deltas.float() if deltas is not None else None


@torch.no_grad()
def judge(model: nn.Module, feats: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
    """What a frozen model's (first) box head says of RoIs (R, 5).

    Args:
        feats (list[Tensor]): its neck's output, (N, C, H_l, W_l) each.

    Returns:
        tuple: probabilities of the classes without background (R, K), and the box (R, 4) that it
        makes of each RoI for its best class, xyxy in pixels, not clipped.
    """
    head = box_head(model)
    scores, deltas = roi_outputs(model, feats, rois)
    classes = int(head.num_classes)
    p = scores.sigmoid() if uses_sigmoid(head) else scores.softmax(-1)
    p = p[:, :classes]
    if deltas is None:
        return p, rois[:, 1:]
    return p, head.bbox_coder.decode(rois[:, 1:], of_class(deltas, p.argmax(-1)))


def pool(extractor: nn.Module, feats: list[Tensor], rois: Tensor) -> Tensor:
    """Features of RoIs (R, 5) as mmdet's extractor gives them, (R, C, h, w).

    The plain extractor synchronises with the device for each level. With the RoIs sorted by level
    one synchronisation is enough; the numbers are the same.
    """
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    if type(extractor) is not SingleRoIExtractor or len(feats) == 1 or not len(rois):
        return extractor(tuple(feats), rois)
    level = extractor.map_roi_levels(rois, len(feats))
    order = level.argsort(stable=True)
    parts = rois[order].split(sizes_of_groups(level, len(feats)).tolist())
    layers = zip(extractor.roi_layers, feats, parts, strict=False)
    found = torch.cat([layer(x, own) for layer, x, own in layers if len(own)])
    unused = [x for x, own in zip(feats, parts, strict=True) if not len(own) and x.requires_grad]
    return found[order.argsort()] + sum(x.sum() * 0.0 for x in unused)


def answers_to(trace: Trace, rois: Tensor) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Scores (R, K + 1) and box deltas of both (first) box heads for any RoIs (R, 5).

    The one part of a student that may run twice: such RoIs are known only after its step. Both
    have to be tapped at :func:`features_tap`.
    """
    sides = (trace.student, rois), (trace.teacher, in_teachers_pixels(rois, trace))
    student, teacher = (box_outputs(s.model, s[features_tap(s.model)], seen) for s, seen in sides)
    return student, teacher


def answer_taps(student: nn.Module, teacher: nn.Module) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """Taps on student and teacher that :func:`answers` and :func:`targets` need."""
    own = [box_head_tap(student), rois_tap(student), targets_tap(student)]
    return parse_taps(own), parse_taps(features_tap(teacher))


def answers(trace: Trace) -> tuple[list[Tensor], list[Tensor]]:
    """Scores (R, K + 1) and box deltas of both (first) box heads for the student's sampled RoIs."""
    model = trace.student.model
    own, rois = trace.student[box_head_tap(model)], trace.student[rois_tap(model)][0].detach()
    if not len(rois):
        return own, [x.detach() for x in own]
    feats = trace.teacher[features_tap(trace.teacher.model)]
    seen = in_teachers_pixels(rois, trace)
    return own, [x for x in roi_outputs(trace.teacher.model, feats, seen) if x is not None]


def targets(trace: Trace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels (R,), K for background, label weights, box targets (R, 4) and box weights."""
    return trace.student.raw(targets_tap(trace.student.model))[0]


def ranked_rois(
    title: str, rois: Tensor, scores: Sequence[Tensor], rank: Tensor, shown: int = 10
) -> list[Boxes]:
    """The RoIs of highest rank of each image, with the class that each side gives them.

    Args:
        title (str): of both pictures.
        rois (Tensor): (R, 5), image index and xyxy.
        scores (Sequence[Tensor]): class probabilities of student and teacher, (R, C) each.
        rank (Tensor): (R,).
        shown (int): largest number of boxes of each image.
    """
    order = rank.argsort(descending=True)
    chosen = order[rank_in_group(rois[order, 0].long()) < shown]
    views = []
    for side, score in zip(('student', 'teacher'), scores, strict=True):
        best, label = score[chosen].max(-1)
        views.append(Boxes(title, rois[chosen], label, best, side))
    return views
