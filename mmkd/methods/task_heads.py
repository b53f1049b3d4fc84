"""TaskHeads: soft cross entropy to teachers of other tasks, through a temporary head for each."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.adapters.convolution import LinearAdapter
from mmkd.families import classifier, family_of
from mmkd.families.comparable import Misfit, named
from mmkd.functional.logit_distances import weighted_cross_entropy
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_temperature
from mmkd.registry import MODELS
from mmkd.rows.vectors import vectors
from mmkd.tap import Trace, parse_taps


@MODELS.register_module()
class TaskHeads(Objective):
    """DistInit: learning video representations without a single labeled video.

    Girdhar et al., ICCV 2019: ``sum_k CE(softmax(z_k), softmax(h_k(x)))`` on images without labels.
    x are the student's pooled features, z_k the class scores of teacher k, and h_k a linear layer
    that is dropped afterwards. So the teachers' classes need not be the student's, nor each
    other's; what is kept is a backbone, to be tuned on the task::

        mmkd train configs/chains/task_heads_cls_cifar10.py

    Each teacher has a term of its own, ``loss_<name>``; its least value is the entropy of that
    teacher, so it does not fall to 0. The paper's temperature could not be verified.

    Args:
        tau (float): temperature of both sides; as in the paper's equation there is no factor.
        student, teacher: taps of a vector, or a map, which is averaged over places, and of class
            scores; without, the pooled features and the logits of classifiers.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`; several names are
            allowed.

    Raises:
        ValueError: temperature not above 0; a teacher without class scores; no classifier.
    """

    many_teachers = True
    compares_classes = False
    zero_at_equality = False
    label_free = True
    rank_invariant = True
    scheduled = ('tau',)
    families = ('classifier',)

    def __init__(
        self, student: Taps = None, teacher: Taps = None, tau: float = 1.0, **common: Any
    ) -> None:
        super().__init__(student, teacher, **common)
        self.names_scores = teacher is not None
        self.tau = check_temperature('TaskHeads', tau)
        self.heads = nn.ModuleList()  # in the order of the teachers

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        classifier.choose_taps(self, classifier.embedding_tap, student, None)
        if self.names_scores:
            return
        if teacher is None or family_of(teacher) != 'classifier':
            raise Misfit(
                f'TaskHeads: {named(teacher)} has no class scores of whole images. Take a '
                'classifier, or name the tap of its scores (teacher=).'
            )
        self.teacher_taps = parse_taps(classifier.logits_tap(teacher))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        every = self.teacher_levels or {'teacher': teacher}
        for name, levels in every.items():
            if not student or not levels or len(student) != 1 or len(levels) != 1:
                raise ValueError(
                    'TaskHeads: one vector or map of the student and one vector of class scores '
                    f"of teacher '{name}' are compared. Name a tap of each (student=, teacher=)."
                )
            self.heads.append(LinearAdapter(student[0].channels, levels[0].channels))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own = vectors(trace.student[self.student_taps[0]][0])
        found = {}
        for head, (name, side) in zip(self.heads, trace.teachers.items(), strict=True):
            wanted = vectors(side[self.teacher_taps[0]][0]).detach()
            found[f'loss_{name}'] = weighted_cross_entropy(head(own), wanted, tau=self.tau).mean()
        return found

    def describe(self) -> list[str]:
        return [
            f"teacher '{name}': {head.describe()}, dropped after training"
            for name, head in zip(self.teacher_levels, self.heads, strict=True)
        ]
