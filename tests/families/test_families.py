"""What differs between model families, asked of real models."""

import pytest
import torch
from mmengine.structures import InstanceData

from mmkd.families import dense, family_of, segmentor, two_stage
from mmkd.teacher import build_model
from mmkd.testing import (
    ToyNet,
    boxes,
    detection_batch,
    label_maps,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_retinanet,
)


@pytest.mark.parametrize(
    ('make', 'family'),
    [
        (lambda: build_model(tiny_faster_rcnn(4)), 'two_stage'),
        (lambda: build_model(tiny_retinanet(4)), 'anchor'),
        (lambda: build_model(tiny_fcos(4)), 'anchor_free'),
        (lambda: build_model(tiny_detr(4)), 'detr'),
        (lambda: build_model(tiny_pspnet(4)), 'segmentor'),
        (ToyNet, 'classifier'),
        (lambda: torch.nn.Identity(), 'other'),
    ],
)
def test_families_are_told_by_parts(make, family):
    assert family_of(make()) == family


# ---------------------------------------------------------------------------------------- dense


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
    from mmdet.structures.bbox import HorizontalBoxes

    samples = boxes([[0, 0, 5, 5]])
    samples[0].gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]])), labels=torch.zeros(1).long()
    )
    assert dense.ground_truth(samples, torch.device('cpu'))[0].tolist() == [[1, 2, 3, 4]]


# ------------------------------------------------------------------------------------- two stages


def test_addresses_of_the_first_stage():
    model = build_model(tiny_faster_rcnn(4))
    assert two_stage.box_head(model) is model.roi_head.bbox_head
    assert two_stage.rois_tap(model) == 'roi_head.bbox_roi_extractor@in[1]'
    assert two_stage.box_head_tap(model) == 'roi_head.bbox_head'
    model.roi_head.bbox_head = torch.nn.ModuleList([model.roi_head.bbox_head, torch.nn.Identity()])
    assert two_stage.box_head_tap(model) == 'roi_head.bbox_head.0'
    assert two_stage.box_head(model) is model.roi_head.bbox_head[0]


def test_judging_given_rois_equals_the_models_own_pass():
    model = build_model(tiny_faster_rcnn(4)).eval()
    inputs, _ = detection_batch()
    rois = torch.tensor([[0, 4.0, 4, 40, 40], [1, 0, 0, 90, 60]])
    with torch.no_grad():
        feats = model.extract_feat(inputs)
        wanted = model.roi_head._bbox_forward(feats, rois)
    scores, deltas = two_stage.roi_outputs(model, list(feats), rois)
    torch.testing.assert_close(scores, wanted['cls_score'])
    torch.testing.assert_close(deltas, wanted['bbox_pred'])
    low = two_stage.roi_outputs(model.bfloat16(), [f.bfloat16() for f in feats], rois)
    assert low[0].dtype == torch.float32
    torch.testing.assert_close(low[0], scores, rtol=0.1, atol=0.05)


# -------------------------------------------------------------------------------------- segmentors


def test_addresses_in_a_segmentor():
    model = build_model(tiny_pspnet(4, auxiliary=True))
    assert segmentor.logits_tap(model) == 'decode_head.conv_seg'
    assert segmentor.feature_tap(model) == 'decode_head.dropout@in[0]'
    assert segmentor.auxiliary_tap(model) == 'auxiliary_head.conv_seg'
    assert segmentor.auxiliary_tap(build_model(tiny_pspnet(4))) is None
    model.decode_head = torch.nn.ModuleList([torch.nn.Identity(), model.decode_head])
    assert segmentor.logits_tap(model) == 'decode_head.1.conv_seg'


def test_classes_count_output_channels():
    assert segmentor.classes(build_model(tiny_pspnet(4))) == 3
    binary = tiny_pspnet(4, num_classes=2, decode_head=dict(out_channels=1, threshold=0.3))
    assert segmentor.classes(build_model(binary)) == 1


def test_valid_pixels_are_resized_by_nearest_neighbour():
    labels = torch.zeros(2, 4, 4).long()
    labels[0, :2] = 255
    samples = label_maps(labels)
    assert torch.equal(segmentor.labels(samples), labels)
    valid = segmentor.valid_pixels(samples, (2, 2))
    assert valid.tolist() == [[[False, False], [True, True]], [[True, True], [True, True]]]
    assert segmentor.valid_pixels(samples, (2, 2), ignore_index=0).sum() == 2
    with pytest.raises(ValueError, match='Segmentation labels are needed'):
        segmentor.labels(boxes([]))
