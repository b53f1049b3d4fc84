"""AEKD: several teachers, weighted by the direction in which none of them is hurt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd.balance.balance import Balance, Terms, scale_at
from mmkd.balance.least_norm import least_norm
from mmkd.balance.ranks import sizes_of_all_ranks
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.gradients import gradients_at
from mmkd.names import did_you_mean, find_name
from mmkd.objective import Objective
from mmkd.options import check_choice, check_flags, check_list, check_number
from mmkd.registry import MODELS
from mmkd.schedule import Progress
from mmkd.tap import Tap, Trace, parse_taps

SPACES = ('logit_mean', 'feature')


def teacher_weights(vectors: np.ndarray, cap: float = 0.6, normalise: bool = True) -> np.ndarray:
    """Weights a_m of M teachers from the gradients of their losses, (M, D); their sum is 1.

    ``min |sum_m a_m v_m|^2`` with ``0 <= a_m <= cap`` (Du et al., eq. 15, the dual). With
    ``normalise`` the directions ``v_m / |v_m|`` enter, and ``a_m / |v_m|`` is scaled to the sum of
    1, which may exceed the cap. Equal weights for ``cap = 1/M``, and where a gradient is zero or
    not finite.
    """
    count = len(vectors)
    equal = np.full(count, 1 / count)
    lengths = np.linalg.norm(vectors, axis=1)
    if cap * count <= 1 or not (np.isfinite(lengths).all() and lengths.all()):
        return equal
    scaled = vectors / (lengths[:, None] if normalise else lengths.max())
    weights = least_norm(scaled @ scaled.T, cap)
    if normalise:
        weights = weights * (lengths.min() / lengths)
    return weights / weights.sum()


@MODELS.register_module()
class AEKD(Balance):
    """Agree to disagree: adaptive ensemble knowledge distillation in gradient space.

    Du et al., NeurIPS 2020, eq. 15 and its dual; compared with AnTuo1998/AE-KD. One objective for
    each teacher, whose losses depend on one tensor of the student. Its factor is ``M a_m``, so that
    equal weights a_m are the sum of the objectives as they are: let the weight of each be 1/M of a
    single teacher's. Gradients are those at full weight, so the losses may be of different kinds,
    and schedules keep their shape.

    Args:
        over (list[str] | None): names of the objectives; ``None``: all.
        cap (float): bound of each a_m in the programme, at least 1/M; 1/M gives equal weights, 1 no
            bound. Two normalised gradients have equal weights in the programme, whatever the cap.
        space (str | None): vectors of the programme: the gradient at each channel of the tapped
            tensor, averaged over images and places (``'logit_mean'``), or of the tapped maps,
            averaged over images (``'feature'``). ``None``: the first for (N, C), else the second.
        normalise (bool): compare directions, and give a short gradient more weight (the released
            code on hints); False: the released code's default on logits, where a teacher whose loss
            is almost 0 gets most of the weight.
        at (str | list[str] | None): taps of the student; ``None``: those that the objectives share.

    Raises:
        ValueError: fewer than two objectives, one that always rests, a cap below 1/M, no common
            tap, a term without a gradient there.
    """

    def __init__(
        self,
        over: Iterable[str] | None = None,
        cap: float = 0.6,
        space: str | None = None,
        normalise: bool = True,
        at: Any = None,
    ) -> None:
        if isinstance(over, str):
            over = [over]
        self.asked = None if over is None else check_list('AEKD', 'over', over)
        self.cap = check_number('AEKD', 'cap', cap, above=0)
        self.space = check_choice('AEKD', 'space', space, (*SPACES, None))
        check_flags(AEKD, {'normalise': normalise})
        self.normalise = normalise
        self.taps = parse_taps(at)
        self.over: list[str] = []
        #: steps in which a gradient was zero or not finite, and all teachers counted alike
        self.undecided = 0

    def bind(self, objectives: Mapping[str, Objective]) -> None:
        super().bind(objectives)
        objectives = self.objectives
        self.over = []
        asked = list(objectives) if self.asked is None else self.asked
        for name in asked:
            found = find_name(name, objectives)
            if found is None:
                raise ValueError(
                    f'AEKD: over names {name!r}; the objectives are {", ".join(objectives)}.'
                    f'{did_you_mean(name, objectives)}'
                )
            if objectives[found].weight.is_zero:
                raise ValueError(
                    f"AEKD: objective '{found}' has the weight 0, so it always rests. Leave it out "
                    'of over, or give it a weight.'
                )
            self.over.append(found)
        self.over = list(dict.fromkeys(self.over))
        if len(self.over) < 2:
            raise ValueError(
                f'AEKD weighs the objectives of at least two teachers, found {self.over}. Name one '
                'for each teacher in over.'
            )
        if self.cap * len(self.over) < 1 - 1e-9:
            raise ValueError(
                f'AEKD: cap={self.cap:g} is below 1/{len(self.over)}, so {len(self.over)} weights '
                f'cannot add up to 1. Use at least {1 / len(self.over):.4g}.'
            )
        self._shared = self.taps or self._common_taps()

    def _common_taps(self) -> tuple[Tap, ...]:
        first, *rest = (self.objectives[name].student_taps for name in self.over)
        common = tuple(tap for tap in first if all(tap in taps for taps in rest))
        if not common:
            listed = '; '.join(
                f'{n}: {", ".join(map(str, self.objectives[n].student_taps))}' for n in self.over
            )
            raise ValueError(
                f"AEKD: the objectives have no student's tap in common ({listed}). Name one that "
                "all their losses depend on, at='backbone[-1]'."
            )
        return common

    def __call__(
        self, terms: Terms, task: Mapping[str, Any], trace: Trace, progress: Progress
    ) -> dict[str, float]:
        running = self.running(self.over, terms, progress)
        equal = dict.fromkeys(running, 1.0)
        if len(running) < 2 or self.cap * len(running) <= 1 or not torch.is_grad_enabled():
            return equal
        vectors = self._vectors(running, terms, trace, progress)
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.isfinite(lengths).all() and lengths.all()):
            self.undecided += 1
            return equal
        weights = teacher_weights(vectors, self.cap, self.normalise)
        return {n: float(len(running) * a) for n, a in zip(running, weights, strict=True)}

    def _vectors(
        self, names: list[str], terms: Terms, trace: Trace, progress: Progress
    ) -> np.ndarray:
        """(M, D) gradients of the losses at full weight, the same on all ranks."""
        places = [edge for tap in self._shared for edge in trace.student.places(tap)]
        known = [x for tap in self._shared for x in trace.student[tap] if x.requires_grad]
        scale = scale_at(trace, self._shared)
        rows = []
        for name in names:
            found = gradients_at(self.loss_of(name, terms), places, scale)
            self._check_reached(name, found)
            pairs = zip(found, known, strict=True)
            averaged = [self._averaged(torch.zeros_like(x) if g is None else g) for g, x in pairs]
            maps = sizes_of_all_ranks([x for x in averaged if x.dim() > 1])
            flat = [x for x in averaged if x.dim() <= 1] + maps
            row = torch.cat([x.flatten() for x in flat])
            rows.append(row * self.up_to_full(name, progress))
        return mean_over_ranks(torch.stack(rows)).double().cpu().numpy()

    def _averaged(self, gradient: Tensor) -> Tensor:
        """The gradient over images, or over images and places; of a batch's mean loss a sum."""
        if self.space == 'logit_mean' and gradient.dim() == 4:
            return gradient.sum((0, 2, 3))
        if self.space == 'logit_mean' and gradient.dim() > 2:
            return gradient.flatten(0, -2).sum(0)
        return gradient.sum(0)

    def _check_reached(self, name: str, found: list[Tensor | None]) -> None:
        if any(g is not None for g in found) or self.objectives[name].needs_ground_truth:
            return
        raise ValueError(
            f"AEKD: objective '{name}' has no gradient at {', '.join(map(str, self._shared))}. "
            "Name a place between its taps and the student's input, at='backbone[-1]'."
        )

    def logged(self) -> dict[str, float]:
        return {'balance.undecided': float(self.undecided)}

    def describe(self) -> list[str]:
        how = 'directions' if self.normalise else 'gradients'
        where = ', '.join(map(str, self._shared))
        return [
            f'AEKD over {", ".join(self.over)}: cap {self.cap:g}, weights of {how} at {where}',
            f'every step has {len(self.over)} more backward passes, which end there',
        ]

    def state_dict(self) -> dict[str, Any]:
        return {'undecided': self.undecided}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.undecided = state['undecided']
