"""Wide ResNets for 32 x 32 pixels: Zagoruyko and Komodakis, BMVC 2016."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.models.cifar_backbone import CifarBackbone
from mmkd.options import check_number
from mmkd.registry import MODELS


@MODELS.register_module()
class WideResNet(CifarBackbone):
    """WRN-depth-widen: three stages of pre-activation blocks, strides 1, 2 and 4.

    A stage's own map is a sum without activation, which the next stage begins by normalising. The
    last map returned is normalised and activated, being the last.

    Args:
        depth (int): 6n + 4: 10, 16, 22, 28, 40, ….
        widen_factor (int): k, how many times as wide as a ResNet.
        base_channels (int): width of the stem, and of the first stage at k = 1.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: a depth of another form.
    """

    stem = 'conv1'
    stages = ('layer1', 'layer2', 'layer3')
    preacts = ('layer2.0.bn1', 'layer3.0.bn1', 'bn1')
    preact_norms = preacts

    def __init__(
        self,
        depth: int,
        widen_factor: int = 1,
        base_channels: int = 16,
        out_indices: Sequence[int] = (0, 1, 2),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        owner = type(self).__name__
        blocks, rest = divmod(check_number(owner, 'depth', depth, whole=True) - 4, 6)
        check_number(owner, 'widen_factor', widen_factor, 1, whole=True)
        check_number(owner, 'base_channels', base_channels, 1, whole=True)
        if blocks < 1 or rest:
            raise ValueError(f'WideResNet: depth must be 6n + 4 (10, 16, 22, …), found {depth}.')
        width = base_channels
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        for index, name in enumerate(self.stages):
            out = base_channels * widen_factor * 2**index
            first = PreActBlock(width, out, stride=1 if index == 0 else 2)
            rest_ = [PreActBlock(out, out) for _ in range(blocks - 1)]
            self.add_module(name, nn.Sequential(first, *rest_))
            width = out
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def begin(self, x: Tensor) -> Tensor:
        return self.conv1(x)

    def end(self, x: Tensor) -> Tensor:
        return self.relu(self.bn1(x))


class PreActBlock(nn.Module):
    """BatchNorm, ReLU and convolution, twice; a shortcut that changes width starts activated."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(self.relu2(self.bn2(self.conv1(active))))
