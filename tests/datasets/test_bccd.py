"""Blood cells in their published layout."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, VOCMetric
from mmengine.registry import DATASETS

from mmkd.datasets import BCCDDataset

BOX = '<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
BOX += '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'


OBJECTS = (
    [('RBC', 0, 1, 1, 21, 31), ('Platelets', 0, 40, 10, 50, 20), ('WBC', 0, 7, 7, 7, 7)],
    [('WBC', 0, 5, 5, 60, 45), ('RBC', 1, 2, 2, 12, 12)],
)


META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')


@pytest.fixture
def bccd(tmp_path):
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for index, objects in enumerate(OBJECTS):
        name = f'BloodImage_{index:05d}'
        cv2.imwrite(str(tmp_path / f'JPEGImages/{name}.jpg'), np.full((48, 64, 3), 99, np.uint8))
        text = '<annotation><size><width>64</width><height>48</height></size>'
        text += ''.join(BOX.format(*one) for one in objects)
        (tmp_path / f'Annotations/{name}.xml').write_text(text + '</annotation>')
    names = ''.join(f'BloodImage_{index:05d}\n' for index in range(len(OBJECTS)))
    (tmp_path / 'ImageSets/Main/val.txt').write_text(names)
    return {
        'type': 'mmkd.BCCDDataset',
        'data_root': str(tmp_path),
        'ann_file': 'ImageSets/Main/val.txt',
        'test_mode': True,
        'serialize_data': False,
        'pipeline': [
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
            {'type': 'mmdet.PackDetInputs', 'meta_keys': META_KEYS},
        ],
    }


def perfect(dataset):
    """Data samples whose predictions are the ground truth, ignored boxes left out."""
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        truth = sample.gt_instances
        sample.pred_instances = type(truth)(
            bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(len(truth))
        )
        plain = sample.to_dict()
        for key in ('gt_instances', 'ignored_instances'):
            plain[key]['bboxes'] = plain[key]['bboxes'].tensor
        yield plain


def test_bccd_reads_boxes_and_leaves_points_out(bccd):
    dataset = DATASETS.build(bccd)
    assert isinstance(dataset, BCCDDataset) and len(dataset) == 2
    first = dataset.get_data_info(0)['instances']
    assert [one['bbox'] for one in first] == [[0, 0, 20, 30], [39, 9, 49, 19]]
    assert [one['bbox_label'] for one in first] == [0, 2]
    assert [one['ignore_flag'] for one in dataset.get_data_info(1)['instances']] == [0, 1]


def test_bccd_through_coco_metric_without_an_annotation_file(bccd):
    """COCO's AP and AP50; a perfect detector gets 1.0, so difficult boxes are not counted."""

    dataset = DATASETS.build(bccd)
    metric = CocoMetric(metric='bbox', classwise=True)
    metric.dataset_meta = dataset.metainfo
    for sample in perfect(dataset):
        metric.process({}, [sample])
    scores = metric.evaluate(2)
    assert scores['coco/bbox_mAP'] == scores['coco/bbox_mAP_50'] == 1.0
    assert scores['coco/WBC_precision'] == 1.0


@pytest.mark.parametrize('mode', ['area', '11points'])
def test_bccd_through_voc_metric(bccd, mode):

    dataset = DATASETS.build(bccd)
    metric = VOCMetric(eval_mode=mode)
    metric.dataset_meta = dataset.metainfo
    for sample in perfect(dataset):
        metric.process({}, [sample])
    assert metric.evaluate(2)['pascal_voc/mAP'] == pytest.approx(1.0)
