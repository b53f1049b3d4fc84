"""MatchedDetections: the sheet's numbers, and one-stage teachers of DETRs."""

import pytest
import torch
from query_toys import batch, distiller, losses, network
from torch.nn import functional as F

from mmkd.families import queries
from mmkd.functional.set_matching import assign
from mmkd.methods.matched_detections import MatchedDetections
from mmkd.plan.recording import record
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn, tiny_fcos, tiny_gfl, tiny_retinanet, tiny_yolov3

ALONE = {'loss_classes', 'loss_boxes', 'loss_giou'}


def judge_of(make=tiny_retinanet, seed=1, **options):
    """With opinions: scores that differ from cell to cell."""
    torch.manual_seed(seed)
    model = build_model(make(8, **options))
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize('name', ['detr', 'deformable', 'dino', 'ddq'])
@pytest.mark.parametrize('make', [tiny_retinanet, tiny_gfl, tiny_fcos])
def test_every_term_reaches_the_student_alone(name, make):
    student, teacher = network(name), judge_of(make)
    model = distiller(student, teacher, MatchedDetections(count=5))
    found = losses(model)
    assert set(found) == ALONE
    for key, value in found.items():
        student.zero_grad()
        assert value.isfinite() and float(value.detach()) > 0, key
        value.backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in student.decoder.parameters()), key
    assert not any(p.grad is not None for p in teacher.parameters())
    assert 'at most 5 detections of an image, with a score of 0.05' in str(model.plan)


class Known(MatchedDetections):
    """One detection of the sheet in the first image, none in the second."""

    def detections(self, trace):
        p = torch.zeros(2, 3, 2)
        p[0, 0] = torch.tensor([0.02, 0.85])
        boxes = torch.zeros(2, 3, 4)
        boxes[0, 0] = torch.tensor([0.68, 0.7, 0.4, 0.4])
        return p, boxes, torch.tensor([[True, False, False], [False] * 3]), None


def test_one_detection_finds_its_query(monkeypatch):  # HQ-1
    z = torch.tensor([[2.0, -2], [-2, 1], [-3, -3]]).expand(1, 2, -1, -1).clone().requires_grad_()
    b = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.4, 0.4], [0.6, 0.6, 0.4, 0.4]])
    b = b.expand(1, 2, -1, -1).clone().requires_grad_()
    monkeypatch.setattr(queries, 'outputs', lambda side: (z, b))
    monkeypatch.setattr(queries, 'binary_logits', lambda model, scores: scores)
    found = Known()(type('Trace', (), dict(student=type('Side', (), dict(model=None)))))
    p = torch.tensor([0.02, 0.85])
    entropy = float(F.binary_cross_entropy(p, p, reduction='sum'))
    assert float(found['loss_classes'].detach()) + entropy == pytest.approx(0.6301897, rel=1e-5)
    assert float(found['loss_boxes'].detach()) == pytest.approx(5 * 0.02, rel=1e-5)
    sum(found.values()).backward()
    assert z.grad[0, 0, 1].all()
    z.grad[0, 0, 1] = 0
    assert not z.grad.any()  # other queries, and the other image, are left alone


def test_detections_are_the_best_after_nms():
    teacher = judge_of()
    model = distiller(network('detr'), teacher, MatchedDetections(count=4, iou=0.5))
    trace = record(model, *batch())['it']
    objective = model.objectives['it']
    p, boxes, real, rois = objective.detections(trace)
    assert p.shape == (2, 4, 3) and boxes.shape == (2, 4, 4) and real.all() and len(rois) == 8
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

    size = torch.tensor([96.0, 64, 96, 64])
    for i in range(2):
        best = p[i].amax(1)
        assert (best.diff() <= 0).all() and float(best.min()) >= 0.05
        own = bbox_cxcywh_to_xyxy(boxes[i]) * size
        torch.testing.assert_close(own, rois[rois[:, 0] == i, 1:], rtol=1e-4, atol=1e-3)
        overlaps = bbox_overlaps(own, own).fill_diagonal_(0)
        assert float(overlaps.max()) <= 0.5 + 1e-5
    (view,) = objective.views(trace)
    assert view.side == 'teacher' and view.boxes.shape == (8, 5) and len(view.labels) == 8


def test_boxes_are_ordered_as_in_the_teachers_own_nms():
    """FCOS: by the score times centerness."""
    teacher = judge_of(tiny_fcos)
    model = distiller(network('detr'), teacher, MatchedDetections(count=1, score=0))
    trace = record(model, *batch())['it']
    rois = model.objectives['it'].detections(trace)[3]
    with torch.no_grad():
        own = teacher.predict(*batch(), rescale=False)
    first = torch.stack([sample.pred_instances.bboxes[0] for sample in own])
    torch.testing.assert_close(rois[rois[:, 0].argsort(), 1:], first)


def test_costs_of_the_matching_keep_no_graph(monkeypatch):
    """They hold all pairs of queries and detections of all layers."""
    from mmkd.methods import matched_detections

    costs = {}
    monkeypatch.setattr(
        matched_detections, 'assign', lambda **found: costs.update(found) or assign(**found)
    )
    losses(distiller(network('detr'), judge_of(), MatchedDetections(count=5)))
    assert costs and not any(x.requires_grad for x in costs.values())


def test_a_teacher_that_sees_nothing():
    model = distiller(network('dino'), judge_of(), MatchedDetections(score=1.0))
    found = losses(model)
    for value in found.values():
        assert float(value.detach()) == 0 and value.requires_grad


def test_more_detections_than_queries():
    found = losses(distiller(network('detr'), judge_of(), MatchedDetections(score=0, iou=1)))
    assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


def test_images_without_objects():
    found = losses(distiller(network('dino'), judge_of(), MatchedDetections()), batch(objects=0))
    assert all(x.isfinite() for x in found.values())


def test_weight_zero_is_stock_training():
    alone = network('dino')
    torch.manual_seed(0)
    wanted = alone(*batch(), mode='loss')
    model = distiller(network('dino'), judge_of(), MatchedDetections(weight=0))
    torch.manual_seed(0)
    found = model.loss(*batch())
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('retina', 'retina', 'the student is RetinaNet with RetinaHead'),
        ('detr', 'frcnn', 'FasterRCNN with RPNHead; for this pair JudgedQueries'),
        ('detr', 'detr', 'DETR with DETRHead; for this pair KDDETR'),
        ('detr', 'yolo', 'YOLOV3 with YOLOV3Head'),
        ('detr', 'four', "class counts: the student's head has 3 and the teacher's 4"),
    ],
)
def test_refused(student, teacher, said):
    kinds = dict(
        retina=judge_of,
        frcnn=lambda: build_model(tiny_faster_rcnn(4)),
        yolo=lambda: build_model(tiny_yolov3(4)),
        four=lambda: judge_of(num_classes=4),
        detr=lambda: network('detr'),
    )
    with pytest.raises(ValueError, match=said):
        distiller(kinds[student](), kinds[teacher](), MatchedDetections())
