"""The plan, on real detectors and segmentors made small."""

import pytest
import torch
from mmengine.registry import DefaultScope

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.plan.places import candidates
from mmkd.plan.probe import probe
from mmkd.tap import parse_taps
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    segmentation_batch,
    shrink,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_retinanet,
)
from mmkd.untouched import evaluation

DETECTORS = [
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'yolox/yolox_s_8xb8-300e_coco.py',
]
SEGMENTORS = [
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py',
    'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
    'deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024.py',
]


def stock(path):
    package = 'mmdet' if path in DETECTORS else 'mmseg'
    config = load_config(f'{package}::{path}')
    model = shrink(config.model.to_dict())
    model['type'] = f'{package}.{model["type"]}'
    if model['backbone'].get('depth') == 101:
        model['backbone']['depth'] = 50
    elif 'neck' in model and model['backbone'].get('depth') == 50:
        model['backbone']['depth'] = 18  # without bottlenecks
        model['neck']['in_channels'] = [8, 16, 32, 64]
    return model


def distil(student, teacher, methods, data):
    torch.manual_seed(0)
    distiller = Distiller(
        student,
        {m.lower(): dict(type=f'mmkd.{m}') for m in methods},
        dict(config=teacher, checkpoint='random'),
    )
    distiller.train()
    for _ in range(2):
        losses = distiller.loss(*data)
        distiller.parse_losses(losses)[0].backward()
    terms = {k: float(v.detach()) for k, v in losses.items() if k.startswith('kd.') and 'loss' in k}
    assert len(terms) == len(methods) and all(v > 0 for v in terms.values()), terms
    return distiller


@pytest.mark.parametrize('path', DETECTORS)
def test_stock_detectors(path):
    model = stock(path)
    distil(model, model, ['FGFI', 'CWD'], detection_batch(2, (64, 96)))


@pytest.mark.parametrize('path', SEGMENTORS)
def test_stock_segmentors(path):
    model = stock(path)
    inputs, samples = segmentation_batch(2, (64, 96))
    distil(model, model, ['CWD', 'KD'], (inputs, samples))


@pytest.mark.parametrize(
    ('student', 'teacher', 'methods'),
    [
        (tiny_retinanet(4), tiny_fcos(8), ['FGFI', 'CWD']),
        (tiny_fcos(4), tiny_retinanet(8), ['FGFI', 'CWD']),
        (tiny_detr(4), tiny_detr(8), ['FGFI', 'CWD']),
        (tiny_faster_rcnn(4, norm='GN'), tiny_faster_rcnn(8, norm='SyncBN'), ['FGFI', 'CWD', 'KD']),
        (tiny_retinanet(4, backbone=dict(with_cp=True)), tiny_retinanet(8), ['FGFI', 'CWD']),
        (tiny_retinanet(4, backbone=dict(frozen_stages=1)), tiny_retinanet(8), ['FGFI', 'CWD']),
    ],
    ids=['to RetinaNet', 'to FCOS', 'DETR', 'GN from SyncBN', 'with_cp', 'frozen'],
)
def test_pairs_of_detectors(student, teacher, methods):
    distil(student, teacher, methods, detection_batch())


def test_checkpointed_backbones_may_be_tapped_at_every_stage():
    """Asking for the gradient at one stage must not run the checkpointed one behind it."""
    student = tiny_retinanet(4, backbone=dict(with_cp=True))
    distiller = Distiller(
        student,
        dict(cwd=dict(type='mmkd.CWD', student='backbone')),
        dict(config=tiny_retinanet(8), checkpoint='random'),
    )
    distiller.train()
    for _ in range(3):
        distiller.parse_losses(distiller.loss(*detection_batch()))[0].backward()


def test_levels_are_paired_by_stride_or_refused():
    teacher = dict(config=tiny_faster_rcnn(8), checkpoint='random')
    with pytest.raises(
        ValueError, match='Student strides: 8, 16, 32, 64, 128; teacher strides: 4, 8'
    ):
        Distiller(tiny_retinanet(4), dict(f=dict(type='mmkd.FGFI')), teacher)
    options = dict(type='mmkd.FGFI', level_map='common')
    distiller = Distiller(tiny_retinanet(4), dict(f=options), teacher)
    assert distiller.objectives['f'].pairs == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert distiller.objectives['f'].strides == [8, 16, 32, 64]


def test_the_probe_changes_nothing():
    model = build_model(tiny_retinanet(4, backbone=dict(norm_eval=True))).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    side = probe(model, parse_taps(['backbone', 'neck', 'bbox_head']))
    assert [t.shape[2] for t in side['neck']] == [32, 16, 8, 4, 2]
    assert torch.equal(random, torch.get_rng_state())
    assert flags == [m.training for m in model.modules()]
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not side['neck'][0].requires_grad


def test_training_flags_come_back_after_an_error():
    model = build_model(tiny_retinanet(4)).train()
    model.backbone.layer1.eval()
    with pytest.raises(RuntimeError), evaluation(model):
        assert not model.training
        raise RuntimeError
    assert model.training and not model.backbone.layer1.training and model.backbone.layer2.training


def test_what_is_printed():
    distiller = Distiller(
        tiny_retinanet(4),
        dict(fgfi=dict(type='mmkd.FGFI', weight=dict(value=0.01, start=400))),
        dict(config=tiny_retinanet(8), checkpoint='random'),
    )
    text = str(distiller.plan)
    for wanted in (
        'student: RetinaNet, 0.0',
        ' M parameters, RANDOM WEIGHTS',
        'runs extract_feat; input RGB mean [123.675',
        'objective fgfi: FGFI, weight 0.01, start 400',
        'student neck: 8x32x32 (stride 8), 8x16x16 (stride 16)',
        'student level 0 <- teacher level 0: 3x3 conv 8 -> 16',
        'trains 5,840 parameters of its own',
    ):
        assert wanted in text, text


def test_schedules_of_numbers_are_printed():
    objective = dict(type='mmkd.KD', tau=dict(value=10, decay='linear', end_value=1))
    teacher = dict(config=tiny_classifier(8), checkpoint='random')
    text = str(Distiller(tiny_classifier(4), dict(kd=objective), teacher).plan)
    assert 'KD, weight 1\n  tau 10, decay linear, end_value 1\n' in text, text


def test_candidates_are_the_taps_that_fire():
    found = dict(candidates(build_model(tiny_faster_rcnn(4)), depth=2))
    assert [str(level) for level in found['neck']][:2] == [
        '8x64x64 (stride 4)',
        '8x32x32 (stride 8)',
    ]
    assert 'backbone.layer3' in found and 'rpn_head.rpn_conv' in found
    assert 'roi_head' not in found
    head = dict(candidates(build_model(tiny_pspnet(4)), depth=2))
    assert str(head['decode_head.conv_seg'][0]) == '3x32x32 (stride 8)'


def test_a_teacher_of_another_package_under_a_runners_scope():
    """mmseg's types are found although the Runner says mmdet."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert build_model(tiny_pspnet(4)).decode_head.num_classes == 3
    bare = dict(tiny_retinanet(4), type='RetinaNet')
    assert type(build_model(bare)).__name__ == 'RetinaNet'
