"""FakeQuant: a network that computes with weights of few bits, for training and for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmkd.adapters.fake_quant import QuantisedWeight, Rounding, learn_beside, quantise_weight
from mmkd.adapters.learned_quant import Clip, ClippedReLU, clip_relu, learn_weight
from mmkd.edits.choosing import Choice, check_own_weight, ends, quantisable, rectifiers
from mmkd.functional.fake_quantise import AXES, FORMS, LEARNED_FORMS, bucket_of
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

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
            in [-1, 1] whatever the weights are; ``'lsq'``, symmetric with steps that are learned
            (Esser et al., ICLR 2020); ``'points'``, Polino's differentiable quantisation: 2^bits
            values of a layer, from the quantiles of the weights that training starts with, are
            learned, and the weights are not.
        rounding (str): ``'nearest'``, or ``'stochastic'`` in training (Polino): up with the
            probability of the rest.
        acts (int | dict | None): bits of what a ReLU gives, in [0, a]; a is learned (PACT, Choi et
            al., 2018), or ``dict(bits=8, clip=1)`` sets it, 1 in WRPN. Heads that see several
            levels are left out. The student is then no plain model: its config has this edit.

    Raises:
        ValueError: options out of range; a module that does not exist; a layer whose weight an edit
            has exchanged already; no layer to quantise.
    """

    def __init__(
        self,
        bits: int | None,
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
        ends: int | None = 8,
        axis: str = 'channel',
        form: str = 'symmetric',
        rounding: str = 'nearest',
        acts: int | Mapping[str, Any] | None = None,
    ) -> None:
        self.bits, self.ends = (_bits(name, x) for name, x in (('bits', bits), ('ends', ends)))
        self.choice = Choice('FakeQuant', only, skip)
        if bucket_of(axis) is None:
            raise ValueError(
                f'FakeQuant: axis must be one of {list(AXES)} with N of at least 1, found {axis!r}.'
            )
        form = check_choice('FakeQuant', 'form', form, (*FORMS, *LEARNED_FORMS))
        rounding = check_choice('FakeQuant', 'rounding', rounding, ('nearest', 'stochastic'))
        if rounding == 'stochastic' and form in LEARNED_FORMS:
            raise ValueError(
                f"FakeQuant: rounding='stochastic' is for fixed values, not for form={form!r}, "
                "which learns them. Leave rounding out, or take form='asymmetric'."
            )
        how = axis, form, rounding == 'stochastic'
        self.own = None if self.bits is None else Rounding(self.bits, *how)
        self.acts = _activations(acts)
        self.claims = 'same' if self.bits is None and self.acts is None else 'shapes'
        self.in_weights = self.acts is None
        self.told = ''

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        self.choice.check(model)
        told = []
        if self.own is not None:
            chosen = self._layers(model)
            _check_shared(model, chosen)
            for name, (module, rounding) in chosen.items():
                _quantise(model, name, module, rounding)
            told.append(_told(model, chosen))
        if self.acts is not None:
            told.append(f'{self._clip(model)} ReLUs to {self.acts[0]} bits')
        self.told = ', '.join(told)
        return model

    def describe(self) -> str:
        """Layers and bits, after the call."""
        return self.told

    def _layers(self, model: nn.Module) -> dict[str, tuple[Any, Rounding]]:
        """Layers to quantise, and how, by their names.

        Raises:
            ValueError: none.
        """
        assert self.own is not None
        every = dict(quantisable(model))
        ending = ends(every)
        chosen = {}
        for name, module in every.items():
            if self.choice.has(name) and name not in ending:
                chosen[name] = module, self.own
            elif self.choice.has(name) and self.ends is not None:
                chosen[name] = module, Rounding(self.ends)
        if not chosen:
            raise ValueError(
                f'FakeQuant: no convolution or linear layer of {type(model).__name__} is left to '
                f'quantise with only={self.choice.only} and skip={self.choice.skip}. Name fewer in '
                'skip.'
            )
        return chosen

    def _clip(self, model: nn.Module) -> int:
        assert self.acts is not None
        chosen = {name: m for name, m in rectifiers(model) if self.choice.has(name)}
        if not chosen:
            raise ValueError(
                f'FakeQuant: acts= rounds what ReLUs give, but {type(model).__name__} has none '
                'that is meant, as modules. Leave acts out.'
            )
        for name, module in chosen.items():
            if isinstance(module, ClippedReLU):
                raise ValueError(
                    f'FakeQuant: {name} is quantised already, to {module.clip[0].bits} bits. Give '
                    'each FakeQuant layers of its own, by only= and skip=.'
                )
            clip = Clip(*self.acts)
            clip_relu(module, clip)
            if clip.learns:
                learn_beside(model, name, clip)
        return len(chosen)


def _quantise(model: nn.Module, name: str, module: Any, rounding: Rounding) -> None:
    if isinstance(module, QuantisedWeight):
        raise ValueError(
            f'FakeQuant: {name} is quantised already, to {module.rounding.bits} bits. Give each '
            'FakeQuant layers of its own, by only= and skip=.'
        )
    check_own_weight('FakeQuant', name, module)
    if rounding.form in LEARNED_FORMS:
        learn_beside(model, name, learn_weight(module, rounding))
    else:
        quantise_weight(module, rounding)


def _check_shared(model: nn.Module, chosen: dict[str, tuple[Any, Rounding]]) -> None:
    """A weight that two layers share is quantised in both or in neither."""
    taken = {id(module.weight): name for name, (module, _) in chosen.items()}
    layers = {id(module) for module, _ in chosen.values()}
    for name, module in model.named_modules():
        for weight in module._parameters.values() if id(module) not in layers else ():
            if id(weight) in taken:
                other = taken[id(weight)]
                raise ValueError(
                    f'FakeQuant: {name} computes with the weight of {other}, but would not be '
                    f'quantised with it. Leave both out: skip={[name, other]}.'
                )


def _told(model: nn.Module, chosen: dict[str, tuple[Any, Rounding]]) -> str:
    count: dict[int, int] = {}
    bits = whole = sum(p.numel() for p in model.parameters()) * FLOAT
    for module, rounding in chosen.values():
        count[rounding.bits] = count.get(rounding.bits, 0) + 1
        bits -= module.weight.numel() * (FLOAT - rounding.bits)
    how = {f'{x.form} by {x.axis}': None for _, x in chosen.values()}
    parts = ' and '.join(f'{n} layers to {b} bits' for b, n in sorted(count.items()))
    return f'{parts} ({", ".join(how)}), {bits / whole:.1%} of the bits of float32'


def _activations(acts: Any) -> tuple[int, float | None] | None:
    """Bits of activations, and their largest value if it is set."""
    if acts is None:
        return None
    given = dict(acts) if isinstance(acts, Mapping) else dict(bits=acts)
    if unknown := sorted({*given} - {'bits', 'clip'}):
        raise ValueError(
            f'FakeQuant: acts takes bits and clip, found {", ".join(map(repr, unknown))} too.'
        )
    bits = check_number('FakeQuant', 'acts', given.get('bits'), 2, MOST, whole=True)
    clip = given.get('clip', 'pact')
    most = None if clip == 'pact' else check_number('FakeQuant', 'clip of acts', clip, above=0)
    return bits, most


def _bits(name: str, value: Any) -> int | None:
    if value == FLOAT:
        return None
    return check_number('FakeQuant', name, value, 2, MOST, whole=True, optional=True)
