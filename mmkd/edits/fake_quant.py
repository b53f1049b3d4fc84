"""FakeQuant: a network that computes with weights of few bits, for training and for files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmkd.adapters.fake_quant import QuantisedWeight, Rounding, quantise_weight
from mmkd.functional.fake_quantise import AXES, FORMS, bucket_of
from mmkd.names import did_you_mean
from mmkd.options import check_choice, check_list, check_number
from mmkd.registry import MODELS

#: layers that predict, by the end of their names
PREDICTIONS = re.compile(
    r'(?:^|\.)(?:\w+_(?:cls|reg|obj|seg|logits|center|centerness|objectness)|convs_pred|head\.fc'
    r'|(?:cls|reg)_branches|class_embed|bbox_embed|cls_embed)(?:\.(?:layers\.)?\d+)*$'
)
#: layers that say where a deformable one looks: nothing else is as sensitive
OFFSETS = re.compile(r'(?:^|\.)(?:\w*conv_offset|sampling_offsets)$')
FLOAT = 32
MOST = 16


@MODELS.register_module()
class FakeQuant:
    """Quantise the weights of convolutions and linear layers, as an edit of the student.

    Polino et al., ICLR 2018 ("Model compression via distillation and quantization"), Mishra and
    Marr, ICLR 2018 ("Apprentice"). A layer computes with rounded weights, and the optimiser moves
    the unrounded ones by the gradient of the rounded. Checkpoints hold the rounded weights under
    the plain model's names, so that they are scored and deployed without mmkd, and the unrounded
    beside for ``--resume``. Norms, biases, offsets of deformable layers, transposed convolutions
    and multi-head attention stay in float.

    Args:
        bits (int | None): of each weight, 2 to 16. ``None`` and 32, which float32 has anyway,
            change nothing.
        only, skip (list[str]): names of modules whose layers alone are quantised, or are left in
            float: ``'neck'``, ``'bbox_head'``, ``'backbone.layer1'``.
        ends (int | None): bits of the first layer and of those that predict, symmetric by channel;
            ``None`` leaves them in float.
        axis (str): numbers that share a range: ``'channel'``, those of an output channel;
            ``'tensor'``, all of a layer; ``'flat:256'``, Polino's buckets of 256 that follow each
            other in memory.
        form (str): ``'symmetric'``, with zero among the values, for integer runtimes;
            ``'asymmetric'``, Polino's, from the smallest to the largest; ``'wrpn'``, Apprentice's,
            in [-1, 1] whatever the weights are.
        rounding (str): ``'nearest'``, or ``'stochastic'`` in training (Polino): up with the
            probability of the rest.

    Raises:
        ValueError: options out of range; a module that does not exist; a layer that is quantised
            already; no layer to quantise.
    """

    in_weights = True

    def __init__(
        self,
        bits: int | None,
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
        ends: int | None = 8,
        axis: str = 'channel',
        form: str = 'symmetric',
        rounding: str = 'nearest',
    ) -> None:
        self.bits, self.ends = (_bits(name, x) for name, x in (('bits', bits), ('ends', ends)))
        self.only = check_list('FakeQuant', 'only', only)
        self.skip = check_list('FakeQuant', 'skip', skip)
        if bucket_of(axis) is None:
            raise ValueError(
                f'FakeQuant: axis must be one of {list(AXES)} with N of at least 1, found {axis!r}.'
            )
        self.axis = axis
        self.form = check_choice('FakeQuant', 'form', form, FORMS)
        rounding = check_choice('FakeQuant', 'rounding', rounding, ('nearest', 'stochastic'))
        self.stochastic = rounding == 'stochastic'
        self.claims = 'same' if self.bits is None else 'shapes'
        self.told = ''

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        if self.bits is None:
            return model
        own = Rounding(self.bits, self.axis, self.form, self.stochastic)
        layers, ends = self._layers(model)
        chosen: dict[str, tuple[nn.Module, Rounding]] = {}
        for name, module in layers.items():
            if name not in ends:
                chosen[name] = module, own
            elif self.ends is not None:
                chosen[name] = module, Rounding(self.ends)
        self._check_shared(model, chosen)
        for name, (module, rounding) in chosen.items():
            if isinstance(module, QuantisedWeight):
                raise ValueError(
                    f'FakeQuant: {name} is quantised already, to {module.rounding.bits} bits. '
                    'Give each FakeQuant layers of its own, by only= and skip=.'
                )
            quantise_weight(module, rounding)
        self.told = self._told(model, chosen)
        return model

    def describe(self) -> str:
        """Layers and bits, after the call."""
        return self.told

    def _layers(self, model: nn.Module) -> tuple[dict[str, nn.Module], set[str]]:
        """Layers to quantise by their names, and the names of those that are ends.

        Raises:
            ValueError: a module in ``only`` or ``skip`` that does not exist; no layer.
        """
        names = [name for name, _ in model.named_modules() if name]
        for option in ('only', 'skip'):
            for part in getattr(self, option):
                if not any(_within(name, part) for name in names):
                    raise ValueError(
                        f'FakeQuant: {option} names {part!r}, but {type(model).__name__} has no '
                        f'such module.{did_you_mean(part, names)}'
                    )
        every = dict(_quantisable(model))
        ends = {name for name in every if PREDICTIONS.search(name)} or {*list(every)[-1:]}
        ends.add(
            next((name for name in every if name.startswith('backbone.')), next(iter(every), ''))
        )
        layers = {
            name: module
            for name, module in every.items()
            if (not self.only or any(_within(name, part) for part in self.only))
            and not any(_within(name, part) for part in self.skip)
        }
        if not layers:
            raise ValueError(
                f'FakeQuant: no convolution or linear layer of {type(model).__name__} is left to '
                f'quantise with only={self.only} and skip={self.skip}. Name fewer in skip.'
            )
        return layers, ends

    def _check_shared(self, model: nn.Module, chosen: dict) -> None:
        """A weight that two layers share is quantised in both or in neither."""
        taken = {id(module.weight): name for name, (module, _) in chosen.items()}
        layers = {id(module) for module, _ in chosen.values()}
        for name, module in model.named_modules():
            for weight in module._parameters.values() if id(module) not in layers else ():
                if id(weight) in taken:
                    raise ValueError(
                        f'FakeQuant: {name} computes with the weight of {taken[id(weight)]}, but '
                        f'would not be quantised with it. Leave both out: skip={[name]} and '
                        f'{taken[id(weight)]!r}.'
                    )

    def _told(self, model: nn.Module, chosen: dict[str, tuple[Any, Rounding]]) -> str:
        count: dict[int, int] = {}
        bits = sum(p.numel() for p in model.parameters()) * FLOAT
        whole = bits
        for module, rounding in chosen.values():
            count[rounding.bits] = count.get(rounding.bits, 0) + 1
            bits -= module.weight.numel() * (FLOAT - rounding.bits)
        parts = ' and '.join(f'{n} layers to {b} bits' for b, n in sorted(count.items()))
        return f'{parts}, {self.form} by {self.axis}: {bits / whole:.1%} of the bits of float32'


def _bits(name: str, value: Any) -> int | None:
    if value == FLOAT:
        return None
    return check_number('FakeQuant', name, value, 2, MOST, whole=True, optional=True)


def _within(name: str, part: str) -> bool:
    """Whether a dotted name lies in a module of this (end of a) name."""
    return f'.{part}.' in f'.{name}.'


def _quantisable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers whose forward pass reads their weight, but for those that stay in float."""
    hidden = {
        id(part)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    for name, module in model.named_modules():
        plain = isinstance(module, (_ConvNd, nn.Linear)) and not isinstance(
            module, _ConvTransposeNd
        )
        own = 'weight' in module._parameters and id(module) not in hidden
        if plain and own and not OFFSETS.search(name):
            yield name, module
