"""VGGs with BatchNorm for 32 x 32 pixels: Simonyan and Zisserman, ICLR 2015, without its layers
of 4096 units, as the distillation literature uses them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.models.cifar_backbone import INIT
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

#: convolutions of each of the five stages
DEPTHS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@MODELS.register_module()
class CifarVGG(BaseModule):
    """VGG-8 to VGG-19: five stages of convolutions, the first of which counts as the stem.

    Maps are halved between stages but not before the last, so the four stages that are returned
    have strides 2, 4, 8 and 8.

    Args:
        depth (int): 8, 11, 13, 16 or 19.
        base_channels (int): width of the stem; the stages are 2, 4, 8 and 8 times as wide.
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: another depth.
    """

    stem = 'stage0'
    stages = ('stage1', 'stage2', 'stage3', 'stage4')

    def __init__(
        self,
        depth: int,
        base_channels: int = 64,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or INIT)
        check_choice('CifarVGG', 'depth', depth, DEPTHS)
        check_number('CifarVGG', 'base_channels', base_channels, 1, whole=True)
        width = 3
        for index, (count, factor) in enumerate(zip(DEPTHS[depth], (1, 2, 4, 8, 8), strict=True)):
            self.add_module(f'stage{index}', _stage(width, factor * base_channels, count))
            width = factor * base_channels
        self.pool = nn.MaxPool2d(2)
        self.out_indices = tuple(out_indices)
        last = list(zip(self.stages, DEPTHS[depth][1:], strict=True))
        self.preacts = tuple(f'{name}.relu{count}@in[0]' for name, count in last)
        self.preact_norms = tuple(f'{name}.bn{count}' for name, count in last)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps of ``out_indices``."""
        x = self.stage0(x)
        maps = []
        for name in self.stages:
            x = getattr(self, name)(x if name == 'stage4' else self.pool(x))
            maps.append(x)
        return tuple(maps[i] for i in self.out_indices)


def _stage(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    """``conv1, bn1, relu1, conv2, …``."""
    stage = nn.Sequential()
    for i in range(1, count + 1):
        stage.add_module(f'conv{i}', nn.Conv2d(in_channels, out_channels, 3, padding=1))
        stage.add_module(f'bn{i}', nn.BatchNorm2d(out_channels))
        stage.add_module(f'relu{i}', nn.ReLU())
        in_channels = out_channels
    return stage
