"""Settings with which a run would train nothing, refused before data are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mmkd.config import type_name
from mmkd.options import check_number


def check_settings(train_cfg: Any, optim_wrapper: Any) -> None:
    """Check the length of a run and the clipping of gradients; built objects pass.

    Raises:
        ValueError: no epoch or iteration at all; a learning rate that is no number; a limit at
            which no gradient is left; mixed precision without a GPU.
    """
    for name in ('max_epochs', 'max_iters', 'val_interval'):
        if isinstance(train_cfg, Mapping) and name in train_cfg:
            check_number('train_cfg', name, train_cfg[name], least=1, whole=True)
    if _has_amp(optim_wrapper) and not torch.cuda.is_available():
        raise ValueError(no_amp("optim_wrapper.type='AmpOptimWrapper'"))
    for optimizer in _entries(optim_wrapper, 'optimizer'):
        if not isinstance(optimizer.get('lr'), torch.Tensor):
            check_number('optim_wrapper', 'optimizer.lr', optimizer.get('lr'), 0, optional=True)
    for clip in _entries(optim_wrapper, 'clip_grad'):
        for name in ('max_norm', 'clip_value'):
            limit = clip.get(name, 1)
            # Infinity is allowed: nothing is clipped, but the norm is logged.
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if not (number and limit > 0):
                raise ValueError(
                    f'optim_wrapper: clip_grad has {name}={limit!r}, which leaves no gradient to '
                    'train with. Give a number above 0, or clip_grad=None to clip nothing.'
                )


def no_amp(who: str) -> str:
    """The refusal of mixed precision on a machine without a GPU."""
    return (
        f'{who} needs a GPU: mixed-precision training in mmengine does not run on a CPU. '
        'Train with OptimWrapper here; the teacher alone may run in low precision: '
        "model.teacher.dtype='bf16'."
    )


def _has_amp(optim_wrapper: Any) -> bool:
    """Whether one optimiser, or one of several by name, is mmengine's of mixed precision."""
    if not isinstance(optim_wrapper, Mapping):
        return False
    return type_name(optim_wrapper) == 'AmpOptimWrapper' or any(
        map(_has_amp, optim_wrapper.values())
    )


def _entries(optim_wrapper: Any, name: str) -> Iterator[Mapping]:
    """Each ``clip_grad`` or ``optimizer`` of one wrapper or of several by name."""
    for key, value in optim_wrapper.items() if isinstance(optim_wrapper, Mapping) else ():
        if isinstance(value, Mapping):
            yield from [value] if key == name else _entries(value, name)
