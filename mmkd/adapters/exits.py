"""Exits: small classifiers on inner stages of a backbone, of separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.levels import Level


class SeparableBlock(nn.Sequential):
    """(N, C, H, W) -> (N, C', H / stride, W / stride): two depthwise-separable convolutions.

    Args:
        in_channels, out_channels (int): C and C'; both are positive.
        stride (int): of the first of the two.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__(
            *_separable(in_channels, in_channels, stride),
            *_separable(in_channels, out_channels, 1),
        )


def _separable(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class Exit(nn.Module):
    """One separable block for each later stage, global average pooling, a linear layer.

    Args:
        widths (Sequence[int]): channels of the tapped stage and of all later ones.
        strides (Sequence[int]): of the later ones, each relative to the stage before.
        num_classes (int): outputs.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strides, strict=True)
        self.blocks = nn.Sequential(*(SeparableBlock(*pair) for pair in pairs))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> logits (N, K) and the pooled features (N, D) that they are read from."""
        features = self.blocks(x).mean((2, 3))
        return self.fc(features), features


def build_exits(cuts: Sequence[int], stages: Sequence[Level], num_classes: int) -> list[Exit]:
    """An :class:`Exit` behind each of these stages, down to size and width of the last one.

    Args:
        cuts (Sequence[int]): places of stages, counted from 0.
        stages (Sequence[Level]): shapes (C, H, W) of all of them.
    """
    widths = [stage.channels for stage in stages]
    sizes = [stage.shape[1] for stage in stages]
    strides = [max(1, round(a / b)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    return [Exit(widths[i:], strides[i:], num_classes) for i in cuts]
