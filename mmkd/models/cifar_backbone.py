"""What the backbones for 32 x 32 pixels have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

INIT = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='BatchNorm2d')]


class CifarBackbone(BaseModule):
    """A stem, and stages one behind the other, each of which gives a map.

    Args:
        out_indices (Sequence[int]): stages whose maps are returned.
        init_cfg (dict | list | None): Kaiming initialisation if None.
    """

    stages: tuple[str, ...]

    def __init__(self, out_indices: Sequence[int], init_cfg: dict | list | None) -> None:
        super().__init__(init_cfg or INIT)
        self.out_indices = tuple(out_indices)

    def add_stem(self, width: int, kernel: int = 3) -> None:
        """``conv1``, ``bn1`` and ``relu``, of stride 1."""
        self.conv1 = nn.Conv2d(3, width, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def add_stages(
        self, block: Callable[..., nn.Module], width: int, widths: Sequence[int], counts: Sequence
    ) -> None:
        """Stages of ``block(in_channels, middle, stride)``, each but the first of stride 2.

        Args:
            block (Callable): gives ``block.expansion * middle`` channels; its last BatchNorm and
                ReLU are ``bn<n>`` and ``relu<n>``, n being ``block.last``.
            width (int): of the stem.
            widths, counts (Sequence[int]): of each stage, ``middle`` and number of blocks.
        """
        expansion, last = block.expansion, block.last  # type: ignore[attr-defined]
        for index, name in enumerate(self.stages):
            middle = widths[index]
            first = block(width, middle, stride=1 if index == 0 else 2)
            width = expansion * middle
            others = [block(width, middle) for _ in range(counts[index] - 1)]
            self.add_module(name, nn.Sequential(first, *others))
        ends = [f'{name}.{count - 1}' for name, count in zip(self.stages, counts, strict=True)]
        self.preacts = tuple(f'{end}.relu{last}@in[0]' for end in ends)
        self.preact_norms = tuple(f'{end}.bn{last}' for end in ends)

    def begin(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> what the first stage sees."""
        return self.relu(self.bn1(self.conv1(x)))

    def end(self, x: Tensor) -> Tensor:
        """The last stage's map, as it is returned."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps of ``out_indices``."""
        x = self.begin(x)
        maps = []
        for name in self.stages:
            x = getattr(self, name)(x)
            maps.append(x)
        maps[-1] = self.end(x)
        return tuple(maps[i] for i in self.out_indices)
