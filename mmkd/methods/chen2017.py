"""Chen2017: soft class scores, bounded box regression and feature hints, for RPN and box head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import dense, is_two_stage, two_stage
from mmkd.families.comparable import check_anchor_heads, check_coders
from mmkd.families.pyramid import among, bind_pyramid, tap_beside
from mmkd.functional.logit_distances import (
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Trace
from mmkd.task_weight import factor_of
from mmkd.view import Boxes, View


def bounded_regression(student: Tensor, teacher: Tensor, target: Tensor, margin: float) -> Tensor:
    """``||S - y||^2`` where it is above ``||T - y||^2 - margin``, else 0, eq. 5; (R, 4) -> (R,)."""
    error_s, error_t = ((x - target).square().sum(-1) for x in (student, teacher))
    return error_s * (error_s.detach() + margin > error_t)


@MODELS.register_module()
class Chen2017(PairObjective):
    """Learning efficient object detection models with knowledge distillation.

    Chen et al., NeurIPS 2017, eqs. 1-6. For the box head (mean over the RoIs that the student
    samples, on which both heads are evaluated) and for the RPN (mean over its sampled anchors):
    ``(1 - mu) * L_soft + nu * L_b``, and for the pyramid ``gamma * L_hint``. ``L_b`` regresses
    positives to the ground truth, never to the teacher. ``L_soft`` is no KL divergence: with a
    background weight other than 1 neither it nor its gradient is 0 where both agree. RetinaNet has
    one head, with binary terms of each class over positive and negative anchors. There is no
    official code.

    The hard loss must have the factor mu, which is checked before the first step: set
    ``task_weight=dict(loss_cls=mu, loss_rpn_cls=mu)`` in the model, or ``additive=True`` here.

    Args:
        mu (float): share of the hard class loss, in [0, 1].
        additive (bool): leave the hard loss unchanged and give the soft one the factor (1 - mu) /
            mu.
        w_bg (float): weight of the background, others 1.
        weight_mode (str): ``'class'`` weighs the background's term of every sample, as the paper;
            ``'sample'`` all terms of the samples whose label is background.
        soft (str): ``'cross_entropy'``, or ``'kl'``, lower by a constant: 0 where both agree.
        tau (float): temperature.
        nu (float): weight of the bounded regression; other factors of the box loss included.
        margin (float): m; not given in the paper.
        gamma (float): weight of the hint.
        hint (str): ``'l2'`` or ``'l1'``.
        reduction (str): of the hint: ``'mean'`` over the elements of each level, or
            ``'sum_per_image'``, the paper's plain norm; then the mean over levels.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`; the taps are the hint's.

    Raises:
        ValueError: options out of range; heads of unequal classes, anchors or box coders; heads
            other than RPN and RetinaNet's; box heads that score by sigmoid or regress boxes.
    """

    zero_at_equality = False
    term_factors = {
        **{f'loss_{part}soft': 'factor' for part in ('', 'rpn_', 'rcn_')},
        **{f'loss_{part}bound': 'nu' for part in ('', 'rpn_', 'rcn_')},
        'loss_hint': 'gamma',
    }
    scheduled = ('tau',)
    asks_teacher = True
    label_free = False
    families = ('two_stage', 'instance', 'anchor')
    only = {'anchor': ('RetinaNet',)}

    def __init__(
        self,
        *taps: Taps,
        mu: float = 0.5,
        additive: bool = False,
        w_bg: float = 1.5,
        weight_mode: str = 'class',
        soft: str = 'cross_entropy',
        tau: float = 1.0,
        nu: float = 0.5,
        margin: float = 0.0,
        gamma: float = 0.5,
        hint: str = 'l2',
        reduction: str = 'mean',
        adapt: str | None = 'conv1x1',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, **pair)
        for name, number in dict(w_bg=w_bg, nu=nu, margin=margin, gamma=gamma).items():
            check_number('Chen2017', name, number, 0)
        check_number('Chen2017', 'mu', mu, 0, 1)
        if additive and mu == 0:
            raise ValueError('Chen2017: with additive=True mu must be above 0, found 0.')
        self.factor = (1 - mu) / mu if additive else 1 - mu
        self.mu, self.additive, self.tau = mu, additive, check_temperature('Chen2017', tau)
        self.w_bg, self.nu, self.margin, self.gamma = w_bg, nu, margin, gamma
        self.weight_mode = check_choice('Chen2017', 'weight_mode', weight_mode, ('class', 'sample'))
        self.soft = check_choice('Chen2017', 'soft', soft, ('cross_entropy', 'kl'))
        self.hint = check_choice('Chen2017', 'hint', hint, ('l2', 'l1'))
        self.reduction = check_choice('Chen2017', 'reduction', reduction, ('mean', 'sum_per_image'))
        self.maps_at: tuple[set[str], set[str]] = (set(), set())
        self.hard_losses = ['loss_cls']

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        bind_pyramid(self, student, teacher)
        own, others = predictions.answer_taps(student, teacher)
        if is_two_stage(student):
            self.hard_losses = ['loss_cls', 'loss_rpn_cls']
            two_stage.check_box_heads('Chen2017', student, teacher, softmax=True)
            self._check_codes(*(two_stage.box_head(model) for model in (student, teacher)))
            own += two_stage.answer_taps(student, teacher)[0]
        check_anchor_heads('Chen2017', student, teacher, self.image_scale)
        self._check_codes(*(dense.dense_head(model) for model in (student, teacher)))
        self.maps_at = tap_beside(self, (own, others))

    def _check_codes(self, student: nn.Module, teacher: nn.Module) -> None:
        if not self.nu:
            return  # no box codes are compared
        way = 'nu=0 compares no boxes'
        check_coders('Chen2017', student, teacher, per_class=False, way=way)
        if student.reg_decoded_bbox:
            raise ValueError(
                f'Chen2017 bounds errors of encoded boxes, but {type(student).__name__} regresses '
                'decoded ones (reg_decoded_bbox=True); set nu=0.'
            )

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(among(student, self.maps_at[0]), among(teacher, self.maps_at[1]))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = self._dense_terms(trace)
        if is_two_stage(trace.student.model):
            losses |= self._box_terms(trace)
        return losses | {'loss_hint': self.gamma * self._hint(trace)}

    def _dense_terms(self, trace: Trace) -> dict[str, Tensor]:
        """RPN: sampled anchors of the step. RetinaNet: positive and negative ones."""
        (logits_s, codes_s), (logits_t, codes_t) = predictions.answers(trace)
        labels, used, boxes = predictions.targets(trace, 3)
        sampled, k = (used > 0).flatten().nonzero()[:, 0], logits_s.shape[-1]
        every = logits_s, logits_t, codes_s, codes_t, boxes, labels
        z_s, z_t, *codes, labels = (x.flatten(0, 1).index_select(0, sampled) for x in every)
        weights: tuple = 1.0, self.w_bg
        if self.weight_mode == 'sample':
            background = labels[:, None] != torch.arange(k, device=labels.device)
            weights = (torch.where(background, self.w_bg, 1.0),) * 2
        entropy = self.soft == 'cross_entropy'
        soft = weighted_binary_cross_entropy(z_s, z_t, weights, self.tau, entropy).sum()
        prefix = 'rpn_' if is_two_stage(trace.student.model) else ''
        return self._terms(prefix, soft, codes, (labels >= 0) & (labels < k))

    def _box_terms(self, trace: Trace) -> dict[str, Tensor]:
        (scores, deltas), wanted = two_stage.answers(trace)
        labels, _, boxes, _ = two_stage.targets(trace)
        k = scores.shape[-1] - 1
        soft = self._soft(scores, wanted[0], labels == k)
        own = labels.clamp(max=k - 1)  # the background has no deltas, and does not count
        codes = [two_stage.of_class(x, own) for x in (deltas, wanted[1])]
        return self._terms('rcn_', soft, [*codes, boxes], labels < k)

    def check_task_weight(self, task_weight: Any) -> None:
        """Refuse class losses of the task with a factor other than mu."""
        keys = self.hard_losses
        own = self.learner == 'student'
        counted = [factor_of(task_weight, key) if own else 1.0 for key in keys]
        wrong = not self.additive and any(abs(factor - self.mu) > 1e-6 for factor in counted)
        if wrong and not own:
            raise ValueError(
                f'Chen2017 mixes {self.mu} of the hard class losses with {1 - self.mu:g} of the '
                f"soft ones, but those of the peer '{self.learner}' count 1, as task_weight is the "
                "student's alone: set additive=True in the objective."
            )
        if wrong:
            wanted = ', '.join(f'{key}={self.mu}' for key in keys)
            raise ValueError(
                f'Chen2017 mixes {self.mu} of the hard class losses with {1 - self.mu:g} of the '
                f'soft ones: set task_weight=dict({wanted}) in the model, found {task_weight!r}, '
                'or additive=True in the objective, which leaves the hard ones unchanged.'
            )

    def describe(self) -> list[str]:
        """Factors of hard and soft losses, and the pairs."""
        own = self.learner == 'student'
        hard = f'must count {self.mu}' + ', by task_weight,' * own
        hard = 'count 1' if self.additive else hard
        return [f'hard class losses {hard} and soft ones {self.factor:g}', *super().describe()]

    def _soft(self, student: Tensor, teacher: Tensor, background: Tensor) -> Tensor:
        """Sum over all samples; logits (..., C), background last, and which samples are (...)."""
        if self.weight_mode == 'class':
            weight = torch.ones(student.shape[-1], device=student.device)
            weight[-1] = self.w_bg
        else:
            weight = torch.where(background, self.w_bg, 1.0)[..., None]
        entropy = self.soft == 'cross_entropy'
        return weighted_cross_entropy(student, teacher, weight, self.tau, entropy).sum()

    def _terms(
        self, prefix: str, soft: Tensor, codes: list[Tensor], positive: Tensor
    ) -> dict[str, Tensor]:
        """Mean over the samples (R,) of ``soft``, a sum, and of the bound, for positives only."""
        n = max(len(positive), 1)
        bound = torch.where(positive, bounded_regression(*codes, self.margin), 0.0).sum()
        return {
            f'loss_{prefix}soft': self.factor * soft / n,
            f'loss_{prefix}bound': self.nu * bound / n,
        }

    def _hint(self, trace: Trace) -> Tensor:
        pairs = self.tensor_pairs(trace)
        return sum(self.compare(s, t) for s, t in pairs) / len(pairs)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        gap = student - teacher
        gap = gap.square() if self.hint == 'l2' else gap.abs()
        return gap.mean() if self.reduction == 'mean' else gap.sum() / len(gap)

    def views(self, trace: Trace) -> list[View | Boxes]:
        """RoIs of largest soft loss with both sides' scores; differences of hints, by level."""
        views: list[View | Boxes] = []
        model = trace.student.model
        if is_two_stage(model):
            logits = [answer[0] for answer in two_stage.answers(trace)]
            scores = [(z / self.tau).softmax(-1) for z in logits]
            soft = weighted_cross_entropy(*logits, tau=self.tau)
            rois = trace.student[two_stage.rois_tap(model)][0]
            views += two_stage.ranked_rois('RoIs of largest soft loss', rois, scores, soft)
        for s, t in self.tensor_pairs(trace):
            views.append(View('distance from the hint', (s - t).square().mean(1).sqrt()))
        return views
