"""AP at the outlines of masks."""

import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from mmkd.evaluation.boundary import BoundaryCocoMetric, rim
from mmkd.registry import METRICS


def test_a_rim_is_near_the_outline():
    mask = np.zeros((9, 9), np.uint8)
    mask[2:, 1:8] = 1
    found = rim(mask, 2)
    assert found.sum() == 7 * 7 - 3 * 3 and not found[4:7, 3:6].any()
    assert found[8, 1:8].all()  # the image ends there
    assert not rim(0 * mask, 1).any() and rim(mask, 9).sum() == mask.sum()


def square(shrink=0, hole=0):
    mask = np.zeros((60, 80), np.uint8)
    mask[10 + shrink : 50 - shrink, 20 + shrink : 60 - shrink] = 1
    if hole:
        mask[30 - hole : 30 + hole, 40 - hole : 40 + hole] = 0
    return mask


def scores(tmp_path, predicted, **options):
    """(AP of masks, AP of rims) of one predicted mask for a square of 40 pixels."""
    side = [20, 10, 60, 10, 60, 50, 20, 50]
    one = dict(id=1, image_id=0, category_id=1, iscrowd=0, area=1600, bbox=[20, 10, 40, 40])
    content = dict(
        images=[dict(id=0, file_name='0.jpg', width=80, height=60)],
        annotations=[dict(one, segmentation=[side])],
        categories=[dict(id=1, name='square')],
    )
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content))
    instances = dict(
        bboxes=torch.tensor([[20.0, 10, 60, 50]]),
        scores=torch.ones(1),
        labels=torch.zeros(1).long(),
        masks=torch.from_numpy(predicted[None]),
    )
    sample = dict(pred_instances=instances, img_id=0, ori_shape=(60, 80))
    found = []
    for kind in ('mmdet.CocoMetric', 'mmkd.BoundaryCocoMetric'):
        more = dict(metric='segm') if 'mmdet' in kind else options
        metric = METRICS.build(dict(type=kind, ann_file=str(path), **more))
        evaluator = Evaluator(metric)
        evaluator.dataset_meta = dict(classes=('square',))
        evaluator.process([sample])
        values = evaluator.evaluate(1)
        found.append(next(v for k, v in values.items() if k.endswith('segm_mAP')))
    return found


def average_precision(found, wanted):
    """Of one prediction of one object: the share of COCO's thresholds that its IoU reaches."""
    iou = (found & wanted).sum() / (found | wanted).sum()
    return float((np.linspace(0.5, 0.95, 10) <= iou).mean())


@pytest.mark.parametrize('ratio', [0.02, 0.05, 0.1])
@pytest.mark.parametrize(
    'predicted', [square(), square(shrink=1), square(shrink=2), square(hole=8)]
)
def test_rims_are_compared_as_masks_are(tmp_path, predicted, ratio):
    whole, outline = scores(tmp_path, predicted, ratio=ratio)
    width = round(ratio * 100)
    assert whole == pytest.approx(average_precision(predicted, square()), abs=1e-3)
    rims = rim(predicted, width), rim(square(), width)
    assert outline == pytest.approx(average_precision(*rims), abs=1e-3)


def test_an_outline_two_pixels_off_costs_more_at_the_rim(tmp_path):
    whole, outline = scores(tmp_path, square(shrink=2), ratio=0.04)
    assert whole > 0.5 and outline == 0


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(ratio=0), 'ratio must be a finite number above 0'),
        (dict(ratio=0.7), 'ratio must be'),
        (dict(), 'set ann_file'),
    ],
)
def test_bad_input(options, said):
    with pytest.raises(ValueError, match=said):
        BoundaryCocoMetric(**options)
