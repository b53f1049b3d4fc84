"""CascadeSelf: KL divergence of a cascade's earlier box heads from its last one, on their RoIs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import two_stage
from mmkd.families.comparable import Misfit, named
from mmkd.functional.logit_distances import soft_kl
from mmkd.objective import Objective
from mmkd.options import check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.untouched import evaluation


@MODELS.register_module()
class CascadeSelf(Objective):
    """Be your own teacher, for the stages of a cascade detector; our construction.

    The principle is that of Zhang et al., ICCV 2019 (see BYOT): the deepest exit teaches the
    others. Stages of Cascade R-CNN (Cai and Vasconcelos, CVPR 2018) see different RoIs, since each
    refines and samples again. So the last stage judges the RoIs of every earlier stage t, and the
    loss is ``sum_t mean_r tau^2 KL(p_last || p_t)`` over these RoIs and all classes, background
    included. The last stage and the features that it reads get no gradient. No teacher.

    Args:
        tau (float): temperature.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: temperature not above 0; no cascade, or one of a single stage; sigmoid class
            scores; stages with different classes; box heads that read more than the features of
            RoIs (Sparse R-CNN, HTC and SCNet with semantic or global context).
    """

    needs_teacher = False
    zero_at_equality = False
    rank_invariant = True
    scheduled = ('tau',)
    families = ('two_stage', 'instance')
    only = {'two_stage': ('CascadeRCNN',), 'instance': ('CascadeRCNN',)}

    def __init__(self, weight: Any = None, tau: float = 1.0, learner: str = 'student') -> None:
        super().__init__(weight=weight, learner=learner)
        self.tau = check_temperature('CascadeSelf', tau)
        self.last = 0

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        heads = getattr(getattr(student, 'roi_head', None), 'bbox_head', None)
        count = len(heads) if isinstance(heads, nn.ModuleList) else 1
        if heads is None or count < 2:
            found = 'one box head' if heads is not None else 'no box head'
            raise Misfit(
                'CascadeSelf lets the last stage of a cascade teach the earlier ones, but the '
                f'student is {named(student)} with {found}.'
            )
        two_stage.check_box_heads('CascadeSelf', student, student, softmax=True)
        classes = [int(head.num_classes) for head in heads]
        if len({*classes}) > 1:
            raise Misfit(f'CascadeSelf: the stages have different classes, {classes}.')
        for part in ('semantic', 'glbctx'):
            if getattr(student.roi_head, f'with_{part}', False):
                raise Misfit(
                    'CascadeSelf runs box heads on the features of RoIs, but those of '
                    f'{type(student.roi_head).__name__} also read its {part}_head.'
                )
        self.last = count - 1
        taps = [two_stage.features_tap(student)]
        for stage in range(self.last):
            taps += [f'{two_stage.box_head_tap(student, stage)}[0]']
            taps += [two_stage.rois_tap(student, stage)]
        self.student_taps = parse_taps(taps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        features, *rest = self.student_taps
        maps = [x.detach() for x in trace.student[features]]
        found = {}
        for stage, (scores, rois) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
            own = trace.student[scores][0]
            wanted = self.judged(trace.student.model, maps, trace.student[rois][0].detach())
            apart = soft_kl(own, wanted, self.tau)
            found[f'loss_stage{stage}'] = apart.sum() / max(len(apart), 1)
        return found

    def judged(self, model: nn.Module, features: list[Tensor], rois: Tensor) -> Tensor:
        """Class scores (R, K + 1) of the last stage for RoIs (R, 5), without gradients; its
        BatchNorms, if there are any, stay as they are."""
        head = two_stage.first_stage(model, 'bbox_head', self.last)[0]
        with evaluation(head):
            return two_stage.roi_outputs(model, features, rois, self.last)[0]

    def describe(self) -> list[str]:
        """Which stages learn."""
        return [f'stage {self.last} judges the RoIs of stages 0 to {self.last - 1}']
