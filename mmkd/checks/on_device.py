"""Whether the operators of a model run on its device, tried before data are read."""

from __future__ import annotations

import torch
from torch import nn

from mmkd.checkpoint.checkpoint_error import first_line
from mmkd.families import DETECTORS, family_of
from mmkd.operators import OperatorMissing
from mmkd.operators.missing import compile_command


def check_operators(model: nn.Module) -> None:
    """Try non-maximum suppression on the model's device, if the model is a detector that uses it.

    Otherwise a detector without a second stage would fail only at the first validation.

    Raises:
        OperatorMissing: on a GPU without torchvision, or with operators compiled for CPUs alone.
    """
    from mmcv.ops import nms

    device = next((parameter.device for parameter in model.parameters()), torch.device('cpu'))
    if device.type == 'cpu' or family_of(model) not in {*DETECTORS} - {'detr'}:
        return
    box = torch.zeros(1, 4, device=device)
    try:
        nms(box, box[:, 0], 0.5)
    except OperatorMissing:
        raise
    except RuntimeError as error:
        raise OperatorMissing(
            f"mmcv's compiled operators do not run on {device.type}: {first_line(error)}. Set "
            'MMKD_OPERATORS=own to use those of mmkd, or compile them for this device: '
            f'{compile_command()}'
        ) from error
