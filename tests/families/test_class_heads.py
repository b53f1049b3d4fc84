"""Which modules of a model number the classes of the data."""

import pytest
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead, FusedSemanticHead
from mmseg.models.decode_heads import STDCHead
from torch import nn

from mmkd.families.class_heads import (
    Labels,
    class_heads,
    shows_classes,
    spare_channels,
    wrong_heads,
)
from mmkd.tap import Tap
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet

FIVE = Labels(tuple('abcde'))


def found(**heads):
    model = nn.Module()
    for name, head in heads.items():
        setattr(model, name, head)
    return list(class_heads(model))


def test_heads_for_labels_of_another_kind_are_left_out():
    edges = STDCHead(in_channels=4, channels=4, num_classes=2, in_index=0, boundary_threshold=0.1)
    assert found(auxiliary_head=nn.ModuleList([edges])) == []
    stuff = FusedSemanticHead(num_ins=1, fusion_level=0, in_channels=4, conv_out_channels=4)
    assert found(semantic_head=stuff) == []
    rpn = RPNHead(in_channels=4, anchor_generator=dict(type='AnchorGenerator', strides=[4],
                  scales=[4], ratios=[1.0]))  # fmt: skip
    assert found(rpn_head=rpn) == [] == found(bbox_head=rpn)
    masks = dict(num_convs=0, in_channels=4, conv_out_channels=4, num_classes=80)
    assert found(mask_head=FCNMaskHead(**masks, class_agnostic=True)) == []
    assert found(mask_head=FCNMaskHead(**masks)) == ['mask_head']


@pytest.mark.parametrize(
    ('channels', 'classes', 'sigmoid', 'names', 'fits'),
    [
        (1, 2, True, 2, True),
        (1, 1, True, 2, True),
        (1, 1, True, 1, True),
        (1, 2, False, 2, False),  # a softmax over one channel is always 1
        (1, 2, True, 3, False),
        (None, 2, False, 2, True),
        (None, 3, False, 2, True),  # a background without a name
        (None, 4, False, 2, False),
        (None, 2, False, 3, False),
    ],
)
def test_channels_of_a_segmentor(channels, classes, sigmoid, names, fits):
    loss = dict(type='CrossEntropyLoss', use_sigmoid=sigmoid)
    head = dict(out_channels=channels, loss_decode=loss, threshold=0.5)
    model = build_model(tiny_pspnet(num_classes=classes, decode_head=head))
    labels = Labels(FIVE.names[:names])
    assert bool(wrong_heads(model, labels)) != fits
    assert spare_channels(model, labels) == ['decode_head'] * (classes == names + 1 and fits)


@pytest.mark.parametrize('classes', [3, 5])
def test_what_is_wanted_for_one_class_fits_it(classes):
    """mmseg takes num_classes=1 for a single sigmoid channel, which softmax cannot train."""
    one = Labels(('cell',))
    head = dict(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))
    wrong = wrong_heads(build_model(tiny_pspnet(num_classes=classes, decode_head=head)), one)
    assert [misfit.wanted for misfit in wrong] == [dict(num_classes=2)]
    assert not wrong_heads(build_model(tiny_pspnet(num_classes=2, decode_head=head)), one)


def test_things_and_stuff():
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.Module()
    model.roi_head.bbox_head.num_classes = 3
    model.panoptic_head = nn.Module()
    model.panoptic_head.num_classes = 5
    for kind, count in dict(things=3, stuff=2).items():
        setattr(model.panoptic_head, f'num_{kind}_classes', count)
    assert wrong_heads(model, Labels(FIVE.names, things=3)) == []
    wrong = wrong_heads(model, Labels(FIVE.names, things=4))
    assert [one.wanted for one in wrong] == [
        dict(num_classes=4),
        dict(num_things_classes=4, num_stuff_classes=1),
    ]
    del model.roi_head
    assert wrong_heads(model, FIVE) == []  # instances alone: all of them are things


@pytest.mark.parametrize(
    ('make', 'tap', 'shows'),
    [
        (tiny_faster_rcnn, 'roi_head.bbox_head', True),
        (tiny_faster_rcnn, 'roi_head.bbox_head.fc_cls', True),
        (tiny_faster_rcnn, 'roi_head.bbox_head.shared_fcs.0', False),
        (tiny_faster_rcnn, 'roi_head.bbox_head.get_targets()', False),
        (tiny_faster_rcnn, 'rpn_head.forward()', False),
        (tiny_faster_rcnn, 'neck', False),
        (tiny_pspnet, 'decode_head.conv_seg', True),
        (tiny_pspnet, 'decode_head.conv_seg@in[0]', False),
        (tiny_pspnet, 'decode_head.forward()', True),
        (tiny_pspnet, 'decode_head.bottleneck', False),
        (tiny_classifier, 'head.fc', True),
        (tiny_classifier, 'pool', False),
    ],
)
def test_which_taps_show_classes(make, tap, shows):
    assert shows_classes(build_model(make()), Tap.parse(tap)) == shows
