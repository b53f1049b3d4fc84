"""How much of a pyramid comes from the full image and how much from a small one, by a gate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScaleGate(nn.Module):
    """Weighs two maps of one size by what is in them, image by image.

    ``(g_1, g_2) = softmax(W_2 relu(W_1 [mean(high), mean(low)]))``, without biases, the same
    weights for all levels of a pyramid; fused is ``g_1 high + g_2 low``.

    Args:
        channels (int): C of the maps.
        shift (int): levels that the low pyramid lies above the high one: 1 at half the size.
        reduction (int): the hidden layer has 2 C / reduction values, at least 1.
    """

    shift: Tensor

    def __init__(self, channels: int, shift: int = 1, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(2 * channels // reduction, 1)
        self.squeeze = nn.Linear(2 * channels, hidden, bias=False)
        self.choose = nn.Linear(hidden, 2, bias=False)
        self.register_buffer('shift', torch.tensor(shift))

    def weights(self, high: Tensor, low: Tensor) -> Tensor:
        """(N, C, H, W) each -> (N, 2), which sum to 1."""
        seen = torch.cat((high.mean((2, 3)), low.mean((2, 3))), 1)
        return self.choose(self.squeeze(seen).relu()).softmax(1)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """(N, C, H, W) each -> fused, (N, C, H, W)."""
        first, second = self.weights(high, low)[:, :, None, None, None].unbind(1)
        return first * high + second * low

    def fuse(self, high: Sequence[Tensor], low: Sequence[Tensor], shift: int) -> list[Tensor]:
        """Pyramids of both images, finest first; the ``shift`` finest levels stay as they are.

        Args:
            shift (int): as the gate's own, which lies on the device and is not waited for.

        Raises:
            ValueError: maps that are to be fused differ in size or width.
        """
        for one, other in zip(high[shift:], low, strict=False):
            if one.shape != other.shape or 2 * one.shape[1] != self.squeeze.in_features:
                raise ValueError(
                    f'The gate of {self.squeeze.in_features // 2} channels fuses maps of one size '
                    f'from both images, found {tuple(one.shape[1:])} and {tuple(other.shape[1:])}. '
                    f'Pad batches to multiples of {2**shift} times the largest stride '
                    '(pad_size_divisor), and take the gate of this network.'
                )
        fused = [self(one, other) for one, other in zip(high[shift:], low, strict=False)]
        return [*high[:shift], *fused]
