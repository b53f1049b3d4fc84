"""Tiny models with masks, and one step of MaskKD on them."""

import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.tap import Trace
from mmkd.teacher import Teacher, build_model
from mmkd.testing import mask_batch, tiny_cascade_mask_rcnn, tiny_mask_rcnn
from mmkd.untouched import untouched_random_state


def masked(kind: str = 'mask', seed: int = 0, width: int = 4, **changes: object) -> nn.Module:
    """Mask R-CNN or a cascade of two stages, whose random heads say something."""
    builders = dict(mask=tiny_mask_rcnn, cascade=tiny_cascade_mask_rcnn)
    with untouched_random_state():
        torch.manual_seed(seed)
        model = build_model(builders[kind](width, **changes))
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                gain = 3.0 if 'conv_logits' in name else 1.2
                nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)
    return model


def step(
    objective: Objective,
    student: nn.Module,
    teacher: nn.Module,
    batch: tuple | None = None,
    **options: object,
) -> tuple[dict, Trace]:
    """Build a Distiller, run one training step: all losses, and the trace the objective saw."""
    judge = Teacher(teacher, 'random')
    distiller = Distiller(student, {'o': objective}, judge, preflight=False, **options)
    seen = []
    objective.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    losses = distiller(*(mask_batch() if batch is None else batch), mode='loss')
    return losses, seen[0] if seen else None


def terms(losses: dict) -> dict[str, torch.Tensor]:
    """What the objective gave."""
    return {k.removeprefix('kd.o.'): v for k, v in losses.items() if k.startswith('kd.o.loss')}
