"""Which heads can be compared: kinds of dense heads, codes, classes and priors."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
from detection_toys import detector
from torch import nn

from mmkd.families.comparable import (
    Misfit,
    both,
    check_anchor_heads,
    check_assigner,
    check_classes,
    check_coders,
    check_comparable,
    check_decodable,
    check_priors,
    check_same,
    check_stages,
    definer,
    has_anchor_targets,
    has_codes,
    is_class_agnostic,
    is_gfl,
    is_yolov3,
    kind_of,
    listed,
    named,
    pair_priors,
    uses_sigmoid,
)
from mmkd.families.dense import dense_head
from mmkd.teacher import build_model
from mmkd.testing import tiny_yolov3


def test_lists_for_sentences():
    assert listed(['a']) == 'a'
    assert listed(['a', 'b']) == 'a and b'
    assert listed(['a', 'b', 'c'], 'or') == 'a, b or c'


def test_what_a_model_is_called():
    assert named(detector('retinanet')) == 'RetinaNet with RetinaHead'
    assert named(nn.Identity()) == 'Identity'
    assert both(nn.Identity(), detector('frcnn')) == (
        'the student is Identity and the teacher FasterRCNN with RPNHead'
    )


def test_a_misfit_may_prefer_methods():
    assert Misfit('x').prefer == ()
    assert Misfit('x', ['KD', 'DKD']).prefer == ('KD', 'DKD') and str(Misfit('x', ['KD'])) == 'x'


def test_unequal_properties_are_one_sentence():
    check_same('KD', 'widths', [1, 2], [1, 2])
    with pytest.raises(Misfit, match="^KD needs equal widths: .* has 1 and the teacher's 2.$"):
        check_same('KD', 'widths', 1, 2)
    with pytest.raises(Misfit, match="teacher's 2; set adapt='auto'.$"):
        check_same('KD', 'widths', 1, 2, "set adapt='auto'")


@pytest.mark.parametrize(
    ('head', 'sigmoid'),
    [
        (SimpleNamespace(use_sigmoid_cls=True), True),
        (SimpleNamespace(use_sigmoid_cls=False, loss_cls=SimpleNamespace(use_sigmoid=True)), False),
        (SimpleNamespace(loss_cls=SimpleNamespace(use_sigmoid=True)), True),
        (SimpleNamespace(loss_cls=nn.CrossEntropyLoss()), False),
        (SimpleNamespace(), False),
    ],
)
def test_how_classes_are_scored(head, sigmoid):
    assert uses_sigmoid(head) == sigmoid


def head(name='retinanet', **changes):
    return dense_head(detector(name, **changes))


def test_equal_heads_pass():
    for check in (check_classes, check_coders, check_priors):
        check('KD', head(), head())


@pytest.mark.parametrize(
    ('check', 'teacher', 'said'),
    [
        (check_classes, dict(num_classes=4), 'class counts'),
        (
            check_coders,
            dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 0.3, 0.3])),
            r'box coders: .*stds=\(1.0, .*stds=\(0.5',
        ),
        (check_coders, dict(reg_decoded_bbox=True), 'reg_decoded_bbox: .* False .* True'),
        (check_priors, dict(anchor_generator=dict(octave_base_scale=8)), 'differ in size or place'),
        (check_priors, dict(anchor_generator=dict(ratios=[1.0])), 'priors a cell'),
    ],
)
def test_unequal_heads(check, teacher, said):
    with pytest.raises(Misfit, match=said):
        check('KD', head(), head(**teacher))


def test_scores_by_sigmoid_and_by_softmax():
    other = head()
    other.use_sigmoid_cls = False
    with pytest.raises(Misfit, match='class scores: .* sigmoid .* softmax'):
        check_classes('KD', head(), other)


def test_points_are_no_anchors():
    with pytest.raises(Misfit, match='kinds of priors: .* AnchorGenerator .* MlvlPointGenerator'):
        check_priors('KD', head(), head('fcos'))


def test_a_head_without_boxes():
    second = SimpleNamespace(with_reg=False)
    with pytest.raises(Misfit, match="the teacher's box head gives none"):
        check_coders('Chen2017', head(), second)
    with pytest.raises(Misfit, match="the student's box head gives none"):
        check_coders('Chen2017', second, head())


KINDS = {
    'frcnn': 'delta',
    'retinanet': 'delta',
    'atss': 'delta',
    'paa': 'delta',
    'gfl': 'distribution',
    'fcos': 'distance',
}
#: whose boxes are not made from a prior and a code alone
OWN_KINDS = {'vfnet': 'pixels', 'rtmdet': 'pixels', 'yolox': 'yolox', 'tood': 'decoded'}
POINTS = dict(bbox_coder=dict(type='TBLRBBoxCoder', normalizer=4.0))


@pytest.mark.parametrize('name', KINDS)
def test_how_boxes_are_coded(name):
    model = detector(name)
    assert kind_of(model) == KINDS[name] and has_codes(model)
    assert has_anchor_targets(model) == (name in ('frcnn', 'retinanet'))
    assert is_gfl(model) == (name == 'gfl')
    assert is_class_agnostic(model) == (name == 'frcnn')
    assert not is_yolov3(model)


@pytest.mark.parametrize('name', OWN_KINDS)
def test_heads_with_a_forward_of_their_own(name):
    model = detector(name)
    assert kind_of(model) == OWN_KINDS[name] and not has_codes(model)
    assert not has_anchor_targets(model) and not is_gfl(model)
    with pytest.raises(Misfit, match='GID decodes boxes'):
        check_decodable('GID', model, model)
    model.bbox_head.__class__ = type('Own', (type(model.bbox_head),), dict(forward=len))
    assert kind_of(model) is None


LEVELS = [(i, i) for i in range(5)]


@pytest.mark.parametrize(
    ('student', 'teacher', 'pairs'),
    [
        ('retinanet', 'retinanet', LEVELS),
        ('gfl', 'atss', LEVELS),
        ('vfnet', 'gfl', LEVELS),
        ('tood', 'paa', LEVELS),
        ('rtmdet', 'yolox', LEVELS[:3]),
    ],
)
def test_priors_at_one_place(student, teacher, pairs):
    assert pair_priors('DenseKD', head(student), head(teacher)) == pairs


def test_priors_of_common_levels():
    assert pair_priors('DenseKD', head('gfl'), head('rtmdet'), True) == LEVELS[:3]
    assert pair_priors('DenseKD', head('rtmdet'), head('gfl'), True) == LEVELS[:3]
    with pytest.raises(Misfit, match=r"strides: .* \[8, 16, 32, 64, 128\] .*level_map='common'"):
        pair_priors('DenseKD', head('gfl'), head('rtmdet'), False)
    with pytest.raises(Misfit, match=r'strides: .* \[8, 16, 32\]\.$'):
        pair_priors('KD', head('gfl'), head('rtmdet'))


def test_priors_over_scales():
    """Levels that cover the same pixels of the teacher's images, whatever level_map is."""
    half, up = Fraction(1, 2), [(0, 1), (1, 2), (2, 3), (3, 4)]
    for name in ('retinanet', 'gfl', 'fcos'):
        assert pair_priors('KD', head(name), head(name), None, half) == up
        assert pair_priors('KD', head(name), head(name), True, 1 / half) == [p[::-1] for p in up]
    assert pair_priors('DenseKD', head('rtmdet'), head('gfl'), False, half) == up[:3]
    assert pair_priors('DenseKD', head('yolox'), head('yolox'), False, half**2) == [(0, 2)]
    for scale in (Fraction(1, 3), Fraction(3, 4), Fraction(1, 64)):
        with pytest.raises(Misfit, match='KD over scales needs priors that are the same boxes'):
            pair_priors('KD', head('gfl'), head('gfl'), None, scale)
    with pytest.raises(
        Misfit, match=r'first of stride 16 of .* at \[0.0, 0.0\], .* at \[8.0, 8.0\]'
    ):
        pair_priors('KD', head('gfl'), head('fcos'), None, half)


