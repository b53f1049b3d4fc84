"""ResDist: student features pass through the teacher's later stages to the task loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.adapters import build_adapter
from mmkd.families import classifier
from mmkd.functional.margin_relu import margin_distance, margin_of
from mmkd.functional.pooling import pool_to_smaller
from mmkd.heard import Heard
from mmkd.levels import Level
from mmkd.models.image_classifier import soft_or_hard_target
from mmkd.objective import Objective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.rows.exits import cross_entropies
from mmkd.tap import Trace, parse_taps
from mmkd.task_weight import factor_of


def joined(own: Tensor | float, others: list[Tensor] | list[float], m: float) -> Any:
    """``own + m * sum(others)``: a term of the student and those through the teacher's tail."""
    return own + m * sum(others)


def margin_in(teacher: nn.Module) -> Tensor:
    """Margins (C,) of the BatchNorm in front of a classifier's last ReLU.

    Raises:
        ValueError: it has neither weight nor bias.
    """
    norm: Any = classifier.preact_norms(teacher)[-1]
    if norm.weight is None:
        raise ValueError(
            'ResDist reads its margin from the weight and bias of the BatchNorm in front of '
            "the teacher's last ReLU, which has none (affine=False)."
        )
    return margin_of(norm.bias.detach(), norm.weight.detach().abs()).float()


@MODELS.register_module()
class ResDist(Objective):
    """Residual distillation: towards portable deep neural networks without shortcuts.

    Li et al., NeurIPS 2020, and their code leoozy/JointRD_Neurips2020. After each cut the student's
    map passes through the frozen teacher's remaining stages, to logits y_i and last features
    g_i before the last ReLU. With n cuts and the student itself the loss is ``1/n [CE + m sum
    CE(y_i)] + w/n [d(g_s, g_t) + m sum d(g_i, g_t)]``; CE is the student's own loss, so that
    ``task_weight`` must be ``scale``. d is OFD's distance behind a 1x1 convolution with
    BatchNorm. Gradients flow through the teacher, which does not change. JOINT, the paper's
    form, also trains the teacher, by its own loss: it is a peer then, ``teacher_name='peer'``,
    and runs in evaluation mode with its weights before the step (the code updates it first),
    and its margin is read in each step. The edits ``mmkd.NoShortcuts`` and ``mmkd.Dirac`` make
    the student.

    Args:
        cuts (str | list[str] | None): student's taps at outputs of stages; all but the last if
            there are none.
        m (float): how much the teacher's tails count; the paper's is ``dict(value=1,
            decay='cosine', end_value=0.5, stop=…)`` over 60 epochs.
        w (float): factor of the features: 1e-3 on 32 pixels, 1e-4 on 224.
        scale (float | None): 1/n; ``None``: one over the number of cuts and one.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no classifiers; a teacher whose stages cannot be run one
            by one; cuts that show no stage of the teacher's shape; another ``task_weight``.
    """

    compares_classes = True
    asks_teacher = True
    zero_at_equality = False
    scheduled = ('m', 'w')
    term_factors = {'loss_ce': 'm', 'loss_feature': 'w'}
    families = ('classifier',)

    def __init__(
        self,
        cuts: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        m: float = 1.0,
        w: float = 1e-3,
        scale: float | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(cuts, weight=weight, teacher_name=teacher_name, learner=learner)
        self.cuts = self.student_taps
        self.m = check_number('ResDist', 'm', m, 0)
        self.w = check_number('ResDist', 'w', w, 0)
        self.scale = check_number('ResDist', 'scale', scale, above=0, optional=True)
        self.stages: list[int] = []
        self.classes = 0
        self.connectors = nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        self.student_taps = self.teacher_taps = ()
        logits.bind_images(self, student, teacher)
        stages = parse_taps(classifier.stage_taps(student))
        self.cuts = self.cuts or stages[:-1]
        if unknown := [cut for cut in self.cuts if cut not in stages[:-1]]:
            raise ValueError(
                f'ResDist: the cut {unknown[0]} is inside of a stage or behind the last one; cut '
                f'behind {", ".join(map(str, stages[:-1]))}.'
            )
        self.stages = [stages.index(cut) for cut in self.cuts]
        classifier.check_tail(teacher)
        own = parse_taps(classifier.stage_taps(teacher))
        if len(own) != len(stages):
            raise ValueError(
                f'ResDist: the student has {len(stages)} stages and the teacher {len(own)}, so '
                "the teacher's tails do not fit. Take a student of the teacher's layout."
            )
        last = [parse_taps(classifier.preact_taps(x)[-1:]) for x in (student, teacher)]
        self.student_taps = (*self.cuts, *last[0], *parse_taps(classifier.LOGITS))
        self.teacher_taps = (*(own[i] for i in self.stages), *last[1])
        self.register_buffer('margin', margin_in(teacher))
        self.classes = int(student.head.fc.out_features)
        self.scale = self.scale or 1 / (len(self.cuts) + 1)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not student or not teacher:
            raise ValueError('ResDist: the stages could not be probed, so they cannot be compared.')
        count = len(self.cuts)
        for cut, own, wanted in zip(self.cuts, student[:count], teacher[:count], strict=True):
            if own.shape != wanted.shape:
                raise ValueError(
                    f"ResDist: behind {cut} the student gives {tuple(own.shape)} and the teacher's "
                    f'tail takes {tuple(wanted.shape)}. Take a student of equal widths.'
                )
        wanted = teacher[count]
        for own in [student[count], *[wanted] * count]:
            connector = build_adapter('conv1x1_bn', own, wanted, 'ResDist')
            for weight in connector.parameters():
                if weight.dim() == 4:
                    nn.init.kaiming_normal_(weight, mode='fan_out')  # as the authors
            self.connectors.append(connector)

    def check_task_weight(self, task_weight: float | Mapping[str, float]) -> None:
        """Refuse a factor of the learner's own loss other than ``scale``."""
        found = factor_of(task_weight, 'loss_cls') if self.learner == 'student' else 1.0
        if abs(found - self.scale) > 1e-6:
            raise ValueError(
                f"ResDist: the student's own loss counts 1/n = {self.scale:.4g}, but task_weight "
                f'makes it {found:.4g}. Set task_weight={self.scale:.4g}, or scale={found:.4g}.'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        maps = [trace.student[cut][0] for cut in self.cuts]
        own = trace.student[self.student_taps[-2]][-1]
        teacher, margin = trace.teacher, self.margin
        if isinstance(teacher, Heard):  # it learns, and its record is of training
            margin = margin_in(teacher.model)
            teacher = classifier.shown(teacher.model, self.teacher_taps[-1:], teacher.inputs)
        wanted = teacher[self.teacher_taps[-1]][-1].detach()
        network = classifier.in_precision(trace.teacher.model, maps[0].dtype)
        tails = [
            classifier.carry_on(network, x, stage)
            for x, stage in zip(maps, self.stages, strict=True)
        ]
        target = soft_or_hard_target(trace.samples, self.classes, own.device)
        scores = cross_entropies(trace, [score for score, _ in tails], target)
        features = [own, *(feature for _, feature in tails)]
        first, *others = (
            margin_distance(*pool_to_smaller(connector(x), wanted), margin)
            for connector, x in zip(self.connectors, features, strict=True)
        )
        return {
            'loss_ce': self.scale * joined(0.0, scores, self.m),
            'loss_feature': self.scale * self.w * joined(first, others, self.m),
        }
