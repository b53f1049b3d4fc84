"""The score of each class, from metrics that return means."""

import math

import numpy as np
import pytest

from mmkd.analysis.per_class import is_class, report_classes
from mmkd.datasets.scenes import CLASSES
from mmkd.datasets.synthetic import write_coco


def test_average_precision_of_each_class():
    """One class found, one found half, one missed, one without objects."""
    from mmdet.evaluation.metrics import VOCMetric

    metric = VOCMetric(iou_thrs=[0.5, 0.9], eval_mode='area')
    metric.dataset_meta = dict(classes=('cat', 'dog', 'owl', 'elk'))
    report_classes([metric])
    boxes = np.array([[0, 0, 9, 9], [20, 20, 39, 39], [50, 50, 69, 69]], np.float32)
    nothing = dict(bboxes_ignore=np.zeros((0, 4)), labels_ignore=np.zeros(0, int))
    scored = np.hstack([boxes, [[0.9], [0.8], [0.7]]])
    scored[1, 2] -= 4  # IoU 0.8
    detections = [scored[:1], scored[1:2], scored[:0], scored[:0]]
    metric.results = [(dict(bboxes=boxes, labels=np.array([0, 1, 2]), **nothing), detections)]
    found = metric.evaluate(1)
    each = [found[f'pascal_voc/{name}'] for name in ('cat', 'dog', 'owl', 'elk')]
    np.testing.assert_allclose(each, [1, 0.5, 0, np.nan], atol=1e-6)
    assert found['pascal_voc/mAP'] == pytest.approx(np.nanmean(each), abs=1e-6)


def test_other_metrics_are_left_alone():
    from mmdet.evaluation.metrics import VOCMetric

    from mmkd.evaluation import Accuracy

    for metric in (Accuracy(), VOCMetric(metric='recall')):
        report_classes([metric])
        assert 'compute_metrics' not in vars(metric)


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    root = tmp_path_factory.mktemp('coco')
    write_coco(root, n_train=1, n_val=2, size=(96, 64))
    return str(root / 'annotations' / 'val.json')


def score(annotations, kinds):
    """Of detections that are the annotations themselves, but for the images of the first class."""
    from mmdet.evaluation.metrics import CocoMetric
    from pycocotools import mask as coco_masks
    from pycocotools.coco import COCO

    metric = CocoMetric(ann_file=annotations, metric=kinds)
    metric.dataset_meta = dict(classes=CLASSES)
    report_classes([metric])
    coco = COCO(annotations)
    names = {k: c['name'] for k, c in coco.cats.items()}
    for number in coco.getImgIds():
        objects = coco.loadAnns(coco.getAnnIds(number))
        boxes = np.array([o['bbox'] for o in objects], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            img_id=number,
            bboxes=boxes,
            scores=np.ones(len(objects)),
            labels=np.array([CLASSES.index(names[o['category_id']]) for o in objects]),
        )
        if 'segm' in kinds:
            empty = np.zeros((64, 96), np.uint8, order='F')
            found['masks'] = [coco_masks.encode(empty) for _ in objects]
        metric.results.append((dict(width=96, height=64, img_id=number), found))
    present = {names[o['category_id']] for o in coco.anns.values()}
    return metric.evaluate(len(metric.results)), present


def test_what_coco_calls_minus_one_is_not_a_number(annotations):
    found, present = score(annotations, ['bbox'])
    assert found['coco/bbox_mAP'] == pytest.approx(1)
    assert math.isnan(found['coco/bbox_mAP_l'])  # no object is large
    assert set(present) < set(CLASSES)
    for name in CLASSES:
        value = found[f'coco/{name}']
        assert value == pytest.approx(1) if name in present else math.isnan(value)


def test_boxes_and_masks_of_a_class_are_two_scores(annotations):
    """mmdet gives both one name, so that the masks' score hides that of the boxes."""
    found, present = score(annotations, ['bbox', 'segm'])
    for name in present:
        assert found[f'coco/{name} (bbox)'] == pytest.approx(1)
        assert found[f'coco/{name} (segm)'] == 0
    assert (found['coco/bbox_mAP'], found['coco/segm_mAP']) == (pytest.approx(1), 0)
    rows = [key.removeprefix('coco/') for key in found]
    assert sum(is_class(row, CLASSES) for row in rows) == 2 * len(CLASSES)
    assert not is_class('bbox_mAP', CLASSES)
