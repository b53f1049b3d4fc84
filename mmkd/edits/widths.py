"""Widths: a network whose layers have other numbers of channels than its config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.edits.checking import outputs
from mmkd.names import did_you_mean
from mmkd.registry import MODELS

#: layers whose channels can be chosen
RESIZABLE = (nn.Conv2d, nn.Linear, _BatchNorm)


@MODELS.register_module()
class Widths:
    """Give layers other numbers of channels, as an edit of the student.

    Makers that prune or widen a trained network (``Prune``, ``FSKD``, ``Net2Net``) write the sizes
    into the config of their result, so that it can be built anywhere. The new layers have random
    weights, drawn as PyTorch draws them; those of the checkpoint are loaded afterwards. A depthwise
    convolution has as many groups as channels.

    Args:
        sizes (dict[str, list[int]]): by name of the module ``[out, in]`` of a convolution or linear
            layer and ``[channels]`` of a BatchNorm; the others stay as they are.

    Raises:
        ValueError: no such module; a size that it cannot have; a layer that is asked twice under
            two names; a module that does not take what the one before gives.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        self.sizes = {name: _size(name, size) for name, size in dict(sizes).items()}
        self.told = ''

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        before = sum(p.numel() for p in model.parameters())
        taken: dict[int, str] = {}
        names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
        for name, size in self.sizes.items():
            if name not in names:
                near = did_you_mean(name, names)
                raise ValueError(
                    f'Widths: sizes names {name!r}, but {type(model).__name__} has no such '
                    f'module.{near}'
                )
            module = model.get_submodule(name)
            if id(module) in taken:
                raise ValueError(
                    f'Widths: {name} and {taken[id(module)]} are one layer, asked twice. Give its '
                    'size once.'
                )
            taken[id(module)] = name
            resize(name, module, size)
        if self.sizes:
            check_widths(model)
        after = sum(p.numel() for p in model.parameters())
        self.told = (
            f'{len(self.sizes)} layers resized, {before:,} to {after:,} parameters '
            f'({after / before:.1%})'
        )
        return model

    def describe(self) -> str:
        """Layers and parameters, after the call."""
        return self.told


def _size(name: str, size: Any) -> list[int]:
    values = [size] if isinstance(size, int) else [*size] if isinstance(size, (list, tuple)) else []
    if not values or any(isinstance(x, bool) or not isinstance(x, int) or x < 1 for x in values):
        raise ValueError(
            f'Widths: the size of {name} must be [out, in], or [channels] of a BatchNorm, all at '
            f'least 1; found {size!r}.'
        )
    return values


def resize(name: str, module: nn.Module, size: list[int]) -> None:
    """Give a layer other sizes, in place; its parameters are new and random.

    Raises:
        ValueError: no such layer, or one that cannot have the size.
    """
    if not isinstance(module, RESIZABLE):
        raise ValueError(
            f'Widths: {name} is {type(module).__name__}, whose channels cannot be chosen. Take '
            'convolutions, linear layers and BatchNorms.'
        )
    norm = isinstance(module, _BatchNorm)
    if len(size) != (1 if norm else 2):
        raise ValueError(
            f'Widths: {name} is {type(module).__name__}, so its size must be '
            f'{"[channels]" if norm else "[out, in]"}, found {size}.'
        )
    if norm:
        module.num_features = size[0]  # type: ignore[assignment]
        for store in (module._parameters, module._buffers):
            for key, value in store.items():
                if value is not None and value.dim():
                    store[key] = _like(value, size)
    else:
        _resize_product(name, module, size)
    module.reset_parameters()  # type: ignore[operator]


def _resize_product(name: str, module: Any, size: list[int]) -> None:
    out, inner = size
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features, shape = out, inner, (out, inner)
    else:
        if module.groups == module.in_channels > 1:  # depthwise
            module.groups = inner
        if inner % module.groups or out % module.groups:
            raise ValueError(
                f'Widths: {name} has {module.groups} groups, which divide neither or one only of '
                f'its channels [out, in] = {size}.'
            )
        module.out_channels, module.in_channels = out, inner
        shape = (out, inner // module.groups, *module.kernel_size)
    module.weight = _like(module.weight, shape)
    if module.bias is not None:
        module.bias = _like(module.bias, (out,))


def _like(value: torch.Tensor, shape: Any) -> Any:
    fresh = torch.empty(*shape, dtype=value.dtype, device=value.device)
    if not isinstance(value, nn.Parameter):
        return fresh
    return nn.Parameter(fresh, requires_grad=value.requires_grad)


def check_widths(model: nn.Module) -> None:
    """Run a network on a probe image and name the layer that does not accept its input.

    Raises:
        ValueError: that layer, what it takes and what it gets.
    """
    wrong: list[str] = []

    def look(name: str, module: Any, inputs: Any) -> None:
        takes = getattr(module, 'in_channels', None) or getattr(module, 'in_features', None)
        takes = takes or module.num_features
        x = inputs[0]
        found = x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1]
        if found != takes:
            wrong.append(f'{name} takes {takes} channels and gets {found}')
            raise ValueError(wrong[0])

    hooks = [
        module.register_forward_pre_hook(lambda m, x, name=name: look(name, m, x))
        for name, module in model.named_modules()
        if isinstance(module, RESIZABLE)
    ]
    try:
        outputs(model)
    except Exception as error:
        why = wrong[0] if wrong else ' '.join(str(error).split()).rstrip('.')
        raise ValueError(
            f'Widths: the sizes do not fit each other: {why}. Resize both sides of a connection, '
            'or neither.'
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
