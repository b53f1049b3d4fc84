"""Which layers of a network an edit is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmkd.adapters.fake_quant import Latent
from mmkd.names import did_you_mean
from mmkd.options import check_list

#: layers that predict, by the end of their names
PREDICTIONS = re.compile(
    r'(?:^|\.)(?:\w+_(?:cls|reg|obj|seg|logits|center|centerness|objectness)|convs_pred|head\.fc'
    r'|(?:cls|reg)_branches|class_embed|bbox_embed|cls_embed)(?:\.(?:layers\.)?\d+)*$'
)
#: layers that say where a deformable one looks: nothing else is as sensitive
OFFSETS = re.compile(r'(?:^|\.)(?:\w*conv_offset|sampling_offsets)$')
#: heads that see several levels of a pyramid, whose activations differ
SHARED = ('rpn_head', 'bbox_head', 'mask_head')


def within(name: str, part: str) -> bool:
    """Whether a dotted name lies in a module of this (end of a) name."""
    return f'.{part}.' in f'.{name}.'


class Choice:
    """Modules that lie in one of ``only``, if there are any, and in none of ``skip``.

    Args:
        owner (str): the edit, for messages.
        only, skip (list[str]): dotted names of modules, or ends of them.

    Raises:
        ValueError: one that is no list.
    """

    def __init__(self, owner: str, only: Sequence[str], skip: Sequence[str]) -> None:
        self.owner = owner
        self.only = check_list(owner, 'only', only)
        self.skip = check_list(owner, 'skip', skip)

    def check(self, model: nn.Module) -> None:
        """Refuse names that no module has; raises ValueError."""
        names = [name for name, _ in model.named_modules() if name]
        for option, parts in dict(only=self.only, skip=self.skip).items():
            for part in parts:
                if not any(within(name, part) for name in names):
                    raise ValueError(
                        f'{self.owner}: {option} names {part!r}, but {type(model).__name__} has '
                        f'no such module.{did_you_mean(part, names)}'
                    )

    def has(self, name: str) -> bool:
        """Whether a module of this name is meant."""
        asked = not self.only or any(within(name, part) for part in self.only)
        return asked and not any(within(name, part) for part in self.skip)


def check_own_weight(owner: str, name: str, module: nn.Module) -> None:
    """Refuse a layer whose weight an edit has exchanged: only one of two could be saved.

    Raises:
        ValueError: such a layer.
    """
    if isinstance(module, Latent):
        raise ValueError(
            f'{owner}: {name} computes with another weight already, by an edit before. Give each '
            'edit layers of its own, by only= and skip=.'
        )


def quantisable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers whose own forward pass reads their weight.

    Not those of transposed convolutions, whose channels lie otherwise, of offsets, and of
    multi-head attention, which reads them itself.
    """
    hidden = {
        id(part)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    for name, module in model.named_modules():
        kind = isinstance(module, (_ConvNd, nn.Linear)) and not isinstance(module, _ConvTransposeNd)
        own = 'weight' in module._parameters and id(module) not in hidden
        if kind and own and not OFFSETS.search(name):
            yield name, module


def ends(layers: Mapping[str, nn.Module]) -> set[str]:
    """Names of the first layer (of the backbone) and of those that predict, else of the last."""
    last = {name for name in layers if PREDICTIONS.search(name)} or {*list(layers)[-1:]}
    first = [name for name in layers if name.startswith('backbone.')] or list(layers)
    return last | {*first[:1]}


def rectifiers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """ReLUs, but for those of heads that see several levels of a pyramid."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)) and name.partition('.')[0] not in SHARED:
            yield name, module
