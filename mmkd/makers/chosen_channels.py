"""Which channels of a trained network stay, its weights then, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.edits.checking import outputs
from mmkd.makers.channel_groups import IN, NORM, OUT, Group, Member


def importance(group: Group, model: nn.Module) -> Tensor:
    """How much each channel of a group counts: (C,).

    The L1 norm of its weights in each layer that gives it, over the mean of that layer, averaged
    over the layers.
    """
    rows = []
    for one in group.members:
        if one.side == OUT:
            norms = model.get_submodule(one.name).weight.detach().flatten(1).abs().sum(1)
            norms = norms[one.index].view(group.size, -1).sum(1).double()
            rows.append(norms / norms.mean().clamp_min(1e-30))
    return torch.stack(rows).mean(0)


def strongest(group: Group, model: nn.Module, count: int) -> list[int]:
    """The channels that count most, in their order; of equal ones the first."""
    order: Any = importance(group, model).sort(descending=True, stable=True).indices
    return sorted(order[:count].tolist())


def chosen_state(
    model: nn.Module, chosen: Sequence[tuple[Group, Sequence[int]]], divide: bool = False
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Weights of a network with other channels of its groups.

    Args:
        chosen: groups, each with the channels that it is going to have, in their order; some may be
            taken twice.
        divide (bool): who reads a channel that was taken k times gets 1/k of its weights for each.

    Returns:
        tuple: the ``state_dict``, and the sizes of all layers that changed, as
        :class:`~mmkd.edits.widths.Widths` has them.
    """
    state = {key: value.clone() for key, value in model.state_dict().items()}
    sides: dict[tuple[str, str], list[tuple[Member, Group, Sequence[int]]]] = {}
    for group, keep in chosen:
        for one in group.members:
            sides.setdefault((one.name, one.side), []).append((one, group, keep))
    sizes: dict[str, list[int]] = {}
    for (name, side), parts in sides.items():
        module = model.get_submodule(name)
        index, share = _new_order(_width(module, side), parts)
        for key, dim in _tensors(module, side):
            value = state[f'{name}.{key}'].index_select(dim, index)
            if divide and side == IN:
                shape = [1] * value.dim()
                shape[dim] = -1
                value = value * share.to(value).view(shape)
            state[f'{name}.{key}'] = value
        _note(sizes, name, module, side, len(index))
    return state, sizes


def _width(module: Any, side: str) -> int:
    if isinstance(module, _BatchNorm):
        return module.num_features
    ins = 'in_features' if isinstance(module, nn.Linear) else 'in_channels'
    outs = 'out_features' if isinstance(module, nn.Linear) else 'out_channels'
    return getattr(module, ins if side == IN else outs)


def _tensors(module: nn.Module, side: str) -> Iterator[tuple[str, int]]:
    for store in (module._parameters, module._buffers):
        for key, value in store.items():
            if value is not None and value.dim() and not (side == IN and key == 'bias'):
                yield key, int(side == IN)


def _note(sizes: dict[str, list[int]], name: str, module: Any, side: str, count: int) -> None:
    if isinstance(module, _BatchNorm):
        sizes[name] = [count]
        return
    size = sizes.setdefault(name, [_width(module, OUT), _width(module, IN)])
    for place, own in enumerate((OUT, IN)):
        if side in (own, NORM):
            size[place] = count


def _new_order(
    width: int, parts: list[tuple[Member, Group, Sequence[int]]]
) -> tuple[Tensor, Tensor]:
    """Channels of a layer after several of its groups were chosen, and the share of each."""
    blocks: dict[int, tuple[list[int], list[float]]] = {}
    owned: set[int] = set()
    for one, group, keep in parts:
        own = torch.tensor(one.index).view(group.size, -1)
        times = torch.bincount(torch.tensor(keep), minlength=group.size)
        order = own[torch.tensor(keep)]
        share = (1 / times[torch.tensor(keep)]).unsqueeze(1).expand_as(order)
        blocks[min(one.index)] = order.flatten().tolist(), share.flatten().tolist()
        owned |= set(one.index)
    index: list[int] = []
    shares: list[float] = []
    for channel in range(width):
        if channel in blocks:
            index += blocks[channel][0]
            shares += blocks[channel][1]
        elif channel not in owned:
            index.append(channel)
            shares.append(1.0)
    return torch.tensor(index), torch.tensor(shares, dtype=torch.float64)


def products(
    model: nn.Module, uses: Mapping[str, int], chosen: Sequence[tuple[Group, int]] = ()
) -> int:
    """Multiply-accumulates of the counted layers, where groups have so many channels."""
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in uses}
    widths = {name: [_width(one, OUT), _width(one, IN)] for name, one in layers.items()}
    for group, count in chosen:
        for one in group.members:
            if one.name in widths:
                fewer = (group.size - count) * (len(one.index) // group.size)
                for place, own in enumerate((OUT, IN)):
                    if one.side in (own, NORM):
                        widths[one.name][place] -= fewer
    total = 0
    for name, (out, inner) in widths.items():
        layer = layers[name]
        groups = getattr(layer, 'groups', 1)
        inner = 1 if groups == _width(layer, IN) > 1 else inner // groups
        kernel = layer.weight[0, 0].numel()
        total += uses[name] * out * inner * kernel
    return total


def uses_of(model: nn.Module) -> dict[str, int]:
    """How often each weight of a convolution or linear layer is used for one image of the probe."""
    uses: dict[str, int] = {}

    def count(name: str, module: Any, out: Tensor) -> None:
        uses[name] = uses.get(name, 0) + out.numel() // _width(module, OUT)

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: count(name, m, out))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        size = outputs(model)[0]
        uses.clear()
        outputs(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    return uses
