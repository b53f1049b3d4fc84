"""ResNet-50 and deeper for 32 x 32 pixels: He et al., CVPR 2016, no pooling in the stem."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.models.cifar_backbone import CifarBackbone
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

#: blocks of each of the four stages
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@MODELS.register_module()
class CifarBottleneckResNet(CifarBackbone):
    """ResNet-50, 101 and 152 with a 3 x 3 stem of stride 1: four stages of strides 1, 2, 4, 8.

    Args:
        depth (int): 50, 101 or 152.
        base_channels (int): width of the stem; the stages are 4, 8, 16 and 32 times as wide.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: another depth.
    """

    stem = 'relu'
    stages = ('layer1', 'layer2', 'layer3', 'layer4')

    def __init__(
        self,
        depth: int = 50,
        base_channels: int = 64,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        counts = DEPTHS[check_choice('CifarBottleneckResNet', 'depth', depth, DEPTHS)]
        width = check_number('CifarBottleneckResNet', 'base_channels', base_channels, 1, whole=True)
        self.add_stem(width)
        self.add_stages(Bottleneck, width, [width * 2**index for index in range(4)], counts)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut; ``relu3`` is applied to their sum."""

    expansion, last = 4, 3

    def __init__(self, in_channels: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        wide = self.expansion * middle
        self.conv1 = nn.Conv2d(in_channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(middle, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu3 = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != wide:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.relu3(self.bn3(self.conv3(x)) + shortcut)
