"""FeatureFusion: squared distance from the standardised maps of several teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters import build_adapter
from mmkd.families import DETECTORS, classifier, dense, family_of, segmentor, two_stage
from mmkd.families.comparable import check_decodable
from mmkd.families.pyramid import among, bind_pyramid, check_maps, tap_beside
from mmkd.functional.fusion import confidence_weights, fused, standard, top_confidence
from mmkd.levels import Level, pair_levels
from mmkd.map_sizes import equal_size
from mmkd.objective import RESIZE, Objective, Taps
from mmkd.options import check_choice, check_number, options_of
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Side, Trace, parse_taps

FUSES = ('separate', 'mean')


@MODELS.register_module()
class FeatureFusion(Objective):
    """Features of several teachers, fused into one student: our construction.

    Ours, 2026: inspired by a web article on heterogeneous dark knowledge distillation, whose
    section on the fusion of models has no equations. Each teacher's map is standardised channel by
    channel over the batch. With ``'separate'`` the student has an adapter for each teacher:
    ``sum_t w_t MSE(phi_t(S), T_t)``; with ``'mean'`` one adapter leads to the weighted mean of
    teachers of equal width. Levels are paired by stride and summed. Classes play no part, so that
    the teachers may know different ones: experts of several domains, say.

    Args:
        teacher_name (list[str]): the teachers, at least two.
        fuse (str): ``'separate'`` or ``'mean'``.
        weights (str | list[float]): w: ``'equal'``; ``'confidence'``, image by image the softmax
            over teachers of the mean of its ten largest class scores over 0.5; or a number for each
            teacher, which are scaled to a sum of 1.
        adapt, resize, level_map: see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight: see :class:`~mmkd.objective.Objective`. Without taps: a detector's
            pyramid, a segmentor's features before the classifier, a classifier's stages.

    Raises:
        ValueError: fewer than two teachers; weights that are no positive numbers, one for each;
            levels that a teacher does not have; for ``'mean'`` teachers of unequal width; for
            ``'confidence'`` heads whose classes compete with a background.
    """

    many_teachers = True
    compares_classes = False  # scores only weigh teachers
    zero_at_equality = False
    over_scales = True
    label_free = True
    families = (*DETECTORS, 'segmentor', 'classifier')

    def __init__(
        self,
        *taps: Taps,
        fuse: str = 'separate',
        weights: str | Sequence[float] = 'equal',
        adapt: str | None = 'auto',
        resize: str | None = None,
        level_map: str | list | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.fuse = check_choice('FeatureFusion', 'fuse', fuse, FUSES)
        self.weigh = weights if isinstance(weights, str) else 'given'
        check_choice('FeatureFusion', 'weights', self.weigh, ('equal', 'confidence', 'given'))
        self.given = None if isinstance(weights, str) else _positive(weights)
        self.resize = check_choice('FeatureFusion', 'resize', resize, RESIZE)
        self.adapt, self.level_map, self.align_corners = adapt, level_map, False
        self.pairs: dict[str, list[tuple[int, int]]] = {}
        self.maps_at: tuple[set[str], set[str]] = (set(), set())
        self.adapters = nn.ModuleDict()
        if self.teacher_names:
            self._check_count(len(self.teacher_names))

    def _check_count(self, count: int) -> None:
        if count < 2:
            raise ValueError(
                f'FeatureFusion fuses several teachers, but teacher_name names {count}. Name at '
                "least two, teacher_name=['a', 'b'], or use PKD or FitNet."
            )
        if self.given is not None and len(self.given) != count:
            raise ValueError(
                f'FeatureFusion: weights has {len(self.given)} numbers for {count} teachers.'
            )

    def check_dataset(self, dataset: Any) -> None:
        self._check_count(len(self.teacher_names))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        self.align_corners = bool(getattr(student, 'align_corners', False))
        family = family_of(student)
        if family == 'segmentor':
            segmentor.bind_features(self, student, teacher)
        elif family == 'classifier':
            classifier.choose_taps(self, classifier.stage_taps, student, teacher)
        else:
            bind_pyramid(self, student, teacher)
        if self.weigh == 'confidence' and not self.maps_at[1]:
            self.asks_teacher = family in DETECTORS
            self.maps_at = tap_beside(self, ((), parse_taps(_scores_tap(student, teacher))))
        elif not self.maps_at[1]:
            self.maps_at = tap_beside(self, ((), ()))
        if self.weigh == 'confidence' and self.asks_teacher:
            check_decodable('FeatureFusion', student, teacher, 'teacher')

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        own = among(student, self.maps_at[0]) or []
        every = {k: among(v, self.maps_at[1]) or [] for k, v in self.teacher_levels.items()}
        if not every:
            every = {'': among(teacher, self.maps_at[1]) or []}
        options, any_stride = options_of(FeatureFusion), self.resize is not None
        for number, (name, levels) in enumerate(every.items()):
            owner = f"FeatureFusion, teacher '{name}'" if name else 'FeatureFusion'
            check_maps(owner, own, levels)
            pairs = pair_levels(
                own, levels, self.level_map, any_stride, owner, options, self.image_scale
            )
            self.pairs[name] = pairs
            for k, (i, j) in enumerate(pairs):
                if self.fuse == 'mean' and number:
                    continue
                adapter = build_adapter(self.adapt, own[i], levels[j], owner)
                if adapter is not None:
                    self.adapters[f'{number}_{k}'] = adapter
        if self.fuse == 'mean':
            self._check_means(own, every)

    def _check_means(self, own: list[Level], every: dict[str, list[Level]]) -> None:
        """Teachers of a mean must agree in pairs and widths, else ValueError."""
        shapes = {
            name: [(i, levels[j].channels) for i, j in self.pairs[name]]
            for name, levels in every.items()
        }
        first, *others = shapes
        for name in others:
            if shapes[name] != shapes[first]:
                widths = [[width for _, width in shapes[one]] for one in (first, name)]
                raise ValueError(
                    f"FeatureFusion: a mean needs equal levels and widths, but teacher '{first}' "
                    f"has {widths[0]} channels and '{name}' {widths[1]}. Set fuse='separate'."
                )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        weights = self.weights_of(trace)
        maps = [self._maps(name, side, trace) for name, side in trace.teachers.items()]
        logged = {f'share_{j}': w.detach().mean() for j, w in enumerate(weights)}
        if self.fuse == 'mean':
            terms = [
                (self._adapted(0, k, levels[0][0]) - fused([t for _, t in levels], weights))
                .square()
                .mean()
                for k, levels in enumerate(zip(*maps, strict=True))
            ]
            return {'loss': torch.stack(terms).sum(), **logged}
        total = maps[0][0][0].new_zeros(())
        for j, pairs in enumerate(maps):
            for k, (student, teacher) in enumerate(pairs):
                apart = self._adapted(j, k, student) - standard(teacher)
                total = total + (weights[j] * apart.square().mean((1, 2, 3))).mean()
        return {'loss': total, **logged}

    def _maps(self, name: str, side: Side, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of each pair, of equal height and width."""
        seen = replace(trace, teachers={name: side})
        own = [x for tap in self.student_taps for x in trace.student[tap]]
        taps = [tap for tap in self.teacher_taps if str(tap) in self.maps_at[1]]
        other = [x.detach() for tap in taps for x in side[tap]]
        options = self.resize, self.align_corners
        pairs = self.pairs.get(name, next(iter(self.pairs.values())))
        return [equal_size('FeatureFusion', own[i], other[j], seen, *options) for i, j in pairs]

    def _adapted(self, teacher: int, pair: int, student: Tensor) -> Tensor:
        key = f'{teacher}_{pair}'
        return self.adapters[key](student) if key in self.adapters else student

    def weights_of(self, trace: Trace) -> Tensor:
        """Of each teacher and image, (J, N), sum 1 over teachers."""
        count, n, device = len(trace.teachers), len(trace.inputs), trace.inputs.device
        if self.weigh == 'confidence':
            found = [self._confidence(side, trace) for side in trace.teachers.values()]
            return confidence_weights(torch.stack(found))
        numbers = torch.tensor(self.given or [1.0] * count, device=device)
        return (numbers / numbers.sum())[:, None].expand(-1, n)

    @torch.no_grad()
    def _confidence(self, side: Side, trace: Trace) -> Tensor:
        """Mean of the ten largest class scores of each image, (N,)."""
        model = side.model
        if self.asks_teacher:
            outputs = predictions.head_outputs(model, side[two_stage.features_tap(model)])
            scores = predictions.split(model, outputs)[0].sigmoid().amax(-1)
        else:
            (tap,) = (tap for tap in self.teacher_taps if str(tap) not in self.maps_at[1])
            scores = side[tap][0].softmax(1).amax(1).reshape(len(trace.inputs), -1)
        return top_confidence(scores)

    def describe(self) -> list[str]:
        names = ', '.join(self.teacher_names) or 'one teacher'
        return [f'{self.fuse} maps of {names}, weights: {self.given or self.weigh}']


def _positive(weights: Sequence[float]) -> list[float]:
    if not isinstance(weights, Sequence) or not weights:
        raise ValueError(
            "FeatureFusion: weights must be 'equal', 'confidence' or a list of numbers, found "
            f'{weights!r}.'
        )
    return [check_number('FeatureFusion', 'each of weights', w, above=0) for w in weights]


def _scores_tap(student: nn.Module, teacher: nn.Module) -> str:
    """Where a teacher's class scores come from."""
    family = family_of(student)
    if family == 'segmentor':
        return segmentor.logits_tap(teacher)
    if family == 'classifier':
        return classifier.LOGITS
    assert dense.dense_head(teacher) is not None
    return two_stage.features_tap(teacher)
