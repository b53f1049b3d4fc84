"""Decoded boxes of dense heads against mmdet's own."""

import pytest
import torch
from detection_toys import detector, samples

from mmkd.families import comparable
from mmkd.families.dense import dense_head
from mmkd.rows import predictions

EXACT = 'donot_use_mm_for_euclid_dist'
KINDS = dict(frcnn='delta', retinanet='delta', atss='delta', gfl='distribution', fcos='distance')


@pytest.mark.parametrize('name', KINDS)
def test_decode_agrees_with_mmdet(name):
    model, batch = detector(name).eval(), samples()
    assert comparable.kind_of(model) == KINDS[name]
    head = dense_head(model)
    with torch.no_grad():
        feats = model.extract_feat(torch.randn(2, 3, 96, 128))
        parts = head(feats)
    cfg = dict(nms_pre=10**6, score_thr=-1.0, min_bbox_size=-1, max_per_img=10**6)
    cfg['nms'] = dict(type='nms', iou_threshold=1.0)
    metas = [sample.metainfo for sample in batch]
    from mmengine.config import ConfigDict

    own = head.predict_by_feat(*parts, batch_img_metas=metas, cfg=ConfigDict(cfg), rescale=False)
    outputs = predictions.head_outputs(model, feats)
    logits, codes = predictions.split(model, outputs)
    sizes = predictions.level_sizes(model, outputs)
    boxes = predictions.decode(model, codes, sizes, batch)
    assert logits.shape[:2] == codes.shape[:2] == boxes.shape[:2]
    for found, wanted in zip(boxes, own, strict=True):
        assert len(wanted.bboxes) > 20
        assert torch.cdist(wanted.bboxes[:200], found, compute_mode=EXACT).amin(1).max() < 1e-3
    regions = predictions.proposals(model, outputs, batch, 7)
    assert torch.bincount(regions[:, 0].long(), minlength=2).max() <= 7
    assert (regions[:, 3:] > regions[:, 1:3]).all()


def test_codes_of_fcos_do_not_depend_on_the_mode():
    model = detector('fcos', norm_on_bbox=True).eval()
    feats = model.extract_feat(torch.randn(1, 3, 64, 64))
    outputs = [
        [m.detach() for part in model.bbox_head.train(t)(feats) for m in part]
        for t in (True, False)
    ]
    codes = [
        predictions.split(model.train(t), o)[1] for t, o in zip((True, False), outputs, strict=True)
    ]
    torch.testing.assert_close(*codes)


def test_unknown_heads_are_refused():
    model = detector('retinanet')
    model.bbox_head.use_sigmoid_cls = False
    known = detector('retinanet')
    with pytest.raises(ValueError, match='student is RetinaNet with RetinaHead and the teacher'):
        comparable.check_decodable('Mimic', model, known, 'student')
    comparable.check_decodable('Mimic', model, known, 'teacher')
    with pytest.raises(ValueError, match='GID decodes boxes, which'):
        comparable.check_decodable('GID', known, model)
