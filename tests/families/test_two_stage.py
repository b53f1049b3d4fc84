"""The second stage: its addresses, and its judgement of given RoIs."""

import torch

from mmkd.families import two_stage
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_faster_rcnn


def test_addresses_of_the_first_stage():
    model = build_model(tiny_faster_rcnn(4))
    assert two_stage.box_head(model) is model.roi_head.bbox_head
    assert two_stage.rois_tap(model) == 'roi_head.bbox_roi_extractor@in[1]'
    assert two_stage.box_head_tap(model) == 'roi_head.bbox_head'
    model.roi_head.bbox_head = torch.nn.ModuleList([model.roi_head.bbox_head, torch.nn.Identity()])
    assert two_stage.box_head_tap(model) == 'roi_head.bbox_head.0'
    assert two_stage.box_head(model) is model.roi_head.bbox_head[0]


def test_judging_given_rois_equals_the_models_own_pass():
    model = build_model(tiny_faster_rcnn(4)).eval()
    inputs, _ = detection_batch()
    rois = torch.tensor([[0, 4.0, 4, 40, 40], [1, 0, 0, 90, 60]])
    with torch.no_grad():
        feats = model.extract_feat(inputs)
        wanted = model.roi_head._bbox_forward(feats, rois)
    scores, deltas = two_stage.roi_outputs(model, list(feats), rois)
    torch.testing.assert_close(scores, wanted['cls_score'])
    torch.testing.assert_close(deltas, wanted['bbox_pred'])
    low = two_stage.roi_outputs(model.bfloat16(), [f.bfloat16() for f in feats], rois)
    assert low[0].dtype == torch.float32
    torch.testing.assert_close(low[0], scores, rtol=0.1, atol=0.05)
