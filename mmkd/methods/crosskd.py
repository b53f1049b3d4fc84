"""CrossKD: student features pass through the teacher's head, and those predictions are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.adapters import ConvAdapter
from mmkd.families import assignments, dense, towers
from mmkd.families.dense import dense_head
from mmkd.functional.cells import rows
from mmkd.functional.gather import mean_over_ranks
from mmkd.functional.logit_distances import bernoulli_kl, soft_kl
from mmkd.functional.padding import crop_padding
from mmkd.functional.sigmoid_distances import gap_weighted_cross_entropy
from mmkd.functional.standardise import deviation, standardise
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.tap import Trace, parse_taps
from mmkd.view import View

#: place of the cut, weight of the classes and of the boxes; published, but for the last two heads
PUBLISHED = {
    'GFLHead': (3, 1.0, 4.0),
    'RetinaHead': (3, 1.0, 1.0),
    'ATSSHead': (3, 1.0, 1.0),
    'FCOSHead': (2, 0.4, 0.75),
    'RTMDetHead': (1, 1.0, 1.0),
    'YOLOXHead': (1, 1.0, 1.0),
}


def align(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's map (N, C, H, W) with the teacher's mean and deviation over N, H and W."""
    if student.numel() == student.shape[1]:  # one value of each channel does not deviate
        return teacher + 0.0 * student
    mean = teacher.mean((0, 2, 3), keepdim=True)
    return standardise(student) * deviation(teacher - mean) + mean


