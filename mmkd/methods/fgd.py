"""FGD: feature distance weighted by attention, on foreground and background, and global context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.context import ContextBlock
from mmkd.families import DETECTORS, dense, family_of, is_two_stage
from mmkd.families.pyramid import bind_pyramid, check_maps
from mmkd.functional.attention import softmax_attention
from mmkd.functional.box_masks import background_mask, foreground_mask
from mmkd.functional.device import upload
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_factors, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

TERMS = ('foreground', 'background', 'attention', 'context')
#: factors of the four terms, and the temperature
PRESETS = {
    'two_stage': (5e-5, 2.5e-5, 5e-5, 5e-7, 0.5),
    'anchors': (1e-3, 5e-4, 5e-4, 5e-6, 0.5),
    'points': (1.6e-3, 8e-4, 8e-4, 8e-6, 0.5),
    'fcos': (1.6e-3, 8e-4, 8e-4, 8e-6, 0.8),
    'yolox': (2e-3, 1e-3, 1e-3, 1e-5, 0.5),
}
REFERENCES = ('batch_input', 'img_shape')


def preset_of(model: nn.Module) -> str:
    """Name of the published settings for a detector."""
    head = getattr(model, 'bbox_head', None)
    if is_two_stage(model):
        return 'two_stage'
    if hasattr(head, 'multi_level_conv_obj'):
        return 'yolox'
    if family_of(model) == 'detr' or dense.anchor_generator(model) is not None:
        return 'anchors'
    return 'fcos' if hasattr(head, 'conv_centerness') else 'points'


@MODELS.register_module()
class FGD(PairObjective):
    """Focal and global knowledge distillation for detectors.

    Yang et al., CVPR 2022. Compared with yzd-v/FGD. Four terms, sums over levels, channels, cells
    and means over images: squared feature differences on objects and on background, weighted by the
    teacher's attention; absolute differences of the attention maps; squared differences after
    adding global context.

    Without taps: the first four maps of a two-stage detector's neck, the whole neck of others.
    Factors of the terms are those of the authors' configs, by preset; their paper prints for
    ``'attention'`` 1e-3 with anchors and 8e-3 with points. Published students begin with the
    teacher's neck and head where these are alike, as in ``fgd_retinanet_r101_r50.py``.

    Args:
        preset (str | None): ``'two_stage'``, ``'anchors'`` (RetinaNet, GFL), ``'points'``
            (RepPoints), ``'fcos'`` or ``'yolox'``; ``None`` chooses by the student.
        factors (dict[str, float] | None): of the terms ``'foreground'``, ``'background'``,
            ``'attention'``, ``'context'`` (alpha, beta, gamma, lambda) where not the preset's.
        tau (float | None): temperature of the attention; ``None`` is the preset's.
        coord_ref (str): a map covers the padded batch (``'batch_input'``); the authors' code takes
            ``'img_shape'``, which shifts boxes in padded images.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; a model that is no detector.
    """

    term_factors = {f'loss_{term}': f'factors.{term}' for term in TERMS}
    scheduled = ('tau',)
    label_free = False
    families = DETECTORS
    rank_invariant = True

    def __init__(
        self,
        *taps: Taps,
        preset: str | None = None,
        factors: Mapping[str, float] | None = None,
        tau: float | None = None,
        coord_ref: str = 'batch_input',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, **pair)
        self.preset = check_choice('FGD', 'preset', preset, (None, *PRESETS))
        self.asked_factors = factors
        self.factors = check_factors('FGD', factors, dict.fromkeys(TERMS, 1.0))
        self.tau = check_temperature('FGD', tau, optional=True)
        self.coord_ref = check_choice('FGD', 'coord_ref', coord_ref, REFERENCES)
        self.contexts = nn.ModuleDict()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        bind_pyramid(self, student, teacher, levels=4 if is_two_stage(student) else None)
        *factors, tau = PRESETS[self.preset or preset_of(student)]
        self.tau = self.tau or tau
        preset = dict(zip(TERMS, factors, strict=True))
        self.factors = check_factors('FGD', self.asked_factors, preset)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if student is None or teacher is None:
            student, teacher = self._typed_levels()
        check_maps('FGD', student, teacher)
        super().setup(student, teacher)
        for k, (_, j) in enumerate(self.pairs):
            blocks = {side: ContextBlock(teacher[j].channels) for side in ('student', 'target')}
            self.contexts[f'{k}'] = nn.ModuleDict(blocks)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.tensor_pairs(trace)
        masks = self.masks(trace, [tuple(s.shape[2:]) for s, _ in pairs])
        levels = [
            self.level_terms(s, t, mask, self.contexts[f'{k}'])
            for k, ((s, t), mask) in enumerate(zip(pairs, masks, strict=True))
        ]
        return {f'loss_{t}': self.factors[t] * sum(level[t] for level in levels) for t in TERMS}

    def level_terms(
        self, student: Tensor, teacher: Tensor, foreground: Tensor, contexts: nn.ModuleDict
    ) -> dict[str, Tensor]:
        """The four terms of (N, C, H, W) each, foreground (N, H, W), without their factors."""
        n = len(student)
        spatial_s, channel_s = softmax_attention(student, self.tau)
        spatial_t, channel_t = softmax_attention(teacher, self.tau)
        difference = student - teacher
        error = torch.bmm(channel_t[:, None], difference.square().flatten(2))
        error = spatial_t * error.view_as(spatial_t)
        added = contexts['student'](student) - contexts['target'](teacher)
        terms = (
            (foreground * error).sum(),
            (background_mask(foreground) * error).sum(),
            (channel_s - channel_t).abs().sum() + (spatial_s - spatial_t).abs().sum(),
            (difference + added[..., None, None]).square().sum(),
        )
        return {term: value / n for term, value in zip(TERMS, terms, strict=True)}

    @torch.no_grad()
    def masks(self, trace: Trace, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Foreground mask of each level, (N, H, W)."""
        device = trace.inputs.device
        boxes, _, images = dense.ground_truth(trace.samples, device)
        padded = self.coord_ref == 'batch_input'
        shapes = [trace.inputs.shape[2:] if padded else s.img_shape[:2] for s in trace.samples]
        reference = upload([(w, h) for h, w in shapes], boxes)
        return [foreground_mask(boxes, images, reference, size) for size in sizes]

    def views(self, trace: Trace) -> list[View]:
        """Object masks of each level, and the spatial attention of both sides."""
        pairs = self.tensor_pairs(trace)
        masks = self.masks(trace, [tuple(s.shape[2:]) for s, _ in pairs])
        views = []
        for pair, mask in zip(pairs, masks, strict=True):
            views += [View('foreground', mask > 0, 'mask'), View('background', mask == 0, 'mask')]
            for side, x in zip(('student', 'teacher'), pair, strict=True):
                shown = softmax_attention(x, self.tau)[0]
                views.append(View('attention', shown, side=side, unit='× uniform', scale=2))
        return views
