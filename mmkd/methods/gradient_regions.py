"""GradientRegions: feature distance, weighted by the gradient of the teacher's class scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import confidence, family_of, is_two_stage, segmentor
from mmkd.families.comparable import Misfit, both
from mmkd.families.pyramid import among, bind_pyramid, check_maps, tap_beside
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import View


def region_weights(
    feats: Sequence[Tensor],
    score: Callable[[list[Tensor]], Tensor],
    weights: str = 'abs',
    top: int | None = 100,
) -> list[Tensor]:
    """How much the best scores of an image depend on each cell, (N, H_l, W_l) in [0, 1].

    Args:
        feats (Sequence[Tensor]): T, maps (N, C_l, H_l, W_l) of all levels.
        score (Callable): scores (N, P) from maps, of which the ``top`` largest of an image are
            added up to y, or all.
        weights (str): ``'abs'`` is the mean over channels of |G|, the gradient of y by T;
            ``'cam'`` the positive part of ``sum_c mean_hw(G_c) T_c``. Both are divided by the
            largest of all levels of an image; where that is 0, all cells count 1.
    """
    maps = [x.detach().requires_grad_() for x in feats]
    with torch.enable_grad():
        found = score(maps)
        count = found.shape[1] if top is None else min(top, found.shape[1])
        total = found.topk(count, 1).values.sum()
    gradients = torch.autograd.grad(total, maps, materialize_grads=True, allow_unused=True)
    if weights == 'abs':
        shown = [g.abs().mean(1) for g in gradients]
    else:
        pairs = zip(gradients, feats, strict=True)
        shown = [(g.mean((2, 3), keepdim=True) * t).sum(1).relu() for g, t in pairs]
    largest = torch.stack([x.flatten(1).amax(1) for x in shown]).amax(0)[:, None, None]
    return [torch.where(largest > 0, x / largest, 1.0) for x in shown]


def weighted_distance(pairs: Sequence[tuple[Tensor, Tensor]], weights: Sequence[Tensor]) -> Tensor:
    """``sum M |S - T|^2 / (C sum M)`` over the cells of all levels of an image, mean over images.

    Args:
        pairs (Sequence[tuple]): S and T of each level, (N, C, H, W).
        weights (Sequence[Tensor]): M of each level, (N, H, W).
    """
    apart = [
        (m * (s - t).square().mean(1)).sum((1, 2)) for (s, t), m in zip(pairs, weights, strict=True)
    ]
    counted = sum(m.sum((1, 2)) for m in weights)
    return (sum(apart) / counted.clamp(min=1e-6)).mean()


@MODELS.register_module()
class GradientRegions(PairObjective):
    """Feature mimicry where the teacher's class scores are sensitive; our construction.

    Weights from gradients, after Grad-CAM by Selvaraju et al., ICCV 2017. The teacher's own head
    judges its features, without labels: y is the sum of the best class probabilities of an image,
    of a two-stage detector the objectness of its RPN, of a segmentor those of all pixels. Cells
    weigh by the gradient of y, see :func:`region_weights`, and the loss is ``sum M (adapter(S) -
    T)^2 / (C sum M)`` over all levels.

    Lan and Tian (WACV 2024) compare the gradient maps of both networks instead; in their code these
    have no gradient for the student.

    Without taps: the first four maps of a two-stage student's neck, the whole neck of other
    detectors, of a segmentor the map of the backbone that its decode head reads (of several, the
    last).

    Args:
        weights (str): ``'abs'``, the mean absolute gradient over channels, or ``'cam'``, Grad-CAM's
            positive part of gradient times feature.
        top (int): priors of an image whose scores are added up; of a segmentor all pixels are.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
            out_channels: see :class:`~mmkd.objective.PairObjective`; the teacher's taps are maps
            that its head reads.

    Raises:
        ValueError: options out of range; a teacher whose head needs more than features (DETR, SAN)
            or has no sigmoid or pixel scores; a detector and a segmentor; taps at other maps of the
            teacher.
    """

    asks_teacher = True
    rank_invariant = True
    families = ('two_stage', 'instance', 'anchor', 'anchor_free', 'yolo', 'segmentor')

    def __init__(self, *taps: Taps, weights: str = 'abs', top: int = 100, **pair: Any) -> None:
        super().__init__(*taps, **pair)
        self.weights = check_choice('GradientRegions', 'weights', weights, ('abs', 'cam'))
        self.top = check_number('GradientRegions', 'top', top, 1, whole=True)
        self.maps_at: tuple[set[str], set[str]] = (set(), set())

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        families = [family_of(model) for model in (student, teacher)]
        if families.count('segmentor') == 1:
            raise Misfit(
                'GradientRegions takes two detectors or two segmentors, but '
                f'{both(student, teacher)}.'
            )
        if families[0] == 'segmentor':
            segmentor.check_segmentors('GradientRegions', student, teacher)
            self.student_taps = self.student_taps or parse_taps(segmentor.read_tap(student))
            self.teacher_taps = self.teacher_taps or parse_taps(segmentor.read_tap(teacher))
        bind_pyramid(self, student, teacher, levels=4 if is_two_stage(student) else None)
        confidence.check_scores('GradientRegions', 'teacher', teacher)
        features = parse_taps(confidence.features_tap(teacher))
        others = [str(tap) for tap in self.teacher_taps if tap.source != features[0].source]
        if others:
            raise ValueError(
                f"GradientRegions weights maps that the teacher's head reads, those at "
                f"'{features[0]}', or some of them such as '{features[0]}[0]'; found "
                f'{", ".join(others)}.'
            )
        self.maps_at = tap_beside(self, ((), features))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student, teacher = among(student, self.maps_at[0]), among(teacher, self.maps_at[1])
        check_maps('GradientRegions', student, teacher)
        super().setup(student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.tensor_pairs(trace)
        return {'loss': weighted_distance(pairs, self.cells(trace, pairs))}

    def cells(self, trace: Trace, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The weight of each cell of each pair, (N, H, W)."""
        model = trace.teacher.model
        feats = [x.detach() for x in trace.teacher[confidence.features_tap(model)]]
        top = None if family_of(model) == 'segmentor' else self.top
        found = region_weights(
            feats, lambda maps: confidence.best_scores(model, maps), self.weights, top
        )
        taps = [tap for tap in self.teacher_taps if str(tap) in self.maps_at[1]]
        places = [i for tap in taps for i in confidence.levels_of(tap, len(found))]
        chosen = [found[places[j]][:, None] for _, j in self.pairs]
        return [
            self._same_size(student, weight, trace)[1][:, 0]
            for (student, _), weight in zip(pairs, chosen, strict=True)
        ]

    def views(self, trace: Trace) -> list[View]:
        """The weight of each cell, and the difference that it weighs."""
        pairs = self.tensor_pairs(trace)
        views = []
        for (s, t), weight in zip(pairs, self.cells(trace, pairs), strict=True):
            views.append(View('sensitivity of the best scores', weight, scale=1))
            views.append(View('distance of features', (s - t).square().mean(1).sqrt()))
        return views
