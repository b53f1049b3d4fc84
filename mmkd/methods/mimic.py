"""Mimic: inside regions that may hold objects, the student's features imitate the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, is_two_stage, two_stage
from mmkd.families.regions import SOURCES, default_source, region_taps, regions
from mmkd.functional import check_choice
from mmkd.functional.boxes import aligned, box_levels, spread
from mmkd.functional.pyramid import among, bind_pyramid, tap_beside
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.visualization.view import Boxes, View

NORMS = ('all', 'spatial', 'none')


def crop_weights(
    rois: Tensor, size: tuple[int, int], stride: int, n: int, mean: bool = True
) -> Tensor:
    """``sum_i 1 / m_i`` over the regions i in which a cell lies, (N, H, W); m_i cells each.

    The squared distance of a region is a sum over its cells, so all regions of a level together
    are one weighted sum, and none needs to be cropped. A region takes the cells from
    ``floor(x1 / stride)`` to before ``ceil(x2 / stride)``, at least one, inside the map.

    Args:
        rois (Tensor): (R, 5), image index and xyxy.
        mean (bool): False takes m_i = 1.
    """
    limit = torch.tensor([size[1], size[0]], device=rois.device)
    low = torch.minimum((rois[:, 1:3] / stride).floor().long().clamp(min=0), limit - 1)
    high = torch.maximum(torch.minimum((rois[:, 3:] / stride).ceil().long(), limit), low + 1)
    count = torch.ones(len(rois), dtype=torch.float64, device=rois.device)
    value = torch.stack((1 / (high - low).prod(1).double() if mean else count, count), 1)
    corners = value.new_zeros(n, size[0] + 1, size[1] + 1, 2)
    for y, x, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
        where = rois[:, 0].long(), y[:, 1], x[:, 0]
        corners.index_put_(where, sign * value, accumulate=True)
    weight, count = corners.cumsum(1).cumsum(2)[:, :-1, :-1].unbind(-1)
    return (weight * (count > 0.5)).float()  # exactly 0 outside


@MODELS.register_module()
class Mimic(PairObjective):
    """Mimicking very efficient network for object detection.

    Li et al., CVPR 2017: ``1 / (2 N_p) * sum_i 1 / m_i * ||u_i - r(v_i)||^2`` over the N_p regions
    of the local batch, u_i and v_i the teacher's and student's features inside region i, r a 1x1
    convolution that is always there. There is no public code. On a pyramid a region belongs to one
    level, by the size rule of FPN. Small background regions count as much as large objects.

    Args:
        proposal_source (str | None): ``'student'`` takes the RoIs that a two-stage student samples
            in this step, or of a one-stage student the best boxes after NMS (IoU 0.7);
            ``'teacher'`` the best boxes of the teacher's RPN or head; ``'gt'`` the ground truth.
            ``None`` is the student where its boxes can be decoded, else the ground truth.
        proposals (int): at most so many regions of each image; RoIs are thinned out evenly.
        fg_fraction (float | None): this share of them at most is foreground, of sampled RoIs only.
            ``None`` leaves the share as sampled.
        mode (str): ``'crop'`` takes the cells inside, as the paper does; ``'roialign'`` pools every
            region to the same size.
        pooled (int): that size.
        norm (str): m_i is C * h_i * w_i (``'all'``), h_i * w_i (``'spatial'``) or 1 (``'none'``,
            the paper's first version).
        student, teacher, weight, teacher_name, adapt, level_map, resize, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; proposals from a head whose boxes cannot be decoded; taps
            that are no pyramid.
    """

    families = DETECTORS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = 1.0,
        proposal_source: str | None = None,
        proposals: int = 256,
        fg_fraction: float | None = None,
        mode: str = 'crop',
        pooled: int = 7,
        norm: str = 'all',
        adapt: str | None = 'conv1x1',
        **pair: Any,
    ) -> None:
        super().__init__(student, teacher, weight, adapt=adapt, **pair)
        self.source = check_choice('Mimic', 'proposal_source', proposal_source, (None, *SOURCES))
        self.mode = check_choice('Mimic', 'mode', mode, ('crop', 'roialign'))
        self.norm = check_choice('Mimic', 'norm', norm, NORMS)
        if min(proposals, pooled) < 1:
            raise ValueError(
                f'Mimic: proposals and pooled must be at least 1, found {proposals} and {pooled}.'
            )
        if fg_fraction is not None and not 0 <= fg_fraction <= 1:
            raise ValueError(f'Mimic: fg_fraction must lie in [0, 1], found {fg_fraction}.')
        self.proposals, self.fg_fraction, self.pooled = proposals, fg_fraction, pooled
        self.maps_at: tuple[set[str], set[str]] = (set(), set())
        self.strides: list[int] = []

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        on_rois = is_two_stage(student)
        bind_pyramid(self, student, teacher, two_stage.levels(student) if on_rois else None)
        self.source = self.source or default_source(student)
        if self.fg_fraction is not None and not (on_rois and self.source == 'student'):
            raise ValueError(
                'Mimic: fg_fraction needs the RoIs that a two-stage student samples, but regions '
                f'come from {self.source!r} of a {type(student).__name__}.'
            )
        self.maps_at = tap_beside(self, region_taps('Mimic', self.source, student, teacher))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        sides = zip((student, teacher), self.maps_at, strict=True)
        pyramids = [among(levels, taps) for levels, taps in sides]
        super().setup(*pyramids)
        self.strides = [pyramids[0][i].stride or 0 for i, _ in self.pairs] if student else []
        if 0 in (self.strides or [0]):
            raise ValueError(
                f'Mimic needs feature maps of known stride, found {self.strides or "no shapes"} at '
                f"{', '.join(self.maps_at[0])}. Tap the pyramid, usually 'neck'."
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rois = regions(trace, self.source, self.proposals, self.fg_fraction)
        pairs = zip(self.strides, self.tensor_pairs(trace), strict=True)
        levels = [(stride, *maps) for stride, maps in pairs]
        channels = levels[0][1].shape[1] if self.norm == 'all' else 1
        if self.mode == 'crop':
            total = self._cropped(levels, rois)
        else:
            student, teacher = aligned(levels, rois, self.pooled, 0)
            cells = 1 if self.norm == 'none' else self.pooled**2
            total = (student - teacher).square().sum() / cells
        count = total.new_tensor(len(rois))
        return {'loss': total / channels / (2 * count.clamp(min=1)), 'regions': count}

    def _cropped(self, levels: list[tuple[int, Tensor, Tensor]], rois: Tensor) -> Tensor:
        """``sum_i 1 / m_i * ||u_i - r(v_i)||^2`` but for the channels in m_i."""
        weights = self._weights(rois, [s for _, s, _ in levels])
        distances = ((s - t).square().sum(1) for _, s, t in levels)
        return sum((d * w).sum() for d, w in zip(distances, weights, strict=True))

    def _weights(self, rois: Tensor, maps: list[Tensor]) -> list[Tensor]:
        level, order = box_levels(rois[:, 1:], sorted(self.strides)), sorted(self.strides)
        return [
            crop_weights(
                rois[level == order.index(stride)],
                tuple(x.shape[2:]),
                stride,
                len(x),
                self.norm != 'none',
            )
            for x, stride in zip(maps, self.strides, strict=True)
        ]

    def views(self, trace: Trace, shown: int = 20) -> list[View | Boxes]:
        """Some of the regions, and how much each cell counts, level by level."""
        rois = regions(trace, self.source, self.proposals, self.fg_fraction)
        images = rois[:, 0].long()
        some = rois[spread(images, images.new_full((len(trace.inputs),), shown))]
        weights = self._weights(rois, [s for s, _ in self.maps(trace)])
        pairs = zip(weights, self.strides, strict=True)
        maps = [View(f'weight, stride {stride}', w, stride=stride) for w, stride in pairs]
        return [Boxes(f'regions, at most {shown} of an image', some), *maps]
