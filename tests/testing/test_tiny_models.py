"""Real models made tiny."""

import pytest

from mmkd.teacher import build_model
from mmkd.testing import (
    classification_batch,
    detection_batch,
    merged,
    segmentation_batch,
    shrink,
    tiny_classifier,
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_ddq,
    tiny_deformable_detr,
    tiny_detr,
    tiny_dino,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_gfl,
    tiny_pspnet,
    tiny_retinanet,
    tiny_yolov3,
)

DETECTORS = [
    tiny_faster_rcnn,
    tiny_retinanet,
    tiny_gfl,
    tiny_fcos,
    tiny_yolov3,
    tiny_detr,
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_deformable_detr,
    tiny_dino,
    tiny_ddq,
]


@pytest.mark.parametrize('make', DETECTORS, ids=lambda make: make.__name__)
def test_detectors_train(make):
    model = build_model(make(4)).train()
    losses = model(*detection_batch(2, (64, 96)), mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.isfinite() and total.requires_grad
    most = 4_000_000 if make is tiny_conditional_detr else 400_000  # mmdet has one width
    assert sum(p.numel() for p in model.parameters()) < most


@pytest.mark.parametrize('kind', ['resnet', 'wrn', 'vgg', 'mmdet'])
def test_classifiers_train(kind):
    model = build_model(tiny_classifier(4, 5, kind)).train()
    losses = model(*classification_batch(4), mode='loss')
    assert model.parse_losses(losses)[0].isfinite()
    assert model.num_classes == 5


@pytest.mark.parametrize('auxiliary', [False, True])
def test_segmentors_train(auxiliary):
    model = build_model(tiny_pspnet(4, 7, auxiliary=auxiliary)).train()
    losses = model(*segmentation_batch(2, (64, 64)), mode='loss')
    assert ('aux.loss_ce' in losses) == auxiliary and model.num_classes == 7


def test_changes_are_laid_over_key_by_key():
    base = dict(a=dict(b=1, c=2), d=3)
    assert merged(base, dict(a=dict(b=9), d=dict(e=1), f=4)) == dict(
        a=dict(b=9, c=2), d=dict(e=1), f=4
    )
    assert (
        tiny_pspnet(4, decode_head=dict(dropout_ratio=0.5))['decode_head']['channels']
        == (tiny_pspnet(4)['decode_head']['channels'])
    )


def test_stock_models_made_narrow():
    stock = dict(
        backbone=dict(type='ResNet', depth=50, init_cfg=dict(type='Pretrained')),
        neck=dict(type='FPN', in_channels=[256, 512], out_channels=256, num_outs=5),
        head=[dict(channels=64, norm_cfg=dict(type='GN', num_groups=32))],
        pretrained='x.pth',
    )
    found = shrink(stock, 8)
    assert found['backbone'] | found['neck'] == dict(
        type='FPN', depth=50, init_cfg=None, base_channels=8, stem_channels=8,
        in_channels=[32, 64], out_channels=32, num_outs=5,
    )  # fmt: skip
    assert found['head'] == [dict(channels=8, norm_cfg=dict(type='GN', num_groups=2))]
    assert found['pretrained'] is None and stock['neck']['out_channels'] == 256, 'a copy'
    light = dict(
        backbone=dict(type='MobileNetV2'), neck=dict(in_channels=[96, 320], out_channels=64)
    )
    assert shrink(light, 8)['neck'] == dict(in_channels=[96, 320], out_channels=8)
