"""MaskKD: KL divergence of mask logits and distance of mask features on the student's RoIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters import build_adapter
from mmkd.datasets import loads_masks
from mmkd.families import mask_heads, two_stage
from mmkd.families.mask_heads import Masks, of_class
from mmkd.functional.boxes import rank_in_group
from mmkd.functional.edges import edges
from mmkd.functional.logit_distances import weighted_binary_cross_entropy
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import Boxes

#: objects of an image in a picture
SHOWN = 10
TERMS = {'logits': 1.0, 'features': 0.5}


def boundary_weights(mask: Tensor, boundary: float, size: int = 3) -> Tensor:
    """1, or ``boundary`` on the edges of masks (R, P, P), divided by the mean of each RoI."""
    weight = 1 + (boundary - 1) * edges(mask, size // 2)
    return weight / weight.mean((1, 2), keepdim=True)


def agreement(logits: Tensor, mask: Tensor) -> Tensor:
    """IoU of masks predicted by logits (R, P, P) above 0 and targets (R, P, P); (R,)."""
    found, wanted = logits > 0, mask > 0.5
    shared, either = (x.sum((1, 2)) for x in (found & wanted, found | wanted))
    return shared / either.clamp(min=1)


def mask_kl(student: Tensor, teacher: Tensor, weight: Tensor, tau: float) -> Tensor:
    """``tau^2 * mean of w KL(s(v / tau) || s(u / tau))`` of each RoI, s the logistic function.

    Args:
        student, teacher (Tensor): logits u and v, (R, P, P), or (R, K, P, P) for a mean over K too.
        weight (Tensor): w, (R, P, P).

    Returns:
        Tensor: (R,).
    """
    apart = weighted_binary_cross_entropy(student, teacher, (1.0, 1.0), tau, entropy=False)
    weight = weight[:, None] if apart.dim() == 4 else weight
    return tau**2 * (weight * apart).flatten(1).mean(1)


@MODELS.register_module()
class MaskKD(Objective):
    """Distilling the mask branch of Mask R-CNN and Cascade Mask R-CNN; our construction.

    Response-based distillation as by Hinton et al., 2015, of the masks of He et al., ICCV 2017.
    Both networks predict masks for the R objects of the student's own mask loss, in its RoIs.
    The logits u of the student and v of the teacher for the class of the object give ``tau^2 / R *
    sum_r g_r mean_i w_ri KL(s(v_ri / tau) || s(u_ri / tau))`` with the logistic function s, and the
    maps F before the mask heads enlarge them ``1 / R * sum_r g_r mean_ci (adapter(F_s) - F_t)^2``.
    Mask heads that each see RoIs of their own, as is sometimes done, show different objects.

    No factors are published: those of the terms and of the boundary are ours. It goes with a method
    on the neck (FGD, PKD) and one on the box head (Chen2017, DKD), as objectives of their own.

    A cascade as teacher averages the probabilities of its stages, as its inference does; compared
    are the features of its stage of the student's number, or of its last one.

    Args:
        tau (float): temperature.
        boundary (float): weight of cells at the edge of the object, against 1 elsewhere; 1 weights
            all alike. The mean weight of each RoI is 1, so that the loss keeps its scale.
        boundary_size (int): side of the square that widens and narrows a mask, odd; cells between
            both are the edge.
        gate (str): ``'iou'`` weights each object by the IoU of the teacher's mask with the label,
            ``'none'`` counts all alike.
        channels (str): ``'label'`` compares the mask of the object's class, ``'teacher'`` that of
            the class that the teacher's box head gives the RoI, ``'all'`` those of all classes,
            most of which no network was ever trained on.
        stages (str): of a cascade student; ``'first'`` or ``'all'``, of which the mean counts.
        factors (dict[str, float] | None): of the terms; 1 for ``'logits'`` and 0.5 for
            ``'features'``, which a factor of 0 leaves out.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`; it takes no taps.

    Raises:
        ValueError: options out of range; a model without masks, or with a mask head of another kind
            than Mask R-CNN's (HTC, SCNet, PointRend, QueryInst); unequal classes; masks per class
            beside class-agnostic ones; taps; training data without masks.
    """

    needs_ground_truth = True
    asks_teacher = True
    term_factors = {f'loss_{term}': f'factors.{term}' for term in TERMS}
    scheduled = ('tau', 'boundary')
    families = ('instance',)
    only = {'instance': ('MaskRCNN', 'CascadeRCNN', 'MaskScoringRCNN')}

    def __init__(
        self,
        *taps: Taps,
        tau: float = 1.0,
        boundary: float = 4.0,
        boundary_size: int = 3,
        gate: str = 'none',
        channels: str = 'label',
        stages: str = 'first',
        factors: Mapping[str, float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.tau = check_temperature('MaskKD', tau)
        self.boundary = check_number('MaskKD', 'boundary', boundary, 1)
        self.boundary_size = check_number('MaskKD', 'boundary_size', boundary_size, 1, whole=True)
        if not self.boundary_size % 2:
            raise ValueError(
                f'MaskKD: boundary_size must be odd, so that the square has a middle, found '
                f'{boundary_size!r}.'
            )
        self.gate = check_choice('MaskKD', 'gate', gate, ('none', 'iou'))
        self.channels = check_choice('MaskKD', 'channels', channels, ('label', 'teacher', 'all'))
        self.stages = check_choice('MaskKD', 'stages', stages, ('first', 'all'))
        self.factors = check_factors('MaskKD', factors, TERMS)
        self.heads = 1
        self.resized = False
        self.adapters = nn.ModuleDict()
        self.widths: list[tuple[int, int]] = []

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        if self.asked_taps:
            raise ValueError(
                "MaskKD compares mask heads on the student's RoIs; it takes no taps. Methods for "
                'maps, such as FitNet, take them.'
            )
        mask_heads.check_mask_heads('MaskKD', student, teacher)
        if self.channels == 'teacher':
            two_stage.check_box_heads('MaskKD', student, teacher, softmax=False)
        self.heads = mask_heads.stages(student) if self.stages == 'all' else 1
        count = mask_heads.stages(teacher)
        self.zero_at_equality = count == 1  # one stage is not the mean of all
        self.compares_classes = not mask_heads.mask_head(student).class_agnostic
        uses_features = bool(self.factors['features'])
        taps = [mask_heads.mask_taps(student, i, uses_features) for i in range(self.heads)]
        self.student_taps = parse_taps([tap for own in taps for tap in own])
        self.teacher_taps = parse_taps(two_stage.features_tap(teacher))
        stages = range(self.heads * uses_features)
        width = mask_heads.features_width
        self.widths = [(width(student, i), width(teacher, min(i, count - 1))) for i in stages]

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        for stage, widths in enumerate(self.widths):
            sides = (Level((width, 1, 1), None) for width in widths)
            adapter = build_adapter('auto', *sides, owner='MaskKD')
            if adapter is not None:
                self.adapters[f'{stage}'] = adapter

    def check_dataset(self, dataset: Any) -> None:
        if loads_masks(dataset) is False:
            raise ValueError(
                'MaskKD learns on the objects of the mask loss, but the training pipeline loads no '
                'masks: set LoadAnnotations(with_bbox=True, with_mask=True) in '
                'train_dataloader.dataset.pipeline.'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        found = [self.stage_terms(trace, stage) for stage in range(self.heads)]
        names = found[0]
        return {name: sum(terms[name] for terms in found) / len(found) for name in names}

    def stage_terms(self, trace: Trace, stage: int) -> dict[str, Tensor]:
        """Both terms of one mask head of the student, times their factors."""
        own = mask_heads.masks(trace, stage)
        if own is None:
            unused = [p.sum() for p in self.adapters.parameters()]
            zero = 0.0 * sum(unused, trace.inputs.new_zeros(()))
            return dict.fromkeys(['loss_logits', *['loss_features'] * bool(self.widths)], zero)
        wanted, features, classes = self.judge(trace, own, stage)
        u, v = (of_class(x, classes) for x in (own.logits, wanted))
        gate = agreement(v, own.target) if self.gate == 'iou' else 1.0
        if self.channels == 'all':
            u, v = own.logits, wanted
        weight = boundary_weights(own.target, self.boundary, self.boundary_size)
        apart = dict(logits=mask_kl(u, v, weight, self.tau))
        if self.widths:
            apart['features'] = self.feature_distance(trace, features, stage)
        count = max(len(own.rois), 1)
        return {
            f'loss_{term}': self.factors[term] * (gate * value).sum() / count
            for term, value in apart.items()
        }

    def judge(self, trace: Trace, own: Masks, stage: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's logits (R, K, P, P) and features for the student's RoIs, and the class of
        each (R,) whose masks are compared."""
        model = trace.teacher.model
        if not len(own.rois):
            return own.logits.detach(), own.logits.detach(), own.labels
        feats = trace.teacher[two_stage.features_tap(model)]
        logits, features = mask_heads.mask_outputs(model, feats, own.rois, stage)
        classes = own.labels
        if self.channels == 'teacher':
            scores = two_stage.roi_outputs(model, feats, own.rois)[0]
            classes = scores[:, : two_stage.box_head(model).num_classes].argmax(1)
        return self._as_large('masks', logits, own.logits), features, classes

    def feature_distance(self, trace: Trace, teacher: Tensor, stage: int) -> Tensor:
        """Mean squared distance of the features of each RoI, (R,)."""
        student = trace.student[mask_heads.features_tap(trace.student.model, stage)][0]
        if f'{stage}' in self.adapters:
            student = self.adapters[f'{stage}'](student)
        if not len(student):
            return student.flatten(1).sum(1)
        teacher = self._as_large('features', teacher, student)
        return (student - teacher).square().mean((1, 2, 3))

    def _as_large(self, what: str, teacher: Tensor, student: Tensor) -> Tensor:
        """The teacher's (R, C, h, w) at the student's height and width."""
        size, found = student.shape[2:], teacher.shape[2:]
        if size == found:
            return teacher
        if not self.resized:
            text = ' and '.join(' x '.join(map(str, x)) for x in (found, size))
            print_log(f"MaskKD: {what} are {text}; the teacher's are resized", 'current')
            self.resized = True
        return F.interpolate(teacher, size, mode='bilinear', align_corners=False)

    def describe(self) -> list[str]:
        """Which mask heads learn, and adapters of their features."""
        lines = [f'mask heads {", ".join(map(str, range(self.heads)))} of the student learn']
        return lines + [f'features {stage}: {a.describe()}' for stage, a in self.adapters.items()]

    def views(self, trace: Trace) -> list[Boxes]:
        """RoIs of largest difference; scores are the IoUs of both masks with the label."""
        own = mask_heads.masks(trace)
        assert own is not None
        wanted, _, classes = self.judge(trace, own)
        pair = [of_class(x, classes) for x in (own.logits, wanted)]
        even = torch.ones_like(own.target)
        order = mask_kl(*pair, even, self.tau).argsort(descending=True)
        chosen = order[rank_in_group(own.rois[order, 0].long()) < SHOWN]
        title = 'objects of largest difference, with the IoU of their masks'
        rois, labels = own.rois[chosen], own.labels[chosen]
        return [
            Boxes(title, rois, labels, agreement(x, own.target)[chosen], side)
            for side, x in zip(('student', 'teacher'), pair, strict=True)
        ]
