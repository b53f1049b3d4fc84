"""MHGD: KL divergence of attention graphs between the images of a batch, from layer to layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.convolution import consecutive_adapters
from mmkd.families import DETECTORS, classifier
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.relations import unit
from mmkd.functional.singular import aligned_vectors, oriented, right_singular_vectors
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

PHASES = ('student', 'attention')


class AttentionHeads(nn.Module):
    """Scores ``K Q^T`` of each head between images in two layers: (B, D_2), (B, D_1) -> (h, B, B).

    Args:
        first, second (int): widths D_1 of the earlier layer, the query, and D_2, the key.
        heads (int): h.
    """

    def __init__(self, first: int, second: int, heads: int) -> None:
        super().__init__()
        self.heads, width = heads, heads * ((first + second) // 2)
        self.key = nn.Sequential(nn.Linear(second, width), nn.BatchNorm1d(width))
        self.query = nn.Sequential(nn.Linear(first, width), nn.BatchNorm1d(width))

    def forward(self, second: Tensor, first: Tensor) -> Tensor:
        key, query = (
            x.view(len(x), self.heads, -1).transpose(0, 1)
            for x in (self.key(second), self.query(first))
        )
        return key @ query.transpose(1, 2)


class Estimator(nn.Module):
    """Predicts an image's vector of the later layer from the others' of the earlier one.

    In training each image uses a random half of the heads.
    """

    def __init__(self, first: int, second: int, heads: int) -> None:
        super().__init__()
        width = (first + second) // 2
        self.value = nn.Sequential(nn.Linear(first, width), nn.BatchNorm1d(width), nn.ReLU())
        self.out = nn.Linear(heads * width, second)

    def forward(self, scores: Tensor, first: Tensor) -> Tensor:
        """(h, B, B) and (B, D_1) -> (B, D_2) of length 1."""
        weights = scores.softmax(-1)
        if self.training:
            noise = torch.randn(*scores.shape[:2], 1, device=scores.device, dtype=scores.dtype)
            weights = weights * (noise > noise.mean(0))
        mixed = (weights @ self.value(first)).permute(1, 2, 0)
        return unit(self.out(mixed.flatten(1)))


def graph_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of ``KL(softmax(tanh G_s) || softmax(tanh G_t))`` over rows; scores (h, B, B)."""
    log_s, log_t = (x.tanh().log_softmax(-1) for x in (student, teacher))
    return F.kl_div(log_t, log_s, reduction='sum', log_target=True)


@MODELS.register_module()
class MHGD(Objective):
    """Graph-based knowledge distillation by multi-head attention network.

    Lee and Song, BMVC 2019. Each image's map is reduced to its first singular vector, see
    :func:`~mmkd.functional.singular.aligned_vectors`. Between consecutive layers, multi-head
    attention gives a graph between the images of the batch. It is first trained on the teacher
    alone; then, frozen, it computes the graphs of student and teacher, and the loss is their KL
    divergence. The divergence has the student first and is a sum, so it grows with batch and heads;
    the authors' code clips its gradient to the norm of the task's: train with
    ``optim_wrapper=dict(clip_grad=dict(max_norm=5))``.

    So there are two phases, ``'attention'`` and ``'student'``:
    ``mmkd train configs/chains/mhgd_cls_cifar10.py``.

    Without taps: all stages of two classifiers.

    Args:
        phase (str): ``'attention'`` trains the attention alone; ``'student'`` trains the student.
        heads (int): h.
        adapt (str | None): ``'auto'``: a 1x1 convolution on the student's maps where widths differ;
            ``None``: unequal widths are refused.
        gather (bool): in the second phase, compare the images of all ranks, not only one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; fewer than two maps, or unequally many; unequal widths;
            a student's run that does not start from trained attention.
    """

    own_losses = ('loss_attention',)
    rank_invariant = True
    over_scales = True
    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        phase: str = 'student',
        heads: int = 8,
        adapt: str | None = 'auto',
        gather: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.phase = check_choice('MHGD', 'phase', phase, PHASES)
        self.heads = check_number('MHGD', 'heads', heads, 1, whole=True)
        self.adapt = check_choice('MHGD', 'adapt', adapt, ('auto', None))
        self.gather = gather
        self.adapters, self.attention = nn.ModuleList(), nn.ModuleList()
        self.estimators = nn.ModuleList()
        #: steps for which the attention was trained
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if self.phase == 'attention':
            self.student_taps, student = (), None
        classifier.choose_taps(self, classifier.stage_taps, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        alone = self.phase == 'attention'
        adapters = consecutive_adapters('MHGD', teacher if alone else student, teacher, self.adapt)
        widths = [(a.channels, b.channels, self.heads) for a, b in pairwise(teacher or [])]
        self.attention.extend(AttentionHeads(*width) for width in widths)
        if alone:
            self.estimators.extend(Estimator(*width) for width in widths)
        else:
            self.adapters.extend(adapters)
            self.attention.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> MHGD:
        super().train(mode)
        if self.phase == 'student':
            self.attention.eval()
        return self

    def check_dataset(self, dataset: Any) -> None:
        if self.phase == 'student' and not int(self.steps):
            raise ValueError(
                "MHGD: the attention was never trained. Train it first with phase='attention', and "
                'start this run from its checkpoint: a chain does both (docs/chains.md).'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        maps = [x.detach() for tap in self.teacher_taps for x in trace.teacher[tap]]
        if self.phase == 'attention':
            return {'loss_attention': self._estimation_error(maps)}
        own = [x for tap in self.student_taps for x in trace.student[tap]]
        own = [adapter(x) for adapter, x in zip(self.adapters, own, strict=True)]
        pairs = [aligned_vectors(s, t) for s, t in zip(own, maps, strict=True)]
        s, t = ([self._rows(x[..., 0]) for x in side] for side in zip(*pairs, strict=True))
        errors = [
            graph_divergence(attention(s[i + 1], s[i]), attention(t[i + 1], t[i]))
            for i, attention in enumerate(self.attention)
        ]
        return {'loss': sum(errors)}

    def _rows(self, x: Tensor) -> Tensor:
        return all_gather_rows(x) if self.gather else x

    def _estimation_error(self, maps: list[Tensor]) -> Tensor:
        """``mean(1 - cos)`` between the teacher's vectors and what is estimated of them."""
        if len(maps[0]) < 2:  # BatchNorm has nothing to normalise with
            return sum(p.sum() * 0.0 for p in self.parameters())
        self.steps += self.training
        rows = [oriented(right_singular_vectors(x, 1)[0])[..., 0] for x in maps]
        errors = []
        for i, (attention, estimator) in enumerate(
            zip(self.attention, self.estimators, strict=True)
        ):
            found = estimator(attention(rows[i + 1], rows[i]), rows[i])
            errors.append((1 - (found * rows[i + 1]).sum(1)).mean())
        return sum(errors)
