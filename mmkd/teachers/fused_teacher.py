"""FusedTeacher: a detector that sees the full image and a smaller one, and shows both fused."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.scale_gate import ScaleGate
from mmkd.checkpoint import read_checkpoint
from mmkd.checkpoint.weights import weights_in
from mmkd.scales import pixels_at
from mmkd.teacher import Teacher
from mmkd.teachers.kinds import kind

_GATE = re.compile(r'(?:^|\.)objectives\.[^.]+\.gate\.')


class TwoSizes(nn.Module):
    """A backbone on an image and on a smaller one: its maps of both, one behind the other.

    Args:
        backbone (nn.Module): (N, 3, H, W) -> maps.
        times (int): how many times as large the full image's sides are.
    """

    def __init__(self, backbone: nn.Module, times: int) -> None:
        super().__init__()
        self.whole, self.times = backbone, times

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> maps of the full image, then of the small one."""
        h, w = x.shape[2:]
        rest = -w % self.times, -h % self.times
        padded = F.pad(x, (0, rest[0], 0, rest[1])) if any(rest) else x
        size = (h + rest[1]) // self.times, (w + rest[0]) // self.times
        return (*self.whole(x), *self.whole(pixels_at(padded, size)))


class FusedNeck(nn.Module):
    """A neck on the maps of :class:`TwoSizes`: its pyramids, fused by a gate."""

    def __init__(self, neck: nn.Module, gate: ScaleGate) -> None:
        super().__init__()
        self.whole, self.gate, self.shift = neck, gate, int(gate.shift)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of both images -> a pyramid of the full image's strides."""
        half = len(maps) // 2
        high, low = self.whole(maps[:half]), self.whole(maps[half:])
        return tuple(self.gate.fuse(high, low, self.shift))


@kind
class FusedTeacher(Teacher):
    """A detector trained with :class:`~mmkd.methods.scale_fusion.ScaleFusion`, both sizes fused.

    Its neck shows the fused maps, so that every method that compares the neck listens to them; a
    tap on its backbone gives maps of both images. The gate is read from the same file.

    Args:
        config, checkpoint, dtype, memory_format, fuse_conv_bn, fast, compile, compile_shapes,
        stream, ignore_keys, cfg_options: see :class:`~mmkd.teacher.Teacher`; the checkpoint is one
            of a run with ScaleFusion, ``'random'`` has an untrained gate for half the size.

    Raises:
        ValueError: see Teacher; a file without a gate, with several, or with one of another width.
    """

    def __init__(self, config: Any, checkpoint: str | None = None, **options: Any) -> None:
        super().__init__(config, checkpoint, **options)
        neck = getattr(self.model, 'neck', None)
        if neck is None:
            raise ValueError(
                f'FusedTeacher fuses the maps of a neck, but {type(self.model).__name__} has none.'
            )
        gate = self._gate(getattr(neck, 'out_channels', None))
        self.model.neck = FusedNeck(neck, gate)
        self.model.backbone = TwoSizes(self.model.backbone, 2**self.model.neck.shift)
        self.model.eval().requires_grad_(False)

    def _gate(self, channels: Any) -> ScaleGate:
        if self.source == 'random':
            return ScaleGate(channels)
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in weights_in(read_checkpoint(self.source)).items():
            match = _GATE.search(key)
            if match:
                found.setdefault(match[0], {})[key[match.end() :]] = value
        if len(found) != 1:
            raise ValueError(
                f'FusedTeacher: {self.source} has {len(found) or "no"} gates. It must be a '
                'checkpoint of a run with the objective mmkd.ScaleFusion, which trains one; a '
                'network trained alone is an ordinary teacher, without type.'
            )
        (state,) = found.values()
        width = state['squeeze.weight'].shape[1] // 2
        if isinstance(channels, int) and channels != width:
            raise ValueError(
                f'FusedTeacher: the gate in {self.source} is for {width} channels, but the neck '
                f'gives {channels}. Take the config with which the checkpoint was trained.'
            )
        gate = ScaleGate(width)
        hidden = len(state['squeeze.weight'])
        gate.squeeze = nn.Linear(2 * width, hidden, bias=False)
        gate.choose = nn.Linear(hidden, 2, bias=False)
        gate.load_state_dict(state)
        return gate

    @property
    def loaded(self) -> str:
        return f'{super().loaded}, fused with images of half the side'
