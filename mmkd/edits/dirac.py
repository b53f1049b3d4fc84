"""Dirac: convolutions that train as the identity and a weight, and are deployed as one weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.class_swap import swap_class
from mmkd.adapters.fake_quant import Latent, Saved, learn_beside
from mmkd.edits.cheap_convs import spatial_convs
from mmkd.edits.choosing import Choice, check_own_weight
from mmkd.options import check_number
from mmkd.registry import MODELS


class DiracNumbers(nn.Module):
    """alpha and beta of a layer.

    Args:
        weight (Tensor): of the layer, for its type and device.
        alpha, beta (float): at the start.
    """

    def __init__(self, weight: Tensor, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = (nn.Parameter(weight.new_tensor(x)) for x in (alpha, beta))


class DiracConv(Latent):
    """What a convolution gets in front of its own class: it computes with ``alpha I + beta W``.

    Attributes:
        numbers (tuple[DiracNumbers]): in a tuple, so that they are no child of the layer.
    """

    numbers: tuple[DiracNumbers]

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self
        numbers = self.numbers[0]
        weight = folded(own.weight, numbers.alpha, numbers.beta)
        return own._conv_forward(x, weight, own.bias)

    @torch.no_grad()
    def baked(self, saved: Saved) -> dict[str, Tensor]:
        own, numbers = self.weight, self.numbers[0]  # type: ignore[attr-defined]
        values = (saved(x).to(own.device) for x in (own, numbers.alpha, numbers.beta))
        return {'weight': folded(*values)}


def folded(weight: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """``alpha I + beta W``, I the kernel that gives what it gets, (O, I, k, k)."""
    identity = torch.zeros_like(weight)  # nn.init.dirac_ loops over channels, in every pass
    height, width = weight.shape[2:]
    identity[:, :, height // 2, width // 2].fill_diagonal_(1)
    return alpha * identity + beta * weight


@MODELS.register_module()
class Dirac:
    """Let convolutions train in the Dirac form ``alpha I + beta W``, as an edit of the student.

    Zagoruyko and Komodakis, 2017 ("DiracNets"), as in the code of ResDist: a plain network begins
    near the identity without shortcuts. alpha and beta are learnt, one of each for a layer.
    Checkpoints hold the folded weights of the plain network; a run that starts from them
    (``load_from``) leaves the edit out. The first convolution, those of 1 x 1 and grouped ones
    stay.

    Args:
        alpha, beta (float): at the start.
        only, skip (list[str]): names of modules whose convolutions alone are changed, or stay.

    Raises:
        ValueError: options out of range; no convolution; one that another edit has changed.
    """

    claims = 'shapes'
    in_weights = True

    def __init__(
        self,
        alpha: float = 1,
        beta: float = 0.1,
        only: Sequence[str] = ('backbone',),
        skip: Sequence[str] = (),
    ) -> None:
        self.alpha = float(check_number('Dirac', 'alpha', alpha))
        self.beta = float(check_number('Dirac', 'beta', beta))
        self.choice = Choice('Dirac', only, skip)
        self.count = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        for name, module in model.named_modules():
            if self.choice.has(name):
                check_own_weight('Dirac', name, module)
        chosen = spatial_convs(model, self.choice)
        for name, conv in chosen.items():
            numbers = DiracNumbers(conv.weight.detach(), self.alpha, self.beta)
            swap_class(conv, DiracConv)
            conv.numbers = (numbers,)  # type: ignore[assignment]
            learn_beside(model, name, numbers)
        self.count = len(chosen)
        return model

    def describe(self) -> str:
        """How many convolutions."""
        return f'{self.count} convolutions as {self.alpha:g} I + {self.beta:g} W'
