"""Mimic: squared feature distance inside region proposals."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import DETECTORS
from mmkd.functional.boxes import aligned, thin_out
from mmkd.functional.crops import NORMS, crop_distance, level_weights
from mmkd.levels import Level, pair_levels
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number, options_of
from mmkd.registry import MODELS
from mmkd.rows.regions import Regions
from mmkd.scales import in_teachers_pixels
from mmkd.tap import Trace
from mmkd.view import Boxes, View


class Upsample(nn.ConvTranspose2d):
    """(N, C_s, H, W) -> (N, C_t, k H, k W), learned."""

    def __init__(self, in_channels: int, out_channels: int, times: int = 2) -> None:
        margin = times // 2
        super().__init__(in_channels, out_channels, times + 2 * margin, times, margin)

    def describe(self) -> str:
        size, times = self.kernel_size[0], self.stride[0]
        return (
            f'{size}x{size} transposed conv {self.in_channels} -> {self.out_channels}, '
            f'{"twice" if times == 2 else f"{times} times"} the size'
        )


@MODELS.register_module()
class Mimic(PairObjective):
    """Mimicking very efficient network for object detection.

    Li et al., CVPR 2017: ``1 / (2 N_p) * sum_i 1 / m_i * ||u_i - r(v_i)||^2`` over the N_p regions
    of the local batch, u_i and v_i the teacher's and student's features inside region i, r a 1x1
    convolution, also at equal widths. There is no public code. On a pyramid a region belongs to one
    level, by the size rule of FPN. Small background regions have the same weight as large objects.

    Over scales (the paper's second use): where :class:`~mmkd.scales.Rescale` shrinks the student's
    images to 1/k, r is a transposed convolution of stride k to the size of the teacher's maps, in
    training only, and regions are those of the full image. With ``upsample=False``, and at other
    scales, maps are compared on the student's grid, as other methods do.

    Args:
        proposal_source (str | None): ``'student'`` takes the RoIs that a two-stage student samples
            in this step, or of a one-stage student the best boxes after NMS (IoU 0.7);
            ``'teacher'`` the best boxes of the teacher's RPN or head; ``'gt'`` the ground truth.
            ``None`` is the student where its boxes can be decoded, else the ground truth.
        proposals (int): largest number of regions of each image; RoIs are subsampled evenly.
        fg_fraction (float | None): largest share of foreground, for sampled RoIs only. ``None``
            leaves the share as sampled.
        mode (str): ``'crop'`` takes the cells inside, as the paper does; ``'roialign'`` pools every
            region to the same size.
        pooled (int): that size.
        norm (str): m_i is C * h_i * w_i (``'all'``), h_i * w_i (``'spatial'``) or 1 (``'none'``,
            the paper's first version).
        upsample (bool | None): over scales, see above; ``None``: where the scale is 1/k.
        student, teacher, weight, teacher_name, adapt, level_map, resize, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; proposals from a head whose boxes cannot be decoded;
            taps that are no pyramid; ``upsample=True`` at another scale than 1/k.
    """

    compares_classes = False  # class scores only select regions
    families = DETECTORS

    def __init__(
        self,
        *taps: Taps,
        proposal_source: str | None = None,
        proposals: int = 256,
        fg_fraction: float | None = None,
        mode: str = 'crop',
        pooled: int = 7,
        norm: str = 'all',
        upsample: bool | None = None,
        adapt: str | None = 'conv1x1',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, **pair)
        self.regions = Regions('Mimic', proposal_source, proposals, fg_fraction)
        self.mode = check_choice('Mimic', 'mode', mode, ('crop', 'roialign'))
        self.norm = check_choice('Mimic', 'norm', norm, NORMS)
        self.pooled = check_number('Mimic', 'pooled', pooled, 1, whole=True)
        self.upsample = upsample
        #: teacher's pixels per student's, if the student's maps are enlarged
        self.times = 1
        self.strides: list[int] = []

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        self.regions.bind(self, student, teacher)
        times = 1 / self.image_scale
        if self.upsample and times.denominator > 1:
            raise ValueError(
                'Mimic: upsample=True enlarges the maps of a student whose images are 1/2, 1/3, … '
                f"of the side of its teacher's, found {self.image_scale}. Set upsample=False and "
                "resize='student'."
            )
        whole = times.denominator == 1 and self.resize is None
        if whole if self.upsample is None else self.upsample:
            self.times = times.numerator

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student, teacher = self.regions.pyramids(student, teacher)
        if self.times == 1:
            super().setup(student, teacher)
            self.strides = self.regions.strides(student, self.pairs)
            return
        self.pairs = pair_levels(
            student or [], teacher or [], self.level_map, False, 'Mimic', options_of(Mimic)
        )
        self.strides = self.regions.strides(student, self.pairs)
        for k, (i, j) in enumerate(self.pairs):
            widths = (level.channels for level in (student[i], teacher[j]))
            self.adapters[f'{k}'] = Upsample(*widths, self.times)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rois = self.rois(trace)
        pairs = zip(self.strides, self.tensor_pairs(trace), strict=True)
        levels = [(stride, *maps) for stride, maps in pairs]
        channels = levels[0][1].shape[1] if self.norm == 'all' else 1
        if self.mode == 'crop':
            total = crop_distance(levels, rois, self.norm != 'none')
        else:
            student, teacher = aligned(levels, rois, self.pooled, 0)
            cells = 1 if self.norm == 'none' else self.pooled**2
            total = (student - teacher).square().sum() / cells
        count = total.new_full((), len(rois))
        return {'loss': total / channels / (2 * count.clamp(min=1)), 'regions': count}

    def rois(self, trace: Trace) -> Tensor:
        """Regions of the step, (R, 5), in pixels of the images whose maps are compared."""
        rois = self.regions.of(trace)
        return rois if self.times == 1 else in_teachers_pixels(rois, trace)

    def tensor_pairs(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        if self.times == 1:
            return super().tensor_pairs(trace)
        student = [t for tap in self.student_taps for t in trace.student[tap]]
        teacher = [t.detach() for tap in self.teacher_taps for t in trace.teacher[tap]]
        pairs = []
        for k, (i, j) in enumerate(self.pairs):
            s, t = self.adapter(k)(student[i]), teacher[j]
            h, w = (min(sides) for sides in zip(s.shape[2:], t.shape[2:], strict=True))
            pairs.append((s[:, :, :h, :w], t[:, :, :h, :w]))  # beyond is padding of one of them
        return pairs

    def views(self, trace: Trace, shown: int = 20) -> list[View | Boxes]:
        """Some of the regions, and how much each cell counts, level by level."""
        rois, maps = self.rois(trace), [s for s, _ in self.tensor_pairs(trace)]
        weights = level_weights(maps, self.strides, rois, self.norm != 'none')
        views: list[View | Boxes] = [
            View(f'weight, stride {stride}', w, stride=stride // self.times)
            for w, stride in zip(weights, self.strides, strict=True)
        ]
        own = self.regions.of(trace)
        images = own[:, 0].long()
        some = own[thin_out(images, images.new_full((len(trace.inputs),), shown))]
        return [Boxes(f'regions, at most {shown} of an image', some), *views]
