"""ShuffleNets for 32 x 32 pixels, as the distillation literature uses them.

Zhang et al., CVPR 2018 (V1), and Ma et al., ECCV 2018 (V2). Both begin with a 1 x 1 convolution and
without pooling, so that their three stages have strides 2, 4 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.models.cifar_backbone import CifarBackbone
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

#: width of the stem
STEM = 24
#: widths of the three stages and of the last convolution of ShuffleNetV2
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2: (244, 488, 976, 2048),
}


def shuffle(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W): channels of all groups by turns, so that the next groups see each of them."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


@MODELS.register_module()
class CifarShuffleNet(CifarBackbone):
    """ShuffleNetV1 with grouped 1 x 1 convolutions: stages of 4, 8 and 4 units.

    Args:
        base_channels (int): width of the first stage; it doubles with each stage.
        groups (int): of the 1 x 1 convolutions.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: widths that the groups do not divide.
    """

    stem = 'relu'
    stages = ('layer1', 'layer2', 'layer3')
    preacts = ('layer1.3.relu3@in[0]', 'layer2.7.relu3@in[0]', 'layer3.3.relu3@in[0]')

    def __init__(
        self,
        base_channels: int = 240,
        groups: int = 3,
        out_indices: Sequence[int] = (0, 1, 2),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        owner = 'CifarShuffleNet'
        width = check_number(owner, 'base_channels', base_channels, STEM + 1, whole=True)
        check_number(owner, 'groups', groups, 1, whole=True)
        if any(size % groups for size in (width, (width - STEM) // 4, width - STEM, width // 4)):
            raise ValueError(
                f'{owner}: groups={groups} must divide base_channels, base_channels / 4 and '
                f'(base_channels - {STEM}) / 4, found base_channels={width}.'
            )
        self.add_stem(STEM, 1)
        before = STEM
        for index, (name, count) in enumerate(zip(self.stages, (4, 8, 4), strict=True)):
            wide = width * 2**index
            first = ShuffleUnit(before, wide, groups, stride=2)
            others = [ShuffleUnit(wide, wide, groups) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(first, *others))
            before = wide


class ShuffleUnit(nn.Module):
    """Grouped 1 x 1, depthwise 3 x 3 and grouped 1 x 1 convolutions, and a shortcut, which is added
    or, where the unit has stride 2, averaged and laid beside them."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        own = out_channels - in_channels if stride == 2 else out_channels
        middle = own // 4
        self.groups = 1 if in_channels == STEM else groups
        self.conv1 = nn.Conv2d(in_channels, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(middle, own, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(own)
        self.relu3 = nn.ReLU()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        own = shuffle(self.relu1(self.bn1(self.conv1(x))), self.groups)
        own = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(own)))))
        if self.pool is None:
            return self.relu3(own + x)
        return self.relu3(torch.cat((own, self.pool(x)), 1))


@MODELS.register_module()
class CifarShuffleNetV2(CifarBackbone):
    """ShuffleNetV2: stages of 4, 8 and 4 units that leave half of the channels as they are.

    The last map returned is that of a 1 x 1 convolution behind the third stage.

    Args:
        widen_factor (float): 0.5, 1, 1.5 or 2.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: another factor.
    """

    stem = 'relu'
    stages = ('layer1', 'layer2', 'layer3')

    def __init__(
        self,
        widen_factor: float = 1,
        out_indices: Sequence[int] = (0, 1, 2),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        check_choice('CifarShuffleNetV2', 'widen_factor', widen_factor, WIDTHS)
        *widths, last = WIDTHS[widen_factor]
        self.add_stem(STEM, 1)
        before = STEM
        for name, wide, count in zip(self.stages, widths, (3, 7, 3), strict=True):
            units = [SplitUnit(wide // 2) for _ in range(count)]
            self.add_module(name, nn.Sequential(DownUnit(before, wide), *units))
            before = wide
        self.last = _pointwise(before, last)

    def end(self, x: Tensor) -> Tensor:
        return self.last(x)


class SplitUnit(nn.Module):
    """Half of the channels (2 C) pass; the other half goes through three convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _pointwise(channels, channels), _depthwise(channels), _pointwise(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return shuffle(torch.cat((kept, self.branch(changed)), 1), 2)


class DownUnit(nn.Module):
    """Two branches of stride 2, side by side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.short = nn.Sequential(_depthwise(in_channels, 2), _pointwise(in_channels, half))
        self.long = nn.Sequential(
            _pointwise(in_channels, half), _depthwise(half, 2), _pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat((self.short(x), self.long(x)), 1), 2)


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def _depthwise(channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )
