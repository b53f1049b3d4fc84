"""FGFI: squared feature distance near objects, where anchors overlap a ground-truth box."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, dense
from mmkd.families.comparable import Misfit
from mmkd.families.pyramid import bind_pyramid
from mmkd.families.two_stage import features_tap
from mmkd.functional.boxes import iou_matrix
from mmkd.functional.device import sizes_of_groups
from mmkd.functional.masked import masked_distance
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

_BOX_CHUNK = 16


def imitation_masks(
    anchors: list[Tensor],
    boxes: Tensor,
    images: Tensor,
    n: int,
    psi: float = 0.5,
    level_rule: str = 'global',
    levels: Tensor | None = None,
    offset: float = 0.0,
) -> list[Tensor]:
    """Cells near objects: some anchor has ``IoU > psi * M_g`` with some box g (eqs. 1-2).

    Args:
        anchors (list[Tensor]): of each level, (H * W, A, 4).
        boxes, images (Tensor): boxes (G, 4) and the image (G,) that each lies in.
        n (int): images N in the batch.
        psi (float): threshold factor.
        level_rule (str): M_g is the largest IoU of box g over all levels (``'global'``) or on
            each level (``'per_level'``); ``'assigner'`` is ``'global'`` on the levels allowed.
        levels (Tensor | None): (G, L) bool, the levels on which a box may count.
        offset (float): see :func:`~mmkd.functional.boxes.iou_matrix`.

    Returns:
        list[Tensor]: bool, (N, H * W) each.
    """
    masks = [torch.zeros(n, len(a), dtype=torch.int32, device=a.device) for a in anchors]
    for start in range(0, len(boxes), _BOX_CHUNK):  # bounds the (G, H * W * A) matrices
        part = slice(start, start + _BOX_CHUNK)
        # Anchors of one cell are alternatives: only the best of them matters.
        best = [
            iou_matrix(boxes[part], a.reshape(-1, 4), offset).view(-1, *a.shape[:2]).amax(-1)
            for a in anchors
        ]
        top = torch.stack([b.amax(-1) for b in best], -1)
        if level_rule != 'per_level':
            top = top.amax(-1, keepdim=True).expand_as(top)
        for index, (mask, iou) in enumerate(zip(masks, best, strict=True)):
            near = iou > psi * top[:, index, None]
            if levels is not None:
                near &= levels[part, index, None]
            mask.index_add_(0, images[part], near.to(mask.dtype))
    return [mask > 0 for mask in masks]


@MODELS.register_module()
class FGFI(PairObjective):
    """Distilling object detectors with fine-grained feature imitation.

    Wang et al., CVPR 2019, eqs. 1-5: ``1 / (2 N_p) * sum_{cells near objects} ||phi(S) - T||^2``,
    summed over channels, N_p cells over all images and levels of the local batch. Compared with
    twangnh/Distilling-Object-Detectors (VGG11, one level).

    Anchors are the student's own; heads without anchors get squares of side 8 * stride. Which level
    counts is not in the paper: the authors, in their issues, take the level to which a box is
    assigned; ``'global'`` comes closest without an assigner.

    Args:
        psi (float): cells above ``psi`` times the best IoU of a box imitate, in [0, 1].
        level_rule (str): ``'global'``, ``'per_level'`` or ``'assigner'``.
        adapter_relu (bool | None): ReLU behind the 3x3 adapter, as for the authors' VGG features.
            ``None``: only on backbone taps, since FPN outputs are signed.
        pixel_offset (int): 1 counts box sides inclusively, as the authors' code does.
        student, teacher, weight, teacher_name, level_map, adapt: see PairObjective. The authors
            start with ``weight=dict(start=400)``: 400 iterations without imitation.

    Raises:
        ValueError: options out of range; a model without a dense head; taps at strides for which
            the head has no anchors; ``'assigner'`` with an assigner that needs predictions.
    """

    default_weight = 0.01
    needs_ground_truth = True
    label_free = False
    families = DETECTORS

    def __init__(
        self,
        *taps: Taps,
        psi: float = 0.5,
        level_rule: str = 'global',
        adapter_relu: bool | None = None,
        pixel_offset: int = 0,
        adapt: str | None = 'conv3x3',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, **pair)
        self.adapt = check_choice('FGFI', 'adapt', adapt, ('conv3x3', 'conv1x1', 'auto', None))
        # Masks are made of the student's anchors, on the student's grid.
        check_choice('FGFI', 'resize', self.resize, (None, 'student'))
        self.psi = check_number('FGFI', 'psi', psi, 0, 1)
        self.level_rule = check_choice(
            'FGFI', 'level_rule', level_rule, ('global', 'per_level', 'assigner')
        )
        self.offset = float(check_choice('FGFI', 'pixel_offset', pixel_offset, (0, 1)))
        self.adapter_relu = adapter_relu
        self.strides: list[int] = []
        self.own_strides: list[float] | None = None
        self.seen = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        if dense.dense_head(student) is None:
            raise Misfit(
                'FGFI needs boxes and a dense detection head, but the student '
                f'{type(student).__name__} has neither rpn_head nor bbox_head.'
            )
        bind_pyramid(self, student, teacher)
        self.own_strides = dense.anchor_strides(student)
        self.seen = features_tap(student)
        assigner = type(getattr(dense.dense_head(student), 'assigner', None)).__name__
        if self.level_rule == 'assigner' and assigner not in ('MaxIoUAssigner', 'ATSSAssigner'):
            raise ValueError(
                f"FGFI: level_rule='assigner' needs an assigner that uses anchors only; "
                f"{type(student).__name__} has {assigner}. Use 'global' or 'per_level'."
            )

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        self.strides = [student[i].stride or 0 for i, _ in self.pairs] if student else []
        own = self.own_strides
        if 0 in self.strides or (own and dense.nearest_levels(own, self.strides) is None):
            anchors = f', the head has anchors at {[round(s, 2) for s in own]}' if own else ''
            raise ValueError(
                f'FGFI: the taps have strides {self.strides}{anchors}. Tap the input of the head, '
                f"'{self.seen}', or some of its maps."
            )
        on_backbone = any(tap.path.startswith('backbone') for tap in self.student_taps)
        for adapter in self.adapters.values():
            nn.init.trunc_normal_(adapter.conv.weight, std=1e-4, a=-2e-4, b=2e-4)
            nn.init.zeros_(adapter.conv.bias)
            if on_backbone if self.adapter_relu is None else self.adapter_relu:
                adapter.relu = nn.ReLU()

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        maps = self.maps(trace)
        masks = self.masks(trace, [tuple(s.shape[2:]) for s, _ in maps])
        counts = torch.stack([mask.sum() for mask in masks])
        total = trace.inputs.new_zeros((), dtype=torch.float32)
        levels = zip(maps, masks, counts.tolist(), strict=True)
        for k, ((student, teacher), mask, count) in enumerate(levels):
            total = total + masked_distance(student, teacher, mask, self.adapter(k), count)
        cells = counts.sum()
        return {'loss': total / (2 * cells.clamp(min=1)), 'cells': cells.float()}

    @torch.no_grad()
    def masks(self, trace: Trace, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Imitation mask of each level, (N, H, W) bool; also what tools/visualize.py draws."""
        device, model = trace.inputs.device, trace.student.model
        anchors = dense.anchors(model, sizes, self.strides, device)
        boxes, labels, images = dense.ground_truth(trace.samples, device)
        levels = None
        if self.level_rule == 'assigner':
            levels = boxes.new_zeros((len(boxes), len(sizes)), dtype=torch.bool)
            counts = sizes_of_groups(images, len(trace.samples)).tolist()
            for own in (x for x in torch.arange(len(boxes)).split(counts) if len(x)):
                part = slice(int(own[0]), int(own[-1]) + 1)
                levels[part] = dense.assigned_levels(model, anchors, boxes[part], labels[part])
        n, rule = len(trace.samples), self.level_rule
        masks = imitation_masks(anchors, boxes, images, n, self.psi, rule, levels, self.offset)
        return [mask.view(-1, *size) for mask, size in zip(masks, sizes, strict=True)]

    def views(self, trace: Trace) -> list[View]:
        """Masks, and how strong the features are there: root mean square over channels."""
        maps = self.maps(trace)
        sizes = [tuple(s.shape[2:]) for s, _ in maps]
        anchors = dense.anchors(trace.student.model, sizes, self.strides, trace.inputs.device)
        levels = zip(maps, self.masks(trace, sizes), self.strides, anchors, strict=True)
        views = []
        for pair, mask, stride, boxes in levels:
            place = dict(stride=stride, centre=float(boxes[0].mean()) / stride)
            views.append(View('imitation mask', mask, kind='mask', **place))
            for side, feature in zip(('student', 'teacher'), pair, strict=True):
                strength = feature.square().mean(1).sqrt()
                views.append(View('feature strength', strength, side=side, **place))
        return views
