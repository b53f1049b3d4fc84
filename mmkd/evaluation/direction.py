"""Whether lower values of a metric are better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: words in the names of metrics of which less is better
LOWER = frozenset(
    (
        *('loss', 'error', 'err', 'ece', 'nll', 'brier', 'mae', 'mse', 'rmse', 'nme'),
        *('epe', 'eer', 'fpr', 'fid', 'perplexity'),
    )
)


def lower_is_better(metric: str, checkpoint: Any = None) -> bool:
    """By the ``rule`` with which a run chooses its best checkpoint, else by the metric's name.

    Args:
        metric (str): name in the log, with or without the prefix of its evaluator.
        checkpoint (Mapping | None): the config of the run's ``CheckpointHook``.
    """
    name = metric.rpartition('/')[2]
    hook = checkpoint if isinstance(checkpoint, Mapping) else {}
    keys, rules = (_listed(hook.get(key)) for key in ('save_best', 'rule'))
    rules = rules * len(keys) if len(rules) == 1 else rules
    for key, rule in zip(keys, rules, strict=False):
        if isinstance(key, str) and key.rpartition('/')[2] == name and rule:
            return rule == 'less'
    words = re.split(r'[^a-z0-9]+', name.lower())
    return any(word in LOWER or word.endswith('loss') for word in words)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
