"""Semantic segmentors (mmseg encoder-decoders): where the logits are, labels, valid pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.tap import parse_taps


def decode_head(model: nn.Module) -> tuple[nn.Module, str]:
    """The (last) decode head and its path."""
    head = model.decode_head
    if isinstance(head, nn.ModuleList):
        return head[-1], f'decode_head.{len(head) - 1}'
    return head, 'decode_head'


def logits_tap(model: nn.Module) -> str:
    """Address of the logits (N, K, h, w) before they are resized.

    Raises:
        ValueError: a head that has no per-pixel classifier.
    """
    head, path = decode_head(model)
    if not isinstance(getattr(head, 'conv_seg', None), nn.Module):
        raise ValueError(
            f'{type(head).__name__} has no conv_seg, so there are no per-pixel class logits to '
            'distil; use a feature method on its backbone or neck, such as CWD with '
            "student='backbone[3]'."
        )
    return f'{path}.conv_seg'


def feature_tap(model: nn.Module) -> str:
    """Address of the features (N, C, h, w) that the per-pixel classifier sees, before dropout."""
    path = logits_tap(model).removesuffix('.conv_seg')
    dropped = isinstance(getattr(model.get_submodule(path), 'dropout', None), nn.Module)
    return f'{path}.dropout@in[0]' if dropped else f'{path}.conv_seg@in[0]'


def auxiliary_tap(model: nn.Module) -> str | None:
    """Address of the (last) auxiliary head's logits; None where there are none."""
    head, path = getattr(model, 'auxiliary_head', None), 'auxiliary_head'
    if isinstance(head, nn.ModuleList) and len(head):
        head, path = head[-1], f'auxiliary_head.{len(head) - 1}'
    return f'{path}.conv_seg' if isinstance(getattr(head, 'conv_seg', None), nn.Module) else None


@torch.no_grad()
def auxiliary_logits(model: nn.Module, feats: list[Tensor]) -> Tensor:
    """(N, K, h, w) in float32: what a frozen model's (last) auxiliary head says.

    Args:
        feats (list[Tensor]): its neck's or else its backbone's output, (N, C_l, H_l, W_l) each.
    """
    head = model.get_submodule(str(auxiliary_tap(model)).removesuffix('.conv_seg'))
    dtype = next(head.parameters()).dtype
    return head(tuple(f.to(dtype) for f in feats)).float()


def bind_features(objective: nn.Module, student: nn.Module, teacher: nn.Module) -> None:
    """Give an objective without taps the features before the classifier, of both."""
    owner = type(objective).__name__
    if not objective.student_taps:
        check_segmentors(owner, student, teacher)
        objective.student_taps = parse_taps(feature_tap(student))
    objective.teacher_taps = objective.teacher_taps or parse_taps(feature_tap(teacher))


def bind_logits(objective: nn.Module, student: nn.Module, teacher: nn.Module) -> None:
    """Check the classes and give an objective without taps the logits before resizing, of both."""
    check_logits(type(objective).__name__, student, teacher)
    objective.student_taps = objective.student_taps or parse_taps(logits_tap(student))
    objective.teacher_taps = objective.teacher_taps or parse_taps(logits_tap(teacher))


def check_segmentors(owner: str, *models: nn.Module) -> None:
    """Student and teacher must have decode heads, else ValueError."""
    for side, model in zip(('student', 'teacher'), models, strict=False):
        if getattr(model, 'decode_head', None) is None:
            raise ValueError(
                f'{owner} is for segmentors, but the {side} is a {type(model).__name__} without a '
                'decode_head; CWD and AT take the features of any model.'
            )


def check_logits(owner: str, student: nn.Module, teacher: nn.Module) -> None:
    """Both must classify pixels into the same two or more classes, else ValueError."""
    check_segmentors(owner, student, teacher)
    k_s, k_t = classes(student), classes(teacher)
    if k_s != k_t:
        raise ValueError(
            f'{owner} compares class logits: the student has {k_s} classes and the teacher {k_t}; '
            'use a teacher of the same classes, or a feature method (CWD, SKDPair, IFVD, AT).'
        )
    if k_s == 1:
        raise ValueError(
            f'{owner}: both heads have one output channel, and a softmax over one class is always '
            '1; use a two-channel head, or a feature method (CWD, SKDPair, IFVD, AT).'
        )


def classes(model: nn.Module) -> int:
    """Channels K of the logits; 1 for a binary sigmoid head."""
    head = decode_head(model)[0]
    return int(getattr(head, 'out_channels', None) or head.num_classes)


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
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples]).long()


def known_labels(
    objective: nn.Module,
    samples: list,
    classes: int,
    ignore_index: int = 255,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """(N, h, w) long: ground truth, resized by nearest neighbour; -1 where it is to be ignored.

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
    """Labels must be there and mean classes of the main head, else ValueError; not for depth."""
    if any('gt_depth_map' in sample for sample in samples):
        return
    head = decode_head(model)[0]
    classes = max(int(head.num_classes), 2)  # one sigmoid output tells two apart
    ignore_index = getattr(head, 'ignore_index', 255)
    check_labels(type(model).__name__, labels(samples), classes, ignore_index)


def class_weights(model: nn.Module) -> list[float] | None:
    """Class weights of the main head's own loss; None where classes count alike."""
    losses = getattr(decode_head(model)[0], 'loss_decode', None)
    for loss in losses if isinstance(losses, nn.ModuleList) else [losses]:
        if getattr(loss, 'class_weight', None) is not None:
            return [float(weight) for weight in loss.class_weight]
    return None


def valid_pixels(samples: list, size: tuple[int, int], ignore_index: int = 255) -> Tensor:
    """(N, h, w) bool: labels, resized by nearest neighbour, that are not ``ignore_index``."""
    return resized_labels(samples, size) != ignore_index


def resized_labels(samples: list, size: tuple[int, int]) -> Tensor:
    """(N, h, w) long: ground truth resized by nearest neighbour."""
    return F.interpolate(labels(samples)[:, None].float(), size, mode='nearest')[:, 0].long()
