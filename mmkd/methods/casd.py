"""CASD: attention of RoIs agrees with the strongest over views of the image and over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families.weak import LOOK, TARGETS, check_weak, looks, targets
from mmkd.functional.mil import IGNORED
from mmkd.objective import Objective
from mmkd.options import check_factors, check_list
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps

FACTORS = dict(views=1.0, layers=1.0)


def roi_attention(features: Tensor) -> Tensor:
    """``sigmoid(norm(mean_c F))`` of RoI features, (R, C, P, P) -> (R, P, P).

    ``norm`` moves the cells of each RoI to [0, 1]; a constant map becomes 0.5 everywhere.
    """
    mean = features.mean(1)
    low, high = (f((1, 2), keepdim=True) for f in (mean.amin, mean.amax))
    return ((mean - low) / (high - low).clamp(min=1e-7)).sigmoid()


def disagreement(attention: Tensor, kept: Tensor) -> Tensor:
    """``sum_e mean (A_e - max_e A)^2`` over kept RoIs and cells; the maximum gets no gradient.

    Args:
        attention (Tensor): of views or layers, (E, R, P, P).
        kept (Tensor): (R,) bool.
    """
    gap = (attention - attention.amax(0).detach()).square().mean((2, 3)).sum(0)
    return (gap * kept).sum() / kept.sum().clamp(min=1)


@MODELS.register_module()
class CASD(Objective):
    """Comprehensive attention self-distillation, for detectors that learn from image labels.

    Huang et al., NeurIPS 2020. The attention of a RoI, :func:`roi_attention`, is to be the same in
    every view of the image (``loss_views``: the image itself and the ``views`` of
    ``mmkd.WeakDetector``, mirrored ones turned back) and in every layer (``loss_layers``: stages of
    the backbone on the image itself, RoI-aligned to equal size). The element-wise maximum teaches
    each, :func:`disagreement`. Both are summed over the refinements k, whose RoIs are those that
    have a label there: foreground or background. No teacher.

    ``loss_views`` follows the authors' code, except that it is a plain mean, which they divide by
    the number of RoIs again; ``loss_layers`` the paper alone, the code has none. Factors and start
    are ours: the paper's numbers could not be read. The student's part of the method is
    ``mmkd.WeakDetector(views=…)`` with ``seeds='casd'``. The authors' code has a hinge on raw
    scores in place of ``loss_mil``, and draws a sample of the RoIs that have a label.

    Args:
        weight (float | dict | None): ``None``: 0.1 after a linear rise from 0.4 to 0.5 of the run,
            as attention means nothing in the beginning. See :class:`~mmkd.objective.Objective`.
        factors (dict[str, float] | None): of the terms ``'views'`` and ``'layers'``, where not 1.
        layers (str | list[str]): taps on stages of the backbone; ``'auto'`` for those of a ResNet
            that are not frozen.
        learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: factors out of range; a detector without mmkd.MILRoIHead, or without
            refinements; no further views, unless the factor of ``'views'`` is 0; a backbone whose
            stages are not known; fewer than two layers.
    """

    default_weight = 0.1
    needs_teacher = False
    needs_ground_truth = True
    zero_at_equality = False
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('weak',)

    def __init__(
        self,
        weight: Any = None,
        factors: Mapping[str, float] | None = None,
        layers: str | Sequence[str] = 'auto',
        learner: str = 'student',
    ) -> None:
        if weight is None:
            weight = dict(value=self.default_weight, start=0.4, warmup=0.1)
        super().__init__(weight=weight, learner=learner)
        self.factors = check_factors('CASD', factors, FACTORS)
        self.layers = layers if layers == 'auto' else check_list('CASD', 'layers', layers)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        check_weak('CASD', student)
        if self.factors['views'] and not getattr(student, 'views', ()):
            raise ValueError(
                'CASD compares views of an image, but the student looks at one alone. Set '
                "views=['flip', 'scale', 'both'] in mmkd.WeakDetector, or factors=dict(views=0) in "
                'CASD, which leaves its layers.'
            )
        layers = self._layers(student) if self.factors['layers'] else []
        # The image itself is the first of the views.
        self.student_taps = parse_taps([LOOK, TARGETS, *(f'{layer}[0]' for layer in layers)])

    def _layers(self, student: nn.Module) -> list[str]:
        found = self.layers
        if found == 'auto':
            names = getattr(student.backbone, 'res_layers', ())
            stages = [(name, student.backbone.get_submodule(name)) for name in names]
            found = [f'backbone.{name}' for name, stage in stages if learns(stage)]
        if len(found) < 2:
            raise ValueError(
                'CASD compares layers of a backbone that are not frozen, but found '
                f'{found or "none"} in {type(student.backbone).__name__}. Name two stages or more, '
                "such as layers=['backbone.features.16', 'backbone.features.23'], freeze fewer, "
                'or set factors=dict(layers=0).'
            )
        return list(found)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        shown = looks(trace)
        kept = [one.labels != IGNORED for one in targets(trace)]
        terms = {'views': self._views(shown, trace.student.model.flipped)}
        if layers := self.student_taps[2:]:
            maps = [trace.student[tap][0] for tap in layers]
            size, width = shown[0].features.shape[2:], trace.inputs.shape[3]
            terms['layers'] = layer_attention(maps, shown[0].rois, tuple(size), width)
        return {
            f'loss_{name}': self.factors[name] * sum(disagreement(attention, own) for own in kept)
            for name, attention in terms.items()
        }

    def _views(self, shown: Sequence[Any], flipped: Sequence[bool]) -> Tensor:
        """Attention of each view in the frame of the image, (E, R, P, P)."""
        maps = [roi_attention(look.features) for look in shown]
        turned = [x.flip(-1) if flip else x for x, flip in zip(maps, flipped, strict=True)]
        return torch.stack(turned)

    def describe(self) -> list[str]:
        """Which layers are compared."""
        return [f'layers: {", ".join(map(str, self.student_taps[2:])) or "none"}']


def learns(stage: nn.Module) -> bool:
    """Whether a stage has a parameter that is not frozen."""
    return any(parameter.requires_grad for parameter in stage.parameters())


def layer_attention(
    maps: Sequence[Tensor], rois: Tensor, size: tuple[int, int], width: int
) -> Tensor:
    """Attention of each layer's RoI-aligned map, (B, R, P, P).

    Args:
        maps (Sequence[Tensor]): (N, C, H, W) each.
        rois (Tensor): (R, 5).
        size (tuple[int, int]): (P, P).
        width (int): of the input in pixels.
    """
    from mmcv.ops import roi_align

    found = []
    for x in maps:
        mean = x.float().mean(1, keepdim=True)  # RoIAlign is linear: the same as the mean of RoIs
        scale = x.shape[3] / width
        if len(rois):
            mean = roi_align(mean, rois.to(mean), size, scale, 2, 'avg', True)
        else:
            mean = mean[:0, :, :1, :1].expand(-1, -1, *size)
        found.append(roi_attention(mean))
    return torch.stack(found)
