"""Where a distilled step spends its time, measured inside the step itself."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mmkd.functional.gradients import gradients_at
from mmkd.functional.nested import flatten
from mmkd.tap import Side


class StepTimer:
    """Adds up seconds by part of the step while ``enabled``; costs nothing otherwise.

    On a GPU the marks are CUDA events, read when :meth:`seconds` is asked for.
    """

    def __init__(self) -> None:
        self.enabled = False
        self.marks: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self.saved_bytes = 0

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        if not self.enabled:
            yield
            return
        with self._counting() if part == 'objectives' else contextlib.nullcontext():
            start = _mark()
            yield
            self.marks[part].append((start, _mark()))

    def seconds(self, part: str) -> float:
        """Total of one part so far."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return sum(_between(a, b) for a, b in self.marks[part])

    def measure_backward(
        self,
        terms: Mapping[str, Mapping[str, Tensor]],
        sides: Iterable[Side],
        learnt: Iterable[Tensor],
    ) -> None:
        """Time the objectives' share of the backward pass by running it once more, on its own.

        It ends at the taps of the networks that learn and at ``learnt``, the objectives' own
        parameters.
        """
        losses = [v for named in terms.values() for k, v in named.items() if '.loss' in k]
        taps = [t for side in sides for t in flatten(list(side.calls.values()))]
        self._backward('objectives_backward', losses, [*taps, *learnt])

    def measure_peers(self, losses: Mapping[str, Any], learnt: Iterable[Tensor]) -> None:
        """The same of the peers' own losses, down to their parameters."""
        found = [v.sum() for k, value in losses.items() if 'loss' in k for v in flatten(value)]
        self._backward('peers_backward', found, learnt)

    def _backward(self, part: str, losses: list[Tensor], leaves: Iterable[Tensor]) -> None:
        if not self.enabled:
            return
        wanted = [t for t in leaves if t.requires_grad]
        losses = [loss for loss in losses if loss.requires_grad]
        if not (losses and wanted):
            return
        with self(part):
            gradients_at(torch.stack([loss.sum() for loss in losses]).sum(), wanted)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the bytes that the objectives keep for their backward pass."""
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self.saved_bytes = max(self.saved_bytes, sum(storages.values()))


def _mark() -> Any:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
