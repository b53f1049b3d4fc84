"""AdversarialLogits: a class-conditional discriminator of logits, with C + 2 outputs (cGAN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mmkd.adapters.critic import Certainty, judged
from mmkd.families.comparable import Misfit, named
from mmkd.objective import Objective, Taps
from mmkd.options import check_factors, check_list, check_number
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.structures import LABELLED
from mmkd.tap import Trace

TEACHER, STUDENT = 0, 1
FACTORS = dict(l1=1.0, fool=0.1, label=0.1)
_OPTIMIZER = dict(type='Adam', lr=1e-3, betas=(0.5, 0.999), weight_decay=1e-4)


class LogitCritic(nn.Module):
    """Logits (R, K) -> (R, K + 2): scores of the K classes, then of teacher and student.

    Linear layers with spectral norm (one power iteration a forward) and LeakyReLU 0.2; the last one
    is plain. Without BatchNorm, one row is enough.

    Args:
        classes (int): K.
        widths (Sequence[int]): of the hidden layers.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([classes, *widths]):
            layers += [spectral_norm(nn.Linear(before, after)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear([classes, *widths][-1], classes + 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def origin(answer: Tensor, side: int) -> Tensor:
    """``-log P(side)`` of each row, by a softmax of the last two outputs; (R, K + 2) -> (R,).

    Args:
        side (int): :data:`TEACHER` or :data:`STUDENT`.
    """
    return -answer[:, -2:].log_softmax(1)[:, side]


def condition(answer: Tensor, labels: Tensor | None) -> Tensor:
    """``-log P(y)`` of each row, by a softmax of its own over the first K outputs; (R, K + 2) and
    (R,) -> (R,), zeros without labels."""
    if labels is None:
        return answer[:, 0] * 0.0
    return F.cross_entropy(answer[:, :-2], labels, reduction='none')


@MODELS.register_module()
class AdversarialLogits(Objective):
    """Training shallow and thin networks by knowledge distillation with conditional adversaries.

    Xu et al., ICLR workshop 2018. A discriminator D takes class logits. Of its C + 2 outputs, the
    first C tell the class (a softmax of their own), which is the condition and keeps it stable, the
    last two whose logits they are (another softmax). D minimises
    ``-log P(T|z_T) - log P(S|z_S) - log P(y|z_T) - log P(y|z_S)``, the student
    ``b mean_C |z_S - z_T| - g (log P(T|z_S) + log P(y|z_S))`` beside its own loss. D learns in the
    same step as the student, from the same logits and by an optimiser of its own
    ([objectives](../objectives.md#an-optimiser-of-its-own)), and is not part of the saved student.

    On images, and on a two-stage detector's foreground RoIs with their class; for segmentors there
    is ``SKDHolistic``. Images without labels teach all but the class. The paper's D has BatchNorm,
    dropped here for spectral norm and weight decay, and a regulariser of adversarial samples, left
    out; b = 1 and g = 0.1 are ours, since no source gives them. The log shows ``accuracy``, the
    share of logits that D assigns to the right network: near 1 its term teaches nothing.

    Args:
        factors (dict[str, float] | None): of the terms ``'l1'`` (b, 1), ``'fool'`` (g, of
            ``log P(T|z_S)``, 0.1) and ``'label'`` (g, of ``log P(y|z_S)``, 0.1).
        critic (list[int]): widths of D's hidden layers.
        optimizer (dict | None): D's; None is Adam, learning rate 1e-3, betas 0.5 and 0.999, weight
            decay 1e-4. It follows the run's ``param_scheduler``.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; no taps on
            two-stage detectors.

    Raises:
        ValueError: options out of range; models without comparable class logits, or of one class;
            a segmentor.
    """

    zero_at_equality = False
    own_losses = ('loss_critic',)
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('two_stage', 'instance', 'classifier')

    def __init__(
        self,
        *taps: Taps,
        factors: Mapping[str, float] | None = None,
        critic: Sequence[int] = (128, 256, 128),
        optimizer: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        name = type(self).__name__
        self.factors = check_factors(name, factors, FACTORS)
        self.widths = [
            check_number(name, 'a width of critic', width, 1, whole=True)
            for width in check_list(name, 'critic', critic)
        ]
        self.optimizer = dict(_OPTIMIZER if optimizer is None else optimizer)
        self.certainty = Certainty(name)
        self.kind, self.told = '', False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, teacher)
        if self.kind == 'pixels':
            raise Misfit(
                'AdversarialLogits judges the logits of images and RoIs, but the student is '
                f'{named(student)}; SKDHolistic has a critic of its maps.'
            )
        classes = logits.class_count(student, self.kind)
        if classes - (self.kind == 'rois') < 2:
            raise ValueError(
                'AdversarialLogits tells its discriminator the class, but there is one class '
                'alone. Compare the logits without it: KD or L2Logit.'
            )
        self.label_free = self.kind == 'images'
        self.critic = LogitCritic(classes, self.widths)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher, labels = self._rows(trace)
        rows = max(len(student), 1)
        seen = judged(self.critic, student)
        losses = dict(
            l1=(student - teacher).abs().mean(1),
            fool=origin(seen, TEACHER),
            label=condition(seen, labels),
        )
        own, wanted = self.critic(student.detach()), self.critic(teacher)
        critic = origin(wanted, TEACHER) + origin(own, STUDENT)
        critic = critic + condition(wanted, labels) + condition(own, labels)
        right = sum((origin(x, i) < origin(x, 1 - i)).float() for i, x in enumerate((wanted, own)))
        accuracy = right.sum() / (2 * rows)
        if self.training:
            self.certainty(accuracy, trace.progress)
        taught = {f'loss_{k}': self.factors[k] * v.sum() / rows for k, v in losses.items()}
        return taught | dict(loss_critic=critic.sum() / rows, accuracy=accuracy)

    def _rows(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (R, K) of student and teacher, and the class of each row where it is known."""
        known = all(sample.metainfo.get(LABELLED, True) for sample in trace.samples)
        if known or self.kind != 'images':
            return logits.object_rows(trace, self, self.kind)
        if not self.told:
            self.told = True
            text = 'AdversarialLogits: images without labels teach all of its terms but the class.'
            print_log(text, 'current')
        wanted = trace.teacher[self.teacher_taps[0]][0].detach()
        return trace.student[self.student_taps[0]][0], wanted, None

    def describe(self) -> list[str]:
        """Layers of the discriminator."""
        widths = [layer.out_features for layer in self.critic.layers if hasattr(layer, 'bias')]
        return [f'discriminator with layers of {", ".join(map(str, widths))}']
