"""Decoded boxes of dense heads against mmdet's own."""

import pytest
import torch
from detection_toys import detector, samples

from mmkd.families import comparable
from mmkd.families.dense import dense_head
from mmkd.functional.cells import rows
from mmkd.rows import predictions

EXACT = 'donot_use_mm_for_euclid_dist'
KINDS = dict(
    frcnn='delta',
    retinanet='delta',
    atss='delta',
    paa='delta',
    gfl='distribution',
    fcos='distance',
    vfnet='pixels',
    rtmdet='pixels',
    yolox='yolox',
    tood='decoded',
)


@pytest.mark.parametrize('name', KINDS)
def test_decode_agrees_with_mmdet(name):
    model, batch = detector(name).eval(), samples()
    assert comparable.kind_of(model) == KINDS[name]
    head = dense_head(model)
    generator = torch.Generator().manual_seed(0)  # others make YOLOX boxes larger than any picture
    with torch.no_grad():
        feats = model.extract_feat(torch.randn(2, 3, 96, 128, generator=generator))
        parts = head(feats)
    cfg = dict(nms_pre=10**6, score_thr=-1.0, min_bbox_size=-1, max_per_img=10**6)
    cfg['nms'] = dict(type='nms', iou_threshold=1.0)
    head.with_score_voting = False  # of PAA, which averages boxes after NMS
    metas = [sample.metainfo for sample in batch]
    from mmengine.config import ConfigDict

    own = head.predict_by_feat(*parts, batch_img_metas=metas, cfg=ConfigDict(cfg), rescale=False)
    outputs = predictions.head_outputs(model, feats)
    logits, codes = predictions.split(model, outputs)
    sizes = predictions.level_sizes(model, outputs)
    boxes = predictions.decode(model, codes, sizes, batch)
    assert logits.shape[:2] == codes.shape[:2] == boxes.shape[:2]
    if name in ('yolox', 'tood'):  # which clip nothing
        boxes = predictions.decode(model, codes, sizes, None)
    for found, wanted in zip(boxes, own, strict=True):
        assert len(wanted.bboxes) > 20
        assert torch.cdist(wanted.bboxes[:200], found, compute_mode=EXACT).amin(1).max() < 1e-3
    best = predictions.ranking(model, outputs, logits).amax(1)
    scores = torch.stack([one.scores.max() for one in own])
    torch.testing.assert_close(best, scores.square() if name == 'paa' else scores)
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


def test_points_of_rtmdet_have_no_offset():  # RT-2
    model = detector('rtmdet')
    codes = torch.zeros(1, 8 * 8 + 4 * 4 + 2 * 2, 4)
    codes[0, 3 * 8 + 2] = torch.tensor([4.0, 6, 10, 2]) / 8  # of the point (16, 24)
    found = predictions.decode(model, codes, dict(enumerate([(8, 8), (4, 4), (2, 2)])), None)
    assert found[0, 3 * 8 + 2].tolist() == [12, 18, 26, 26]


def test_boxes_of_yolox_are_about_the_corner_of_a_cell():  # YX-2
    model = detector('yolox')
    codes = torch.zeros(1, 84, 4)
    codes[0, 26] = torch.tensor([0.5, -0.25, 1, 0])
    found = predictions.decode(model, codes, dict(enumerate([(8, 8), (4, 4), (2, 2)])), None)
    wanted = [9.1268727, 18, 30.8731273, 26]
    assert found[0, 26].tolist() == pytest.approx(wanted, abs=1e-5)
    codes[0, 26, 2] = 1e4
    assert (
        predictions.decode(model, codes, dict(enumerate([(8, 8), (4, 4), (2, 2)])), None)
        .isfinite()
        .all()
    )


def test_classes_of_yolox_and_tood():
    model = detector('yolox')
    outputs = model.bbox_head([torch.randn(2, 8, s, s) for s in (8, 4, 2)])
    flat = [m for part in outputs for m in part]
    logits, _ = predictions.split(model, flat)
    classes, objects = (rows(part, k) for part, k in ((outputs[0], 3), (outputs[2], 1)))
    torch.testing.assert_close(logits.sigmoid(), classes.sigmoid() * objects.sigmoid())
    model = detector('tood')
    outputs = model.bbox_head([torch.randn(1, 8, s, s) for s in (16, 8, 4, 2, 1)])
    logits, codes = predictions.split(model, [m for part in outputs for m in part])
    torch.testing.assert_close(logits.sigmoid(), rows(outputs[0], 3).clamp(1e-6, 1 - 1e-6))
    assert codes.shape == (1, 341, 4)


def test_vfnet_gives_refined_boxes_in_either_mode():
    model = detector('vfnet')
    feats = [torch.randn(1, 8, s, s) for s in (16, 8, 4, 2, 1)]
    codes = []
    for training in (True, False):
        outputs = model.train(training).bbox_head(feats)
        assert len(outputs) == 2 + training
        codes.append(predictions.split(model, [m for part in outputs for m in part])[1])
    torch.testing.assert_close(*codes)
