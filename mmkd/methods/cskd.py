"""CSKD: KL divergence between predictions for two images of the same class; no teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import classifier
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.relations import at_most
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_temperature
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

    Yun et al., CVPR 2020, eq. 2: ``tau^2 / B * sum KL(p(x') || p(x))``, where x' is a random image
    of the class of x, and no gradient flows through it. No teacher. Batches come as anchors x, then
    their partners x' in the same order, from
    ``train_dataloader.sampler=dict(type='mmkd.ClassPairSampler')`` beneath an even batch size. As
    in alinlab/cs-kd, the student runs on the partners separately, without a cross entropy; with
    ``partners='together'`` both halves pass it together, and both have one. Weight 1 for CIFAR, 3
    for fine-grained classes.

    On a two-stage detector the sampled foreground RoIs, on a segmentor labelled pixels (at most
    4,096, evenly subsampled) are paired within their class, see :func:`partners`. That needs no
    sampler.

    Args:
        tau (float): temperature.
        partners (str): of images; ``'apart'``, or ``'together'`` with the anchors.
        statistics (bool): the pass over partners apart moves BatchNorm statistics, as the authors'.
        student, weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; a model without softmax class logits; batches of images
            that are not made of pairs; partners apart for a peer. Without two rows of a class it
            is 0.
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
        partners: str = 'apart',
        statistics: bool = True,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, weight=weight, learner=learner)
        self.tau = check_temperature('CSKD', tau)
        self.partners = check_choice('CSKD', 'partners', partners, ('apart', 'together'))
        self.moves_statistics = statistics
        self.kind = ''

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.kind = logits.bind_rows(self, student, None)
        if self.kind == 'images' and self.partners == 'apart' and self.learner != 'student':
            raise ValueError(
                f"CSKD runs partners apart for the student alone, and learner='{self.learner}' is "
                "a peer; set partners='together'."
            )

    def held_back(self, samples: list) -> int:
        """The partners, half of the batch.

        Raises:
            ValueError: the batch is not made of pairs.
        """
        if self.kind != 'images' or self.partners == 'together' or len(samples) < 2:
            return 0
        _check_pairs(classifier.labels(samples, torch.device('cpu')))
        return len(samples) // 2

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rows = logits.object_rows(trace, self, self.kind)
        if self.kind != 'images':
            return {'loss': self._within_classes(rows.student, rows.target)}
        if len(rows.student) < 2 and trace.second is None:
            return {'loss': rows.student.sum() * 0.0}
        if trace.second is not None:
            anchor, partner = rows.student, trace.second.student[self.student_taps[0]][0]
        else:
            _check_pairs(rows.target)
            anchor, partner = rows.student.tensor_split(2)
        if not len(anchor):
            return {'loss': rows.student.sum() * 0.0}
        return {'loss': soft_kl(anchor, partner.detach(), self.tau).mean()}

    def _within_classes(self, student: Tensor, target: Tensor) -> Tensor:
        student, target = at_most(student, MOST), at_most(target, MOST)
        anchor, partner = partners(target)
        if not len(anchor):
            return student.sum() * 0.0
        return soft_kl(student[anchor], student.detach()[partner], self.tau).mean()


def _check_pairs(target: Tensor) -> None:
    half = len(target) // 2
    if len(target) % 2 or target[:half].ne(target[half:]).any():
        raise ValueError(
            f'CSKD needs batches of anchors and then their partners of the same classes, but the '
            f'{len(target)} labels are {target.tolist()[:16]}. Set '
            "train_dataloader.sampler=dict(type='mmkd.ClassPairSampler') and an even batch size."
        )
