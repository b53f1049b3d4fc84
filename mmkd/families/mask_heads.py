"""Mask heads of two-stage detectors (Mask R-CNN, Cascade Mask R-CNN), run on given RoIs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import two_stage
from mmkd.families.comparable import Misfit, check_same, definer
from mmkd.tap import Trace

#: classes of RoI heads whose mask heads read the features of RoIs and nothing else
PLAIN = ('StandardRoIHead', 'CascadeRoIHead')
#: methods for a refusal: they compare what the masks are made of
INSTEAD = ('FGD', 'PKD')


class Masks(NamedTuple):
    """What a student predicts for the R objects of its own mask loss in one step.

    Attributes:
        logits (Tensor): (R, K, P, P), or (R, 1, P, P) of a class-agnostic head.
        target (Tensor): (R, P, P), the part of the object's mask in the RoI, 0 or 1.
        labels (Tensor): (R,), classes.
        rois (Tensor): (R, 5), image index and xyxy in pixels of the padded input.
    """

    logits: Tensor
    target: Tensor
    labels: Tensor
    rois: Tensor


def stages(model: nn.Module) -> int:
    """Number of mask heads, 1 but in a cascade."""
    heads = model.roi_head.mask_head
    return len(heads) if isinstance(heads, nn.ModuleList) else 1


def mask_head(model: nn.Module, stage: int = 0) -> nn.Module:
    """The (first) mask head."""
    return two_stage.first_stage(model, 'mask_head', stage)[0]


def check_mask_heads(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both must have FCN mask heads for the same classes, else Misfit.

    Raises:
        Misfit: a model without masks; one whose mask head reads more than the features of its RoIs
            (HTC, SCNet, QueryInst) or predicts points (PointRend); unequal classes; masks per class
            beside class-agnostic ones.
    """
    for side, model in dict(student=student, teacher=teacher).items():
        roi_head = getattr(model, 'roi_head', None)
        if getattr(roi_head, 'mask_head', None) is None:
            raise Misfit(
                f'{owner} compares the masks of two second stages, but the {side} '
                f'{type(model).__name__} has none with a mask head.',
                prefer=INSTEAD,
            )
        head = mask_head(model)
        plain = definer(head, 'forward') == 'FCNMaskHead'
        if not plain or definer(roi_head, '_mask_forward') not in PLAIN:
            raise Misfit(
                f'{owner} runs FCN mask heads on the features of RoIs, as Mask R-CNN and Cascade '
                f"Mask R-CNN have them, but the {side}'s {type(head).__name__} in a "
                f'{type(roi_head).__name__} takes more than these or makes masks in another way.',
                prefer=INSTEAD,
            )
    heads = [mask_head(model) for model in (student, teacher)]
    check_same(owner, 'mask classes', *(int(head.num_classes) for head in heads))
    check_same(owner, 'class_agnostic masks', *(bool(head.class_agnostic) for head in heads))


# ------------------------------------------------------------------------------------ a student


def masks_tap(model: nn.Module, stage: int = 0) -> str:
    """Address of the mask logits (R, K, P, P) of the student's own mask loss."""
    return two_stage.first_stage(model, 'mask_head', stage)[1]


def features_tap(model: nn.Module, stage: int = 0) -> str:
    """Address of the last map (R, C, p, p) before a mask head enlarges it.

    ``upsample`` is none: a ReLU writes over its output.
    """
    head, path = two_stage.first_stage(model, 'mask_head', stage)
    return f'{path}.convs.{len(head.convs) - 1}' if len(head.convs) else f'{path}@in[x]'


def features_width(model: nn.Module, stage: int = 0) -> int:
    """Channels of that map."""
    head = mask_head(model, stage)
    return int(head.conv_out_channels if len(head.convs) else head.in_channels)


def mask_taps(model: nn.Module, stage: int = 0, features: bool = True) -> list[str]:
    """Addresses that :func:`masks` and, with ``features``, their last map need."""
    path = masks_tap(model, stage)
    targets = [f'{path}.get_targets()', f'{path}.get_targets()@in[sampling_results]']
    return [path, *targets, *[features_tap(model, stage)] * features]


def masks(trace: Trace, stage: int = 0) -> Masks | None:
    """What the student predicts for the objects of its mask loss; None for a stage that did not
    run, since a cascade stops without proposals."""
    logits, targets, sampled = mask_taps(trace.student.model, stage, features=False)
    if stage and not trace.student.raw(logits):
        return None
    results = trace.student.raw(sampled)[0]
    return Masks(
        trace.student[logits][0],
        trace.student[targets][0],
        torch.cat([result.pos_gt_labels for result in results]),
        _rois([result.pos_priors for result in results]),
    )


def _rois(priors: Sequence[Any]) -> Tensor:
    """Boxes (n, 4) of each image as RoIs (R, 5)."""
    boxes = [getattr(prior, 'tensor', prior).detach() for prior in priors]
    return torch.cat([F.pad(box, (1, 0), value=image) for image, box in enumerate(boxes)])


def of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """The mask of one class each, or the only one; (R, K, P, P) and (R,) -> (R, P, P)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(labels), device=labels.device), labels]


# ------------------------------------------------------------------------------------ a teacher


@torch.no_grad()
def mask_outputs(
    model: nn.Module, feats: Sequence[Tensor], rois: Tensor, stage: int = 0
) -> tuple[Tensor, Tensor]:
    """Masks of a model that is not to learn from them, for given RoIs.

    A cascade averages the probabilities of its stages, as its own inference does.

    Args:
        feats (Sequence[Tensor]): what it gives at :func:`two_stage.features_tap`.
        rois (Tensor): (R, 5), image index and xyxy in pixels of the padded input.
        stage (int): of a cascade, whose features are returned; its last one if it has fewer.

    Returns:
        tuple: logits (R, K or 1, P, P) and features (R, C, p, p) before the mask head enlarges
        them, in float32.
    """
    count = stages(model)
    found = [_stage_outputs(model, feats, rois, number) for number in range(count)]
    logits = [masks for masks, _ in found]
    return mean_logit(logits), found[min(stage, count - 1)][1].float()


def _stage_outputs(
    model: nn.Module, feats: Sequence[Tensor], rois: Tensor, stage: int
) -> tuple[Tensor, Tensor]:
    extractor = two_stage.first_stage(model, 'mask_roi_extractor', stage)[0]
    head = mask_head(model, stage)
    dtype = next(head.parameters()).dtype
    maps = [x.float() for x in feats[: extractor.num_inputs]]
    x = two_stage.pool(extractor, maps, rois.float()).to(dtype)
    if getattr(model.roi_head, 'with_shared_head', False):
        x = model.roi_head.shared_head(x)
    seen = [x]
    last = head.convs[len(head.convs) - 1] if len(head.convs) else nn.Identity()
    handle = last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        return head(x).float(), seen[-1]
    finally:
        handle.remove()


def mean_logit(logits: Sequence[Tensor]) -> Tensor:
    """The logit of the mean probability of several logits z: ``log(sum s(z) / sum s(-z))``."""
    if len(logits) == 1:
        return logits[0]
    every = torch.stack(list(logits))
    return F.logsigmoid(every).logsumexp(0) - F.logsigmoid(-every).logsumexp(0)
