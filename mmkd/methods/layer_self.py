"""LayerSelf: a DETR's last decoder layer teaches the earlier ones classes and boxes of queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.families import queries
from mmkd.families.comparable import uses_sigmoid
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.query_distances import binary_divergence, box_terms
from mmkd.objective import Objective
from mmkd.options import check_factors
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps

#: of the terms; those of boxes are the weights of DETR's own losses
FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0)


def class_distance(student: Tensor, teacher: Tensor, sigmoid: bool = True) -> tuple[Tensor, Tensor]:
    """Divergence of each query and how sure the teacher is of it.

    With sigmoid scores ``sum_c BCE(t, s) - BCE(t, t)``, else ``KL(t || s)`` over all classes and
    background. The weight is the teacher's largest probability of a class other than background.

    Args:
        student (Tensor): logits (..., C); background is last where it is a class.
        teacher (Tensor): logits that broadcast to them.

    Returns:
        tuple: divergence (...) and weight, of the teacher's shape without C.
    """
    if sigmoid:
        target = teacher.sigmoid()
        return binary_divergence(student, target), target.amax(-1)
    return soft_kl(student, teacher, 1.0), teacher.softmax(-1)[..., :-1].amax(-1)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """``sum_l sum_nq w_nq v_lnq / sum_nq w_nq`` of (L, N, Q) and (N, Q)."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


@MODELS.register_module()
class LayerSelf(Objective):
    """Be your own teacher, for the decoder layers of DETR and its kind; our construction.

    The principle is that of Zhang et al., ICCV 2019 (see BYOT): the deepest exit teaches the
    others. Query q is the same object in all layers, so nothing is matched. ``loss_classes`` is
    :func:`class_distance`, ``loss_boxes`` the mean absolute difference of (cx, cy, w, h), as shares
    of the image, and ``loss_giou`` is 1 - GIoU; each a mean over queries weighted by how sure the
    last layer is, summed over the earlier layers. The last layer gets no gradient. Denoising
    queries, which know their object, and DDQ's dense queries are left out. No teacher.

    Args:
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (5) and
            ``'giou'`` (2), where not these.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: factors out of range; no detector with a DETR head; a single decoder layer, or a
            decoder that returns only its last one; classes that are words of a text (Grounding
            DINO).
    """

    default_weight = 0.25
    needs_teacher = False
    zero_at_equality = False
    checks_shapes = False
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    families = ('detr',)

    def __init__(
        self,
        weight: Any = None,
        factors: Mapping[str, float] | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(weight=weight, learner=learner)
        self.factors = check_factors('LayerSelf', factors, FACTORS)
        self.sigmoid, self.layers = True, 0

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        queries.check_decoders('LayerSelf', student, None)
        self.layers = queries.layers(student)
        if self.layers < 2:
            raise ValueError(
                'LayerSelf lets the last decoder layer teach the earlier ones, but the decoder of '
                f'{type(student).__name__} gives one; set num_layers of at least 2 and '
                'return_intermediate=True.'
            )
        self.sigmoid = uses_sigmoid(student.bbox_head)
        self.student_taps = parse_taps(queries.output_taps(student))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        scores, boxes = queries.outputs(trace.student)
        apart, sure = class_distance(scores[:-1], scores[-1].detach(), self.sigmoid)
        shift, overlap = box_terms(boxes[:-1], boxes[-1].detach())
        terms = dict(classes=apart, boxes=shift, giou=overlap)
        return {
            f'loss_{term}': self.factors[term] * weighted_mean(values, sure)
            for term, values in terms.items()
        }

    def describe(self) -> list[str]:
        """Which layers learn."""
        return [f'the last of {self.layers} decoder layers teaches the others']
