"""GKD: adjacency matrices of a batch's cosine similarity graph, layer by layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.functional.relations import cosines, without_diagonal
from mmkd.objective import Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows.instance_objective import InstanceObjective
from mmkd.tap import Trace

_EPS = 1e-6


def adjacency(x: Tensor) -> Tensor:
    """``D^(-1/2) A D^(-1/2)`` of cosines A without diagonal and their row sums D.

    Args:
        x (Tensor): rows (B, D). Cosines below 0, which activated maps do not have, count as 0.

    Returns:
        Tensor: (B, B), eigenvalues in [-1, 1].
    """
    similarity = without_diagonal(cosines(x).clamp(min=0))
    scale = similarity.sum(1).clamp(min=_EPS).rsqrt()
    return scale[:, None] * similarity * scale


def nearest(graph: Tensor, neighbors: int) -> Tensor:
    """(B, B) 0 or 1: one of the two is among the k strongest neighbours of the other."""
    chosen = graph.topk(min(neighbors, len(graph)), 1).indices
    mask = torch.zeros_like(graph).scatter_(1, chosen, 1.0)
    return torch.maximum(mask, mask.T)


def graph_error(
    student: Tensor,
    teacher: Tensor,
    power: int = 1,
    neighbors: int | None = None,
    edges: Tensor | None = None,
    error: str = 'frobenius',
) -> Tensor:
    """``|A_t^p - A_s^p|_F^2`` of rows (B, D_s) and (B, D_t), or the sum of Huber errors (delta 1).

    Args:
        power (int): p, how many steps on the graph.
        neighbors (int | None): k of the teacher's graph whose edges are kept; all where ``None``.
        edges (Tensor | None): (B, B), 1 where an edge is kept and 0 elsewhere, in front of
            ``neighbors``.
    """
    s, t = adjacency(student), adjacency(teacher)
    if edges is not None:
        s, t = s * edges, t * edges
    if neighbors is not None:
        mask = nearest(t, neighbors)
        s, t = s * mask, t * mask
    s, t = (torch.linalg.matrix_power(x, power) for x in (s, t))
    if error == 'huber':
        return F.huber_loss(s, t, reduction='sum')
    return (t - s).square().sum()


@MODELS.register_module()
class GKD(InstanceObjective):
    """Deep geometric knowledge distillation with graphs.

    Lassance et al., ICASSP 2020: squared Frobenius norm between normalised adjacency matrices of
    the images of a batch, mean over layers. Settings of cadurosar/graph_kd. Without taps: all
    stages of two classifiers; with taps maps (flattened) or vectors of any model, paired by
    position. Widths and sizes may differ.

    On detectors the instances are objects, with features of the neck; on segmentors regions, with
    the features before the per-pixel classifier. The weight is that for classifiers.

    Args:
        power (int): p, how many steps on the graph, at least 1.
        neighbors (int | None): keep the edges to the k strongest neighbours in the teacher's graph;
            ``None`` keeps all.
        classes (str | None): keep the edges between instances of the ``'same'`` class or of
            ``'other'`` classes, options of the authors' code; ``None`` keeps all.
        error (str): ``'frobenius'``, the authors' code, or ``'huber'`` (delta 1), which surveys
            name; below 1 it is half the square.
        student, teacher, weight, teacher_name, instances, gather: see
            :class:`~mmkd.rows.instance_objective.InstanceObjective`.

    Raises:
        ValueError: options out of range; unequally many layers; models that do not fit. A
            batch of one gives 0, and so do two images.
    """

    default_weight = 25.0
    pooled = False

    def __init__(
        self,
        *taps: Taps,
        power: int = 1,
        neighbors: int | None = None,
        classes: str | None = None,
        error: str = 'frobenius',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.power = check_number('GKD', 'power', power, 1, whole=True)
        self.neighbors = check_number('GKD', 'neighbors', neighbors, 1, whole=True, optional=True)
        self.classes = check_choice('GKD', 'classes', classes, (None, 'same', 'other'))
        self.error = check_choice('GKD', 'error', error, ('frobenius', 'huber'))

    @staticmethod
    def taps_of(model: nn.Module) -> list[str]:
        return classifier.stage_taps(model)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.instances.pairs(trace, self)
        options = self.power, self.neighbors, self._edges(trace), self.error
        return {'loss': sum(graph_error(s, t, *options) for s, t in pairs) / len(pairs)}

    def _edges(self, trace: Trace) -> Tensor | None:
        """(R, R), 1 for pairs of rows of the same class, or of other classes."""
        if self.classes is None:
            return None
        labels = self.instances.labels(trace, self)
        same = labels[:, None] == labels
        return (same if self.classes == 'same' else ~same).float()
