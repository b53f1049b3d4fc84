"""Code that depends on the model family, as plain functions."""

from __future__ import annotations

from torch import nn

#: names of all families, and how they are called in prose
FAMILIES = {
    'two_stage': 'two-stage',
    'instance': 'instance segmentation',
    'anchor': 'anchor-based dense',
    'anchor_free': 'anchor-free dense',
    'yolo': 'YOLO',
    'detr': 'DETR',
    'weak': 'weakly supervised',
    'segmentor': 'segmentor',
    'classifier': 'classifier',
}
#: the families of detectors, for methods that work with any
DETECTORS = ('two_stage', 'instance', 'anchor', 'anchor_free', 'yolo', 'detr')
#: those whose images, objects or regions can be compared; levels of YOLO's necks differ in width
WITH_INSTANCES = (
    'two_stage',
    'instance',
    'anchor',
    'anchor_free',
    'detr',
    'segmentor',
    'classifier',
)


def family_of(model: nn.Module) -> str:
    """A key of :data:`FAMILIES`, or ``'other'``.

    Decided by the parts that a model has, so subclasses and forks need no entry anywhere.
    ``'instance'`` is a two-stage detector with masks, see :func:`is_two_stage`; ``'weak'`` one that
    learns from image labels, see :func:`is_weak`. mmdet's MaskFormer and Mask2Former are
    segmentors.
    """
    if is_weak(model):
        return 'weak'
    if is_two_stage(model):
        has_masks = getattr(model.roi_head, 'mask_head', None) is not None
        return 'instance' if has_masks else 'two_stage'
    if any(getattr(model, name, None) is not None for name in ('decode_head', 'panoptic_head')):
        return 'segmentor'
    if getattr(model, 'bbox_head', None) is not None:
        return 'detr' if hasattr(model, 'decoder') else _dense_family(model.bbox_head)
    if hasattr(getattr(model, 'head', None), 'fc'):
        return 'classifier'
    return 'other'


def is_two_stage(model: nn.Module) -> bool:
    """Whether a second stage classifies regions of interest, with masks or without."""
    return getattr(model, 'roi_head', None) is not None and not is_weak(model)


def is_weak(model: nn.Module) -> bool:
    """Whether a detector learns from image labels, with mmkd.MILRoIHead."""
    return hasattr(getattr(getattr(model, 'roi_head', None), 'bbox_head', None), 'fc_det')


def _dense_family(head: nn.Module) -> str:
    if hasattr(head, 'loss_obj') or hasattr(head, 'loss_conf'):
        return 'yolo'  # objectness beside the classes
    generator = getattr(head, 'prior_generator', None)
    return 'anchor' if hasattr(generator, 'base_anchors') else 'anchor_free'
