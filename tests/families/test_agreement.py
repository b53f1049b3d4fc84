"""Do the numbers of two heads mean the same?"""

from types import SimpleNamespace

import pytest
from detection_toys import detector
from torch import nn

from mmkd.families.agreement import (
    Misfit,
    both,
    check_classes,
    check_coders,
    check_priors,
    check_same,
    listed,
    named,
    uses_sigmoid,
)
from mmkd.families.dense import dense_head


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
