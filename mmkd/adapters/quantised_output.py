"""A module whose output is rounded to multiples of a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.class_swap import swap_class
from mmkd.functional.nested import map_tensors
from mmkd.functional.quantise import quantise, straight_through


class QuantisedOutput:
    """What a module gets beside its own class: its maps are rounded, gradients pass straight.

    Attributes:
        step (float): distance of two values.
        signed (bool): also negative multiples.
        levels (int | None): values at or above 0, see :func:`~mmkd.functional.quantise.quantise`.
    """

    quantised: tuple[float, bool, int | None]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)  # type: ignore[misc]
        return map_tensors(found, self._rounded)

    def _rounded(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value = quantise(x, *self.quantised)
        return straight_through(x, value) if x.requires_grad else value


def quantise_output(
    module: nn.Module, step: float, signed: bool = False, levels: int | None = None
) -> None:
    """Round what a module gives, from now on; its parameters keep their names."""
    swap_class(module, QuantisedOutput)
    module.quantised = (step, signed, levels)  # type: ignore[assignment]


def quantised_places(model: nn.Module) -> dict[str, tuple[float, bool, int | None]]:
    """Step, sign and levels of every module whose output is rounded, by its name."""
    return {
        name: module.quantised
        for name, module in model.named_modules()
        if isinstance(module, QuantisedOutput)
    }
