"""ScaleFusion: a detector that also learns from smaller images, and from both fused by a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.adapters.scale_gate import ScaleGate
from mmkd.families import family_of
from mmkd.families.comparable import Misfit, named
from mmkd.families.pyramid import check_maps
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_factors, check_number
from mmkd.registry import MODELS
from mmkd.scales import Rescale
from mmkd.tap import Trace, parse_taps


def losses_on(model: nn.Module, feats: list[Tensor], inputs: Tensor, samples: list) -> Tensor:
    """Sum of a detector's own losses for given maps of its neck."""
    model.__dict__['extract_feat'] = lambda _: tuple(feats)
    try:
        losses = model.loss(inputs, samples)
    finally:
        del model.__dict__['extract_feat']
    return model.parse_losses(losses)[0]  # type: ignore[operator]


@MODELS.register_module()
class ScaleFusion(Objective):
    """Multi-scale aligned distillation for low-resolution detection: the teacher.

    Qi et al., CVPR 2021 (MSAD). The detector trains on the full image (its own losses), on a
    smaller one, and on both fused: level l of the full image and the level of the small one with
    maps of equal size, weighed by :class:`~mmkd.adapters.scale_gate.ScaleGate`. A student on small
    images then learns from the fused maps, with ``teacher=dict(type='mmkd.FusedTeacher', …)`` and
    ``mmkd.Rescale``; ``mmkd train configs/chains/msad_frcnn_bccd.py`` runs both. Compared with
    dvlab-research/MSAD, which takes the gate of a batch's first image for all of them; here each
    image has its own, and small images are means of blocks, as ``mmkd.Rescale`` makes them. Levels
    of the full image that are finer than any of the small one stay as they are.

    The detector's body and heads run once more on the small image, its heads once more on the
    fused maps, so that a step takes about twice as long.

    Args:
        scale (float): side of the small image over that of the full one, 1/2, 1/4, ….
        factors (dict[str, float] | None): of the losses on ``'low'`` and ``'fused'`` maps, where
            not 1.
        reduction (int): of the gate's hidden layer.
        student, weight: see :class:`~mmkd.objective.Objective`; the taps are the neck whatever is
            given.

    Raises:
        ValueError: options out of range; a network without a neck and heads behind it; a neck of
            several widths, or whose strides do not double from level to level.
    """

    needs_teacher = False
    needs_ground_truth = True
    runs_student = True
    zero_at_equality = False
    term_factors = {'loss_low': 'factors.low', 'loss_fused': 'factors.fused'}
    families = ('two_stage', 'instance', 'anchor', 'anchor_free')

    def __init__(
        self,
        *taps: Taps,
        scale: float = 0.5,
        factors: Mapping[str, float] | None = None,
        reduction: int = 16,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.rescale = Rescale(scale)
        times = 1 / self.rescale.scale
        if times.denominator > 1 or times < 2 or times.numerator & (times.numerator - 1):
            raise ValueError(
                'ScaleFusion fuses levels of pyramids, so scale must be 1/2, 1/4, …, found '
                f'{scale}.'
            )
        self.shift = times.numerator.bit_length() - 1
        self.factors = check_factors('ScaleFusion', factors, dict(low=1.0, fused=1.0))
        self.reduction = check_number('ScaleFusion', 'reduction', reduction, 1, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if family_of(student) not in self.families or getattr(student, 'neck', None) is None:
            raise Misfit(
                'ScaleFusion trains two-stage and dense detectors with a neck, but the student is '
                f'{named(student)}.'
            )
        self.student_taps = parse_taps('neck')

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        check_maps('ScaleFusion', student)
        strides = [level.stride or 0 for level in student or []]
        doubled = strides == [strides[0] * 2**i for i in range(len(strides))] if strides else False
        widths = {level.channels for level in student or []}
        if not doubled or len(widths) > 1 or len(strides) <= self.shift:
            found = ', '.join(map(str, student or [])) or 'no shapes'
            raise ValueError(
                f'ScaleFusion needs a neck of one width and more than {self.shift} levels whose '
                f'strides double, found {found}.'
            )
        self.gate = ScaleGate(widths.pop(), self.shift, self.reduction)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        model = trace.student.model
        inputs, samples = self.rescale(trace.inputs, trace.samples)
        low, high = list(model.extract_feat(inputs)), trace.student['neck']
        fused = self.gate.fuse(high, low, self.shift)
        pairs = zip(high[self.shift :], low, strict=False)
        shares = [self.gate.weights(h, x)[:, 0] for h, x in pairs]
        zero = fused[-1].sum() * 0.0
        losses = dict(loss_low=zero, loss_fused=zero)
        if self.factors['low']:
            losses['loss_low'] = self.factors['low'] * losses_on(model, low, inputs, samples)
        if self.factors['fused']:
            found = losses_on(model, fused, trace.inputs, trace.samples)
            losses['loss_fused'] = self.factors['fused'] * found
        return losses | {'high_share': sum(x.mean() for x in shares).detach() / len(shares)}

    def describe(self) -> list[str]:
        return [
            f'also trains on images of {self.rescale.scale} of the side, fused {self.shift} '
            'level(s) apart'
        ]
