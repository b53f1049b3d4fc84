"""Weights that were trained with few bits, as whole numbers and the steps between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkd.adapters.fake_quant import Rounding, latent_modules
from mmkd.edits import apply_edits

#: share of a step by which a weight may miss a multiple, beside what float32 rounds of it
MISS = 1e-3


@dataclass
class Whole:
    """A weight as whole numbers.

    Attributes:
        numbers (Tensor): (out, …), int64.
        step (Tensor): (out,), of each output channel; a number times its step is the weight.
        bits (int): with which it was trained.
    """

    numbers: Tensor
    step: Tensor
    bits: int

    @property
    def stored(self) -> int:
        """Bits of the smallest type of ONNX that holds the numbers: 4, 8 or 16."""
        low, high = int(self.numbers.min()), int(self.numbers.max())
        return next(b for b in (4, 8, 16) if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1))


def roundings(model: nn.Module, edits: list) -> dict[str, Rounding]:
    """How edits round the weight of each layer of a network, by its name; the network is edited."""
    edited = apply_edits(model, edits)
    return {name: module.rounding for name, module in latent_modules(edited)}


def to_whole(name: str, weight: Tensor, rounding: Rounding, steps: Tensor | None = None) -> Whole:
    """The whole numbers of a rounded weight.

    Args:
        name (str): of the layer, for messages.
        weight (Tensor): (out, …), as the checkpoint has it.
        rounding (Rounding): with which it was trained.
        steps (Tensor | None): learned by LSQ, (out, 1) or (1, 1).

    Raises:
        ValueError: values that one step for each channel cannot say; a weight that was not rounded.
    """
    if rounding.form not in ('symmetric', 'wrpn', 'lsq') or rounding.axis.startswith('flat'):
        raise ValueError(
            f'{name} was trained with form={rounding.form!r} and axis={rounding.axis!r}, whose '
            'values are no multiples of one step for each channel, which is what ONNX stores. '
            "Train with form='symmetric' or 'lsq' and axis='channel', or export with --float."
        )
    rows = weight.double().flatten(1)
    most = 2 ** (rounding.bits - 1) - 1
    if rounding.form == 'wrpn':
        step = rows.new_full((len(rows), 1), 1 / most)
    elif rounding.form == 'lsq':
        if steps is None:
            raise ValueError(
                f'{name} was trained with learned steps, which the checkpoint does not have. '
                'Export from the checkpoint that training wrote.'
            )
        step = steps.double().expand(len(rows), 1)
    else:
        size = rows if rounding.axis == 'channel' else rows.flatten()[None]
        step = size.abs().amax(1, keepdim=True).expand(len(rows), 1) / most
    step = torch.where(step > 0, step, 1)
    numbers = (rows / step).round()
    miss = float((rows / step - numbers).abs().max())
    if miss > MISS + most * 2**-22:
        raise ValueError(
            f'{name}: its weights miss the multiples of their step by up to {miss:.2g} of it, so '
            f'they were not rounded to {rounding.bits} bits. Name the checkpoint of the run with '
            'this edit, or quantise it first: mmkd make Bake.'
        )
    return Whole(numbers.long().view_as(weight), step.flatten(), rounding.bits)


def folded(whole: Whole, plain: Tensor, now: Tensor) -> Whole | None:
    """The same numbers, where every channel was multiplied by a factor, as by a folded BatchNorm.

    Args:
        plain (Tensor): the weight before, (out, …).
        now (Tensor): the weight in the file, of the same shape.

    Returns:
        Whole | None: None where the weight in the file is another one.
    """
    one, two = plain.double().flatten(1), now.double().flatten(1)
    factor = (one * two).sum(1) / (one * one).sum(1).clamp(min=1e-30)
    gap = (one * factor[:, None] - two).abs().amax()
    if float(gap) > 1e-4 * float(two.abs().amax()):
        return None
    shape = (-1, *[1] * (plain.dim() - 1))
    sign = torch.where(factor < 0, -1, 1)
    numbers = whole.numbers * sign.view(shape)
    return Whole(numbers, whole.step * factor.abs(), whole.bits)
