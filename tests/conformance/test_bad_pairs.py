"""Heads whose numbers do not mean the same: refused at build, and never without a way out."""

import re

import pytest
from cases import method
from detection_toys import detector
from torch import nn

from mmkd.distiller import Distiller
from mmkd.methods import names
from mmkd.teacher import Teacher

CLASSES, SIGMOID = dict(num_classes=4), dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True))
CODER = dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 0.3, 0.3]))
POINTS = dict(bbox_coder=dict(type='TBLRBBoxCoder', normalizer=4.0))


def anchors(**changes):
    own = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1, 2])
    return dict(anchor_generator=dict(own, strides=[8, 16, 32, 64, 128]) | changes)


def squares(**changes):
    return anchors(**dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0]) | changes)


COARSE = dict(strides=[8, 16, 32, 64, 256])
#: method, the student's detector, the teacher's with changes of its head, what is said
CASES = [
    ('Chen2017', 'retinanet', 'retinanet', CLASSES, 'class counts: .* 3 .* 4'),
    ('Chen2017', 'retinanet', 'retinanet', anchors(octave_base_scale=8), 'equal priors'),
    ('Chen2017', 'retinanet', 'retinanet', anchors(scales_per_octave=2), r'priors a cell: .*\[9'),
    ('Chen2017', 'retinanet', 'retinanet', anchors(**COARSE), r'strides: .* 128\] .* 256\]'),
    ('Chen2017', 'retinanet', 'retinanet', CODER, 'box coders: .*DeltaXYWH'),
    ('Chen2017', 'retinanet', 'retinanet', POINTS, 'RPN and RetinaNet heads'),
    (
        'Chen2017',
        'retinanet',
        'gfl',
        {},
        'RetinaNet with RetinaHead and the teacher GFL with GFLHead',
    ),
    ('Chen2017', 'frcnn', 'frcnn', SIGMOID, 'softmax and .* sigmoid'),
    ('GID', 'retinanet', 'retinanet', CLASSES, 'class counts: .* 3 .* 4'),
    ('GID', 'gfl', 'gfl', squares(octave_base_scale=4), 'equal priors'),
    ('GID', 'fcos', 'fcos', COARSE, r'strides: .* 128\] .* 256\]'),
    ('GID', 'fcos', 'fcos', dict(norm_on_bbox=True), 'norm_on_bbox: .* False .* True'),
    ('GID', 'fcos', 'retinanet', {}, 'kinds of box codes: .* distance .* delta'),
    ('GID', 'retinanet', 'retinanet', POINTS, 'decodes boxes'),
    ('LD', 'gfl', 'gfl', CLASSES, 'class counts: .* 3 .* 4'),
    ('LD', 'gfl', 'gfl', dict(reg_max=8), 'reg_max: .* 16 .* 8'),
    ('LD', 'gfl', 'gfl', squares(octave_base_scale=4), 'equal priors'),
    ('LD', 'gfl', 'gfl', squares(**COARSE), r'strides: .* 128\] .* 256\]'),
    ('LD', 'gfl', 'atss', {}, 'GFL with GFLHead and the teacher ATSS with ATSSHead'),
    ('KD', 'frcnn', 'frcnn', CLASSES, 'class counts: .* 3 .* 4'),
    ('KD', 'frcnn', 'frcnn', SIGMOID, 'softmax and .* sigmoid'),
    ('KD', 'frcnn', 'fcos', {}, 'of one kind, .* FCOS with FCOSHead'),
    ('DKD', 'frcnn', 'frcnn', CLASSES, 'class counts: .* 3 .* 4'),
    ('DKD', 'frcnn', 'frcnn', SIGMOID, 'softmax and .* sigmoid'),
    ('DKD', 'frcnn', 'gfl', {}, 'second stages .* GFL with GFLHead'),
    ('MimicHead', 'frcnn', 'frcnn', CLASSES, 'class counts: .* 3 .* 4'),
    ('MimicHead', 'frcnn', 'frcnn', SIGMOID, 'class scores: .* softmax .* sigmoid'),
    ('MimicHead', 'frcnn', 'frcnn', CODER, 'box coders: .*DeltaXYWH'),
    ('MimicHead', 'frcnn', 'cascade', {}, 'reg_class_agnostic: .* False .* True'),
    ('MimicHead', 'frcnn', 'retinanet', {}, 'second stages .* RetinaNet with RetinaHead'),
]


def refusal(name: str, student: nn.Module, teacher: nn.Module) -> str:
    with pytest.raises(ValueError) as error:
        Distiller(student, dict(it=method(name)()), Teacher(teacher, 'random'))
    return str(error.value)


@pytest.mark.parametrize(('name', 'student', 'teacher', 'changes', 'said'), CASES)
def test_unequal_heads(name, student, teacher, changes, said):
    """One sentence that names both sides, and other methods that can be built for the pair."""
    own, judge = detector(student), detector(teacher, **changes)
    message = refusal(name, own, judge)
    assert re.search(said, message) and message.startswith(f"objective 'it': {name}"), message
    assert 'student' in message and 'teacher' in message and message.endswith('.')
    assert not re.search(r'[.!?] +[A-Z]', message), message
    others = [n for n in names() if n != name and re.search(rf'\b{n}\b', message)]
    assert others, message
    options = dict(level_map='common') if "level_map='common'" in message else {}
    for other in others:
        Distiller(own, dict(it=method(other)(**options)), Teacher(judge, 'random'))


class OwnHead(nn.Module):
    """A head as it may come from somewhere else."""


@pytest.mark.parametrize(
    ('name', 'toy'), [('Chen2017', 'retinanet'), ('GID', 'fcos'), ('LD', 'gfl')]
)
@pytest.mark.parametrize('side', [0, 1])
def test_heads_that_are_not_known(name, toy, side):
    models = [detector(toy), detector(toy, 1)]
    models[side].bbox_head = OwnHead()
    message = refusal(name, *models)
    assert re.search(r'\bwith OwnHead\b', message), message
    assert [n for n in names() if n != name and re.search(rf'\b{n}\b', message)]


def test_a_box_head_without_boxes_or_with_queries_of_its_own(monkeypatch):
    """Grid R-CNN's box head gives classes alone, Sparse R-CNN's takes a query of each box."""
    student, teacher = detector('frcnn'), Teacher(detector('frcnn', 1), 'random')
    monkeypatch.setattr(student.roi_head.bbox_head, 'with_reg', False)
    for name in ('MimicHead', 'Chen2017'):
        with pytest.raises(ValueError, match="compares box codes, but the student's box head"):
            Distiller(student, dict(it=dict(type=f'mmkd.{name}')), teacher)
    Distiller(student, dict(it=dict(type='mmkd.KD')), teacher)
    monkeypatch.setattr(student.roi_head.bbox_head, 'forward', lambda features, query: None)
    for name in ('KD', 'MimicHead'):
        with pytest.raises(ValueError, match='takes query beside them'):
            Distiller(student, dict(it=dict(type=f'mmkd.{name}')), teacher)
