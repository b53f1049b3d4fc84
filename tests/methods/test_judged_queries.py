"""JudgedQueries: the sheet's numbers, and two-stage teachers of DETRs."""

import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from query_toys import batch, distiller, losses, network
from torch.nn import functional as F

from mmkd.families import queries, two_stage
from mmkd.methods.judged_queries import JudgedQueries, judged_classes
from mmkd.teacher import build_model
from mmkd.testing import tiny_cascade_rcnn, tiny_faster_rcnn, tiny_retinanet


def judge_of(make=tiny_faster_rcnn, seed=1, **options):
    torch.manual_seed(seed)
    model = build_model(make(4, **options))
    with torch.no_grad():
        for parameter in model.roi_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_classes_of_the_sheet():  # JQ-1
    p = torch.tensor([2.0, 0, 1], dtype=torch.float64).softmax(0)[:2]
    assert p.tolist() == pytest.approx([0.6652410, 0.0900306], rel=1e-6)
    apart = judged_classes(torch.tensor([0.0, -1], dtype=torch.float64), p)
    assert float(apart) == pytest.approx(0.1866897, rel=1e-6)
    assert float(apart / p.amax()) == pytest.approx(0.2806346, rel=1e-6)


def test_the_box_that_the_teacher_makes():  # JQ-2
    head = judge_of()
    head.roi_head.bbox_head.bbox_coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    scores = torch.tensor([[0.0, 3, 0, 0]])
    deltas = torch.zeros(1, 12)
    deltas[0, 4:8] = torch.tensor([1.0, 0, 1, 0])
    head.roi_head.bbox_head.forward = lambda x: (scores, deltas)
    feats = [torch.zeros(1, 8, n, n) for n in (16, 8, 4, 2)]
    p, box = two_stage.judge(head, feats, torch.tensor([[0.0, 0, 0, 10, 10]]))
    assert box[0].tolist() == pytest.approx([-0.107014, 0, 12.107014, 10], rel=1e-5, abs=1e-5)
    assert p[0].tolist() == pytest.approx(scores.softmax(1)[0, :3].tolist())


@pytest.mark.parametrize('name', ['detr', 'deformable', 'dino', 'ddq'])
@pytest.mark.parametrize('make', [tiny_faster_rcnn, tiny_cascade_rcnn])
def test_every_term_reaches_the_student_alone(name, make):
    student, teacher = network(name), judge_of(make)
    model = distiller(student, teacher, JudgedQueries(queries=4))
    found = losses(model)
    assert set(found) == {'loss_classes', 'loss_boxes', 'loss_giou'}
    for key, value in found.items():
        student.zero_grad()
        assert value.isfinite() and float(value.detach()) > 0, key
        value.backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in student.decoder.parameters()), key
    assert not any(p.grad is not None for p in teacher.parameters())
    assert 'judges the 4 surest queries' in str(model.plan)


def test_a_step_is_the_equation_written_out():
    student, teacher = network('detr'), judge_of()
    model = distiller(student, teacher, JudgedQueries(queries=4))
    forward, seen = student.bbox_head.forward, []
    student.bbox_head.forward = lambda *a, **k: seen.append(forward(*a, **k)) or seen[-1]
    data = batch()
    found = losses(model, data)
    scores, boxes = (x[-1].detach() for x in seen[-1])
    feats = teacher.extract_feat(data[0])
    total, wanted = 0.0, dict.fromkeys(('loss_classes', 'loss_boxes', 'loss_giou'), 0.0)
    size = torch.tensor([96.0, 64, 96, 64])
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps, bbox_xyxy_to_cxcywh

    for i in range(2):
        best = scores[i].softmax(-1)[:, :-1].amax(-1).topk(4).indices
        for q in best.tolist():
            place = bbox_cxcywh_to_xyxy(boxes[i, q]) * size
            roi = torch.cat((torch.tensor([float(i)]), place))[None]
            p, target = two_stage.judge(teacher, list(feats), roi)
            share = bbox_xyxy_to_cxcywh((target[0] / size).clamp(0, 1))
            z = queries.binary_logits(student, scores[i, q])
            cross = F.binary_cross_entropy_with_logits(z, p[0], reduction='none')
            sure = float(p.max())
            total += sure
            wanted['loss_classes'] += float((cross * (z.sigmoid() - p[0]).abs()).sum())
            wanted['loss_boxes'] += 5 * sure * float((boxes[i, q] - share).abs().sum())
            corners = [bbox_cxcywh_to_xyxy(x)[None] for x in (boxes[i, q], share)]
            overlap = float(bbox_overlaps(*corners, mode='giou', eps=1e-12))
            wanted['loss_giou'] += 2 * sure * (1 - overlap)
    wanted = {key: value / total for key, value in wanted.items()}
    assert {k: float(v.detach()) for k, v in found.items()} == pytest.approx(wanted, rel=1e-3)


def test_more_are_asked_for_than_there_are():
    found = losses(distiller(network('detr'), judge_of(), JudgedQueries()))
    assert all(x.isfinite() for x in found.values())


def test_images_without_objects():
    found = losses(distiller(network('dino'), judge_of(), JudgedQueries()), batch(objects=0))
    assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


def test_weight_zero_is_stock_training():
    alone = network('dino')
    torch.manual_seed(0)
    wanted = alone(*batch(), mode='loss')
    model = distiller(network('dino'), judge_of(), JudgedQueries(weight=0))
    torch.manual_seed(0)
    found = model.loss(*batch())
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_pictures():
    model = distiller(network('detr'), judge_of(), JudgedQueries())
    from mmkd.plan.recording import record

    trace = record(model, *batch())['it']
    views = model.objectives['it'].views(trace)
    assert [view.side for view in views] == ['student', 'teacher']
    assert all(view.boxes.shape == (12, 5) and (view.scores <= 1).all() for view in views)


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('frcnn', 'frcnn', 'the student is FasterRCNN with RPNHead and the teacher FasterRCNN'),
        ('detr', 'retina', 'the teacher RetinaNet with RetinaHead'),
        ('detr', 'detr', 'the teacher DETR with DETRHead; for this pair KDDETR'),
        ('detr', 'four', "class counts: the student's head has 3 and the teacher's 4"),
    ],
)
def test_refused(student, teacher, said):
    kinds = dict(
        frcnn=judge_of,
        retina=lambda: build_model(tiny_retinanet(4)),
        four=lambda: judge_of(num_classes=4),
        detr=lambda: network('detr'),
    )
    with pytest.raises(ValueError, match=said):
        distiller(kinds[student](), kinds[teacher](), JudgedQueries())


def test_a_box_head_that_takes_more(monkeypatch):
    teacher = judge_of()
    monkeypatch.setattr(teacher.roi_head.bbox_head, 'forward', lambda features, query: None)
    with pytest.raises(ValueError, match='takes query beside them'):
        distiller(network('detr'), teacher, JudgedQueries())
