"""Factors of the student's own losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.names import did_you_mean
from mmkd.options import check_number

TaskWeight = float | Mapping[str, float]


def factor_of(weight: TaskWeight, key: str) -> float:
    """Factor of the loss ``key``: the number, or that of the first pattern which the key contains.

    What is only logged, without ``loss`` in its name, keeps its value.
    """
    if 'loss' not in key:
        return 1.0
    if not isinstance(weight, Mapping):
        return weight
    return next((w for pattern, w in weight.items() if _fits(pattern, key)), 1.0)


def _fits(pattern: str, key: str) -> bool:
    return pattern.casefold() in key.casefold()


def scale_task(losses: dict[str, Any], weight: TaskWeight) -> dict[str, Any]:
    """Scale the student's own losses; a factor of 1 leaves the very tensors alone."""

    def scale(value: Any, by: float) -> Any:
        return [v * by for v in value] if isinstance(value, (list, tuple)) else value * by

    factors = {key: factor_of(weight, key) for key in losses}
    return {k: v if factors[k] == 1 else scale(v, factors[k]) for k, v in losses.items()}


def check_number_or_mapping(weight: Any) -> Any:
    """A number of at least 0, a mapping from text to such numbers, or None; else an error.

    Raises:
        TypeError: a key that is no text.
        ValueError: anything else.
    """
    if weight is None:
        return None
    numbers = weight if isinstance(weight, Mapping) else {'': weight}
    for key, number in numbers.items():
        if not isinstance(key, str):
            raise TypeError(f'task_weight: keys are parts of the names of losses, found {key!r}.')
        check_number('', f'task_weight {key}'.strip(), number, 0)
    return dict(weight) if isinstance(weight, Mapping) else weight


def check_known(weight: TaskWeight | None, task: Mapping[str, Any]) -> None:
    """Every key of a mapping must occur in the name of a loss, else ValueError."""
    losses = [key for key in task if 'loss' in key]
    keys = weight if isinstance(weight, Mapping) else ()
    unused = [key for key in keys if not any(_fits(key, name) for name in losses)]
    if unused:
        raise ValueError(
            f'task_weight: no loss of the student contains {", ".join(map(repr, unused))}; it has '
            f'{", ".join(losses)}.{did_you_mean(unused[0], losses)}'
        )
