"""Which heads can be asked for scores of features alone."""

import pytest
import torch
from mmengine.config import Config
from stock_segmentors import network

from mmkd.config import load_config
from mmkd.families import confidence, segmentor
from mmkd.families.comparable import Misfit
from mmkd.functional.nested import flatten
from mmkd.tap import Tap
from mmkd.teacher import build_model
from mmkd.testing import shrink, tiny_cascade_rcnn, tiny_classifier, tiny_detr, tiny_pspnet

HEADS = {
    'yolox': 'yolox/yolox_s_8xb8-300e_coco.py',
    'rtmdet': 'rtmdet/rtmdet_s_8xb32-300e_coco.py',
    'tood': 'tood/tood_r50_fpn_1x_coco.py',
    'vfnet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
}


def stock(path):
    config = shrink(load_config(f'mmdet::{path}').model.to_dict(), 8)
    return build_model(Config(dict(model=config, default_scope='mmdet'))).eval()


@pytest.mark.parametrize('name', HEADS)
def test_dense_heads(name):
    model = stock(HEADS[name])
    confidence.check_scores('It', 'teacher', model)
    feats = [x.detach().requires_grad_() for x in model.extract_feat(torch.randn(2, 3, 128, 128))]
    scores = confidence.best_scores(model, feats)
    cells = sum(x[0, 0].numel() for x in feats)
    assert scores.shape == (2, cells) and scores.min() >= 0 and scores.max() <= 1
    scores.sum().backward()
    assert any(x.grad.abs().sum() > 0 for x in feats)


def test_tood_gives_probabilities():
    model = stock(HEADS['tood'])
    feats = model.extract_feat(torch.randn(2, 3, 128, 128))
    wanted = torch.cat([x.amax(1).flatten(1) for x in model.bbox_head(feats)[0]], 1)
    torch.testing.assert_close(confidence.best_scores(model, feats), wanted)


@pytest.mark.parametrize('name', ['KNet', 'Segmenter', 'Mask2Former', 'MaskFormer'])
def test_pixel_heads(name):
    model = network(name).eval()
    confidence.check_scores('It', 'teacher', model)
    feats = [x.detach().requires_grad_() for x in model.backbone(torch.randn(1, 3, 128, 128))]
    scores = confidence.best_scores(model, feats)
    assert scores.dim() == 2 and 0 <= float(scores.min()) <= float(scores.max()) <= 1
    scores.sum().backward()
    assert feats[-1].grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('path', 'read'),
    [
        ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', 'backbone[-1]'),
        ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', 'backbone[0]'),
    ],
)
def test_heads_that_read_one_map_of_their_own(path, read):
    config = load_config(f'mmseg::{path}').model.to_dict()
    config['backbone'].pop('init_cfg', None)
    model = build_model(Config(dict(model=config, default_scope='mmseg'))).eval()
    assert segmentor.read_tap(model) == read
    found = model.backbone(torch.randn(1, 3, 128, 128))
    feats = [x.detach().requires_grad_() for x in flatten(found)]
    confidence.best_scores(model, feats).sum().backward()
    place = Tap.parse(read).index
    assert [x.grad is not None for x in feats] == [
        i == place % len(feats) for i in range(len(feats))
    ]


def test_a_cascade_of_decode_heads():
    """OCRNet's second head reads the logits of its first."""
    config = tiny_pspnet(4)
    head = config['decode_head']
    del head['pool_scales']
    heads = [dict(head, type='FCNHead', num_convs=1), dict(head, type='OCRHead', ocr_channels=8)]
    config.update(type='mmseg.CascadeEncoderDecoder', num_stages=2, decode_head=heads)
    model = build_model(config).eval()
    feats = model.backbone(torch.randn(1, 3, 64, 64))
    logits = model.decode_head[1](feats, model.decode_head[0](feats))
    wanted = logits.softmax(1).amax(1).flatten(1)
    torch.testing.assert_close(confidence.best_scores(model, feats), wanted)


@pytest.mark.parametrize('name', ['SAN', 'Instances', 'detr', 'classifier', 'ssd', 'sparse'])
def test_heads_that_need_more(name):
    makers = dict(detr=tiny_detr, classifier=tiny_classifier)
    paths = dict(ssd='ssd/ssd300_coco.py', sparse='sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py')
    if name in makers:
        model = build_model(makers[name](4))
    else:
        model = stock(paths[name]) if name in paths else network(name)
    with pytest.raises(Misfit, match='It runs a head on features alone.*the teacher is'):
        confidence.check_scores('It', 'teacher', model)


def test_a_two_stage_detector_is_asked_for_objectness():
    model = build_model(tiny_cascade_rcnn(4)).eval()
    feats = model.extract_feat(torch.randn(1, 3, 64, 64))
    found = confidence.best_scores(model, feats)
    torch.testing.assert_close(
        found, torch.cat([x.sigmoid().flatten(1) for x in model.rpn_head(feats)[0]], 1)
    )


def test_maps_of_a_tap():
    for text, wanted in (('neck', [0, 1, 2]), ('neck[1:]', [1, 2]), ('neck[-1]', [2])):
        assert confidence.levels_of(Tap.parse(text), 3) == wanted
