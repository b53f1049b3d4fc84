"""Refusals: the real reason at build, and advice that works when it is followed once."""

import re

import pytest

from mmkd.analysis.fits import advised
from mmkd.distiller import Distiller
from mmkd.options import options_of
from mmkd.registry import MODELS
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    detection_batch,
    segmentation_batch,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_retinanet,
)

#: all methods on rows of logits that have a teacher, and those on pairs of logit maps
PIXELS = ('KD', 'L2Logit', 'LogitStandardization', 'NoisyTeacher', 'PRDKD', 'WSLD', 'ESKD')
MAPS = ('DIST', 'SKDPixel', 'CWD', 'TSL', 'CSCACE')


def method(name: str) -> type:
    return MODELS.get(f'mmkd.{name}')


def build(name: str, student, teacher, /, **options) -> Distiller:
    return Distiller(student, dict(it=method(name)(**options)), Teacher(teacher, 'random'))


def refusal(name: str, student, teacher, /, **options) -> str:
    with pytest.raises(ValueError) as error:
        build(name, student, teacher, **options)
    return str(error.value)


def follow(name: str, message: str, student, teacher) -> list[Distiller]:
    """Build what the message advises of the method itself, and the other methods it names."""
    kind = method(name)
    found = [build(name, student, teacher, **o) for o in advised(message, options_of(kind))]
    pair = message.partition('for this pair ')[2]
    for other, level_map in re.findall(r"\b([A-Z]\w+)( with level_map='common')?", pair):
        options = dict(level_map='common') if level_map else {}
        found.append(build(other, student, teacher, **options))
    return found


def stride_8(classes: int = 3):
    return build_model(tiny_pspnet(4, classes))


def stride_4():
    model = tiny_pspnet(4)
    model['backbone'].update(strides=(1, 1, 1, 1))
    return build_model(model)


@pytest.mark.parametrize('name', [*PIXELS, *MAPS])
def test_logit_maps_of_unequal_stride(name):
    """Told at build, with the option; what was told then works in a step."""
    message = refusal(name, stride_8(), stride_4())
    assert re.search(r'has stride 8 and .* 4; .*resize=', message), message
    options = advised(message, options_of(method(name)))
    assert dict(resize='student') in options
    for chosen in options:
        model = build(name, stride_8(), stride_4(), **chosen).train()
        losses = model(*segmentation_batch(2, (64, 96)), mode='loss')
        assert sum(v for k, v in losses.items() if k.startswith('kd.it.loss')).isfinite()


@pytest.mark.parametrize(
    ('name', 'pair', 'said'),
    [
        (
            'DKD',
            ('retina', 'retina'),
            'both are RetinaNet .*anchors, each class by a sigmoid; .*CrossKD and DenseKD compare',
        ),
        ('DIST', ('fcos', 'fcos'), 'points, each class by a sigmoid; .*CrossKD'),
        ('KD', ('frcnn', 'retina'), "classifies RoIs, and .* a sigmoid; .*level_map='common'"),
        (
            'GID',
            ('frcnn', 'retina'),
            'student FasterRCNN is an RPN, .* RetinaHead separates classes',
        ),
        ('Chen2017', ('retina', 'frcnn'), 'teacher FasterRCNN is an RPN, .* separates classes'),
        ('LSR', ('retina', 'retina'), 'each class by a sigmoid'),
        ('SimKD', ('retina', 'retina'), 'for classifiers only'),
        ('FitNet', ('frcnn', 'frcnn'), "name taps, for instance student='neck"),
        ('FSP', ('retina', 'retina'), r"name taps, for instance student=\['neck"),
    ],
)
def test_reasons_and_advice(name, pair, said):
    makes = dict(retina=tiny_retinanet, frcnn=tiny_faster_rcnn, fcos=tiny_fcos)
    student, teacher = (build_model(makes[kind]()) for kind in pair)
    message = refusal(name, student, teacher)
    assert re.search(said, message), message
    followed = follow(name, message, student, teacher)
    assert followed
    for model in followed:
        assert model.train()(*detection_batch(2, (64, 96)), mode='loss')


def test_methods_without_a_teacher():
    model = build_model(tiny_retinanet())
    with pytest.raises(
        ValueError, match='none of the methods that work without a teacher suits it'
    ):
        Distiller(model, dict(it=method('LSR')()))


def test_detectors_without_a_neck_are_compared_at_their_backbones():
    """As of Faster R-CNN with C4, whose anchors lie on one map of the backbone."""
    config = tiny_faster_rcnn()
    del config['neck']
    config['backbone'].update(out_indices=(3,))
    config['rpn_head'].update(in_channels=64)
    config['rpn_head']['anchor_generator'].update(strides=[32])
    extractor = config['roi_head']['bbox_roi_extractor']
    extractor.update(featmap_strides=[32], out_channels=64)
    config['roi_head']['bbox_head'].update(in_channels=64)
    student, teacher = build_model(config), build_model(tiny_faster_rcnn(4))
    alone = build('FGFI', student, build_model(config))
    assert str(alone.objectives['it'].student_taps[0]) == 'backbone'
    message = refusal('FGFI', student, teacher)
    assert "level_map='common'" in message
    model = build('FGFI', student, teacher, level_map='common').train()
    assert model(*detection_batch(2, (64, 96)), mode='loss')['kd.it.loss'].isfinite()