@pytest.mark.parametrize(
    ('student', 'teacher', 'changes', 'said'),
    [
        ('retinanet', 'gfl', {}, 'priors a cell of stride 8: .* 9 and .* 1'),
        ('gfl', 'fcos', {}, r'first of stride 8 of .* at \[0.0, 0.0\], .* at \[4.0, 4.0\]'),
        (
            'retinanet',
            'retinanet',
            dict(anchor_generator=dict(octave_base_scale=8)),
            'first of stride 8 of the student',
        ),
    ],
)
def test_priors_at_other_places(student, teacher, changes, said):
    with pytest.raises(Misfit, match=said):
        pair_priors('DenseKD', head(student), head(teacher, **changes), False)


@pytest.mark.parametrize(
    'model', [nn.Identity(), build_model(tiny_yolov3(4))], ids=['none', 'yolo']
)
def test_other_heads_are_unknown(model):
    assert kind_of(model) is None
    assert not has_anchor_targets(model) and not is_gfl(model) and not is_class_agnostic(model)
    assert is_yolov3(model) == (type(model).__name__ == 'YOLOV3')


def test_changed_heads_are_unknown():
    assert kind_of(detector('retinanet', **POINTS)) is None
    softmax = detector('retinanet')
    softmax.bbox_head.use_sigmoid_cls = False
    assert kind_of(softmax) is None


