"""InformationFlow: Jeffreys divergence of similarities in each layer, with decaying weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier
from mmkd.functional.relations import conditional, cosines, distances
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows.vectors import check_partners, row_pairs
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
    model, paired by position, the last one last.

    Args:
        early (float): weight of all layers but the last, at the beginning.
        decay (float): factor of that weight from epoch to epoch, in (0, 1].
        epochs (int): the whole run counts as so many epochs; 50 in the paper.
        gather (bool): compare the images of all ranks, not only of one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; unequally many layers; no taps and no classifiers. A
            batch of one gives 0.
    """

    rank_invariant = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        early: float = 100.0,
        decay: float = 0.7,
        epochs: int = 50,
        gather: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.early = check_number('InformationFlow', 'early', early, 0)
        self.decay = check_number('InformationFlow', 'decay', decay, above=0, most=1)
        self.gather = gather
        self.epochs = check_number('InformationFlow', 'epochs', epochs, 1, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, _layers, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        check_partners(type(self).__name__, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = row_pairs(trace, self, pooled=False, gather=self.gather)
        *others, last = [flow_divergence(s, t) for s, t in pairs]
        weight = self.early_weight(trace.progress)
        if not others or not weight:
            return {'loss_last': last}
        return {'loss_last': last, 'loss_early': weight * sum(others)}

    def early_weight(self, progress: Progress) -> float:
        """Weight of all layers but the last."""
        return self.early * self.decay ** (progress.iteration * self.epochs // progress.total)


def _layers(model: nn.Module) -> list[str]:
    return [*classifier.stage_taps(model), classifier.embedding_tap(model)]
