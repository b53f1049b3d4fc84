"""CSKD: KL divergence between predictions for two images of the same class; no teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.relations import at_most
from mmkd.objective import Objective, Taps
from mmkd.options import check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace

#: rows of one batch that are paired, at most
MOST = 4096


def partners(target: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that share their class with another, and for each the one half of its class further on.

    Args:
        target (Tensor): classes, (R,).

    Returns:
        tuple: indices of anchors and of their partners, (A,) each, A <= R.
    """
    order = target.argsort(stable=True)
    groups = target[order]
    first = torch.searchsorted(groups, groups)
    size = torch.searchsorted(groups, groups, right=True) - first
    place = torch.arange(len(groups), device=target.device) - first
    other = order[first + (place + (size + 1) // 2) % size]
    where = (size > 1).nonzero()[:, 0]
    return order[where], other[where]


@MODELS.register_module()
class CSKD(Objective):
    """Regularizing class-wise predictions via self-knowledge distillation.

    Yun et al., CVPR 2020, eq. 2: ``tau^2 / B * sum KL(p(x') || p(x))``, where x' is another image
    of the class of x, and no gradient flows through it. No teacher. Batches come as anchors, then
    their partners in the same order, from
    ``train_dataloader.sampler=dict(type='mmkd.ClassPairSampler')`` beneath an even batch size. Both
    halves pass the student together, and both have a cross entropy; alinlab/cs-kd forwards the
    partners separately, without one. Weight 1 for CIFAR, 3 for fine-grained classes.

    On a two-stage detector the sampled foreground RoIs, on a segmentor labelled pixels (at most
    4,096, evenly subsampled) are paired within their class, see :func:`partners`. That needs no
    sampler.

    Args:
        tau (float): temperature.
        student, weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; a model without softmax class logits; batches of images
            that are not made of pairs. Without two rows of a class it is 0.
    """

    needs_teacher = False
    zero_at_equality = False
    scheduled = ('tau',)
    families = logits.KINDS

    def __init__(
        self,
        student: Taps = None,
        weight: Any = 1.0,
        tau: float = 4.0,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, weight=weight, learner=learner)
        self.tau = check_temperature('CSKD', tau)
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, None)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.object_rows(trace, self, self.kind)
        if self.kind != 'images':
            return {'loss': self._within_classes(rows.student, rows.target)}
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

    def _within_classes(self, student: Tensor, target: Tensor) -> Tensor:
        student, target = at_most(student, MOST), at_most(target, MOST)
        anchor, partner = partners(target)
        if not len(anchor):
            return student.sum() * 0.0
        return soft_kl(student[anchor], student.detach()[partner], self.tau).mean()
