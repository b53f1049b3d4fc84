"""BPKD: KL divergence at the edges of classes, and channel-wise KL divergence in their bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import segmentor
from mmkd.functional.edges import class_edges
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.resize import resize as resized
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View


def edge_loss(
    student: Tensor,
    teacher: Tensor,
    masks: Tensor,
    tau: float = 1.0,
    alpha: float = 2.0,
    normalise: str = 'sum',
) -> Tensor:
    """``mean_n sum_c alpha / n_c sum_i M_ci KL_i`` of the logits times M, a softmax over classes.

    Args:
        student, teacher (Tensor): logits (N, K, H, W).
        masks (Tensor): M, the share of each cell that is edge of each class, (N, K, H, W).
        normalise (str): n_c of an image is the sum of M_c, or the ``'count'`` of cells above 0, and
            at least 1.
    """
    kl = soft_kl(*((z * masks).permute(0, 2, 3, 1) for z in (student, teacher)), tau)
    counted = masks if normalise == 'sum' else (masks > 0).float()
    total = (masks * kl[:, None]).sum((2, 3))
    return alpha * (total / counted.sum((2, 3)).clamp(min=1)).sum(1).mean()


def body_loss(student: Tensor, teacher: Tensor, masks: Tensor, tau: float = 1.0) -> Tensor:
    """``tau^2 * mean_nc KL`` of softmaxes over places of the logits (N, K, H, W) times 1 - M."""
    return soft_kl(*((z * (1 - masks)).flatten(2) for z in (student, teacher)), tau).mean()


@MODELS.register_module()
class BPKD(PairObjective):
    """Boundary privileged knowledge distillation for semantic segmentation.

    Liu et al., WACV 2024: ``50 * edge + 20 * body`` beside the cross entropy. For each class the
    edge is what lies within ``radius`` pixels of its outline in the labels, averaged to the size of
    the logits. :func:`edge_loss` compares classes at the edges and :func:`body_loss` places
    elsewhere; the logits are multiplied by the masks, so that a masked one is 0.

    The training code is not published, so this is an interpretation. Two independent
    implementations agree on the weights 50 and 20, and differ in the temperature (1 and 4), the
    radius (3 and 1) and the divisor of the edge term, see ``normalise``. That term is a sum over
    classes: with many of them compare its gradient with the task's (``mmkd benchmark
    gradients``).

    Args:
        radius (int): half width of an edge, in pixels of the labels.
        tau (float): temperature; the terms are multiplied by its square.
        alpha (float): weight of each class in the edge term.
        normalise (str): ``'sum'`` divides the edge term of a class by the sum of its mask,
            ``'count'`` by the number of its cells, which is less by a factor of 1.4 and more.
        edges (str): ``'label'``, or ``'teacher'``: edges between the classes that the teacher
            predicts, which needs no labels; our construction.
        factors (dict[str, float] | None): of the terms; 50 for ``'edge'`` and 20 for ``'body'``.
        ignore_index (int): label of pixels that are no edge.
        student, teacher, weight, teacher_name, learner, resize: see
            :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; unequal or single class count; a head that classifies
            neither pixels nor masks; no labels; a label out of range in the first batch; maps of
            unequal stride without ``resize``.
    """

    term_factors = {'loss_edge': 'factors.edge', 'loss_body': 'factors.body'}
    needs_ground_truth = True
    rank_invariant = True
    adapts_width = False
    scheduled = ('tau', 'alpha')
    label_free = False  # but with the teacher's edges
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        radius: int = 3,
        tau: float = 1.0,
        alpha: float = 2.0,
        normalise: str = 'sum',
        edges: str = 'label',
        factors: Mapping[str, float] | None = None,
        ignore_index: int = 255,
        resize: str | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, adapt=None, resize=resize, learner=learner
        )
        self.radius = check_number('BPKD', 'radius', radius, 1, whole=True)
        self.tau = check_temperature('BPKD', tau)
        self.alpha = check_number('BPKD', 'alpha', alpha, 0)
        self.normalise = check_choice('BPKD', 'normalise', normalise, ('sum', 'count'))
        self.edges = check_choice('BPKD', 'edges', edges, ('label', 'teacher'))
        self.factors = check_factors('BPKD', factors, dict(edge=50.0, body=20.0))
        self.ignore_index = check_number('BPKD', 'ignore_index', ignore_index, whole=True)
        self.needs_ground_truth = self.edges == 'label'
        self.label_free = not self.needs_ground_truth

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_logits(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = []
        for s, t in self.tensor_pairs(trace):
            masks = self.masks(trace, t)
            edge = edge_loss(s, t, masks, self.tau, self.alpha, self.normalise)
            body = body_loss(s, t, masks, self.tau)
            losses.append((self.factors['edge'] * edge, self.factors['body'] * body))
        edge, body = (sum(term) for term in zip(*losses, strict=True))
        return {'loss_edge': edge, 'loss_body': body}

    @torch.no_grad()
    def masks(self, trace: Trace, teacher: Tensor) -> Tensor:
        """Share of each cell that is edge of each class, for the teacher's logits (N, K, H, W)."""
        classes, size = teacher.shape[1], tuple(teacher.shape[2:])
        if self.edges == 'teacher':
            labels = resized(teacher, trace.inputs.shape[2:], self.align_corners).argmax(1)
        else:
            labels = segmentor.known_labels(self, trace.samples, classes, self.ignore_index)
        return class_edges(labels, classes, self.radius, size)

    def views(self, trace: Trace) -> list[View]:
        """Where an edge is, and the KL divergence of the masked logits."""
        views = []
        for pair in self.tensor_pairs(trace):
            masks = self.masks(trace, pair[1])
            kl = soft_kl(*((z * masks).permute(0, 2, 3, 1) for z in pair), self.tau)
            views.append(View('edge of any class', masks.amax(1), scale=1))
            views.append(View('KL at edges', kl, unit='nats'))
        return views
