"""Layers that compute with rounded weights, and keep the unrounded ones as parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.class_swap import swap_class
from mmkd.functional.fake_quantise import fake_quantise

#: reads the value of a parameter from a checkpoint
Saved = Callable[[Tensor], Tensor]


class Latent:
    """What a module has whose parameters are not those that it computes with."""

    def baked(self, saved: Saved) -> dict[str, Tensor]:
        """What the plain module computes the same with, by the name of its parameter.

        Args:
            saved (Callable[[Tensor], Tensor]): the value that a parameter has in a checkpoint.
        """
        raise NotImplementedError

    def begin(self) -> None:
        """Called when training begins, after weights were loaded; not in a resumed run."""


def beside(layer: str) -> str:
    """Name, among ``edits`` of a network, of what a layer learns beside its weight."""
    return layer.replace('.', '-')


def learn_beside(model: nn.Module, layer: str, numbers: nn.Module) -> None:
    """Register numbers that train under ``edits.`` of the network, not under their layer."""
    if not isinstance(getattr(model, 'edits', None), nn.ModuleDict):
        model.edits = nn.ModuleDict()
    model.edits[beside(layer)] = numbers  # type: ignore[operator, index]


@dataclass(frozen=True)
class Rounding:
    """How a layer's weight is rounded, see :func:`~mmkd.functional.fake_quantise.fake_quantise`."""

    bits: int
    axis: str = 'channel'
    form: str = 'symmetric'
    stochastic: bool = False


class QuantisedWeight(Latent):
    """What a convolution or a linear layer gets in front of its own class.

    Attributes:
        rounding (Rounding): of its weight; stochastic in training alone.
    """

    rounding: Rounding

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Found before the parameter of this name, which stays where optimisers and files see it.
        self.__dict__['weight'] = self.rounded(self.weight, self.training)  # type: ignore[attr-defined]
        try:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        finally:
            del self.__dict__['weight']

    def rounded(self, weight: Tensor, training: bool = False) -> Tensor:
        """A weight as the layer computes with it."""
        how = self.rounding
        return fake_quantise(weight, how.bits, how.axis, how.form, how.stochastic and training)

    @torch.no_grad()
    def baked(self, saved: Saved) -> dict[str, Tensor]:
        own = self.weight  # type: ignore[attr-defined]
        return {'weight': self.rounded(saved(own).to(own.device))}


def quantise_weight(module: nn.Module, rounding: Rounding) -> None:
    """Round the weight of a layer, from now on."""
    swap_class(module, QuantisedWeight)
    module.rounding = rounding  # type: ignore[assignment]


def latent_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every :class:`Latent` module with each of its names."""
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Latent):
            yield name, module


def bake(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a ``state_dict`` of the model that differ in the plain model, baked.

    Args:
        state (dict[str, Tensor]): of the model, or an average of it; it stays as it is.
    """
    names = {id(value): key for key, value in model.state_dict(keep_vars=True).items()}
    found = {}
    for name, module in latent_modules(model):
        for own, value in module.baked(lambda one: state[names[id(one)]]).items():
            key = f'{name}.{own}' if name else own
            found[key] = value.to(state[key].device)
    return found
