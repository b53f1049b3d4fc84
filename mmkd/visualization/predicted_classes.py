"""Predictions of segmentors, their errors and differences."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmkd.families import family_of, segmentor
from mmkd.functional.mask_scores import MaskScores
from mmkd.pixels import Pixels
from mmkd.teacher import Teacher, parts_of
from mmkd.untouched import evaluation
from mmkd.view import View


def segments(model: nn.Module) -> bool:
    """Whether a network says the class of every pixel."""
    if getattr(model, 'decode_head', None) is not None:
        return True
    return family_of(model) == 'segmentor' and segmentor.classifies_pixels(model)


@torch.no_grad()
def predicted_classes(model: nn.Module, inputs: Tensor, samples: list) -> Tensor:
    """(N, H, W) long: the class of every pixel of a normalised batch (N, 3, H, W).

    A head with one sigmoid output says 1 above its threshold.
    """
    size = inputs.shape[2:]
    if not hasattr(model, 'encode_decode'):
        return _of_masks(model, inputs, samples)
    metas = [dict(sample.metainfo, img_shape=size, pad_shape=size) for sample in samples]
    with evaluation(model):
        scores = model.encode_decode(inputs, metas)
    if scores.shape[1] == 1:
        return (scores[:, 0].sigmoid() > segmentor.decode_head(model)[0].threshold).long()
    return scores.argmax(1)


def _of_masks(model: nn.Module, inputs: Tensor, samples: list) -> Tensor:
    """Of mmdet's MaskFormer and Mask2Former, which predict no classes of pixels themselves."""
    with evaluation(model):
        found = MaskScores.of(model(inputs, samples, mode='tensor'))
    return found.at(inputs.shape[2:]).argmax(1)


def prediction_views(
    student: nn.Module, teachers: Mapping[str, Teacher], inputs: Tensor, samples: list
) -> list[View]:
    """Predictions of all, where each is wrong, and where a teacher differs from the student.

    What is labelled to be ignored is never wrong. Teachers that are no segmentors are left out.
    """
    found = {'student': predicted_classes(student, inputs, samples)}
    for name, part in parts_of(teachers).items():
        if segments(part.model) and hasattr(part.model, 'predict'):
            found[name] = _seen_by(part, Pixels.of(student), inputs, samples)
    truth = None
    if all('gt_sem_seg' in sample for sample in samples):
        truth = segmentor.labels(samples).to(inputs.device)
    ignored = getattr(segmentor.decode_head(student)[0], 'ignore_index', 255)
    views = []
    for name, classes in found.items():
        views.append(View(f'{name}: predicted class', classes, kind='classes'))
        if truth is not None:
            wrong = (classes != truth) & (truth != ignored)
            views.append(View(f'{name}: wrong', wrong, kind='mask'))
    own = found.pop('student')
    for name, classes in found.items():
        views.append(View(f'{name} and student differ', classes != own, kind='mask'))
    return views


def _seen_by(teacher: Teacher, source: Pixels, inputs: Tensor, samples: list) -> Tensor:
    """A teacher's predictions on the student's batch, without padding of its own."""
    own = teacher.pixels.translate(inputs, samples, source)
    dtype = next(teacher.model.parameters()).dtype
    height, width = inputs.shape[2:]
    with teacher.precision(own.device.type):
        return predicted_classes(teacher.model, own.to(dtype), samples)[:, :height, :width]
