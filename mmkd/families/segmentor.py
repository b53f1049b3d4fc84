"""Segmentors of mmseg, and of mmdet those of masks: taps of logits and features, labels."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import family_of
from mmkd.families.comparable import Misfit, definer, named
from mmkd.families.mask_classes import classifies_masks, knows_things_alone
from mmkd.tap import Tap, Trace, parse_taps


def decode_head(model: nn.Module) -> tuple[nn.Module, str]:
    """The decode head and its path; of a cascade the last one that classifies every pixel.

    Of mmdet's MaskFormer and Mask2Former it is the panoptic head.
    """
    head = getattr(model, 'decode_head', None)
    if head is None:
        return model.panoptic_head, 'panoptic_head'
    if not isinstance(head, nn.ModuleList):
        return head, 'decode_head'
    whole = [i for i, stage in enumerate(head) if gives_logits(stage)]
    last = whole[-1] if whole else len(head) - 1
    return head[last], f'decode_head.{last}'


def _first_call(model: nn.Module) -> str:
    """Index of a tap on the decode head: training runs all but the last of a cascade twice."""
    head = getattr(model, 'decode_head', None)
    twice = isinstance(head, nn.ModuleList) and decode_head(model)[0] is not head[-1]
    return '[0]' if twice else ''


def classifies_pixels(model: nn.Module) -> bool:
    """Whether a segmentor has class scores of pixels, see :func:`logits_tap`."""
    head = decode_head(model)[0]
    return gives_logits(head) or (classifies_masks(head) and not knows_things_alone(head))


def gives_logits(head: nn.Module) -> bool:
    """Whether ``forward()`` gives class logits (N, K, h, w): mmseg's own ``predict`` resizes them.

    Heads that classify masks or points (MaskFormer, Mask2Former, SAN, PointRend's second) have
    their own ``predict``.
    """
    if isinstance(getattr(head, 'conv_seg', None), nn.Module):
        return True
    return {definer(head, name) for name in ('predict', 'predict_by_feat')} == {'BaseDecodeHead'}


def logits_tap(model: nn.Module) -> str:
    """Address of the logits (N, K, h, w) before they are resized.

    Of a head without ``conv_seg`` (Segmenter, K-Net) they are the last map that its ``forward()``
    gives; of one that classifies masks (MaskFormer, Mask2Former, SAN) they are made of these, see
    :func:`~mmkd.functional.mask_scores.pixel_scores`.

    Raises:
        Misfit: a head that segments instances alone, or of another kind.
    """
    head, path = decode_head(model)
    if isinstance(getattr(head, 'conv_seg', None), nn.Module):
        return f'{path}.conv_seg{_first_call(model)}'
    if gives_logits(head):
        return f'{path}.forward()[-1]'
    if not classifies_masks(head):
        raise Misfit(
            f'{type(head).__name__} gives neither class logits of pixels nor classes and masks of '
            'queries, of which they could be made.'
        )
    if knows_things_alone(head):
        count = head.num_classes
        raise Misfit(
            f'{type(model).__name__} segments instances of {count} classes (num_stuff_classes=0), '
            'so it has no class for pixels between them. With a further class for these, at place '
            f"{count}, name the tap '{path}.forward()@scores(background={count})'."
        )
    return f'{path}.forward()@scores'


def on_logits(model: nn.Module, taps: Iterable[Tap]) -> bool:
    """Whether one of the taps gives class logits."""
    own = logits_tap(model) if classifies_pixels(model) else None
    return any(str(tap) == own or tap.scores or tap.path.endswith('conv_seg') for tap in taps)


def feature_tap(model: nn.Module) -> str:
    """Address of the features (N, C, h, w) from which pixels are classified.

    They are the input of the per-pixel classifier, before dropout; of K-Net the input of its
    kernels; of MaskFormer and Mask2Former the pixel decoder's mask features, of SAN those of its
    side adapter; of any other head the backbone's last map.
    """
    head, path = decode_head(model)
    kernels = getattr(head, 'kernel_generate_head', None)
    if kernels is not None:
        head, path = kernels, f'{path}.kernel_generate_head'
    if isinstance(getattr(head, 'conv_seg', None), nn.Module):
        dropped = isinstance(getattr(head, 'dropout', None), nn.Module)
        part = 'dropout' if dropped else 'conv_seg'
        if dropped and _drops_more(head):
            part = 'cls_seg()'
        return f'{path}.{part}@in[0]{_first_call(model)}'
    if hasattr(head, 'pixel_decoder'):
        return f'{path}.pixel_decoder[0]'
    if hasattr(head, 'side_adapter_network'):
        # In training earlier layers are asked, too.
        return f'{path}.side_adapter_network.mask_decoder.pix_mlp[-1]'
    return 'backbone[-1]'


def _drops_more(head: nn.Module) -> bool:
    """Whether a head uses its dropout for more than the input of ``conv_seg``: DANet's three
    classifiers share it, ANN also has it behind its fusion."""
    own = [kind for kind in type(head).__mro__ if kind.__name__ != 'BaseDecodeHead']
    functions = [f for kind in own for f in vars(kind).values() if inspect.isfunction(f)]
    return hasattr(head, 'cls_seg') and any('dropout' in f.__code__.co_names for f in functions)


def encoder_tap(model: nn.Module) -> str:
    """Address of the backbone's last map (N, C, h, w); of SAN, which has none, the features."""
    return 'backbone[-1]' if hasattr(model, 'backbone') else feature_tap(model)


def read_tap(model: nn.Module) -> str:
    """Address of the backbone's map that the decode head reads, of several the last.

    Without a neck that is the head's ``in_index``: heads of BiSeNet read the first map.
    """
    if getattr(model, 'neck', None) is not None or not hasattr(model, 'backbone'):
        return encoder_tap(model)
    index = getattr(decode_head(model)[0], 'in_index', -1)
    return f'backbone[{index if isinstance(index, int) else index[-1]}]'


def auxiliary_tap(model: nn.Module) -> str | None:
    """Address of the (last) auxiliary head's logits; None where there are none."""
    head, path = getattr(model, 'auxiliary_head', None), 'auxiliary_head'
    if isinstance(head, nn.ModuleList) and len(head):
        head, path = head[-1], f'auxiliary_head.{len(head) - 1}'
    return f'{path}.conv_seg' if isinstance(getattr(head, 'conv_seg', None), nn.Module) else None


def auxiliary_input(model: nn.Module) -> int:
    """Position of the feature map whose size the (last) auxiliary head's logits have."""
    head = model.get_submodule(str(auxiliary_tap(model)).removesuffix('.conv_seg'))
    index = getattr(head, 'in_index', -1)
    return index if isinstance(index, int) else index[0]


@torch.no_grad()
def auxiliary_logits(model: nn.Module, feats: list[Tensor]) -> Tensor:
    """(N, K, h, w) in float32: logits of a frozen model's (last) auxiliary head.

    Args:
        feats (list[Tensor]): its neck's or else its backbone's output, (N, C_l, H_l, W_l) each.
    """
    head = model.get_submodule(str(auxiliary_tap(model)).removesuffix('.conv_seg'))
    dtype = next(head.parameters()).dtype
    return head(tuple(f.to(dtype) for f in feats)).float()


def bind_features(objective: nn.Module, student: nn.Module, teacher: nn.Module) -> None:
    """Give an objective without taps the features before the classifier, on both sides."""
    owner = type(objective).__name__
    if not objective.student_taps:
        check_segmentors(owner, student, teacher)
        objective.student_taps = parse_taps(feature_tap(student))
    objective.teacher_taps = objective.teacher_taps or parse_taps(feature_tap(teacher))


def bind_encoders(objective: nn.Module, student: nn.Module, teacher: nn.Module) -> None:
    """Give an objective without taps the backbone's last map, on both sides."""
    check_segmentors(type(objective).__name__, student, teacher)
    objective.student_taps = objective.student_taps or parse_taps(encoder_tap(student))
    objective.teacher_taps = objective.teacher_taps or parse_taps(encoder_tap(teacher))


def bind_logits(objective: Any, student: nn.Module, teacher: nn.Module | None) -> None:
    """Give an objective without taps the logits before resizing, and check the classes."""
    choose_logits(objective, student, teacher)
    check_logits(objective, student, teacher)


def choose_logits(objective: Any, student: nn.Module, teacher: nn.Module | None) -> None:
    """Give an objective without taps the logits before resizing.

    Class scores made of masks have no size of their own: both sides take that of the student,
    unless ``resize`` names another.

    Raises:
        Misfit: a side has no logits.
    """
    models = [student] if teacher is None else [student, teacher]
    check_segmentors(type(objective).__name__, *models)
    objective.student_taps = objective.student_taps or parse_taps(logits_tap(student))
    if teacher is not None:
        objective.teacher_taps = objective.teacher_taps or parse_taps(logits_tap(teacher))
    taps = (*objective.student_taps, *objective.teacher_taps)
    if any(tap.scores for tap in taps) and getattr(objective, 'resize', '') is None:
        objective.resize = 'student'


def check_segmentors(owner: str, *models: nn.Module) -> None:
    """Student and teacher must have decode heads, else ValueError."""
    for side, model in zip(('student', 'teacher'), models, strict=False):
        if family_of(model) != 'segmentor':
            raise Misfit(
                f'{owner} is for segmentors, but the {side} is {named(model)} without a '
                'decode_head.'
            )


def check_labelled(owner: str, student: nn.Module) -> None:
    """A segmentor whose data have the class of every pixel, else Misfit."""
    check_segmentors(owner, student)
    if not classifies_pixels(student):
        raise Misfit(
            f'{owner} needs the class of every pixel (gt_sem_seg), but the student, '
            f'{named(student)}, learns masks of instances alone, whose data do not have it. Use a '
            'method without labels, such as CWD, or MatchedMasks.'
        )


def check_logits(objective: Any, student: nn.Module, teacher: nn.Module | None) -> None:
    """Both must classify pixels into the same two or more classes, else Misfit."""
    check_same_classes(objective, student, teacher)
    if classes(student, objective.student_taps) == 1:
        raise Misfit(
            f'{type(objective).__name__}: both heads have one output channel, and a softmax over '
            'one class is always 1; use a two-channel head.'
        )


def check_same_classes(objective: Any, student: nn.Module, teacher: nn.Module | None) -> None:
    """Both must have equally many classes, or those of its ``class_map``, else Misfit."""
    k_s = classes(student, objective.student_taps)
    k_t = k_s if teacher is None else classes(teacher, objective.teacher_taps)
    if getattr(objective, 'class_map', None) is not None:
        objective.class_map.check(k_s, k_t, least=2)
    elif k_s != k_t:
        raise Misfit(
            f'{type(objective).__name__} compares class logits, but the student has {k_s} classes '
            f'and the teacher {k_t}.'
        )


def classes(model: nn.Module, taps: Iterable[Tap] = ()) -> int:
    """Channels K of the logits; 1 for a binary sigmoid head.

    Args:
        taps (Iterable[Tap]): at which they are read; one may add a background.
    """
    head = decode_head(model)[0]
    count = int(getattr(head, 'out_channels', None) or head.num_classes)
    return count + any(tap.background is not None for tap in taps)


def labels(samples: list) -> Tensor:
    """Ground truth of a batch, (N, H, W) long.

    Raises:
        ValueError: a sample without ``gt_sem_seg``.
    """
    if any('gt_sem_seg' not in sample for sample in samples):
        raise ValueError(
            'Segmentation labels are needed, but the batch has samples without gt_sem_seg; add '
            'LoadAnnotations and PackSegInputs to the training pipeline.'
        )
    return torch.stack([_label_map(sample).squeeze(0) for sample in samples]).long()


def _label_map(sample: Any) -> Tensor:
    """(1, H, W): mmseg calls it ``data``, mmdet ``sem_seg``."""
    found = sample.gt_sem_seg
    return found.data if 'data' in found else found.sem_seg


def known_labels(
    objective: nn.Module,
    samples: list,
    classes: int,
    ignore_index: int = 255,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """(N, h, w) long: ground truth, resized by nearest neighbour; -1 at ignored pixels.

    Labels beyond the classes are an error in an objective's first batch and ignored from then on:
    looking costs a synchronisation with the device.

    Args:
        size (tuple[int, int] | None): None leaves the labels at their own size.

    Raises:
        ValueError: a sample without labels; in the first batch a label out of range.
    """
    found = labels(samples)
    if not getattr(objective, 'labels_checked', False):
        check_labels(type(objective).__name__, found, classes, ignore_index)
    objective.labels_checked = True
    known = (found != ignore_index) & (found >= 0) & (found < classes)
    found = torch.where(known, found, -1)
    if size is None:
        return found
    return F.interpolate(found[:, None].float(), size, mode='nearest')[:, 0].long()


def check_labels(owner: str, found: Tensor, classes: int, ignore_index: int = 255) -> None:
    """Labels (N, H, W) must be ``ignore_index`` or in 0..classes - 1, else ValueError."""
    asked = found[found != ignore_index]
    if bool(((asked < 0) | (asked >= classes)).any()):
        raise ValueError(
            f'{owner}: labels reach from {int(asked.min())} to {int(asked.max())}, but the student '
            f'has {classes} classes and ignore_index is {ignore_index}; set reduce_zero_label or '
            'ignore_index as the data need.'
        )


def check_batch(model: nn.Module, samples: list) -> None:
    """Labels must exist and be classes of the main head, else ValueError.

    Not for depth, and not for heads that segment instances, which have no label map.
    """
    head = decode_head(model)[0]
    if knows_things_alone(head) or any('gt_depth_map' in sample for sample in samples):
        return
    classes = max(int(head.num_classes), 2)  # one sigmoid output tells two apart
    ignore_index = getattr(head, 'ignore_index', 255)
    check_labels(type(model).__name__, labels(samples), classes, ignore_index)


def class_weights(model: nn.Module) -> list[float] | None:
    """Class weights of the main head's own loss; None where classes have equal weights."""
    losses = getattr(decode_head(model)[0], 'loss_decode', None)
    for loss in losses if isinstance(losses, nn.ModuleList) else [losses]:
        if getattr(loss, 'class_weight', None) is not None:
            return [float(weight) for weight in loss.class_weight]
    return None


def valid_pixels(samples: list, size: tuple[int, int], ignore_index: int = 255) -> Tensor:
    """(N, h, w) bool: labels, resized by nearest neighbour, that are not ``ignore_index``."""
    found = labels(samples)[:, None].float()
    return F.interpolate(found, size, mode='nearest')[:, 0].long() != ignore_index


def counted_pixels(objective: Any, trace: Trace, size: tuple[int, int]) -> Tensor | None:
    """:func:`valid_pixels` of one step for an objective with the options ``mask_ignore`` and
    ``ignore_index``; None where all pixels count."""
    if not objective.mask_ignore:
        return None
    return valid_pixels(trace.samples, size, objective.ignore_index)
