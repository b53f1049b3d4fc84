"""TinyDarknet: the backbone of small YOLO detectors, plain or with the maps of several depths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.options import check_number
from mmkd.registry import MODELS

INIT = [
    dict(type='Kaiming', layer='Conv2d', a=0.1, nonlinearity='leaky_relu'),
    dict(type='Constant', val=1, layer='BatchNorm2d'),
]


@MODELS.register_module()
class TinyDarknet(BaseModule):
    """Five 3 x 3 convolutions, each before a 2 x 2 maximum, and one behind them, as in Tiny-YOLO.

    Maps of strides 16 and 32, for a YOLOV3Neck of two scales. With ``stack=True`` one map of stride
    32, as F-YOLO has it (Mehta and Ozturk, ECCV Workshops 2018): the maps of strides 8, 16 and 32,
    brought to its size by maxima, each squeezed by a 1 x 1 convolution, side by side. The widths
    are ours: those of F-YOLO are not known in detail.

    Args:
        widths (Sequence[int]): of the six convolutions.
        stack (bool): see above.
        squeeze (int): width of each squeezed map.
        out_indices (Sequence[int]): of the maps of strides 16 and 32, those that are returned;
            unused with ``stack``.
        norm_eval (bool): keep the statistics of BatchNorms in training.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: other than six widths.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 256, 512),
        stack: bool = False,
        squeeze: int = 64,
        out_indices: Sequence[int] = (0, 1),
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or INIT)
        owner = 'TinyDarknet'
        if len(widths) != 6:
            raise ValueError(f'{owner} has six convolutions, found widths={tuple(widths)}.')
        for width in widths:
            check_number(owner, 'each of widths', width, 1, whole=True)
        check_number(owner, 'squeeze', squeeze, 1, whole=True)
        before = 3
        for i, width in enumerate(widths, 1):
            self.add_module(f'conv{i}', conv_block(before, width, 3))
            before = width
        self.squeezes = nn.ModuleList(
            conv_block(width, squeeze, 1) for width in (widths[3:] if stack else ())
        )
        self.stack, self.out_indices, self.norm_eval = stack, tuple(out_indices), norm_eval

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> maps of strides 16 and 32, or with ``stack`` one of stride 32."""
        maps = []
        for i in range(1, 6):
            x = getattr(self, f'conv{i}')(x)
            maps.append(x)
            x = F.max_pool2d(x, 2)
        maps.append(self.conv6(x))
        if not self.stack:
            return tuple(maps[4:][i] for i in self.out_indices)
        size = maps[5].shape[2:]
        sized = [x if x.shape[2:] == size else F.adaptive_max_pool2d(x, size) for x in maps[3:]]
        pairs = zip(self.squeezes, sized, strict=True)
        return (torch.cat([squeeze(x) for squeeze, x in pairs], 1),)

    def train(self, mode: bool = True) -> TinyDarknet:
        super().train(mode)
        for module in self.modules() if mode and self.norm_eval else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def conv_block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution, BatchNorm and LeakyReLU of slope 0.1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1),
    )
