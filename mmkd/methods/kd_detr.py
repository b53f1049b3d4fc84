"""KDDETR: predictions of two DETR decoders for the same sampled queries (distillation points)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import queries, query_decoding
from mmkd.families.comparable import Misfit, uses_sigmoid
from mmkd.functional.query_distances import NORMS, point_terms
from mmkd.objective import Objective
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Recorder, Trace, parse_taps

#: of the terms of each group of points, and of the attention
FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0, attention=0.0)
#: points of which a decoder can be asked at any place, if there are any
POINTS = 300
_GROUPS = ('specific', 'general')
_LEAST = 1e-8


def attention_distance(student: Tensor, teacher: Tensor, form: str = 'kl') -> Tensor:
    """Mean over rows of ``KL(a_t || a_s)``, or mean square error, of attention (..., Q, Q)."""
    if form == 'mse':
        return (student - teacher).square().mean()
    apart = torch.xlogy(teacher, teacher) - teacher * student.clamp(min=_LEAST).log()
    return apart.sum(-1).mean()


@MODELS.register_module()
class KDDETR(Objective):
    """KD-DETR: knowledge distillation for detection transformers with consistent distillation
    points sampling.

    Wang et al., CVPR 2024; written from the equations, compared with Myleswork/KD-DETR, which has
    DAB-DETR only (whether it is the code of the paper, and what the paper does for other decoders,
    is not known: those parts are ours). Query q of one DETR is another object than query q of
    another, so both decoders get the same points, in passes of their own: the teacher's queries
    (``specific``), and random ones, drawn in each step and shared by all images (``general``).
    Every decoder layer of the student imitates the teacher's last one. With w, the teacher's
    largest class probability at a point,

    * ``loss_<group>_classes``: sum over layers and points of ``w KL_tau(z_t || z_s) / K``;
    * ``loss_<group>_boxes``: mean, weighted by w, of the absolute difference of cxcywh;
    * ``loss_<group>_giou``: the same of 1 - GIoU;
    * ``loss_attention``: of self-attention in the specific pass, as D3ETR has it (Chen et al.,
      IJCAI 2024; no code is public, so this form is ours): KL of its rows, mean over heads. The
      student's attention then has no dropout in this pass, since weights that are set to 0 would
      count as disagreement.

    A step costs two more passes of the student's decoder and one of the teacher's, no encoder. The
    student's own queries learn from its own losses alone. Images without labels teach as well, but
    not DINO and DDQ, which make denoising queries of boxes.

    Args:
        points (int | None): random points; ``None``: 300, and none for DETR and Conditional DETR,
            whose learned vectors mean something else in each network.
        general (str): how they are drawn: boxes from ``sigmoid(N(0, 1))`` (``'normal'``, the code)
            or ``'uniform'`` (the paper). DINO, DDQ and two-stage Deformable DETR get the teacher's
            content vectors with them, Deformable DETR random vectors and their point in the
            teacher.
        specific (bool): also the teacher's own queries.
        classes (str): ``'softmax'`` over the classes (background among them, where it is one), even
            of sigmoid heads, as the code does; ``'sigmoid'``: the sum of a Bernoulli KL of each
            class, without temperature, which also fits a softmax beside a sigmoid head.
        cls_norm (str): the classes' sum is not a mean, so it grows with the batch. ``'per_image'``:
            8 times the mean over images, which equals the ``'code'`` at its 8 images;
            ``'weights'``: divided by the sum of w.
        tau (float): temperature of ``'softmax'``.
        factors (dict[str, float] | None): of the terms ``'classes'`` (1), ``'boxes'`` (5),
            ``'giou'`` (2) and ``'attention'`` (0), where not these.
        attention (str): the teacher's ``'last'`` layer for all of the student's, or ``'each'`` for
            its own, from the last one back.
        attention_form (str): ``'kl'`` or ``'mse'``.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; two networks that are not DETRs of the same classes, or
            whose decoders do not understand each other's points.
    """

    compares_classes = True
    label_free = True  # but of students that denoise
    asks_teacher = True
    checks_shapes = False
    zero_at_equality = False  # the earlier layers imitate the teacher's last
    term_factors = {
        **{f'loss_{g}_{t}': f'factors.{t}' for g in _GROUPS for t in FACTORS if t != 'attention'},
        'loss_attention': 'factors.attention',
    }
    scheduled = ('tau',)
    families = ('detr',)

    def __init__(
        self,
        points: int | None = None,
        general: str = 'normal',
        specific: bool = True,
        classes: str = 'softmax',
        cls_norm: str = 'per_image',
        tau: float = 10.0,
        factors: Mapping[str, float] | None = None,
        attention: str = 'last',
        attention_form: str = 'kl',
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.asked_points = check_number('KDDETR', 'points', points, 0, whole=True, optional=True)
        self.points = POINTS if points is None else self.asked_points
        self.general = check_choice('KDDETR', 'general', general, ('normal', 'uniform'))
        self.specific = specific
        self.classes = check_choice('KDDETR', 'classes', classes, ('softmax', 'sigmoid'))
        self.cls_norm = check_choice('KDDETR', 'cls_norm', cls_norm, NORMS)
        if cls_norm == 'code':
            self.adds_up = tuple(f'loss_{group}_classes' for group in _GROUPS)
        self.tau = check_temperature('KDDETR', tau)
        self.factors = check_factors('KDDETR', factors, FACTORS)
        self.attention = check_choice('KDDETR', 'attention', attention, ('last', 'each'))
        self.attention_form = check_choice(
            'KDDETR', 'attention_form', attention_form, ('kl', 'mse')
        )
        if self.factors['attention'] and not specific:
            raise ValueError(
                "KDDETR: attention is compared in the pass of the teacher's queries; set "
                "specific=True, or factors={'attention': 0}."
            )

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        queries.check_decoders('KDDETR', student, teacher)
        assert teacher is not None
        otherwise = "DETRDistill with factors={'prior': 0} matches the queries of any two DETRs"
        queries.check_shared_points('KDDETR', student, teacher, otherwise)
        kinds = ['sigmoid' if uses_sigmoid(m.bbox_head) else 'softmax' for m in (student, teacher)]
        if kinds[0] != kinds[1] and self.classes == 'softmax':
            raise Misfit(
                f"KDDETR: the student's classes are {kinds[0]} scores and the teacher's "
                f"{kinds[1]}; set classes='sigmoid', which compares probabilities"
            )
        if queries.kind(teacher) == 'embedding':
            if self.asked_points:
                raise ValueError(
                    f'KDDETR: random points of {type(teacher).__name__} mean something else to '
                    'each network, since they are learned vectors without a place; set points=0.'
                )
            self.points = 0
        self.why_labels = queries.why_labels(student)
        self.label_free = not self.why_labels
        if not self.points and not self.specific:
            raise ValueError(
                'KDDETR: with points=0 and specific=False there is nothing to compare.'
            )
        taps = [*queries.memory_taps(teacher), *queries.point_taps(teacher)]
        if self.specific:
            taps += queries.output_taps(teacher)
        if self.factors['attention']:
            taps += queries.attention_taps('KDDETR', teacher)
            queries.attention_taps('KDDETR', student)
        self.student_taps = parse_taps(queries.replay_taps(student))
        self.teacher_taps = parse_taps(dict.fromkeys(taps))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        own, model = queries.memory(trace.student), trace.student.model
        if self.specific:
            at = queries.points(trace.teacher)
            scores, boxes = (x[-1] for x in queries.outputs(trace.teacher))
            taps = queries.attention_taps('KDDETR', model) if self.factors['attention'] else []
            whole = query_decoding.whole_attention(model) if taps else nullcontext()
            with whole, Recorder(model, parse_taps(taps)).record(trace.inputs) as seen:
                found = query_decoding.decode(model, own, at)
            losses |= self.terms('specific', trace, found, (scores.detach(), boxes.detach()))
            if taps:
                wanted = queries.attention(trace.teacher)
                apart = self.attention_term(queries.attention(seen), wanted)
                losses['loss_attention'] = self.factors['attention'] * apart
        if self.points:
            judge = trace.teacher
            with torch.no_grad():
                at = query_decoding.fresh_points(judge, self.points, self.general)
                scores, boxes = query_decoding.decode(judge.model, queries.memory(judge), at)
            found = query_decoding.decode(model, own, at)
            losses |= self.terms('general', trace, found, (scores[-1], boxes[-1]))
        return losses

    def terms(
        self,
        group: str,
        trace: Trace,
        found: tuple[Tensor, Tensor],
        wanted: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Losses of one group of R points.

        Args:
            found (tuple): the student's logits (L, N, R, C) and boxes (L, N, R, 4).
            wanted (tuple): the teacher's of its last layer, without L.
        """
        scores = found[0], wanted[0]
        apart, sure = queries.class_distances(trace, *scores, self.classes, self.tau)
        terms = point_terms(apart, found[1], wanted[1], sure, self.cls_norm)
        return {f'loss_{group}_{term}': self.factors[term] * x for term, x in terms.items()}

    def attention_term(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Sum over the student's layers; (N, Q, Q) each."""
        count = len(student)
        if self.attention == 'each':
            count = min(count, len(teacher))
            pairs = list(zip(student[-count:], teacher[-count:], strict=True))
        else:
            pairs = [(own, teacher[-1]) for own in student]
        return torch.stack(
            [attention_distance(s, t.detach(), self.attention_form) for s, t in pairs]
        ).sum()

    def describe(self) -> list[str]:
        """Which points both decoders are asked."""
        groups = [f'{self.points} random points ({self.general})'] * bool(self.points)
        groups += ["the teacher's queries"] * self.specific
        return [f'both decoders are asked about {" and ".join(groups)}']
