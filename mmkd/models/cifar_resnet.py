"""ResNets for 32 x 32 pixels: He et al., CVPR 2016, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.models.cifar_backbone import CifarBackbone
from mmkd.options import check_number
from mmkd.registry import MODELS


@MODELS.register_module()
class CifarResNet(CifarBackbone):
    """ResNet-20 and its kind: three stages of basic blocks, strides 1, 2 and 4.

    ResNet-8x4 and 32x4 of the distillation literature are ``base_channels=64`` over
    ``stem_channels=32``.

    Args:
        depth (int): 6n + 2: 8, 14, 20, 32, 44, 56, 110, ….
        base_channels (int): width of the first stage; it doubles with each stage.
        stem_channels (int | None): width of the first convolution, that of the first stage if
            None.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: a depth of another form.
    """

    stem = 'relu'
    stages = ('layer1', 'layer2', 'layer3')

    def __init__(
        self,
        depth: int,
        base_channels: int = 16,
        stem_channels: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        blocks, rest = divmod(check_number('CifarResNet', 'depth', depth, whole=True) - 2, 6)
        check_number('CifarResNet', 'base_channels', base_channels, 1, whole=True)
        check_number('CifarResNet', 'stem_channels', stem_channels, 1, whole=True, optional=True)
        if blocks < 1 or rest:
            raise ValueError(f'CifarResNet: depth must be 6n + 2 (8, 14, 20, …), found {depth}.')
        width = stem_channels or base_channels
        self.add_stem(width)
        widths = [base_channels * 2**index for index in range(3)]
        self.add_stages(BasicBlock, width, widths, [blocks] * 3)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; ``relu2`` is applied to their sum alone."""

    expansion, last = 1, 2

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)
