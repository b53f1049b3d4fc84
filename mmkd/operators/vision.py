"""torchvision's kernels, which a GPU needs: there, plain torch would be many small launches."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from mmkd.operators.missing import OperatorMissing


def gpu_kernels(tensor: Tensor) -> Any | None:
    """torchvision's operators for a tensor on a GPU, `None` for one elsewhere.

    Raises:
        OperatorMissing: If the tensor is on a GPU and torchvision cannot be imported.
    """
    if tensor.device.type != 'cuda':
        return None
    problem = torchvision_problem()
    if problem:
        raise OperatorMissing(
            'Without compiled mmcv operators a GPU needs torchvision, and it cannot be imported: '
            f'{problem}. Run: pip install torchvision, the release for torch {torch.__version__}.'
        )
    return torch.ops.torchvision


def gradient_kernels(tensor: Tensor) -> Any | None:
    """The same for operators whose gradients are added up in any order.

    `None` where torch is told to be deterministic: plain torch is.
    """
    return None if torch.are_deterministic_algorithms_enabled() else gpu_kernels(tensor)


@functools.cache
def torchvision_problem() -> str:
    """Why torchvision's operators cannot be used; empty where they can."""
    try:
        import torchvision

        assert torchvision.ops, torch.ops.torchvision.nms
    except Exception as error:  # a release for another torch fails in many ways
        return str(error).splitlines()[0].rstrip('.') if str(error) else repr(error)
    return ''