def class_distances(model: nn.Module, *outputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Of each level: distance of the classes, summed over them, and the teacher's best score, of A
    anchors in each cell, (N, A, H, W).

    Args:
        outputs (list[Tensor]): of the teacher's head for the student's features, and its own.
    """
    levels = list(range(dense_head(model).prior_generator.num_levels))
    maps = (predictions.class_maps(model, x, levels) for x in outputs)
    return [
        (gap_weighted_cross_entropy(z_s, z_t).sum(2), z_t.amax(2).sigmoid())
        for z_s, z_t in zip(*maps, strict=True)
    ]


@MODELS.register_module()
class CrossKD(Objective):
    """Cross-head knowledge distillation for object detection.

    Wang et al., CVPR 2024; written from the equations. Behind convolution i of its two towers,
    normalised, the student's features get the teacher's mean and deviation and pass the rest of the
    teacher's frozen head, as in its own forward. These predictions are compared with the teacher's
    own, so that the student's head learns from ground truth alone.

    * ``loss_classes``: ``BCE(z, p_t) |p - p_t|`` over all anchors that the student's assigner does
      not ignore, by the number of positives (FCOS: by the sum of their centerness targets).
    * ``loss_boxes``: weighted by u, the teacher's largest class score. GFL: KL of the bins, mean
      over the four edges, by the sum of u. FCOS: -log IoU, others: 1 - GIoU of decoded boxes, by
      the normaliser of the classes.
    * ``loss_centerness``: of ATSS, Bernoulli KL at positives, which is cross entropy but 0 where
      both agree.

    Normalisers are at least 1, also without objects, and averaged over ranks but for RetinaNet, as
    in their task losses.

    RTMDet and YOLOX are ours, and have no published result: their terms are RetinaNet's, with the
    number of positives, one of each image at least. YOLOX answers with the probability of class and
    object together. The activation is the teacher's own. Where the student's convolution i is of
    another width than the teacher's (RTMDet-m and -s), a 1x1 convolution without bias in front of
    the alignment leads to it, one of each tower, and of each level that has its own towers.

    The authors add PKD on the neck, which is a second objective here:
    ``objectives=dict(crosskd=dict(type='mmkd.CrossKD'), pkd=dict(type='mmkd.PKD'))``.

    Args:
        stop (int | None): i; 0 takes the neck's maps, without activation. Published: 3 of 4, for
            FCOS 2; of shallower heads the last. For RTMDet and YOLOX 1 of 2.
        factors (dict[str, float] | None): of the terms ``'classes'`` and ``'boxes'`` (which holds
            for ATSS's centerness, too), where not the published ones: 1 and 1, for FCOS 0.4 and
            0.75, for GFL 1 and 4.
        variant (str): statistics are aligned before the activation (``'paper'``), or behind it, as
            the authors' ``'code'`` does, whose in-place ReLU overwrites the maps that it kept.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            the head's whatever is given.

    Raises:
        ValueError: options out of range; heads that are not two of GFL, RetinaNet, ATSS, FCOS,
            RTMDet or YOLOX; unequal depth, classes, priors, box coders or ``reg_max``; ``'code'``
            where the activation is no ReLU.
    """

    compares_classes = False  # both predictions come from the teacher's head
    term_factors = {
        'loss_classes': 'factors.classes',
        'loss_boxes': 'factors.boxes',
        'loss_centerness': 'factors.boxes',
    }
    asks_teacher = True
    families = ('anchor', 'anchor_free', 'yolo')
    only = {'anchor_free': ('FCOS', 'RTMDet'), 'yolo': ('YOLOX',)}

    def __init__(
        self,
        *taps: Taps,
        stop: int | None = None,
        factors: Mapping[str, float] | None = None,
        variant: str = 'paper',
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.asked_stop = check_number('CrossKD', 'stop', stop, 0, whole=True, optional=True)
        self.asked_factors = factors
        self.factors = check_factors('CrossKD', factors, dict(classes=1.0, boxes=1.0))
        self.variant = check_choice('CrossKD', 'variant', variant, ('paper', 'code'))
        self.kind, self.stop = '', 0
        #: of each tap at the student's towers, by its tower and place: its width, the teacher's
        self.widths: dict[str, tuple[int, int]] = {}
        self.adapters = nn.ModuleDict()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        towers.check_towers('CrossKD', student, teacher)
        self._choose(str(towers.tower_kind(teacher)), towers.depths(teacher)[0][0])
        if self.variant == 'code' and self.stop:
            self._check_relu(towers.activations(teacher, self.stop)[0][0])
        own, wanted = (towers.widths(model, self.stop) for model in (student, teacher))
        self.widths = {
            f'{i}_{j}': (width, wanted[i][0])
            for i, tower in enumerate(own)
            for j, width in enumerate(tower)
        }
        taps = [
            sum(towers.features_taps(model, self.stop, self.activated), [])
            for model in (student, teacher)
        ]
        self.student_taps = parse_taps([*taps[0], *assignments.assignment_taps(student)])
        self.teacher_taps = parse_taps([*taps[1], dense.outputs_tap(teacher)])

    @property
    def activated(self) -> bool:
        """Whether maps are aligned behind the activation."""
        return self.variant == 'code'

    @staticmethod
    def _check_relu(activation: object) -> None:
        if not isinstance(activation, nn.ReLU):
            raise ValueError(
                "CrossKD: variant='code' repeats what an in-place ReLU does, but the teacher's "
                f"head has {type(activation).__name__}; set variant='paper'."
            )

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        for place, (own, wanted) in self.widths.items():
            if own != wanted:  # a bias would not survive the alignment
                self.adapters[place] = ConvAdapter(own, wanted, bias=False)

    def _choose(self, kind: str, depth: int) -> None:
        """Options that were not given: those published for the head."""
        stop, classes, boxes = PUBLISHED[kind]
        published = dict(classes=classes, boxes=boxes)
        self.factors = check_factors('CrossKD', self.asked_factors, published)
        self.kind = kind
        self.stop = min(stop, depth) if self.asked_stop is None else self.asked_stop
        if self.stop not in range(depth + 1):
            raise ValueError(
                f"CrossKD: stop must be a convolution of the teacher's head, at most {depth}, or "
                f'0, found {self.stop}.'
            )

    def describe(self) -> list[str]:
        lines = [f"student features enter the teacher's {self.kind} behind convolution {self.stop}"]
        made = [adapter.describe() for adapter in self.adapters.values()]
        return lines + [f'adapters: {len(made)} x {kind}' for kind in dict.fromkeys(made)]

    def answers(self, trace: Trace) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of the teacher's head, (N, A * D, H_l, W_l) of all levels of each part: from the
        student's features, and the teacher's own."""
        model, stop = trace.teacher.model, self.stop
        own = towers.ends(trace.student, stop, self.activated)
        ends = []
        for i, maps in enumerate(towers.ends(trace.teacher, stop, self.activated)):
            seen = [self._cropped(t, trace) for t in maps]
            pairs = zip(self._adapted(i, own[i]), seen, strict=True)
            ends.append([align(s, t) for s, t in pairs])
        if stop:
            acts = towers.activations(model, stop)
            both = zip(acts, ends, strict=True)
            ends = [[act(x) for act, x in zip(*tower, strict=True)] for tower in both]
        wanted = [self._cropped(t, trace) for t in trace.teacher[dense.outputs_tap(model)]]
        return towers.carry_on(model, ends if stop else 2 * ends, stop), wanted

    def _adapted(self, tower: int, levels: list[Tensor]) -> list[Tensor]:
        """The student's maps of all levels, as wide as the teacher's."""
        each = f'{tower}_1' in self.widths
        places = [f'{tower}_{level * each}' for level in range(len(levels))]
        return [
            self.adapters[place](x) if place in self.adapters else x
            for place, x in zip(places, levels, strict=True)
        ]

    @staticmethod
    def _cropped(maps: Tensor, trace: Trace) -> Tensor:
        return crop_padding(maps, trace.teacher.inputs, trace.inputs)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        reused, wanted = self.answers(trace)
        weights, positive, count = towers.assignment(trace)
        # RetinaNet's own loss counts positives of its rank alone.
        count = (count if self.kind == 'RetinaHead' else mean_over_ranks(count)).clamp(min=1)
        model = trace.teacher.model
        sizes = predictions.level_sizes(model, wanted)
        found = class_distances(model, reused, wanted)
        classes, best = (rows(list(x), 1)[..., 0] for x in zip(*found, strict=True))
        sure = best * (weights > 0)
        total = mean_over_ranks(sure.sum()).clamp(min=1) if self.kind == 'GFLHead' else count
        codes = (predictions.box_codes(model, x, list(sizes)) for x in (reused, wanted))
        terms = dict(
            classes=(classes * weights).sum() / count,
            boxes=(sure * self._box_distance(model, *codes, sizes)).sum() / total,
        )
        losses = {f'loss_{part}': self.factors[part] * term for part, term in terms.items()}
        if self.kind == 'ATSSHead':
            third = 2 * dense_head(model).prior_generator.num_levels
            c_s, c_t = (rows(x[third:], 1)[positive] for x in (reused, wanted))
            kl = bernoulli_kl(c_s, c_t.sigmoid())
            losses['loss_centerness'] = self.factors['boxes'] * kl.sum() / count
        return losses

    def _box_distance(
        self, model: nn.Module, student: Tensor, teacher: Tensor, sizes: predictions.Sizes
    ) -> Tensor:
        """(N, P) for box codes (N, P, D); 0 where the teacher's box has no area."""
        if self.kind == 'GFLHead':
            bins = (codes.unflatten(-1, (4, -1)) for codes in (student, teacher))
            return soft_kl(*bins, 1.0).mean(-1)
        from mmdet.structures.bbox import bbox_overlaps

        boxes = [predictions.decode(model, codes, sizes, None) for codes in (student, teacher)]
        if self.kind == 'FCOSHead':
            apart = -bbox_overlaps(*boxes, mode='iou', is_aligned=True).clamp(min=1e-6).log()
        else:
            apart = 1 - bbox_overlaps(*boxes, mode='giou', is_aligned=True)
        return apart * (boxes[1][..., 2:] > boxes[1][..., :2]).all(-1)

    def views(self, trace: Trace) -> list[View]:
        """Distance of the classes, summed over them, of the worst anchor of each cell."""
        model = trace.teacher.model
        generator = dense_head(model).prior_generator
        centre = getattr(generator, 'center_offset', 0.5)
        found = class_distances(model, *self.answers(trace))
        return [
            View('class distance', apart.amax(1), stride=stride[0], centre=centre)
            for stride, (apart, _) in zip(generator.strides, found, strict=True)
        ]
