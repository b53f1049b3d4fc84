"""OD200F: outputs of YOLOv3 after feature-map NMS, weighted by the teacher's objectness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import dense
from mmkd.families.comparable import (
    Misfit,
    both,
    check_classes,
    check_coders,
    is_yolov3,
)
from mmkd.families.dense import dense_head
from mmkd.functional.logit_distances import bernoulli_kl
from mmkd.functional.padding import crop_padding
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import View

#: channels of a candidate, classes behind them
XY, WH, OBJECT, CLASSES = slice(0, 2), slice(2, 4), slice(4, 5), slice(5, None)


def fm_nms(objectness: Tensor, classes: Tensor, window: int = 3) -> Tensor:
    """Feature-map NMS: candidates without a stronger neighbour of their class, bool.

    All are compared at once, so that a suppressed one still suppresses weaker ones. Of equals the
    first stays, cell by cell and anchor by anchor.

    Args:
        objectness (Tensor): (N, A, H, W).
        classes (Tensor): (N, A, K, H, W); a candidate's class is the largest.
        window (int): odd number of cells, sideways and upwards; other anchors of the same cell
            are always close by; 0 keeps all.
    """
    if not window:
        return torch.ones_like(objectness, dtype=torch.bool)
    n, a, h, w = objectness.shape
    order = objectness.permute(0, 2, 3, 1).flatten(1).argsort(dim=1, descending=True, stable=True)
    # Ranks, since objectness has ties; exact in float32 up to 16 million candidates an image.
    score = -order.argsort(1).float().view(n, h, w, a).permute(0, 3, 1, 2)
    label = classes.argmax(2)
    strongest = score.new_full((n, classes.shape[2], h, w), -torch.inf)
    strongest = strongest.scatter_reduce(1, label, score, 'amax')
    close = F.max_pool2d(strongest, window, stride=1, padding=window // 2)
    return score >= close.gather(1, label)


def activate(x: Tensor) -> Tensor:
    """Logits (N, A, 5 + K, H, W) as numbers: sigmoid of all but width and height."""
    return torch.cat((x[:, :, XY].sigmoid(), x[:, :, WH], x[:, :, 4:].sigmoid()), 2)


def squared(student: Tensor, wanted: Tensor) -> Tensor:
    """``(sigmoid(z) - q)^2`` element by element."""
    return (student.sigmoid() - wanted).square()


def distances(student: Tensor, wanted: Tensor, f: str = 'l2') -> dict[str, Tensor]:
    """Distance of each candidate, (N, A, H, W), of its place, size, objectness and classes.

    Args:
        student (Tensor): logits, (N, A, 5 + K, H, W).
        wanted (Tensor): the same of the teacher, activated.
        f (str): ``'l2'``: squares of activated values; ``'head'``: KL in their place.
    """
    f_of = squared if f == 'l2' else bernoulli_kl
    parts = dict(xy=XY, objectness=OBJECT, classes=CLASSES)
    found = {k: f_of(student[:, :, c], wanted[:, :, c]).sum(2) for k, c in parts.items()}
    return found | {'wh': (student[:, :, WH] - wanted[:, :, WH]).square().sum(2)}


def equal_levels(student: nn.Module, teacher: nn.Module) -> list[tuple[int, int]]:
    """Levels (i, j) of two YOLOv3 heads of equal stride, for all of the student's.

    Raises:
        Misfit: a stride that the teacher does not have, or has with other anchors.
    """
    own, other = (head.prior_generator for head in (student, teacher))
    strides = [[s[0] for s in generator.strides] for generator in (own, other)]
    if not set(strides[0]) <= set(strides[1]):
        raise Misfit(
            f"OD200F compares levels of equal stride, but the student's head has "
            f"{strides[0]} and the teacher's {strides[1]}. Build the teacher with the student's "
            'strides, or the student with some of its.'
        )
    pairs = [(i, strides[1].index(stride)) for i, stride in enumerate(strides[0])]
    for i, j in pairs:
        anchors = [generator.base_sizes[k] for generator, k in ((own, i), (other, j))]
        if list(map(tuple, anchors[0])) != list(map(tuple, anchors[1])):
            raise Misfit(
                f'OD200F needs equal anchors: at stride {strides[0][i]} those of the student are '
                f'{anchors[0]} and those of the teacher {anchors[1]}. Write base_sizes of equal '
                'strides alike into both configs.'
            )
    return pairs


@MODELS.register_module()
class OD200F(Objective):
    """Object detection at 200 frames per second, for YOLOv3 heads.

    Mehta and Ozturk, ECCV Workshops 2018; there is no public code. The teacher's maps first pass a
    non-maximum suppression on the map (FM-NMS): of neighbours of one class the one with the largest
    objectness ``o_t`` stays. Classes and boxes are weighted by ``o_t``, so that background
    contributes to neither. Sums over cells and anchors, mean over images:

    * ``loss_objectness``: ``f(o_t, o)``.
    * ``loss_classes``: ``o_t f(p_t, p)``.
    * ``loss_boxes``: ``o_t f(b_t, b)``, x and y activated, width and height as predicted.

    mmdet's YOLOv3 sums its own losses over the images of a batch; beside them the paper's balance
    of 1 : 1 is a ``weight`` of as many images as one process sees at once.

    Levels are paired by stride, each with its own FM-NMS, so that a student of two scales
    (``mmkd.TinyDarknet``) listens to two of its teacher's three. No term reads the ground truth:
    images without labels teach as well, see ``mmkd.MixedSampler``.

    Args:
        window (int): side of the neighbourhood in cells, odd; with 1 the anchors of one cell are
            neighbours; 0 is no FM-NMS.
        obj_thr (float): teacher's candidates of less objectness are treated as suppressed.
        f (str): ``'l2'``, squares, as the paper; ``'head'``, mmdet's cross entropy (less that
            of the teacher with itself) with squares of width and height, and the weights that the
            student's head gives to its parts.
        suppress_obj (bool): suppressed candidates are background for the objectness, too; ``False``
            keeps the teacher's whole map for that.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            the head's whatever is given.

    Raises:
        ValueError: options out of range; other heads than YOLOv3's; unequal classes, box coders, or
            anchors of a stride that the teacher has, or a stride that it does not have.
    """

    zero_at_equality = False
    rank_invariant = True
    label_free = True
    families = ('yolo',)
    only = {'yolo': ('YOLOV3',)}

    def __init__(
        self,
        *taps: Taps,
        window: int = 3,
        obj_thr: float = 0.0,
        f: str = 'l2',
        suppress_obj: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.window = check_number('OD200F', 'window', window, 0, whole=True)
        if self.window and self.window % 2 == 0:
            raise ValueError(f'OD200F: window must be an odd number of cells, found {window}.')
        self.obj_thr = check_number('OD200F', 'obj_thr', obj_thr, 0, 1)
        self.suppress_obj = suppress_obj
        self.f = check_choice('OD200F', 'f', f, ('l2', 'head'))
        #: levels of student and teacher of equal stride
        self.pairs: list[tuple[int, int]] = []

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if not (is_yolov3(student) and is_yolov3(teacher)):
            raise Misfit(
                f"OD200F needs the objectness of YOLOv3's heads, but {both(student, teacher)}."
            )
        heads = [dense_head(model) for model in (student, teacher)]
        check_classes('OD200F', *heads)
        self.pairs = equal_levels(*heads)
        check_coders('OD200F', *heads, per_class=False)
        taps = [parse_taps(dense.outputs_tap(model)) for model in (student, teacher)]
        self.student_taps, self.teacher_taps = taps

    def candidates(self, trace: Trace) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each level the student's logits and the teacher's numbers, (N, A, 5 + K, H, W), and
        which of the teacher's stay, (N, A, H, W) bool."""
        anchors = dense_head(trace.student.model).num_base_priors
        own = [x for tap in self.student_taps for x in trace.student[tap]]
        others = trace.teacher[self.teacher_taps[0]]
        levels = []
        for i, j in self.pairs:
            teacher = crop_padding(others[j].detach(), trace.teacher.inputs, trace.inputs)
            student, teacher = (x.unflatten(1, (anchors, -1)) for x in (own[i], teacher))
            wanted = activate(teacher)
            objectness = wanted[:, :, 4]
            stay = fm_nms(objectness, wanted[:, :, CLASSES], self.window)
            levels.append((student, wanted, stay & (objectness >= self.obj_thr)))
        return levels

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        head = dense_head(trace.student.model)
        parts = dict(xy='xy', wh='wh', objectness='conf', classes='cls')
        sums = {}
        for student, wanted, stay in self.candidates(trace):
            scale = wanted[:, :, 4] * stay
            if self.suppress_obj:
                wanted = torch.cat((wanted[:, :, :4], scale[:, :, None], wanted[:, :, CLASSES]), 2)
            for part, apart in distances(student, wanted, self.f).items():
                own = getattr(head, f'loss_{parts[part]}').loss_weight if self.f == 'head' else 1.0
                term = own * (apart if part == 'objectness' else scale * apart).sum()
                sums[part] = sums.get(part, 0.0) + term / len(student)
        boxes = sums.pop('xy') + sums.pop('wh')
        return {f'loss_{part}': term for part, term in sums.items()} | {'loss_boxes': boxes}

    def views(self, trace: Trace) -> list[View]:
        """The teacher's objectness, of the best anchor of each cell, before and after FM-NMS."""
        strides = dense_head(trace.student.model).featmap_strides
        views = []
        own = [strides[i] for i, _ in self.pairs]
        for (_, wanted, stay), stride in zip(self.candidates(trace), own, strict=True):
            maps = {
                'objectness': wanted[:, :, 4],
                'objectness after FM-NMS': wanted[:, :, 4] * stay,
            }
            for title, x in maps.items():
                views.append(View(title, x.amax(1), side='teacher', stride=stride))
        return views
