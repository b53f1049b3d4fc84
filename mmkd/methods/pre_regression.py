"""PreRegression: KL divergence between small classifiers on inner stages of both networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.exits import build_exits
from mmkd.families import classifier
from mmkd.functional.logit_distances import soft_kl
from mmkd.levels import Level
from mmkd.models.image_classifier import soft_or_hard_target
from mmkd.objective import Objective
from mmkd.options import check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Side, Tap, Trace, parse_taps


@MODELS.register_module()
class PreRegression(Objective):
    """Accelerating convolutional neural networks with dominant convolutional kernel and knowledge
    pre-regression.

    Wang et al., ACCV 2016, its second half: inner layers are compared by what small classifiers
    predict from them, not by Euclidean distance. Behind every stage but the last, both networks
    have an exit as BYOT's. The teacher's learn from the labels, without moving the teacher
    (``loss_teacher``); the student's learn ``tau^2 KL(p_t || p_s)`` at tau from them
    (``loss_kd``), summed over stages. Add KD for the outputs. The layers of the paper are those
    of the maker ``mmkd.LowRank``; its numbers could not be verified, so that the exits and their
    joint training are ours. Widths of the two networks may differ.

    Args:
        tau (float): temperature.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no classifiers of known stages; another number of them.
    """

    compares_classes = False
    zero_at_equality = False
    own_losses = ('loss_teacher',)
    scheduled = ('tau',)
    families = ('classifier',)

    def __init__(
        self,
        weight: Any = None,
        teacher_name: str | None = None,
        tau: float = 4.0,
        learner: str = 'student',
    ) -> None:
        super().__init__(weight=weight, teacher_name=teacher_name, learner=learner)
        self.tau = check_temperature('PreRegression', tau)
        self.classes = 0
        self.exits, self.target_exits = nn.ModuleList(), nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        logits.bind_images(self, student, teacher)
        self.student_taps, self.teacher_taps = (
            parse_taps(classifier.stage_taps(model)) for model in (student, teacher)
        )
        counts = [len(taps) for taps in (self.student_taps, self.teacher_taps)]
        if counts[0] != counts[1] or counts[0] < 2:
            raise ValueError(
                f'PreRegression compares stage by stage, but the student has {counts[0]} stages '
                f'and the teacher {counts[1]}. Take networks of as many stages, two at least.'
            )
        self.classes = int(student.head.fc.out_features)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        for exits, stages in ((self.exits, student), (self.target_exits, teacher)):
            if not stages:
                raise ValueError(
                    'PreRegression: the stages could not be probed, so its exits have no widths.'
                )
            exits.extend(build_exits(range(len(stages) - 1), stages, self.classes))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = self._scores(self.exits, trace.student, self.student_taps)
        wanted = self._scores(self.target_exits, trace.teacher, self.teacher_taps)
        target = soft_or_hard_target(trace.samples, self.classes, own[0].device)
        pairs = zip(own, wanted, strict=True)
        return {
            'loss_kd': sum(soft_kl(s, t.detach(), self.tau).mean() for s, t in pairs),
            'loss_teacher': sum(F.cross_entropy(t, target) for t in wanted),
        }

    def _scores(self, exits: nn.ModuleList, side: Side, taps: Sequence[Tap]) -> list[Tensor]:
        """Logits (N, K) of the exits; the teacher's maps carry no gradient anyway."""
        return [one(side[tap][0])[0] for one, tap in zip(exits, taps[:-1], strict=True)]
