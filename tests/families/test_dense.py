"""Priors, strides and ground truth of dense heads."""

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmkd.distiller import Distiller
from mmkd.families import dense
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, boxes, tiny_faster_rcnn, tiny_fcos, tiny_retinanet


def test_anchors_are_the_heads_own_in_its_order():
    model = build_model(tiny_retinanet(4))
    sizes = [(8, 12), (4, 6)]
    found = dense.anchors(model, sizes, [8, 16], torch.device('cpu'))
    generator = model.bbox_head.prior_generator
    for level, (size, anchors) in enumerate(zip(sizes, found, strict=True)):
        wanted = generator.single_level_grid_priors(size, level, device='cpu')
        assert anchors.shape == (size[0] * size[1], 6, 4)
        assert torch.equal(anchors.reshape(-1, 4), wanted)
    swapped = dense.anchors(model, sizes[::-1], [16, 8], torch.device('cpu'))
    assert torch.equal(swapped[0], found[1])


def test_which_head_has_the_priors():
    model = build_model(tiny_faster_rcnn(4))
    assert dense.dense_head(model) is model.rpn_head
    assert dense.anchor_strides(model) == [4, 8, 16, 32, 64]
    assert dense.anchor_strides(build_model(tiny_fcos(4))) is None
    assert dense.dense_head(ToyNet()) is None


def test_ground_truth_is_flat_and_without_degenerate_boxes():
    samples = boxes(
        [[0, 0, 5, 5], [3, 3, 3, 9], [9, 9, 2, 20]], [], [[1, 1, 4, float('inf')], [1, 2, 3, 4]]
    )
    found, labels, images = dense.ground_truth(samples, torch.device('cpu'))
    assert found.tolist() == [[0, 0, 5, 5], [1, 2, 3, 4]]
    assert labels.tolist() == [0, 1] and images.tolist() == [0, 2]


def test_boxes_may_be_mmdet_box_structures():

    samples = boxes([[0, 0, 5, 5]])
    samples[0].gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]])), labels=torch.zeros(1).long()
    )
    assert dense.ground_truth(samples, torch.device('cpu'))[0].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ('own', 'seen', 'levels'),
    [
        ([550 / n for n in (69, 35, 18, 9, 5)], [8, 16, 32, 64, 128], [0, 1, 2, 3, 4]),  # YOLACT
        ([8, 16, 32, 64, 100, 300], [8, 16, 30, 60, 100, 300], [0, 1, 2, 3, 4, 5]),  # SSD at 300
        ([8, 16, 32], [16, 8], [1, 0]),
        ([16], [4], None),
        ([8, 16], [0, 8], None),
        ([10], [9, 11], None),
    ],
)
def test_levels_of_anchors_are_those_nearest(own, seen, levels):
    assert dense.nearest_levels(own, seen) == levels


def test_anchors_of_uneven_strides():
    config = tiny_retinanet()
    config['bbox_head']['anchor_generator'].update(strides=[7.97, 15.7, 30.6, 61.1, 110.0])
    model = build_model(config)
    (found,) = dense.anchors(model, [(2, 3)], [16], torch.device('cpu'))
    own = model.bbox_head.prior_generator
    assert torch.equal(found.flatten(0, 1), own.single_level_grid_priors((2, 3), 1, device='cpu'))
    objective = dict(it=dict(type='mmkd.FGFI'))
    Distiller(model, objective, Teacher(build_model(tiny_retinanet(4)), 'random'))
