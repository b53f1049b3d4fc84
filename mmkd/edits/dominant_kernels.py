"""DominantKernels: convolutions as few kernels for each channel, and a 1x1 layer behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.edits.cheap_convs import put, spatial_convs
from mmkd.edits.choosing import Choice
from mmkd.options import check_number
from mmkd.registry import MODELS


class DominantConv(nn.Module):
    """R kernels for each input channel, and 1 x 1 over what they give.

    Args:
        conv (nn.Conv2d): whose place it takes.
        rank (int): R, at most min(out, k * k).
    """

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        geometry: Any = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        inner = conv.in_channels
        self.spatial = nn.Conv2d(inner, inner * rank, *geometry, groups=inner, bias=False)
        self.mix = nn.Conv2d(inner * rank, conv.out_channels, 1, bias=conv.bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what the convolution would give."""
        return self.mix(self.spatial(x))


@MODELS.register_module()
class DominantKernels:
    """Build convolutions from few dominant kernels, as an edit of the student.

    Wang et al., ACCV 2016 ("Accelerating convolutional neural networks with dominant convolutional
    kernel and knowledge pre-regression"). The maker ``LowRank`` writes this edit and the weights,
    by singular value decomposition. The first convolution, those of 1 x 1 and grouped ones stay.

    Args:
        rank (int): R, kernels of each input channel; at most min(out, k * k) are taken.
        only, skip (list[str]): names of modules whose convolutions alone are changed, or stay.

    Raises:
        ValueError: options out of range; no convolution; layers that would cost more than before.
    """

    claims = 'shapes'

    def __init__(
        self, rank: int, only: Sequence[str] = ('backbone',), skip: Sequence[str] = ()
    ) -> None:
        self.rank = check_number('DominantKernels', 'rank', rank, 1, whole=True)
        self.choice = Choice('DominantKernels', only, skip)
        self.told = ''

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        chosen = self.chosen(model)
        blocks = {
            id(conv): DominantConv(conv, rank_of(conv, self.rank)).to(conv.weight)
            for conv in chosen.values()
        }
        put(model, blocks)
        before = sum(conv.weight.numel() for conv in chosen.values())
        after = sum(
            block.spatial.weight.numel() + block.mix.weight.numel() for block in blocks.values()
        )
        self.told = (
            f'{len(blocks)} convolutions of {self.rank} kernels for each channel: '
            f'{after / before:.1%} of their weights'
        )
        return model

    def describe(self) -> str:
        """Convolutions and their weights, after the call."""
        return self.told

    def chosen(self, model: nn.Module) -> dict[str, nn.Conv2d]:
        """The convolutions that are changed, by their names.

        Raises:
            ValueError: none, or one that would cost more than before.
        """
        found = spatial_convs(model, self.choice)
        for name, conv in found.items():
            if (ratio := cost_ratio(conv, self.rank)) >= 1:
                raise ValueError(
                    f'DominantKernels: {name} would cost {ratio:.2f} times what it does with rank='
                    f'{self.rank}. Take a smaller rank, or skip it.'
                )
        return found


def rank_of(conv: nn.Conv2d, rank: int) -> int:
    """R, but no more than there can be."""
    return min(rank, conv.out_channels, conv.weight[0, 0].numel())


def cost_ratio(conv: nn.Conv2d, rank: int) -> float:
    """Weights of R kernels a channel and 1 x 1, over those of the convolution."""
    kernel, out = conv.weight[0, 0].numel(), conv.out_channels
    return rank_of(conv, rank) * (kernel + out) / (out * kernel)


def decompose(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The nearest weights of R kernels for each input channel.

    For each input channel, the R largest singular values of its slice (O, k * k).

    Args:
        weight (Tensor): (O, I, k, k).

    Returns:
        tuple: depthwise kernels (I * R, 1, k, k), 1 x 1 weights (O, I * R, 1, 1), and the norm of
        what is lost over that of the weight.
    """
    out, inner, *size = weight.shape
    slices = weight.double().permute(1, 0, 2, 3).flatten(2)
    left, values, right = torch.linalg.svd(slices, full_matrices=False)
    root = values[:, :rank].sqrt()
    spatial = (root.unsqueeze(2) * right[:, :rank]).reshape(inner * rank, 1, *size)
    mix = (left[:, :, :rank] * root.unsqueeze(1)).permute(1, 0, 2).reshape(out, inner * rank, 1, 1)
    lost = float(values[:, rank:].square().sum() / values.square().sum().clamp_min(1e-300)) ** 0.5
    return spatial.to(weight), mix.to(weight), lost
