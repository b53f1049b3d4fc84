"""Deepen: layers that begin as the identity, at the ends of stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.names import did_you_mean
from mmkd.options import check_list
from mmkd.registry import MODELS


class IdentityLayer(nn.Module):
    """A 3 x 3 convolution, BatchNorm and ReLU that give what they get, if that is not negative.

    Args:
        channels (int): of the map (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.dirac_(self.conv.weight)
        self.calibrate(self.bn.running_mean, self.bn.running_var)

    @torch.no_grad()
    def calibrate(self, mean: Tensor, variance: Tensor) -> None:
        """Let the BatchNorm take back these statistics, (C,), of what the layer gets.

        In training on the images that they are of, the layer is the identity, too.
        """
        self.bn.running_mean.copy_(mean)
        self.bn.running_var.copy_(variance)
        self.bn.weight.copy_((self.bn.running_var + self.bn.eps).sqrt())
        self.bn.bias.copy_(self.bn.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return self.relu(self.bn(self.conv(x)))


@MODELS.register_module()
class Deepen:
    """Put a layer that is the identity behind stages, as an edit of the student.

    Chen et al., ICLR 2016 ("Net2Net: accelerating learning via knowledge transfer"), section 2.3:
    the network is deeper and computes the same. This needs a stage that ends in a ReLU; behind
    another activation the layer is not the identity, which is an error that says by how much.
    The maker ``Net2Net`` sets the BatchNorms for training.

    Args:
        after (list[str]): names of ``nn.Sequential`` stages, such as ``'backbone.layer3'``; one
            that is named twice gets two layers.

    Raises:
        ValueError: no such stage.
    """

    claims = 'same'

    def __init__(self, after: Sequence[str]) -> None:
        self.after = check_list('Deepen', 'after', after)

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        for name in self.after:
            stages = {n: m for n, m in model.named_modules() if type(m).forward is _SEQUENTIAL}
            if name not in stages or (channels := _channels(stages[name])) is None:
                known = [n for n, m in stages.items() if n and _channels(m)]
                raise ValueError(
                    f'Deepen: {type(model).__name__} has no stage {name!r}: a sequence of layers '
                    f'that gives a map.{did_you_mean(name, known)}'
                )
            stages[name].append(IdentityLayer(channels))  # type: ignore[operator]
        return model

    def describe(self) -> str:
        """Stages that are deeper."""
        return f'an identity layer behind {", ".join(self.after) or "nothing"}'


_SEQUENTIAL: Any = nn.Sequential.forward


def _channels(stage: Any) -> int | None:
    """Channels that the last block of a stage gives, None where it has no BatchNorm."""
    norms = [m for m in stage[-1].modules() if isinstance(m, _BatchNorm)] if len(stage) else []
    return norms[-1].num_features if norms else None
