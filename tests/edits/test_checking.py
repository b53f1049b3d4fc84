"""Two networks are compared by what their parts give for one image."""

import pytest
import torch
from torch import nn

from mmkd.edits.checking import check_shapes, largest_difference, outputs, same_outputs
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier, tiny_faster_rcnn, tiny_pspnet


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    return build_model(tiny_faster_rcnn(4))


def test_every_part_is_looked_at(detector):
    size, found = outputs(detector)
    assert size == 256 and set(found) == {'backbone', 'neck', 'rpn_head', 'roi_head'}
    assert all(tensors for tensors in found.values())
    assert 'predict' not in vars(detector.rpn_head) and detector.training
    assert same_outputs(detector, detector) == (0, '')


def test_box_heads_see_the_same_boxes_whatever_the_rpn_says(detector):
    before = outputs(detector)[1]
    with torch.no_grad():
        detector.rpn_head.rpn_cls.bias += 1
    gap, where = largest_difference(before, outputs(detector)[1])
    with torch.no_grad():
        detector.rpn_head.rpn_cls.bias -= 1
    assert gap == pytest.approx(1) and where == 'rpn_head'


@pytest.mark.parametrize(
    ('config', 'last'), [(tiny_classifier(4), 'head'), (tiny_pspnet(4), 'decode_head')]
)
def test_other_families(config, last):
    model = build_model(config)
    found = outputs(model)[1]
    assert {'backbone', last} <= set(found)
    assert same_outputs(model, model)[0] == 0


def test_differences():
    one, other = (dict(neck=[torch.zeros(2, 3)], head=[x]) for x in torch.zeros(2, 1))
    assert largest_difference(one, other) == (0, '')
    other['neck'] = [torch.tensor([[0, 0.5, 0], [0, 0, -2]])]
    assert largest_difference(one, other) == (2, 'neck')
    other['head'] = [torch.tensor([float('nan')])]
    gap, where = largest_difference(one, other)
    assert gap != gap and where == 'head'
    other['neck'] = [torch.zeros(2, 4)]
    with pytest.raises(ValueError, match=r'neck gives \(2, 4\) instead of \(2, 3\)'):
        largest_difference(one, other)
    with pytest.raises(ValueError, match=r'head gives nothing instead of'):
        check_shapes(one, dict(neck=one['neck']))


def test_a_network_that_does_not_run_says_why():
    net = ToyNet()
    net.neck = nn.Conv2d(7, 7, 1)
    with pytest.raises(RuntimeError, match='channels'):
        outputs(net)
    with pytest.raises(ValueError, match='no parts'):
        outputs(nn.Sequential())
