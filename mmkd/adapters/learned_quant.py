"""Numbers that quantisers learn: steps and points of weights, the largest activation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmkd.adapters.class_swap import swap_class
from mmkd.adapters.fake_quant import QuantisedWeight, Rounding, Saved
from mmkd.functional.fake_quantise import (
    clipped,
    first_step,
    from_rows,
    learned_step,
    nearest_point,
    to_rows,
)
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.quantise import percentile, tied

#: passes through a ReLU before its largest value is rounded to
CALIBRATION = 10


class LearnedStep(nn.Module):
    """The distance of two values of a weight, by LSQ, see
    :func:`~mmkd.functional.fake_quantise.learned_step`.

    Args:
        weight (Tensor): the weight, for its shape.
        rounding (Rounding): bits and axis.
    """

    def __init__(self, weight: Tensor, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding
        rows = to_rows(weight.detach(), rounding.axis)
        self.step = nn.Parameter(rows.new_ones(len(rows), 1))

    @torch.no_grad()
    def begin(self, weight: Tensor) -> None:
        """Choose the first step by the weights that training starts with."""
        step = first_step(to_rows(weight, self.rounding.axis), self.rounding.bits)
        self.step.copy_(torch.where(step > 0, step, 1))

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.rounding.axis)
        return from_rows(learned_step(rows, self.step.clamp(min=1e-8), self.rounding.bits), weight)


class LearnedPoints(nn.Module):
    """The values of a weight, between its smallest and largest, by differentiable quantisation, see
    :func:`~mmkd.functional.fake_quantise.nearest_point`. Arguments as :class:`LearnedStep`.
    """

    def __init__(self, weight: Tensor, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding
        rows = to_rows(weight.detach(), rounding.axis)
        self.points = nn.Parameter(torch.linspace(0, 1, 2**rounding.bits).to(rows))
        self.register_buffer('low', rows.new_full((len(rows), 1), -1))
        self.register_buffer('size', rows.new_full((len(rows), 1), 2))

    @torch.no_grad()
    def begin(self, weight: Tensor) -> None:
        """Range and quantiles of the weights that training starts with, which do not move."""
        rows = to_rows(weight, self.rounding.axis)
        self.low.copy_(rows.amin(1, keepdim=True))
        self.size.copy_(rows.amax(1, keepdim=True) - self.low)
        share = ((rows - self.low) / torch.where(self.size > 0, self.size, 1)).flatten().sort()
        count = len(self.points)
        places = (torch.arange(count, device=rows.device) + 0.5) / count * len(share.values)
        self.points.copy_(share.values[places.long()])

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.rounding.axis)
        return from_rows(nearest_point(rows, self.low, self.size, self.points), weight)


class LearnedWeight(QuantisedWeight):
    """A layer whose rounding is learned; its numbers are a module elsewhere in the network.

    Attributes:
        learned (tuple[nn.Module]): that module, in a tuple so that it is no child of the layer.
    """

    learned: tuple[Any]

    def rounded(self, weight: Tensor, training: bool = False) -> Tensor:
        return self.learned[0](weight)

    @torch.no_grad()
    def baked(self, saved: Saved) -> dict[str, Tensor]:
        own, numbers = self.weight, self.learned[0]  # type: ignore[attr-defined]
        tensors = numbers.state_dict(keep_vars=True).items()
        values = {name: saved(one).to(one.device) for name, one in tensors}
        return {'weight': functional_call(numbers, values, (saved(own).to(own.device),))}

    def begin(self) -> None:
        self.learned[0].begin(self.weight)  # type: ignore[attr-defined]


def learn_weight(module: Any, rounding: Rounding) -> nn.Module:
    """Round the weight of a layer by numbers that are learned, which are returned.

    With ``form='points'`` the weight itself does not train: its points do.
    """
    numbers: nn.Module
    if rounding.form == 'points':
        numbers = LearnedPoints(module.weight, rounding)
        module.weight.requires_grad_(False)
    else:
        numbers = LearnedStep(module.weight, rounding)
    numbers.begin(module.weight.detach())  # type: ignore[operator]  # a plan looks before training
    swap_class(module, LearnedWeight)
    module.rounding, module.learned = rounding, (numbers,)
    return numbers


class Clip(nn.Module):
    """The largest activation behind a ReLU, and its steps, see
    :func:`~mmkd.functional.fake_quantise.clipped`.

    Args:
        bits (int): of an activation.
        most (float | None): the largest value; None: learned (PACT), from the mean of the 99.9th
            percentiles of the first passes in training, in which nothing is rounded.
    """

    def __init__(self, bits: int, most: float | None = None) -> None:
        super().__init__()
        self.bits, self.learns = bits, most is None
        self.begun: bool | None = None  # known once the counter was read
        if most is None:
            self.most = nn.Parameter(torch.ones(1))
            self.register_buffer('passes', torch.zeros((), dtype=torch.long))
        else:
            self.register_buffer('most', torch.tensor([float(most)]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.learns and not self.begun:
            self.begun = bool(self.passes >= CALIBRATION)
        if self.learns and not self.begun:
            return self._look(x)
        return clipped(x, self.most.clamp(min=1e-6), self.bits)

    def _look(self, x: Tensor) -> Tensor:
        y = x.clamp(min=0)
        if self.training:
            with torch.no_grad():
                top = mean_over_ranks(percentile(y).float().clamp(min=1e-6))
                self.most.lerp_(top.view(1), 1 / (self.passes + 1.0))
                self.passes += 1
        return tied(y, self.most)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.begun = None
        super()._load_from_state_dict(*args)


class ClippedReLU:
    """What a ReLU gets in front of its own class: activations are clipped and rounded.

    Attributes:
        clip (tuple[Clip]): how, in a tuple so that it is no child.
    """

    clip: tuple[Clip]

    def forward(self, x: Tensor) -> Tensor:
        return self.clip[0](x)


def clip_relu(module: nn.Module, clip: Clip) -> None:
    """Clip and round what a ReLU gives, from now on."""
    swap_class(module, ClippedReLU)
    module.clip = (clip,)  # type: ignore[assignment]
