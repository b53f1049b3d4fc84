"""Sums over rows, computed in parts because all intermediate results do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sum_in_parts(function: Callable[..., Tensor], columns: Sequence[Tensor], rows: int) -> Tensor:
    """``function(*columns)``, a sum over rows, of so many rows at a time.

    Several parts are computed again backwards, so that the results of one are held at a time.

    Args:
        function (callable): tensors of equally many rows -> a scalar.
        columns (Sequence[Tensor]): its arguments, (R, ...) each.
        rows (int): of a part, at least 1.
    """
    if len(columns[0]) <= rows:
        return function(*columns)
    parts = [
        checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(*(column.split(rows) for column in columns), strict=True)
    ]
    return torch.stack(parts).sum()
