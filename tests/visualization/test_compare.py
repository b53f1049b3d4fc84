"""Objects found and missed, and the chart."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from mmkd.visualization.compare import comparison, curves, matches
from mmkd.visualization.page import PANEL, Shown

TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)


def test_an_object_is_found_once_and_by_its_class():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [0, 20, 5, 30]], float)
    assert matches(boxes, [0, 0, 1, 0], TRUTH, [0, 1]) == 2
    assert matches(boxes, [1, 1, 0, 0], TRUTH, [0, 1]) == 0
    assert matches(np.zeros((0, 4)), [], TRUTH, [0, 1]) == 0


def test_half_an_overlap_is_needed():
    assert matches(np.array([[0, 0, 10, 5.1]]), [0], TRUTH, [0, 1]) == 1
    assert matches(np.array([[0, 0, 10, 4.9]]), [0], TRUTH, [0, 1]) == 0


def test_a_comparison_has_a_panel_for_each_model():
    sample = BaseDataElement(metainfo=dict(img_shape=(40, 60)))
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(TRUTH).float(), labels=torch.tensor([0, 1])
    )
    result = BaseDataElement()
    result.pred_instances = InstanceData(
        bboxes=torch.from_numpy(TRUTH).float(),
        labels=torch.tensor([0, 0]),
        scores=torch.tensor([0.9, 0.1]),
    )
    one = Shown(np.zeros((40, 60, 3), np.uint8), sample, 0, (40, 60), ('disc', 'ring'))
    picture = comparison([one, one], dict(student=[result] * 2, teacher=[result] * 2))
    assert picture.shape[1] == 3 * PANEL + 2 * 12


def test_curves_of_one_point_and_of_none():
    picture = curves({'teacher': {1: 10.0}, 'student': {}}, 'AP', 'epochs', (200, 100))
    assert picture.shape[1] == 200
