"""CSKD: two images of a class should be judged alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import logits
from mmkd.functional import check_temperature
from mmkd.functional.logits import soft_kl
from mmkd.objective import Objective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace


@MODELS.register_module()
class CSKD(Objective):
    """Regularizing class-wise predictions via self-knowledge distillation.

    Yun et al., CVPR 2020, eq. 2: ``tau^2 / B * sum KL(p(x') || p(x))``, where x' is another image
    of the class of x, and no gradient flows through it. No teacher. Batches come as anchors, then
    their partners in the same order, from
    ``train_dataloader.sampler=dict(type='mmkd.ClassPairSampler')`` beneath an even batch size. Both
    halves go through the student together and both feel its cross entropy; alinlab/cs-kd forwards
    the partners on their own and gives them none. Weight 1 for CIFAR, 3 for fine-grained classes.

    Args:
        tau (float): temperature.
        student, weight: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; no classifier; batches that are not made of pairs. A
            batch of one gives 0.
    """

    needs_teacher = False
    zero_at_equality = False
    families = ('classifier',)

    def __init__(self, student: Taps = None, weight: Any = 1.0, tau: float = 4.0) -> None:
        super().__init__(student, weight=weight)
        self.tau = check_temperature('CSKD', tau)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, None)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.rows(trace, self, 'images')
        half = len(rows.student) // 2
        if not half:
            return {'loss': rows.student.sum() * 0.0}
        if len(rows.target) % 2 or rows.target[:half].ne(rows.target[half:]).any():
            raise ValueError(
                f'CSKD needs batches of anchors and then their partners of the same classes, but '
                f'the {len(rows.target)} labels are {rows.target.tolist()[:16]}. Set '
                "train_dataloader.sampler=dict(type='mmkd.ClassPairSampler') and an even batch "
                'size.'
            )
        anchor, partner = rows.student[:half], rows.student[half:].detach()
        return {'loss': soft_kl(anchor, partner, self.tau).mean()}
