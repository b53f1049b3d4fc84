"""IFVD: cosine similarity of each pixel's feature to its class prototype (mean feature)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import segmentor
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

_COUNT_EPS, _COSINE_EPS = 1e-6, 1e-8


def class_similarity(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Cosine of every pixel's feature and the mean feature of its class in its image.

    All classes at once: pixels times centres (N, K, m) by matrix products, then each pixel's own.
    No map of centres (N, C, m) is built.

    Args:
        features (Tensor): (N, C, H, W), m = H * W.
        labels (Tensor): (N, H, W) long; outside of 0..classes - 1 a pixel is ignored.
        classes (int): K.

    Returns:
        Tensor: (N, H, W), in [-1, 1]; 1 where ignored.
    """
    flat = features.flatten(2)
    known = (labels >= 0) & (labels < classes)
    index = torch.where(known, labels, classes).flatten(1)[:, None]
    members = flat.new_zeros(len(flat), classes + 1, flat.shape[2]).scatter_(1, index, 1)[:, :-1]
    centres = (flat @ members.mT) / (members.sum(2)[:, None] + _COUNT_EPS)
    own = index.clamp(max=classes - 1)
    dot = (centres.mT @ flat).gather(1, own)[:, 0]
    length = centres.norm(dim=1).clamp(min=_COSINE_EPS).gather(1, own[:, 0])
    cosine = dot / (length * flat.norm(dim=1).clamp(min=_COSINE_EPS))
    return torch.where(known, cosine.view_as(labels), 1.0)


def intra_class_variation(
    student: Tensor, teacher: Tensor, labels: Tensor, classes: int, valid_only: bool = False
) -> Tensor:
    """``1 / (N m) * sum_ni (M^s_ni - M^t_ni)^2``, M as in :func:`class_similarity`.

    Args:
        student, teacher (Tensor): (N, C_s, H, W) and (N, C_t, H, W).
        labels (Tensor): (N, H, W) long.
        classes (int): K.
        valid_only (bool): divide by the number of pixels that are not ignored instead.
    """
    found, wanted = (class_similarity(x, labels, classes) for x in (student, teacher))
    total = (found - wanted).square().sum()
    if not valid_only:
        return total / labels.numel()
    return total / ((labels >= 0) & (labels < classes)).sum().clamp(min=1)


@MODELS.register_module()
class IFVD(PairObjective):
    """Intra-class feature variation distillation, the variation term.

    Wang et al., ECCV 2020, by default on the features before the classifier, whatever
    their widths. Settings of YukangWang/IFVD. The whole recipe adds ``SKDPixel`` with
    ``reduction='element_mean'`` and ``SKDHolistic`` with ``student_factor=0.01``.

    Centres are those of one image, and the student's carry gradient. Labels are resized to the map
    by nearest neighbour. Ignored pixels contribute 0 but count, as in the code.

    Args:
        weight: 200, that of the code; users quote 50 from the paper.
        mask_ignore (bool): divide by the number of pixels that are not ignored.
        ignore_index (int): the ignored label. After the first batch, in which they are an error,
            other labels beyond the classes are ignored, too.
        student, teacher, teacher_name, learner, resize, level_map: see PairObjective.

    Raises:
        ValueError: models without a decode head; no labels; a label out of range.
    """

    default_weight = 200.0
    needs_ground_truth = True
    rank_invariant = True
    adapts_width = False
    label_free = False
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, resize, level_map, learner=learner
        )
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('IFVD', 'ignore_index', ignore_index, whole=True)
        self.classes = 0

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.check_labelled('IFVD', student)
        segmentor.bind_features(self, student, teacher)
        # A head with one sigmoid output still has labels 0 and 1.
        self.classes = max(int(segmentor.decode_head(student)[0].num_classes), 2)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = [
            intra_class_variation(s, t, labels, self.classes, self.mask_ignore)
            for s, t, labels in self._labelled(trace)
        ]
        return {'loss': sum(losses)}

    def _labelled(self, trace: Trace) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(student, teacher, labels) of each pair; -1 where ignored."""
        result = []
        for s, t in self.maps(trace):
            labels = segmentor.known_labels(
                self, trace.samples, self.classes, self.ignore_index, s.shape[2:]
            )
            result.append((s, t, labels.to(s.device)))
        return result

    def views(self, trace: Trace) -> list[View]:
        """Similarity of each pixel to its class centre, of both sides."""
        views = []
        for s, t, labels in self._labelled(trace):
            for side, x in (('student', s), ('teacher', t)):
                shown = class_similarity(x, labels, self.classes).clamp(min=0)
                views.append(View('similarity to the class centre', shown, side=side, scale=1))
        return views
