"""Logits of three images of three classes, and a step that shows them to an objective."""

from unittest import mock

import torch
from segmentation_toys import ToyClassifier, prepare
from torch import Tensor
from torch.nn import functional as F

from mmkd.objective import Objective
from mmkd.rows import logits
from mmkd.testing import class_labels, make_trace

ZS = torch.tensor([[1, 2, 3], [0.5, -0.5, 0], [0, 1, -1]], dtype=torch.float64)
ZT = torch.tensor([[2, 1, 4], [1, 0, -1], [-1, 3, 0]], dtype=torch.float64)
Y = torch.tensor([2, 0, 1])
CE = F.cross_entropy(ZS, Y)

#: RoIs of a detector of two classes: three on objects, two on background
ROI_SCORES = torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 0, 9], [1, 0, 0], [5, 5, 5]])
ROI_LABELS, ON_OBJECTS = torch.tensor([0, 1, 2, 0, 2]), [0, 1, 3]


def images(
    objective: Objective,
    student: Tensor = ZS,
    teacher: Tensor = ZT,
    labels: Tensor = Y,
    progress: float = 0.0,
) -> dict[str, Tensor]:
    """The objective's losses of a batch of images with these logits."""
    classes = student.shape[1]
    models = ToyClassifier(classes), ToyClassifier(classes)
    prepare(objective, *models)
    trace = make_trace(
        {'head.fc': student},
        {'head.fc': teacher} if objective.needs_teacher else None,
        samples=class_labels(labels),
        progress=progress,
    )
    return objective(trace)


def on_rois(
    objective: Objective, scores: Tensor = ROI_SCORES, labels: Tensor = ROI_LABELS
) -> Tensor:
    """As on a two-stage detector of two classes, whose background is the last column."""
    objective.kind = 'rois'
    objective.classes = 2
    trace = make_trace({'x': scores})
    with mock.patch.object(logits, 'rows', return_value=logits.Rows(scores, scores, labels)):
        return objective(trace)['loss']


def on_background(objective: Objective) -> Tensor:
    """The loss where every RoI is background."""
    return on_rois(objective, ROI_SCORES.clone().requires_grad_(), torch.full((5,), 2))
