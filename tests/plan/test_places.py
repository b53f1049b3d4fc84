"""Taps at boxes and queries of a network's own are refused, maps and tokens of pixels are not."""

import copy
import functools

import pytest
import torch
from mmengine.config import Config
from stock_segmentors import network
from torch import nn

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.plan.places import candidates, own_rows
from mmkd.plan.probe import Request
from mmkd.registry import MODELS
from mmkd.tap import Tap
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    merged,
    shrink,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_retinanet,
    tiny_weak,
)

#: networks of these tests alone: a Teacher freezes its own
segmentor = functools.cache(network.__wrapped__)

STOCK = {
    'htc': 'htc/htc_r50_fpn_1x_coco.py',
    'mask': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'sparse': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'swin': 'swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
}
TINY = dict(detr=tiny_detr, faster=tiny_faster_rcnn, retina=tiny_retinanet, images=tiny_classifier)
LAYERS = dict(num_queries=10, encoder=dict(num_layers=1), decoder=dict(num_layers=2))


@functools.cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in TINY:
        return build_model(TINY[name]())
    if name not in STOCK:
        return segmentor(name)
    config = shrink(load_config(f'mmdet::{STOCK[name]}').model.to_dict(), 8)
    if name == 'dino':
        config = merged(config, LAYERS | dict(bbox_head=dict(embed_dims=32)))
    if 'roi_head' in config and name != 'sparse':
        config['test_cfg']['rpn'].update(nms_pre=50, max_per_img=20)
    if name == 'swin':
        config['backbone']['convert_weights'] = False
    return build_model(Config(dict(model=config, default_scope='mmdet')))


#: model, taps at maps, tokens or images, and taps at rows of its own
CASES = {
    'faster': (
        ['neck', 'rpn_head.rpn_conv', 'rpn_head', 'roi_head.bbox_roi_extractor@in[0]'],
        [
            'roi_head.bbox_roi_extractor',
            'roi_head.bbox_roi_extractor@in[1]',
            'roi_head.bbox_head.shared_fcs.0',
            'roi_head.bbox_head',
        ],
    ),
    'mask': (['neck'], ['roi_head.mask_head.convs.0', 'roi_head.mask_roi_extractor']),
    'htc': (['roi_head.semantic_head', 'roi_head.semantic_head.convs.0'], ['roi_head.bbox_head.2']),
    'sparse': (['neck'], ['roi_head.bbox_head.0', 'roi_head.bbox_roi_extractor.0']),
    'detr': (
        ['backbone', 'neck', 'encoder', 'encoder.layers.0'],
        ['decoder', 'decoder.layers.0', 'bbox_head.fc_cls', 'bbox_head', 'bbox_head.forward()'],
    ),
    'dino': (
        ['encoder', 'memory_trans_fc', 'bbox_head.cls_branches.2'],
        ['decoder.layers.1', 'bbox_head.cls_branches.1'],
    ),
    'retina': (['bbox_head.cls_convs.0', 'bbox_head', 'bbox_head.forward()'], []),
    'swin': (['backbone.stages.0.blocks.0', 'backbone.patch_embed', 'bbox_head.retina_cls'], []),
    'images': (['backbone', 'pool', 'head.fc'], []),
    'Segmenter': (['backbone', 'decode_head.layers.0', 'decode_head.classes_proj'], []),
    'KNet': (['decode_head.forward()', 'decode_head.kernel_update_head.0'], []),
    'PointRend': (['decode_head.0.conv_seg'], ['decode_head.1.fcs.0', 'decode_head.1.fc_seg']),
    'Mask2Former': (
        ['decode_head.pixel_decoder'],
        ['decode_head.transformer_decoder', 'decode_head.cls_embed', 'decode_head.forward()[-1]'],
    ),
    'MaskFormer': (
        ['decode_head.pixel_decoder', 'decode_head.forward()@scores'],
        ['decode_head.transformer_decoder'],
    ),
    'SAN': (
        ['image_encoder', 'decode_head.side_adapter_network.mask_decoder.pix_mlp'],
        ['decode_head.side_adapter_network.mask_decoder', 'decode_head.rec_with_attnbias'],
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_rows_of_its_own(name):
    places, own = ([Tap.parse(tap) for tap in taps] for taps in CASES[name])
    found = Request('student', network(name), [*places, *own]).run(256)
    assert not found.reason or name == 'sparse'  # whose forward is broken
    assert [*own_rows(found, [*places, *own])] == own


def build(name: str, method: str, **options) -> Distiller:
    objective = MODELS.get(f'mmkd.{method}')(**options)
    teacher = Teacher(copy.deepcopy(network(name)), 'random')  # which is frozen
    return Distiller(network(name), dict(it=objective), teacher)


@pytest.mark.parametrize(
    ('name', 'method', 'tap', 'said'),
    [
        ('faster', 'FitNet', 'roi_head.bbox_roi_extractor', 'boxes .* Mimic and FGD compare feat'),
        ('faster', 'AT', 'roi_head.bbox_roi_extractor', 'boxes .* Mimic and FGD compare features'),
        ('faster', 'CWD', ['neck', 'roi_head.bbox_head'], "'roi_head.bbox_head' of the student"),
        ('mask', 'FitNet', 'roi_head.mask_head.convs.0', 'boxes that it proposes itself'),
        ('detr', 'FitNet', 'decoder', "queries .*name taps, for instance student='backbone"),
        ('detr', 'RKD', 'decoder.layers.1', 'queries'),
        ('Mask2Former', 'FitNet', 'decode_head.cls_embed', 'queries'),
    ],
)
def test_refused_at_build(name, method, tap, said):
    options = dict(instances='images') if method == 'RKD' else {}
    with pytest.raises(ValueError, match=said):
        build(name, method, student=tap, **options)


def test_of_the_teacher_alone():
    with pytest.raises(ValueError, match="'roi_head.bbox_head' of the teacher FasterRCNN shows"):
        build('faster', 'FitNet', student='neck[0]', teacher='roi_head.bbox_head')


@pytest.mark.parametrize('method', ['Mimic', 'KD', 'DIST', 'Chen2017', 'MimicHead', 'RKD'])
def test_methods_that_share_boxes_go_on(method):
    build('faster', method)


@pytest.mark.parametrize(
    ('name', 'tap'), [('detr', 'encoder'), ('faster', 'rpn_head.rpn_conv'), ('images', 'head.fc')]
)
def test_places_go_on(name, tap):
    assert build(name, 'RKD' if name == 'images' else 'FitNet', student=tap)


def test_the_list_of_candidates_leaves_them_out():
    found = dict(candidates(network('faster'), depth=2))
    assert {'neck', 'rpn_head', 'rpn_head.rpn_conv'} <= set(found)
    assert not [name for name in found if name.startswith('roi_head')]
    assert 'encoder' in dict(candidates(network('detr'), 1))
    assert 'decoder' not in dict(candidates(network('detr'), 1))


def test_a_student_that_looks_at_views_shows_no_map_that_a_teacher_has():
    teacher = Teacher(build_model(tiny_weak()), 'random')
    objectives = dict(at=dict(type='mmkd.AT'))
    with pytest.raises(ValueError, match=r'runs 3 times in a training step.*\(flip, scale\)'):
        Distiller(build_model(tiny_weak(views=['flip', 'scale'])), objectives, teacher)
    Distiller(build_model(tiny_weak()), objectives, teacher)
