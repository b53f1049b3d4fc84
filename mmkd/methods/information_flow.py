"""InformationFlow: Jeffreys divergence of similarities in each layer, with decaying weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier
from mmkd.functional.relations import conditional, cosines, distances
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows.vectors import check_partners, row_pairs, side_rows
from mmkd.schedule import Progress
from mmkd.tap import Trace

_EPS = 1e-9


def kernel_probabilities(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, D) -> (B, B) twice: ``(cos + 1) / 2`` and ``1 / (1 + d)``, rows scaled to sum 1."""
    return conditional((cosines(x) + 1) / 2), conditional(1 / (1 + distances(x)))


def jeffreys(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of ``(p_t - p_s) (log p_t - log p_s)``: the symmetric divergence over B."""
    log_s, log_t = (p.clamp(min=_EPS).log() for p in (student, teacher))
    return ((teacher - student) * (log_t - log_s)).mean()


def flow_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over both kernels of rows (B, D_s) and (B, D_t)."""
    pairs = zip(kernel_probabilities(student), kernel_probabilities(teacher), strict=True)
    return sum(jeffreys(s, t) for s, t in pairs)


@MODELS.register_module()
class InformationFlow(Objective):
    """Heterogeneous knowledge distillation using information flow modeling.

    Passalis et al., CVPR 2020: of each layer the Jeffreys divergence between similarities, with a
    cosine and with a Student-t kernel. The last layer has weight 1, all others
    ``early * decay^epoch``, since the first epochs are the critical learning period. Settings of
    passalis/pkth.

    The teacher should have the student's architecture and be wider: an auxiliary network, first
    trained from the real teacher by its embedding alone (``student='pool'``). So there are two
    phases: ``mmkd train configs/chains/information_flow_cls_cifar10.py``.

    Without taps: the stages and the embedding of two classifiers; with taps maps or vectors of any
    model, paired by position, the last one last. Networks of unequal depth need ``pairs``; ``mmkd
    make LayerPairs`` looks for those of least divergence, as the paper matches layers.

    Args:
        pairs (list[tuple[int, int]] | str | None): positions (student, teacher) in the lists of
            tapped layers, from 0, the last pair last; the path of a search's JSON takes its result.
        early (float): weight of all layers but the last, at the beginning.
        decay (float): factor of that weight from epoch to epoch, in (0, 1].
        epochs (int): the whole run counts as so many epochs; 50 in the paper.
        gather (bool): compare the images of all ranks, not only of one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; unequally many layers without ``pairs``; pairs that do
            not exist; no taps and no classifiers. A batch of one gives 0.
    """

    rank_invariant = True
    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        pairs: Sequence[tuple[int, int]] | str | None = None,
        early: float = 100.0,
        decay: float = 0.7,
        epochs: int = 50,
        gather: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        found = pairs_in(pairs) if isinstance(pairs, str) else pairs
        self.pairs = None if found is None else _as_pairs(found)
        self.early = check_number('InformationFlow', 'early', early, 0)
        self.decay = check_number('InformationFlow', 'decay', decay, above=0, most=1)
        self.gather = gather
        self.epochs = check_number('InformationFlow', 'epochs', epochs, 1, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, _layers, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if self.pairs is None:
            check_partners(type(self).__name__, student, teacher)
            return
        counts = [len(levels or []) for levels in (student, teacher)]
        for pair in self.pairs if all(counts) else ():
            if any(not 0 <= place < count for place, count in zip(pair, counts, strict=True)):
                raise ValueError(
                    f'InformationFlow: there is no pair {pair}: the student shows {counts[0]} '
                    f'layers, the teacher {counts[1]}, counted from 0.'
                )

    def layer_pairs(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) rows of each pair, (B, D_s) and (B, D_t)."""
        if self.pairs is None:
            return row_pairs(trace, self, pooled=False, gather=self.gather)
        sides = (trace.student, self.student_taps), (trace.teacher, self.teacher_taps)
        own, other = (side_rows(side, taps, False, self.gather) for side, taps in sides)
        return [(own[i], other[j].detach()) for i, j in self.pairs]

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.layer_pairs(trace)
        *others, last = [flow_divergence(s, t) for s, t in pairs]
        weight = self.early_weight(trace.progress)
        if not others or not weight:
            return {'loss_last': last}
        return {'loss_last': last, 'loss_early': weight * sum(others)}

    def early_weight(self, progress: Progress) -> float:
        """Weight of all layers but the last."""
        return self.early * self.decay ** (progress.iteration * self.epochs // progress.total)


def pairs_in(path: str) -> list[tuple[int, int]]:
    """The pairs of a search, from the JSON that it wrote; ValueError if it is none."""
    try:
        return [tuple(pair) for pair in json.loads(Path(path).read_text())['pairs']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'InformationFlow: pairs={path!r} is no result of a search ({type(error).__name__}). '
            'Make one with `mmkd make LayerPairs`, or write pairs.'
        ) from None


def _as_pairs(pairs: Any) -> list[tuple[int, int]]:
    """``[(0, 1), …]``, each once, else ValueError."""
    try:
        found = [tuple(check_number('', 'a place', x, whole=True) for x in p) for p in pairs]
    except (TypeError, ValueError):
        found = []
    if not found or len(set(found)) < len(found) or any(len(pair) != 2 for pair in found):
        raise ValueError(
            'InformationFlow: pairs must be None or different pairs (student, teacher) such as '
            f'[(0, 1), (1, 2)], found {pairs!r}.'
        )
    return found


def _layers(model: nn.Module) -> list[str]:
    return [*classifier.stage_taps(model), classifier.embedding_tap(model)]
