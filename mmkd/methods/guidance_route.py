"""GuidanceRoute: L1 distance between projected feature maps of equal size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmkd.adapters import build_adapter
from mmkd.families import DETECTORS, classifier
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace


def route_error(projected: Tensor, target: Tensor, eta: float = 0.25) -> Tensor:
    """``h(v) * |r(u) - v|``, where h is 1 for v of at least 0 and ``eta`` below.

    Args:
        projected (Tensor): r(u), the map at the beginning of the route, projected; (N, C, H, W).
        target (Tensor): v, the map at its end, (N, C, H, W).
        eta (float): weight of negative target values, which a ReLU would remove.

    Returns:
        Tensor: (N, C, H, W), not reduced.
    """
    error = (projected - target).abs()
    return error.where(target >= 0, eta * error)


@MODELS.register_module()
class GuidanceRoute(PairObjective):
    """Knowledge projection for deep neural networks.

    Zhang et al., 2017. A route joins a map of the student and one of the
    teacher of equal height and width by a learnt 1x1 convolution; its loss is the mean of
    :func:`route_error` over all elements, and those of several routes are summed. Without taps:
    all stages of two classifiers; with taps maps of any model. The paper trains with the single
    best route and lets its weight fall to 0, ``weight=dict(decay='linear')``;
    ``tools/search_routes.py`` finds that route.

    Args:
        routes (list[tuple[int, int]] | str | None): positions in the lists of tapped maps,
            (student, teacher), from 0; the path of a search's JSON takes its winner; ``None`` takes
            every pair of equal height and width.
        direction (str): ``'student'`` projects the student's map to the teacher's width;
            ``'teacher'``, as published, the teacher's to the student's. The latter has a trivial
            solution, projection and student features 0, that only the task loss prevents; the norm
            of each projection is logged.
        eta (float): weight of places where the target is negative.
        student, teacher, weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: an unknown direction; a negative eta; routes that are no pairs, do not exist or
            join unequal sizes; no pair of equal size; maps that cannot be probed; no taps and no
            classifiers.
    """

    default_weight = 0.6
    rank_invariant = True
    over_scales = False  # cuts are compared cell by cell
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        routes: Sequence[tuple[int, int]] | str | None = None,
        direction: str = 'student',
        eta: float = 0.25,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name, learner=learner)
        found = [winner_in(routes)] if isinstance(routes, str) else routes
        self.routes = None if found is None else _as_pairs(found)
        self.direction = check_choice(
            'GuidanceRoute', 'direction', direction, ('student', 'teacher')
        )
        self.eta = check_number('GuidanceRoute', 'eta', eta, 0)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        classifier.choose_taps(self, classifier.stage_taps, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not student or not teacher:
            raise ValueError(
                'GuidanceRoute joins maps of equal size, but the maps at its taps could not be '
                'probed at build. Tap modules that run in a plain forward, e.g. stages.'
            )
        self.pairs = equal_sizes(student, teacher) if self.routes is None else self.routes
        if not self.pairs:
            raise ValueError(
                'GuidanceRoute: no map of the student is as high and wide as one of the teacher. '
                f'{_sizes(student, teacher)} Tap other stages.'
            )
        for k, route in enumerate(self.pairs):
            own, other = self._ends(route, student, teacher)
            source, target = (own, other) if self.direction == 'student' else (other, own)
            self.adapters[f'{k}'] = build_adapter('conv1x1', source, target, 'GuidanceRoute')

    @staticmethod
    def _ends(
        route: tuple[int, int], student: list[Level], teacher: list[Level]
    ) -> tuple[Level, Level]:
        """The two maps of a route; ValueError if they do not exist or differ in size."""
        i, j = route
        if not (0 <= i < len(student) and 0 <= j < len(teacher)):
            raise ValueError(
                f'GuidanceRoute: there is no route {route}: the student has {len(student)} maps, '
                f'the teacher {len(teacher)}, counted from 0.'
            )
        if route not in equal_sizes(student, teacher):
            raise ValueError(
                f'GuidanceRoute: route {route} joins maps of unequal size. '
                f'{_sizes(student, teacher)}'
            )
        return student[i], teacher[j]

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses, logged = [], {}
        for k, (route, (student, teacher)) in enumerate(
            zip(self.pairs, self.maps(trace), strict=True)
        ):
            source, target = student, teacher
            projection = self.adapters[f'{k}']
            if self.direction == 'teacher':
                source, target = teacher, student
                key = 'norm_{}_{}'.format(*route)
                logged[key] = projection.conv.weight.detach().norm()
            losses.append(route_error(projection(source), target, self.eta).mean())
        return {'loss': sum(losses), **logged}


def equal_sizes(student: list[Level], teacher: list[Level]) -> list[tuple[int, int]]:
    """(student, teacher) positions of all pairs of maps of equal height and width."""
    return [
        (i, j)
        for i, own in enumerate(student)
        for j, other in enumerate(teacher)
        if len(own.shape) == 3 and own.shape[1:] == other.shape[1:]
    ]


def winner_in(path: str) -> tuple[int, int]:
    """The winner of a search for routes, from the JSON that it wrote; ValueError if it is none."""
    try:
        return tuple(json.loads(Path(path).read_text())['winner'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'GuidanceRoute: routes={path!r} is no result of a search ({type(error).__name__}). '
            'Make one with `mmkd make GuidanceRoutes`, or write pairs.'
        ) from None


def _as_pairs(routes: Any) -> list[tuple[int, int]]:
    """``[(0, 1), …]``, each once, else ValueError."""
    try:
        pairs = [(_place(i), _place(j)) for i, j in routes]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or len(set(pairs)) < len(pairs):
        raise ValueError(
            'GuidanceRoute: routes must be None or different pairs (student, teacher) such as '
            f'[(0, 0), (1, 2)], found {routes!r}.'
        )
    return pairs


def _place(value: Any) -> int:
    return check_number('GuidanceRoute', 'a place', value, whole=True)


def _sizes(student: list[Level], teacher: list[Level]) -> str:
    """Channels, height and width of all maps, in words."""
    sides = (
        f'{side}: ' + ', '.join(f'{level.tap} {level}' for level in levels)
        for side, levels in (('Student', student), ('Teacher', teacher))
    )
    return '; '.join(sides) + '.'