def test_a_head_with_a_way_of_its_own_is_unknown():
    model = detector('retinanet')

    class Own(type(model.bbox_head)):
        def _predict_by_feat_single(self):
            pass

    model.bbox_head.__class__ = Own
    assert definer(model.bbox_head, '_predict_by_feat_single').startswith('test_a_head')
    assert kind_of(model) is None


def test_who_defines_a_method():
    head = detector('gfl').bbox_head
    assert definer(head, 'forward_single') == 'GFLHead'
    assert definer(head, 'predict_by_feat') == 'BaseDenseHead'
    assert definer(head, 'nothing') == definer(None, 'forward') == ''


def test_boxes_must_be_decodable():
    known, other = detector('fcos'), detector('retinanet', **POINTS)
    check_decodable('GID', known, known)
    check_decodable('GID', known, other, 'student')
    with pytest.raises(Misfit, match='GID decodes boxes, which .* teacher RetinaNet'):
        check_decodable('GID', known, other)
    with pytest.raises(Misfit, match='GID decodes boxes of the teacher, which'):
        check_decodable('GID', known, other, 'teacher')


def test_an_assigner_that_looks_at_predictions():
    for name in ('retinanet', 'atss', 'fcos'):
        check_assigner('LD', detector(name))
    model = detector('retinanet')
    model.bbox_head.assigner = nn.Identity()
    with pytest.raises(Misfit, match='LD asks the assigner .* the Identity of .* RetinaNet uses'):
        check_assigner('LD', model)


@pytest.mark.parametrize(
    ('check', 'student', 'teacher', 'said'),
    [
        (check_stages, 'frcnn', 'retinanet', 'of the student FasterRCNN is an RPN, .* RetinaHead'),
        (check_stages, 'gfl', 'frcnn', 'of the teacher FasterRCNN is an RPN, .* GFLHead separates'),
        (check_anchor_heads, 'retinanet', 'atss', 'works with RPN and RetinaNet heads'),
        (check_anchor_heads, 'retinanet', 'frcnn', 'is an RPN'),
        (check_comparable, 'retinanet', 'frcnn', 'is an RPN'),
        (check_comparable, 'retinanet', 'fcos', 'kinds of box codes: .* delta .* distance'),
    ],
)
def test_heads_that_cannot_be_compared(check, student, teacher, said):
    with pytest.raises(Misfit, match=said):
        check('Chen2017', detector(student), detector(teacher))


@pytest.mark.parametrize('name', KINDS)
def test_a_head_can_be_compared_with_its_like(name):
    check_comparable('GID', detector(name), detector(name, 1))
    check_stages('GID', detector(name), detector(name, 1))
