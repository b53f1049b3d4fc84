"""Encoders of any other origin: a module or function of a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.encoders.encoder import Encoder, as_map, summary
from mmkd.encoders.named_object import named_object
from mmkd.functional.nested import flatten
from mmkd.options import check_number


class ModuleEncoder(Encoder):
    """A module of torch, by itself or by the place where it is written.

    What it returns for normalised RGB (N, 3, H, W) may be a map (N, D, h, w), tokens (N, L, D), or
    several of both in a list or mapping. Vectors (N, D) in it are the summary; without any, it is
    the mean of the last map.

    Args:
        module (nn.Module | str): ``'file.py:name'`` names a module, a class or a function without
            arguments that makes one, or a function of images.
        checkpoint (str | None): a file, ``'random'``, or ``'own'``: the weights that it has.
        patch (int | None): pixels of a token's side; None: its ``patch_size``, else 1.

    Raises:
        TypeError: nothing of the kind.
        ValueError: no checkpoint; options of libraries.
    """

    def __init__(
        self,
        module: nn.Module | str,
        checkpoint: str | None,
        layers: Sequence[int] = (-1,),
        norm: bool = True,
        patch: int | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        named = isinstance(module, str)
        self.title = self.source = module if named else type(module).__name__
        if checkpoint is None:
            raise ValueError(
                f'VisionModel: {self.title} has no checkpoint. Set checkpoint= to its file, to '
                "'own' where it comes with its weights, or to 'random'."
            )
        if tuple(layers) != (-1,) or not norm or download:
            raise ValueError(
                'VisionModel: layers, norm and download are of models of timm and transformers; '
                f'{self.title} gives what it gives. Leave them out.'
            )
        found = named_object('VisionModel: model', module) if named else module
        self.network = _as_module(self.title, found)
        own = patch if patch is not None else getattr(self.network, 'patch_size', 1)
        own = max(own) if isinstance(own, (list, tuple)) else own
        self.patch = check_number('VisionModel', 'patch', own, 1, whole=True)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        answer = self.network(x)
        tensors = flatten(dict(answer) if isinstance(answer, Mapping) else answer)
        grid = x.shape[2] // self.patch, x.shape[3] // self.patch
        maps = [as_map(self.title, t, grid) for t in tensors if t.dim() in (3, 4)]
        if not maps:
            return [], x.new_zeros(len(x), 0)
        vectors = [t for t in tensors if t.dim() == 2]
        return [patches for patches, _ in maps], vectors[0] if vectors else summary(*maps[-1])


class Called(nn.Module):
    """A function of images as a module."""

    def __init__(self, call: Callable) -> None:
        super().__init__()
        self.call = call
        # What asks for the device of a network asks a parameter.
        self.nothing = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


def _as_module(title: str, found: Any) -> nn.Module:
    if callable(found) and not isinstance(found, nn.Module):
        empty = inspect.Parameter.empty
        parameters = inspect.signature(found).parameters.values()
        needed = [p for p in parameters if p.default is empty and p.kind not in (2, 4)]
        found = found() if not needed else Called(found) if len(needed) == 1 else None
    if not isinstance(found, nn.Module):
        raise TypeError(
            f'VisionModel: {title} must be a module of torch, something that makes one without '
            f'arguments, or a function of images, found {type(found).__name__}.'
        )
    return found
