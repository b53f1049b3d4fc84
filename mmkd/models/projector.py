"""A bottleneck between backbone and pooling, which brings a map to another width."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.models.cifar_backbone import INIT
from mmkd.options import check_number
from mmkd.registry import MODELS


@MODELS.register_module()
class BottleneckProjector(BaseModule):
    """1x1, 3x3 and 1x1 convolution, each with BatchNorm and ReLU: SimKD, Chen et al., CVPR 2022.

    Args:
        in_channels (int): of the backbone's last map; the Classifier fills it in.
        out_channels (int): of the teacher's last map.
        pool (int): maps are averaged over windows of this side first, where the student's are so
            much larger than the teacher's.
        factor (int): the bottleneck is ``out_channels / factor`` wide; the paper's are 2, 4 and 8.
        init_cfg (dict | list | None): Kaiming initialisation if None.

    Raises:
        ValueError: a factor that leaves no channel; a window below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        factor: int = 2,
        pool: int = 1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or INIT)
        owner = type(self).__name__
        out_channels = check_number(owner, 'out_channels', out_channels, 1, whole=True)
        factor = check_number(owner, 'factor', factor, 1, out_channels, whole=True)
        self.pool = check_number(owner, 'pool', pool, 1, whole=True)
        middle = out_channels // factor
        self.layers = nn.Sequential(
            *_layer(in_channels, middle, 1),
            *_layer(middle, middle, 3),
            *_layer(middle, out_channels, 1),
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / pool, W / pool), not negative."""
        if self.pool > 1:
            x = F.avg_pool2d(x, tuple(min(self.pool, side) for side in x.shape[2:]), ceil_mode=True)
        return self.layers(x)


def _layer(before: int, after: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]
