"""Class logits as rows: what is judged, where, and which rows count."""

import pytest
import torch

from mmkd.families.comparable import Misfit
from mmkd.methods.kd import KD
from mmkd.methods.lsr import LSR
from mmkd.rows import logits
from mmkd.rows.logits import (
    Rows,
    bind_images,
    bind_rows,
    check_kinds,
    check_more_than_two,
    class_count,
    object_rows,
    rows,
)
from mmkd.teacher import build_model
from mmkd.testing import (
    label_maps,
    make_trace,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_retinanet,
)


@pytest.fixture(scope='module')
def models():
    """A model of each kind that judges by a softmax, and of others."""
    return dict(
        rois=build_model(tiny_faster_rcnn(4)),
        pixels=build_model(tiny_pspnet(4)),
        images=build_model(tiny_classifier(4)),
        anchors=build_model(tiny_retinanet(4)),
        points=build_model(tiny_fcos(4)),
        queries=build_model(tiny_detr(4)),
    )


@pytest.mark.parametrize('kind', ['rois', 'pixels', 'images'])
def test_what_is_judged(models, kind):
    model, objective = models[kind], KD()
    assert bind_rows(objective, model, model) == kind
    assert class_count(model, kind) == (4 if kind == 'rois' else 3), 'background is a class'
    taps = [str(tap) for tap in objective.student_taps]
    assert (
        taps[0]
        == dict(rois='roi_head.bbox_head', pixels='decode_head.conv_seg', images='head.fc')[kind]
    )
    alone = LSR()
    assert bind_rows(alone, model, None) == kind and not alone.teacher_taps


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        (
            'rois',
            'pixels',
            'but the student is FasterRCNN with RPNHead, which classifies RoIs, and',
        ),
        (
            'anchors',
            'anchors',
            'both are RetinaNet .*, which classifies anchors, each class by a sig',
        ),
        (
            'points',
            'images',
            'classifies points, each class by a sigmoid, and the teacher is Classif',
        ),
        ('queries', 'queries', 'classifies queries, which each network orders in its own way'),
    ],
)
def test_what_cannot_be_compared(models, student, teacher, said):
    with pytest.raises(Misfit, match=f'KD needs softmax class scores of one kind, .*{said}'):
        check_kinds('KD', models[student], models[teacher])


def test_kinds_may_be_fewer(models):
    with pytest.raises(Misfit, match='of RoIs or images, but both are EncoderDecoder'):
        check_kinds('DKD', models['pixels'], models['pixels'], ('rois', 'images'))


def test_images_alone(models):
    bind_images(KD(), models['images'], models['images'])
    with pytest.raises(Misfit, match='KD is for classifiers of images, but the student is Encoder'):
        bind_images(KD(), models['pixels'], models['pixels'])


def test_of_two_outputs_the_other_has_no_rival(models):
    check_more_than_two('DKD', models['images'], 'images', 1.0)
    two = build_model(tiny_classifier(4, num_classes=2))
    check_more_than_two('DKD', two, 'images', 0.0)
    with pytest.raises(ValueError, match='DKD: of two outputs only one is left .* set beta=0'):
        check_more_than_two('DKD', two, 'images', 1.0)


def test_rows_of_pixels_are_those_with_a_label(models):
    torch.manual_seed(0)
    objective = KD()
    bind_rows(objective, models['pixels'], models['pixels'])
    labels = torch.tensor([[[0, 255, 2, 1]], [[255, 1, 255, 0]]]).repeat_interleave(2, 1)
    maps = torch.randn(2, 2, 3, 2, 4)
    tap = 'decode_head.conv_seg'
    trace = make_trace({tap: maps[0]}, {tap: maps[1]}, label_maps(labels), stride=1)
    found = rows(trace, objective, 'pixels')
    keep = labels != 255
    assert torch.equal(found.target, labels[keep])
    for own, x in zip(found[:2], maps, strict=True):
        assert torch.equal(own, x.permute(0, 2, 3, 1)[keep])
    labels.fill_(255)
    none = rows(
        make_trace({tap: maps[0]}, {tap: maps[1]}, label_maps(labels), stride=1),
        objective,
        'pixels',
    )
    assert [len(x) for x in none] == [0, 0, 0]


def test_object_rows_leave_background_out(monkeypatch):
    scores, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    monkeypatch.setattr(logits, 'rows', lambda *_: Rows(scores, 2 * scores, target))
    found = object_rows(None, None, 'rois')
    assert torch.equal(found.student, scores[[0, 2]]) and found.target.tolist() == [0, 1]
    assert object_rows(None, None, 'images').target is target
