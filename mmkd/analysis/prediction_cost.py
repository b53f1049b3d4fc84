"""Costs of predicting one image, for every model of a comparison alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mmengine.dataset import pseudo_collate
from torch import nn

from mmkd.analysis.complexity import (
    COUNTED,
    NOT_COUNTED,
    Complexity,
    complexity,
    device_name,
    latencies,
)
from mmkd.checkpoint.checkpoint_error import first_line

PARAMETERS, MACS, LATENCY = 'parameters (M)', 'MACs (G)', 'latency (ms)'


class PredictionCosts:
    """Measures models on the first image of their test set, from pixels to predictions."""

    def __init__(self) -> None:
        self.counted: dict[str, Complexity] = {}
        self.runs: dict[str, Callable[[], Any]] = {}
        self.sizes: dict[str, list[str]] = {}  # names of models by what they see
        self.problems: list[str] = []
        self.device, self.rounds = '', 0

    def add(self, name: str, model: nn.Module, dataset: Any) -> None:
        """Count for a model, and keep it until all are timed.

        Args:
            name (str): of the model.
            model (nn.Module): in eval mode.
            dataset (Any): of the test set; its first image goes through the test pipeline.
        """
        batch = pseudo_collate([dataset[0]])
        inputs = model.data_preprocessor(batch, False)['inputs']
        self.sizes.setdefault(' x '.join(map(str, inputs.shape[2:])), []).append(name)
        self.device = device_name(inputs.device)
        self.runs[name] = lambda: model.test_step(batch)
        self.counted[name] = self._count(name, model)

    def measure(self) -> dict[str, dict[str, float]]:
        """Of each model million parameters, billion multiply-accumulates, milliseconds."""
        seconds, self.rounds = latencies(self.runs)
        return {
            name: {
                PARAMETERS: found.parameters / 1e6,
                MACS: found.macs / 1e9,
                LATENCY: 1e3 * seconds[name],
            }
            for name, found in self.counted.items()
        }

    def _count(self, name: str, model: nn.Module) -> Complexity:
        """NaN where PyTorch's counter fails: the scores were dearer and must not be lost."""
        try:
            return complexity(model, self.runs[name])
        except Exception as error:
            self.problems.append(f'MACs of {name} could not be counted: {first_line(error)}.')
            return Complexity(sum(p.numel() for p in model.parameters()), math.nan)

    def notes(self) -> list[str]:
        """What was measured, on what, and what was not counted; after :meth:`measure`."""
        if not self.sizes:
            return []
        one, *others = self.sizes
        of = [f'{", ".join(names)}: {size}' for size, names in self.sizes.items()]
        seen = f'{one} pixels' if not others else f'in pixels {"; ".join(of)}'
        left_out = {kind for found in self.counted.values() for kind in found.left_out}
        return [
            f'Costs are of the first test image alone ({seen}), from its pixels to predictions.',
            f'MACs: {COUNTED}; not counted: {", ".join((NOT_COUNTED, *sorted(left_out)))}.',
            f'Latency: median of {self.rounds} in turn, batch 1, on {self.device}.',
            *self.problems,
        ]
