"""MobileNetV2 for 32 x 32 pixels: Sandler et al., CVPR 2018."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmkd.models.cifar_backbone import CifarBackbone
from mmkd.options import check_number
from mmkd.registry import MODELS

#: of each stage: width at factor 1, number of blocks, first stride and whether blocks expand
LAYOUT = (
    ((16, 1, 1, False), (24, 2, 1, True)),
    ((32, 3, 2, True),),
    ((64, 4, 2, True), (96, 3, 1, True)),
    ((160, 3, 2, True), (320, 1, 1, True)),
)


@MODELS.register_module()
class CifarMobileNetV2(CifarBackbone):
    """MobileNetV2 whose second group of blocks has stride 1: four stages of strides 2, 4, 8, 16.

    Stages end in a linear convolution. The last map returned is that of a 1 x 1 convolution behind
    the fourth stage.

    Args:
        widen_factor (float): width over the paper's; 0.5 in the distillation literature.
        expand (int): t, the expansion in all blocks but the first.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.
    """

    stem = 'stem_block'
    stages = ('stage1', 'stage2', 'stage3', 'stage4')

    def __init__(
        self,
        widen_factor: float = 0.5,
        expand: int = 6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, init_cfg)
        owner = 'CifarMobileNetV2'
        factor = check_number(owner, 'widen_factor', widen_factor, above=0)
        check_number(owner, 'expand', expand, 1, whole=True)
        width = max(int(32 * factor), 1)
        self.stem_block = _block(3, width, 3, 2)
        for name, groups in zip(self.stages, LAYOUT, strict=True):
            blocks: list[nn.Module] = []
            for channels, count, stride, expands in groups:
                out = max(int(channels * factor), 1)
                for i in range(count):
                    t, step = expand if expands else 1, stride if i == 0 else 1
                    blocks.append(InvertedResidual(width, out, step, t))
                    width = out
            self.add_module(name, nn.Sequential(*blocks))
        self.last = _block(width, max(int(1280 * factor), 1280), 1)

    def begin(self, x: Tensor) -> Tensor:
        return self.stem_block(x)

    def end(self, x: Tensor) -> Tensor:
        return self.last(x)


class InvertedResidual(nn.Module):
    """A wide depthwise convolution between two 1 x 1, the last of them linear, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = in_channels * expand
        self.expand = _block(in_channels, wide, 1)
        self.depthwise = _block(wide, wide, 3, stride, wide)
        self.project = nn.Sequential(
            nn.Conv2d(wide, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        found = self.project(self.depthwise(self.expand(x)))
        return x + found if self.adds else found


def _block(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
