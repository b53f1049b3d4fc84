"""What a network that still learns has to teach: its values, and itself, as constants."""

from __future__ import annotations

import copy
from itertools import chain

from torch import Tensor, nn

from mmkd.functional.nested import map_tensors
from mmkd.tap import Side


class Heard(Side):
    """The record of a network that learns, without gradients.

    Objectives that ask their teacher again (box heads on given RoIs, a head on the student's maps)
    get a twin of the network as ``model``: its own weights as constants, in evaluation mode.

    Args:
        side (Side): the record with gradients.
        twins (Twins): of the networks that learn.
    """

    def __init__(self, side: Side, twins: Twins) -> None:
        self.inputs = side.inputs.detach()
        self.calls = {tap: map_tensors(seen, Tensor.detach) for tap, seen in side.calls.items()}
        self._network, self._twins = side.model, twins

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The twin, built when it is first asked for."""
        return self._twins.of(self._network)


class Twins:
    """Twins of networks that learn: the same tensors, constant and in evaluation mode."""

    def __init__(self) -> None:
        self._known: dict[int, nn.Module] = {}

    def __deepcopy__(self, memo: dict) -> Twins:
        return Twins()

    def of(self, model: nn.Module) -> nn.Module:
        """The twin of a network; a new one after the network was moved."""
        twin = self._known.get(id(model))
        if twin is None or not _share(model, twin):
            memo = {id(p): nn.Parameter(p.detach(), False) for p in model.parameters()}
            memo |= {id(b): b for b in model.buffers()}  # type: ignore[misc]
            self._known[id(model)] = twin = copy.deepcopy(model, memo).eval()
        return twin


def _share(model: nn.Module, twin: nn.Module) -> bool:
    """Whether two networks of one kind still hold the same numbers."""
    pairs = zip(*(chain(x.parameters(), x.buffers()) for x in (model, twin)), strict=True)
    return all(a.data_ptr() == b.data_ptr() for a, b in pairs)
