"""Convolutional and linear adapters, and the mean of several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmkd.options import check_choice

if TYPE_CHECKING:
    from mmkd.levels import Level


class ConvAdapter(nn.Module):
    """(N, C_s, H, W) -> (N, C_t, H, W): convolution, optional BatchNorm, optional ReLU.

    Args:
        in_channels (int): student width C_s.
        out_channels (int): teacher width C_t.
        kernel (int): odd kernel size; the map keeps its size.
        bias (bool): bias of the convolution.
        norm (bool): BatchNorm behind it.
        relu (bool): ReLU at the end, for teacher features that are never negative.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        bias: bool = True,
        norm: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))

    def describe(self) -> str:
        kernel = self.conv.kernel_size[0]
        parts = [f'{kernel}x{kernel} conv {self.conv.in_channels} -> {self.conv.out_channels}']
        parts += ['BN'] * (not isinstance(self.norm, nn.Identity))
        parts += ['ReLU'] * (not isinstance(self.relu, nn.Identity))
        return ' + '.join(parts)


class LinearAdapter(nn.Linear):
    """(..., C_s) -> (..., C_t) for tokens and vectors."""

    def describe(self) -> str:
        return f'linear {self.in_features} -> {self.out_features}'


class Ensemble(nn.Module):
    """The mean of projectors that begin with different weights; PEFD, Chen et al., NeurIPS 2022.

    Args:
        projectors (Iterable[nn.Module]): each takes and gives the same shapes; if they begin
            equal, they stay equal and count as one.
        relu (bool): of each projector before the mean; not for teacher features of both signs.
    """

    def __init__(self, projectors: Iterable[nn.Module], relu: bool = True) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(projectors)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = [self.activation(project(x)) for project in self.projectors]
        return sum(found[1:], found[0]) / len(found)

    def describe(self) -> str:
        relu = ' + ReLU' * isinstance(self.activation, nn.ReLU)
        return f'mean of {len(self.projectors)} x ({self.projectors[0].describe()}{relu})'


#: adapters by name; `adapt='conv1x1'` in a config. Of ensembles any number of two or more is known
ADAPTERS: dict[str, dict] = {
    'conv1x1': dict(kernel=1),
    'conv3x3': dict(kernel=3),
    'conv1x1_bn': dict(kernel=1, bias=False, norm=True),
    'conv1x1_bn_relu': dict(kernel=1, bias=False, norm=True, relu=True),
    'ensemble3': dict(kernel=1),
    'ensemble3_signed': dict(kernel=1),
}
_ENSEMBLE = re.compile(r'ensemble(\d+)(_signed)?', re.IGNORECASE)


def build_adapter(
    adapt: str | None, student: Level, teacher: Level, owner: str = 'the objective'
) -> nn.Module | None:
    """Adapter for one pair, None where none is needed.

    Raises:
        ValueError: an unknown name; an ensemble of one; unequal widths with ``adapt=None``.
    """
    ensemble = _ENSEMBLE.fullmatch(adapt) if isinstance(adapt, str) else None
    if ensemble:
        count = int(ensemble[1])
        if count < 2:
            raise ValueError(
                f'{owner}: adapt={adapt!r} asks for {count} projectors, but an ensemble has two or '
                "more, as 'ensemble3'; one is adapt='conv1x1'."
            )
        return Ensemble([_one(student, teacher) for _ in range(count)], relu=not ensemble[2])
    adapt = check_choice(owner, 'adapt', adapt, ('auto', None, *ADAPTERS))
    _check_widths(owner, adapt, student, teacher)
    c_s, c_t = student.channels, teacher.channels
    if adapt is None or (adapt == 'auto' and c_s == c_t):
        return None
    return _one(student, teacher, **ADAPTERS['conv1x1' if adapt == 'auto' else adapt])


def _one(student: Level, teacher: Level, **options: Any) -> ConvAdapter | LinearAdapter:
    if len(student.shape) != 3:
        return LinearAdapter(student.channels, teacher.channels)
    return ConvAdapter(student.channels, teacher.channels, **options)


def _check_widths(owner: str, adapt: str | None, student: Level, teacher: Level) -> None:
    """ValueError for unequal widths without an adapter."""
    if adapt is None and student.channels != teacher.channels:
        raise ValueError(
            f"{owner}: student '{student.tap}' has {student.channels} channels and teacher "
            f"'{teacher.tap}' {teacher.channels}, but adapt=None. Set adapt='auto' for a 1x1 "
            'convolution.'
        )


def consecutive_adapters(
    owner: str, student: list[Level] | None, teacher: list[Level] | None, adapt: str | None
) -> list[nn.Module]:
    """Adapters of methods that relate consecutive maps: identities at equal widths.

    Args:
        adapt (str | None): ``'auto'``, a 1x1 convolution without bias where widths differ, or None.

    Raises:
        ValueError: fewer than two maps or unequally many; unequal widths with ``adapt=None``.
    """
    if student is None or teacher is None or not 2 <= len(student) == len(teacher):
        found = [len(levels or []) for levels in (student, teacher)]
        raise ValueError(
            f'{owner} relates consecutive maps and needs two or more taps, equally many on both '
            f'sides; found {found[0]} and {found[1]}.'
        )
    adapters: list[nn.Module] = []
    for own, wanted in zip(student, teacher, strict=True):
        _check_widths(owner, adapt, own, wanted)
        narrow, wide = own.channels, wanted.channels
        same = narrow == wide
        adapters.append(nn.Identity() if same else nn.Conv2d(narrow, wide, 1, bias=False))
    return adapters
