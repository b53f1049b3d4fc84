"""CascadeSelf: a cascade's last box head teaches the earlier ones, on their own RoIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.families import two_stage
from mmkd.families.comparable import Misfit, named
from mmkd.families.queries import image_sizes
from mmkd.functional.box_distances import centred
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.query_distances import box_terms
from mmkd.objective import Objective
from mmkd.options import check_factors, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.untouched import evaluation

#: of the terms
FACTORS = dict(classes=1.0, boxes=0.0, giou=0.0)


@MODELS.register_module()
class CascadeSelf(Objective):
    """Be your own teacher, for the stages of a cascade detector; our construction.

    The principle is that of Zhang et al., ICCV 2019 (see BYOT): the deepest exit teaches the
    others. Stages of Cascade R-CNN (Cai and Vasconcelos, CVPR 2018) see different RoIs, since each
    refines and samples again. So the last stage judges the RoIs of every earlier stage t, and the
    loss is ``sum_t mean_r tau^2 KL(p_last || p_t)`` over these RoIs and all classes, background
    included. With ``factors`` the boxes learn, too, as in LayerSelf: the mean absolute difference
    of cxcywh, as shares of the image, and 1 - GIoU of what both make of the RoI for the last
    stage's best class, means weighted by its probability. The last stage and the features that it
    reads get no gradient. No teacher.

    Args:
        tau (float): temperature.
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (0) and
            ``'giou'`` (0), where not these; in LayerSelf they are 1, 5 and 2.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no cascade, or one of a single stage; sigmoid class
            scores; stages with different classes; box heads that read more than the features of
            RoIs (Sparse R-CNN, HTC and SCNet with semantic or global context).
    """

    needs_teacher = False
    zero_at_equality = False
    rank_invariant = True
    scheduled = ('tau',)
    term_factors = {
        f'loss_stage{stage}{part}': f'factors.{term}'
        for stage in range(9)
        for term, part in (('classes', ''), ('boxes', '_boxes'), ('giou', '_giou'))
    }
    families = ('two_stage', 'instance')
    only = {'two_stage': ('CascadeRCNN',), 'instance': ('CascadeRCNN',)}

    def __init__(
        self,
        weight: Any = None,
        tau: float = 1.0,
        factors: Mapping[str, float] | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(weight=weight, learner=learner)
        self.factors = check_factors('CascadeSelf', factors, FACTORS)
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
            taps += [f'{two_stage.box_head_tap(student, stage)}[{i}]' for i in (0, 1)]
            taps += [two_stage.rois_tap(student, stage)]
        self.student_taps = parse_taps(taps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        features, *rest = self.student_taps
        maps = [x.detach() for x in trace.student[features]]
        found = {}
        for stage in range(self.last):
            own, deltas, rois = (trace.student[tap][0] for tap in rest[3 * stage : 3 * stage + 3])
            judged = self.judged(trace.student.model, maps, rois.detach())
            apart = soft_kl(own, judged[0], self.tau)
            classes = self.factors['classes'] * apart.sum() / max(len(apart), 1)
            found[f'loss_stage{stage}'] = classes
            if self.factors['boxes'] or self.factors['giou']:
                terms = self.boxes(trace, stage, rois.detach(), deltas, judged)
                found |= {f'loss_stage{stage}_{k}': self.factors[k] * v for k, v in terms.items()}
        return found

    def judged(self, model: nn.Module, features: list[Tensor], rois: Tensor) -> tuple:
        """Class scores (R, K + 1) and box deltas of the last stage for RoIs (R, 5), without
        gradients; its BatchNorms, if there are any, stay as they are."""
        head = two_stage.first_stage(model, 'bbox_head', self.last)[0]
        with evaluation(head):
            return two_stage.roi_outputs(model, features, rois, self.last)

    def boxes(
        self,
        trace: Trace,
        stage: int,
        rois: Tensor,
        deltas: Tensor,
        judged: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Means over RoIs (R, 5) of the distances of boxes, weighted by the last stage's surety."""
        sure, best = judged[0].softmax(-1)[:, :-1].max(-1)
        sizes = image_sizes(trace.samples, deltas)[rois[:, 0].long()]
        places = []
        for which, codes in ((stage, deltas), (self.last, judged[1])):
            head = two_stage.first_stage(trace.student.model, 'bbox_head', which)[0]
            box = head.bbox_coder.decode(rois[:, 1:], two_stage.of_class(codes, best))
            places.append(centred(box / sizes))
        shift, overlap = box_terms(*places)
        total = sure.sum().clamp(min=1e-6)
        return dict(boxes=(sure * shift).sum() / total, giou=(sure * overlap).sum() / total)

    def describe(self) -> list[str]:
        """Which stages learn."""
        return [f'stage {self.last} judges the RoIs of stages 0 to {self.last - 1}']
