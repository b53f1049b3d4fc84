"""WSOD2: pseudo labels weighted by bottom-up and top-down evidence of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.datasets.protection import leaves
from mmkd.families.comparable import Misfit
from mmkd.families.weak import LOOK, SCORES, TARGETS, check_weak, looks, targets
from mmkd.functional.mil import refinement_loss
from mmkd.objective import Objective
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.schedule import Schedule
from mmkd.tap import Trace, parse_taps
from mmkd.task_weight import factor_of

FACTORS = dict(refinement=1.0, boxes=0.3)
TD = ('prob', 'ones')
#: the weight of the superpixels without ``bottom_up``: all at first, none in the end
LINEAR = dict(value=1.0, decay='linear', end_value=0.0)


def evidence(bottom_up: Tensor, top_down: Tensor, a: float) -> Tensor:
    """``a O_bu + (1 - a) O_td``, of equal shapes."""
    return a * bottom_up + (1 - a) * top_down


@MODELS.register_module()
class WSOD2(Objective):
    """Bottom-up and top-down objectness distillation, for detectors that learn from image labels.

    Zeng et al., ICCV 2019. Each refinement k of ``mmkd.MILRoIHead`` learns the pseudo labels that
    the one before gives, in ``loss_refinement``: ``sum_k -1/R sum_r w_r CE(p^k_r, label_r)`` with
    ``w = a O_bu + (1 - a) O_td``. Bottom-up evidence O_bu says how well a proposal follows the
    superpixels of the image (the transform ``mmkd.Superpixels``), top-down evidence O_td is the
    probability that refinement k - 1 gives the label, and ``a`` falls from 1 to 0 over the run.
    ``loss_boxes`` weighs the box branch likewise, ``1/R_pos sum w_r sum_4 smoothL1``. No teacher.
    The losses take the place of the student's own of the same labels:
    ``task_weight=dict(loss_refine=0, loss_box=0)``; its seeds are ``seeds='wsod2'``.

    The authors' code differs from the paper: top-down evidence is 1 (``td='ones'``), and the box
    term is 30 times a mean over coordinates, which is the factor 7.5. Background proposals, for
    which the paper defines no top-down evidence, count 1, as in the code. O_bu is that of the
    proposal throughout; the paper takes the regressed box in late iterations.

    Args:
        weight, learner: see :class:`~mmkd.objective.Objective`.
        factors (dict[str, float] | None): of the terms ``'refinement'`` and ``'boxes'``, where not
            1 and 0.3.
        bottom_up (float | dict | None): a, from 0 to 1; ``None`` falls linearly from 1 to 0.
        td (str): ``'prob'`` or ``'ones'``.

    Raises:
        ValueError: factors or a out of range; a detector without mmkd.MILRoIHead, or without
            refinements; a factor for boxes without a box branch; before training, a pipeline
            without superpixels, or the student's own losses of the same labels.
    """

    needs_teacher = False
    needs_ground_truth = True
    zero_at_equality = False
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    scheduled = ('bottom_up',)
    families = ('weak',)

    def __init__(
        self,
        weight: Any = None,
        factors: Mapping[str, float] | None = None,
        bottom_up: float | None = None,
        td: str = 'prob',
        learner: str = 'student',
    ) -> None:
        super().__init__(weight=weight, learner=learner)
        self.asked_factors = dict(factors or {})
        self.factors = check_factors('WSOD2', factors, FACTORS)
        if bottom_up is None:
            self.schedules = {'bottom_up': Schedule(**LINEAR, owner='WSOD2: bottom_up')}  # type: ignore[arg-type]
        start = LINEAR['value'] if bottom_up is None else bottom_up
        self.bottom_up = check_number('WSOD2', 'bottom_up', start, 0, 1)
        self.td = check_choice('WSOD2', 'td', td, TD)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        check_weak('WSOD2', student)
        if student.roi_head.bbox_coder is None:
            if self.asked_factors.get('boxes'):
                raise Misfit(
                    'WSOD2: factors has one for boxes, but the student has no box branch; set '
                    'boxes=True in mmkd.MILRoIHead.'
                )
            self.factors['boxes'] = 0.0
        self.student_taps = parse_taps([LOOK, SCORES, TARGETS])

    def check_dataset(self, dataset: Any) -> None:
        """Refuse data whose proposals were not compared with superpixels."""
        rising = self.schedules.get('bottom_up')
        if not self.bottom_up and (rising is None or rising.is_zero):
            return
        for one in leaves(dataset):
            transforms = getattr(getattr(one, 'pipeline', None), 'transforms', ())
            if not any(getattr(t, 'gives_objectness', False) for t in transforms):
                raise ValueError(
                    'WSOD2 weighs proposals by the superpixels of the image, but the training '
                    'pipeline has none. Put mmkd.Superpixels behind mmkd.LoadProposals, or set '
                    'bottom_up=0, which leaves top-down evidence.'
                )

    def check_task_weight(self, task_weight: Any) -> None:
        """Refuse the student's own losses of the same pseudo labels."""
        keys = ['loss_refine1'] + ['loss_box'] * bool(self.factors['boxes'])
        if self.learner != 'student':
            raise ValueError(
                'WSOD2 replaces the own losses of refinements, but those of the peer '
                f"'{self.learner}' always count; train it as the student."
            )
        if any(factor_of(task_weight, key) for key in keys):
            raise ValueError(
                "WSOD2 takes the place of the student's own losses of refinements: set "
                f'task_weight=dict(loss_refine=0, loss_box=0) in the model, found {task_weight!r}.'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        shown, labelled = looks(trace), targets(trace)
        head, n = trace.student.model.roi_head, len(trace.samples)
        images = shown[0].rois[:, 0].long()
        bottom_up = torch.cat([sample.proposals.scores for sample in trace.samples]).float()
        losses, weights = [], bottom_up
        for k, (own, score) in enumerate(zip(labelled, trace.student.raw(SCORES), strict=True)):
            weights = self.weights(bottom_up, score, own.labels, head.positive(own))
            logits = [look.outputs[2 + k] for look in shown]
            losses += [refinement_loss(z, own.labels, weights, images, n) for z in logits]
        found = {'loss_refinement': self.factors['refinement'] * sum(losses) / len(shown)}
        if head.bbox_coder is not None:
            boxes = sum(head.box_loss(look, labelled[-1], weights) for look in shown)
            found['loss_boxes'] = self.factors['boxes'] * boxes / len(shown)
        positive = head.positive(labelled[-1])
        share = (bottom_up * positive).sum() / positive.sum().clamp(min=1)
        return found | {'objectness': share}

    def weights(
        self, bottom_up: Tensor, scores: Tensor, labels: Tensor, positive: Tensor
    ) -> Tensor:
        """w of each proposal, (R,).

        Args:
            bottom_up (Tensor): O_bu, (R,).
            scores (Tensor): of classes, by the branch before, (R, K).
            labels (Tensor): (R,).
            positive (Tensor): which have the label of a class, (R,) bool.
        """
        chosen = labels.clamp(0, scores.shape[1] - 1)[:, None]
        top_down = (
            scores.gather(1, chosen)[:, 0] if self.td == 'prob' else torch.ones_like(bottom_up)
        )
        return torch.where(positive, evidence(bottom_up, top_down, self.bottom_up), 1.0).detach()
