"""CheapConvs: convolutions exchanged for cheaper blocks of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmkd.edits.choosing import Choice
from mmkd.options import check_number
from mmkd.registry import MODELS

DEPTHWISE = 'depthwise'


class CheapConv(nn.Module):
    """What takes the place of a convolution: narrow, grouped, and wide again.

    1 x 1 to ``out / bottleneck`` channels, the grouped convolution, 1 x 1 to ``out`` channels, with
    BatchNorm and ReLU between. With ``bottleneck=1`` the grouped convolution comes first, on all
    channels. Stride, padding and dilation are those of the grouped one.

    Args:
        conv (nn.Conv2d): whose place it takes.
        bottleneck (int): the middle is so many times narrower.
        groups (int | str): of the convolution in the middle; ``'depthwise'``.
    """

    def __init__(self, conv: nn.Conv2d, bottleneck: int, groups: int | str) -> None:
        super().__init__()
        middle = conv.out_channels // bottleneck if bottleneck > 1 else conv.in_channels
        self.down: nn.Module | None = None
        if bottleneck > 1:
            self.down = nn.Sequential(
                nn.Conv2d(conv.in_channels, middle, 1, bias=False),
                nn.BatchNorm2d(middle),
                nn.ReLU(inplace=True),
            )
        geometry: Any = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        count = middle if groups == DEPTHWISE else int(groups)
        self.grouped = nn.Conv2d(middle, middle, *geometry, groups=count, bias=False)
        self.bn = nn.BatchNorm2d(middle)
        self.relu = nn.ReLU(inplace=True)
        self.up = nn.Conv2d(middle, conv.out_channels, 1, bias=conv.bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what the convolution would give."""
        x = x if self.down is None else self.down(x)
        return self.up(self.relu(self.bn(self.grouped(x))))


@MODELS.register_module()
class CheapConvs:
    """Give a student its teacher's architecture with cheap convolutions, as an edit.

    Crowley et al., NeurIPS 2018 ("Moonshine: distilling with cheap convolutions"): all maps keep
    their shapes, so that methods need no adapters; the paper takes attention transfer. Weights are
    random. The first convolution, those of 1 x 1, grouped and deformable ones stay.

    Args:
        bottleneck (int): b: the middle is so many times narrower than the output; 1 for none.
        groups (int | str): g groups of the convolution in the middle; ``'depthwise'``: one for each
            channel, with ``bottleneck=1`` a depthwise separable convolution.
        only, skip (list[str]): names of modules whose convolutions alone are exchanged, or stay.

    Raises:
        ValueError: options out of range; widths that b or g do not divide; a convolution that is
            cheap already; no convolution.
    """

    claims = 'shapes'

    def __init__(
        self,
        bottleneck: int = 2,
        groups: int | str = 4,
        only: Sequence[str] = ('backbone',),
        skip: Sequence[str] = (),
    ) -> None:
        self.bottleneck = check_number('CheapConvs', 'bottleneck', bottleneck, 1, whole=True)
        self.groups = groups
        if groups != DEPTHWISE:
            self.groups = check_number('CheapConvs', 'groups', groups, 1, whole=True)
        self.choice = Choice('CheapConvs', only, skip)
        self.told = ''

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        for name, module in model.named_modules():
            if isinstance(module, CheapConv) and self.choice.has(name):
                raise ValueError(
                    f'CheapConvs: {name} is cheap already. Give each CheapConvs layers of its own, '
                    'by only= and skip=.'
                )
        chosen = spatial_convs(model, self.choice)
        wrong = [name for name, conv in chosen.items() if not self._divides(conv)]
        if wrong:
            raise ValueError(
                f'CheapConvs: bottleneck={self.bottleneck} and groups={self.groups} do not divide '
                f'the widths of {", ".join(wrong[:3])}. Skip them, or take other numbers.'
            )
        before = sum(conv.weight.numel() for conv in chosen.values())
        blocks = {
            id(conv): CheapConv(conv, self.bottleneck, self.groups).to(conv.weight)
            for conv in chosen.values()
        }
        put(model, blocks)
        after = sum(p.numel() for block in blocks.values() for p in block.parameters())
        self.told = (
            f'{len(blocks)} convolutions exchanged, {before:,} to {after:,} parameters '
            f'({after / before:.1%})'
        )
        return model

    def describe(self) -> str:
        """Convolutions and their parameters, after the call."""
        return self.told

    def _divides(self, conv: nn.Conv2d) -> bool:
        middle = conv.out_channels / self.bottleneck if self.bottleneck > 1 else conv.in_channels
        groups = 1 if self.groups == DEPTHWISE else int(self.groups)
        return middle % 1 == 0 and middle % groups == 0


def spatial_convs(model: nn.Module, choice: Choice) -> dict[str, nn.Conv2d]:
    """Convolutions larger than 1 x 1, of one group, but for the stem, by their names.

    Raises:
        ValueError: a name in the choice that no module has; no such convolution.
    """
    choice.check(model)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and max(module.kernel_size) > 1
        and module.groups == 1
        and module.in_channels > 3
        and not name.startswith('backbone.stem.')
        and choice.has(name)
    }
    if not found:
        raise ValueError(
            f'{choice.owner}: no convolution of 3 x 3 of {type(model).__name__} is left with only='
            f'{choice.only} and skip={choice.skip}.'
        )
    return found


def put(model: nn.Module, instead: dict[int, nn.Module]) -> None:
    """Exchange modules by their identity, under all of their names."""
    for parent in [*model.modules()]:
        for name, child in parent._modules.items():
            if id(child) in instead:
                parent._modules[name] = instead[id(child)]
