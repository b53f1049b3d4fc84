"""Checks for NaN and infinity in weights, before training starts from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.checkpoint.checkpoint_error import CheckpointError


def not_finite(state: Any, strict: bool = False) -> list[str]:
    """Names of the tensors of a state_dict that hold NaN or infinity.

    Unless ``strict``, infinity is no fault in what training does not change: a mask, made of zeros
    and infinities alone, and a single number, such as a minimum of which nothing has been seen.
    """
    named = state.items() if isinstance(state, Mapping) else ()
    return [
        key
        for key, value in named
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not _is_finite(value)
        and (strict or not _is_meant(value))
    ]


def _is_finite(tensor: Tensor) -> bool:
    if tensor.element_size() == 1:  # eight bits, with which nothing can be computed
        tensor = tensor.float()
    # Ten times as fast as looking at each; of large numbers the sum alone may be infinite.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _is_meant(tensor: Tensor) -> bool:
    finite = tensor[tensor.isfinite()]
    if bool(tensor.isnan().any()) or bool(finite.any()):
        return False
    return tensor.numel() == 1 or finite.numel() > 0


def refuse_not_finite(state: Any, source: str, model: nn.Module | None = None) -> None:
    """Stop at weights with NaN or infinity, from which training cannot continue.

    Args:
        model (nn.Module): whose parameters, unlike its buffers, are never meant to be infinite.

    Raises:
        CheckpointError: a tensor of ``state`` holds NaN or infinity.
    """
    own = model.state_dict(keep_vars=True) if model is not None else {}
    odd = {key: state[key] for key in not_finite(state, strict=True)}
    doubtful = not_finite(odd)
    bad = [key for key in odd if key in doubtful or isinstance(own.get(key), nn.Parameter)]
    if bad:
        raise CheckpointError(
            f'{source} holds NaN or infinity in {some(bad)}: the training that wrote it had '
            'failed. Take an earlier checkpoint.'
        )


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more
