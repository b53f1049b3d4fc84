"""Tiny DETRs that say something in particular, and steps of them."""

import torch

from mmkd.distiller import Distiller
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    detection_batch,
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_ddq,
    tiny_deformable_detr,
    tiny_detr,
    tiny_dino,
)


def detr_of_one_width(width=4, **changes):
    """DETR whose decoder is 16 wide whatever the backbone is."""
    model = tiny_detr(4)
    wide = tiny_detr(width)
    model['backbone'] = wide['backbone']
    model['neck'] = dict(wide['neck'], out_channels=16)
    for key, value in changes.items():
        model[key] = {**model[key], **value} if isinstance(value, dict) else value
    return model


BUILDERS = dict(
    detr=detr_of_one_width,
    conditional=tiny_conditional_detr,
    dab=tiny_dab_detr,
    deformable=tiny_deformable_detr,
    two_stage=lambda **k: tiny_deformable_detr(dims=256, as_two_stage=True, **k),
    dino=tiny_dino,
    ddq=tiny_ddq,
)


def lively(model, seed=0):
    """Layers begin with equal boxes and hardly any class."""
    generator = torch.Generator().manual_seed(seed)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise * (parameter.abs().mean() + 0.1))
    return model


def network(name, width=4, seed=0, **changes):
    torch.manual_seed(seed)
    return lively(build_model(BUILDERS[name](width=width, **changes)), seed)


def distiller(student, teacher, objective, **options):
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher, 'random')
    return Distiller(student, dict(it=objective), teacher, preflight=False, **options)


def steady(model):
    """Without batch statistics; mmdet's DINO and Deformable DETR have no losses in eval mode."""
    model.student.backbone.eval()
    return model


def batch(objects=2, seed=0):
    return detection_batch(2, (64, 96), objects, seed)


def losses(model, data=None, seed=0):
    """All terms of one step, without their prefix."""
    torch.manual_seed(seed)
    found = model.loss(*(data or batch()))
    return {k.removeprefix('kd.it.'): v for k, v in found.items() if k.startswith('kd.it.')}
