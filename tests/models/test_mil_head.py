"""MILRoIHead: OICR step by step, views, empty images, and what it refuses."""

import copy

import pytest
import torch
from torch.nn import functional as F

from mmkd.families import family_of, is_two_stage
from mmkd.models import MILRoIHead
from mmkd.teacher import build_model
from mmkd.testing import tiny_weak, weak_batch


def detector(**changes):
    torch.manual_seed(0)
    model = build_model(tiny_weak(4, **changes))
    with torch.no_grad():  # opinions that differ
        for layer in model.roi_head.bbox_head.branches():
            layer.weight.normal_(0, 0.5)
    return model


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def by_hand(model, inputs, samples):
    """OICR written out for one image."""
    head = model.roi_head
    boxes = samples[0].proposals.bboxes
    outputs = head.judge(model.extract_feat(inputs), [boxes]).outputs
    present = samples[0].gt_instances.labels.unique()
    phi = outputs[0].softmax(1) * outputs[1].softmax(0)
    image = phi.sum(0).clamp(1e-6, 1 - 1e-6)
    wanted = {
        'loss_mil': F.binary_cross_entropy(
            image, F.one_hot(present, 3).sum(0).float(), reduction='sum'
        )
    }
    scores = phi
    for k in range(2):
        seeds = [(int(scores[:, c].argmax()), int(c)) for c in present]
        loss, error, positives = 0.0, 0.0, 0
        deltas = head.bbox_coder
        for r, box in enumerate(boxes):
            overlaps = [float(iou(box, boxes[s])) for s, _ in seeds]
            seed, label = seeds[overlaps.index(max(overlaps))]
            weight = scores[seed, label].detach()
            hit = max(overlaps) >= 0.5
            loss = loss - weight * outputs[2 + k][r].log_softmax(0)[label if hit else 3]
            if hit:
                positives += 1
                code = deltas.encode(box[None], boxes[seed][None])[0]
                error = error + weight * F.smooth_l1_loss(outputs[-1][r], code, reduction='sum')
        wanted[f'loss_refine{k + 1}'] = loss / len(boxes)
        scores = outputs[2 + k].softmax(1)[:, :3]
    return wanted | {'loss_box': 30 / 4 * error / positives}


def iou(a, b):
    inter = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter)


def test_losses_are_those_of_oicr():
    model = detector().train()
    model.backbone.eval()
    inputs, samples = weak_batch(1)
    found, wanted = model.loss(inputs, samples), by_hand(model, inputs, samples)
    assert {*found} == {*wanted, 'images_without_proposals'}
    for key, value in wanted.items():
        assert float(found[key].detach()) == pytest.approx(float(value.detach()), rel=1e-4), key


@pytest.mark.parametrize('seeds', ['oicr', 'wsod2', 'casd'])
def test_two_images_are_the_mean_of_both_alone(seeds):
    model = detector(roi_head=dict(seeds=seeds, boxes=False)).eval()
    inputs, samples = weak_batch(2)
    both = model.loss(inputs, samples)
    alone = [model.loss(inputs[i : i + 1], samples[i : i + 1]) for i in range(2)]
    for key in ('loss_mil', 'loss_refine1', 'loss_refine2'):
        mean = (float(alone[0][key]) + float(alone[1][key])) / 2
        assert float(both[key]) == pytest.approx(mean, rel=1e-4), key


def test_every_part_learns():
    model = detector().train()
    total(model.loss(*weak_batch())).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if 'bn' not in name]


def test_boxes_of_the_ground_truth_are_never_read():
    model = detector().eval()
    inputs, samples = weak_batch()
    wanted = model.loss(inputs, copy.deepcopy(samples))
    for sample in samples:
        del sample.gt_instances.bboxes
    found = model.loss(inputs, samples)
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_an_image_without_proposals_is_counted_and_keeps_the_graph():
    model = detector().eval()
    inputs, samples = weak_batch()
    alone = model.loss(inputs[:1], samples[:1])
    samples[1].proposals = samples[1].proposals[:0]
    found = model.loss(inputs, samples)
    assert float(found['images_without_proposals']) == 1
    assert float(found['loss_mil']) == pytest.approx(float(alone['loss_mil']), rel=1e-5)
    samples[0].proposals = samples[0].proposals[:0]
    nothing = total(model.loss(inputs, samples))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert all(
        p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad
    )


def test_an_image_without_a_class_teaches_absence_alone():
    model = detector().train()
    inputs, samples = weak_batch(1, objects=0)
    found = model.loss(inputs, samples)
    assert float(found['loss_mil']) > 0
    for key in ('loss_refine1', 'loss_refine2', 'loss_box'):
        assert float(found[key].detach()) == 0 and found[key].requires_grad


def test_detections_are_the_mean_of_the_refinements():
    model = detector(roi_head=dict(boxes=False), test_cfg=None).eval()
    inputs, samples = weak_batch(1)
    samples[0].set_metainfo(dict(scale_factor=(2.0, 0.5)))
    boxes = samples[0].proposals.bboxes
    with torch.no_grad():
        outputs = model.roi_head.judge(model.extract_feat(inputs), [boxes]).outputs
        found = model.predict(inputs, copy.deepcopy(samples))[0].pred_instances
    mean = (outputs[2].softmax(1) + outputs[3].softmax(1)) / 2
    best = mean[:, :3].max()
    assert float(found.scores[0]) == pytest.approx(float(best), rel=1e-5)
    row, label = divmod(int(mean[:, :3].argmax()), 3)
    assert int(found.labels[0]) == label
    assert torch.allclose(found.bboxes[0], boxes[row] / torch.tensor([2.0, 0.5, 2.0, 0.5]))
    assert len(found.bboxes) <= 100


def test_boxes_are_moved_by_the_box_branch():
    model = detector().eval()
    inputs, samples = weak_batch(1)
    boxes = samples[0].proposals.bboxes
    with torch.no_grad():
        found = model.predict(inputs, copy.deepcopy(samples))[0].pred_instances
    assert not (found.bboxes[:, None] == boxes[None]).all(-1).any()
    assert found.bboxes[:, 2].max() <= 96 and found.bboxes[:, 3].max() <= 64  # img_shape


def test_without_refinements_detections_are_those_of_wsddn():
    model = detector(roi_head=dict(refinements=0, boxes=False)).eval()
    inputs, samples = weak_batch(2)
    with torch.no_grad():
        outputs = model.roi_head.judge(
            model.extract_feat(inputs), [s.proposals.bboxes for s in samples]
        ).outputs
        found = model.predict(inputs, copy.deepcopy(samples))
    count = len(samples[0].proposals)
    phi = outputs[0][count:].softmax(1) * outputs[1][count:].softmax(0)
    assert float(found[1].pred_instances.scores[0]) == pytest.approx(float(phi.max()), rel=1e-5)
    assert {*model.loss(inputs, samples)} == {'loss_mil', 'images_without_proposals'}


def test_it_is_a_family_of_its_own():
    model = detector()
    assert family_of(model) == 'weak' and not is_two_stage(model)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_classes=1), 'with num_classes=1 the scores of an image add up to 1'),
        (dict(refinements=0, boxes=True), 'the box branch learns from the last refinement'),
        (dict(seeds='best'), 'MILRoIHead: seeds must be one of'),
        (dict(nms='none'), 'MILRoIHead: nms must be one of'),
        (dict(width=0), 'MILRoIHead: width'),
        (dict(dropout=1.0), 'MILRoIHead: dropout'),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MILRoIHead(**(dict(num_classes=3, in_channels=4) | options))
