"""Mask heads: which are run, on which RoIs, and what a cascade says."""

import math

import pytest
import torch
from mask_toys import masked, step
from mmengine.config import Config

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.families import mask_heads
from mmkd.methods.mask_kd import MaskKD
from mmkd.teacher import Teacher, build_model
from mmkd.testing import shrink, tiny_faster_rcnn, tiny_retinanet


def test_logit_of_the_mean_probability():  # MSK-5
    stages = [torch.tensor(z, dtype=torch.float64) for z in (2.0, 0.0, -1.0)]
    found = mask_heads.mean_logit(stages)
    assert float(found) == pytest.approx(0.2003185, rel=1e-6)
    assert float(found.sigmoid()) == pytest.approx(0.5499128, rel=1e-6)
    far = mask_heads.mean_logit([torch.tensor(200.0), torch.tensor(300.0)])
    assert float(far) == pytest.approx(200 + math.log(2), rel=1e-6)


@pytest.mark.parametrize('kind', ['mask', 'cascade'])
def test_the_rois_are_those_of_the_extractor(kind):
    student = masked(kind)
    path = 'roi_head.mask_roi_extractor' + '.0' * (kind == 'cascade')
    seen = []
    extractor = student.get_submodule(path)
    extractor.register_forward_pre_hook(lambda _m, args: seen.append(args[1]))
    _, trace = step(MaskKD(), student, masked(kind, 1))
    own = mask_heads.masks(trace)
    assert torch.equal(own.rois, seen[-1]) and len(own.rois) == len(own.labels) == len(own.target)
    assert own.logits.shape[2:] == own.target.shape[1:] == (8, 8)


def test_a_cascade_speaks_as_in_its_own_inference():
    """mmdet averages probabilities of the stages, in ``predict_mask``."""
    model = masked('cascade').eval()
    feats = [torch.randn(2, 8, *s) for s in ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))]
    rois = torch.tensor([[0.0, 4, 4, 40, 40], [1, 10, 8, 60, 50]])
    with torch.no_grad():
        each = [model.roi_head._mask_forward(i, feats, rois)['mask_preds'] for i in range(2)]
    logits, features = mask_heads.mask_outputs(model, feats, rois)
    torch.testing.assert_close(logits.sigmoid(), sum(z.sigmoid() for z in each) / 2)
    assert features.shape == (2, 8, 4, 4) and not logits.requires_grad
    second = mask_heads.mask_outputs(model, feats, rois, stage=5)[1]
    assert torch.equal(second, mask_heads.mask_outputs(model, feats, rois, stage=1)[1])
    assert not torch.equal(second, features)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_head_without_convolutions_shows_its_input():
    bare = dict(roi_head=dict(mask_head=dict(num_convs=0)))
    student, teacher = masked(**bare), masked('mask', 1, **bare)
    _, trace = step(MaskKD(), student, teacher)
    assert mask_heads.features_tap(student) == 'roi_head.mask_head@in[x]'
    own = mask_heads.masks(trace)
    wanted = teacher.roi_head.mask_roi_extractor(trace.teacher['neck'][:4], own.rois)
    found = mask_heads.mask_outputs(teacher, trace.teacher['neck'], own.rois)[1]
    torch.testing.assert_close(found, wanted)


OTHERS = {
    'htc/htc-without-semantic_r50_fpn_1x_coco.py': 'HTCMaskHead in a HybridTaskCascadeRoIHead',
    'scnet/scnet_r50_fpn_1x_coco.py': 'SCNetMaskHead in a SCNetRoIHead',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': 'CoarseMaskHead in a PointRendRoIHead',
    'queryinst/queryinst_r50_fpn_1x_coco.py': 'DynamicMaskHead in a SparseRoIHead',
}


def stock(path, factor=8):
    model = shrink(load_config(f'mmdet::{path}').model.to_dict(), factor)
    return build_model(Config(dict(model=model, default_scope='mmdet')))


@pytest.mark.parametrize('path', OTHERS)
@pytest.mark.parametrize('side', [0, 1])
def test_heads_that_need_more_than_rois(path, side):
    other = stock(path)
    pair = [other, masked()] if side == 0 else [masked(), other]
    side = ('student', 'teacher')[side]
    with pytest.raises(ValueError, match=f"the {side}'s {OTHERS[path]}"):
        mask_heads.check_mask_heads('MaskKD', *pair)


@pytest.mark.parametrize('other', [tiny_faster_rcnn, tiny_retinanet])
def test_models_without_masks(other):
    """The message names methods for the neck, which both have."""
    with pytest.raises(
        ValueError, match='teacher .* has none with a mask head; .* FGD.* and PKD.* compare feat'
    ):
        Distiller(masked(), dict(it=MaskKD()), Teacher(build_model(other(4)), 'random'))
    with pytest.raises(ValueError, match='the student .* has none with a mask head'):
        Distiller(build_model(other(4)), dict(it=MaskKD()), Teacher(masked(), 'random'))


def test_mask_scoring_learns_too():
    mask_heads.check_mask_heads('MaskKD', *[stock('ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py')] * 2)


def test_a_shared_stage_of_the_backbone_runs_first():
    """C4 detectors pool early and run the last stage of the ResNet on each RoI."""
    model = stock('mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py', 1).eval()
    feats = model.extract_feat(torch.randn(1, 3, 64, 64))
    rois = torch.tensor([[0.0, 4, 4, 40, 40], [0, 10, 8, 60, 50]])
    with torch.no_grad():
        wanted = model.roi_head._mask_forward(feats, rois)
    logits, features = mask_heads.mask_outputs(model, feats, rois)
    torch.testing.assert_close(logits, wanted['mask_preds'])
    torch.testing.assert_close(features, wanted['mask_feats'])
