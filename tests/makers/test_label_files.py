"""Files of pseudo labels, read again by the datasets that they are for."""

import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, XMLDataset
from view_toys import picture

from mmkd.makers.image_views import encoded
from mmkd.makers.label_files import (
    Object,
    chosen,
    label_map,
    picture_of_boxes,
    picture_of_map,
    write_coco,
    write_map,
    write_page,
    write_voc,
)
from mmkd.visualization import canvas

NAMES = ['cat', 'dog']
FOUND = dict(
    boxes=[[1.25, 2.5, 10.75, 20.0], [3.0, 4.0, 9.0, 8.5], [0.0, 0.0, 5.0, 5.0]],
    labels=[1, 0, 0],
    scores=[0.9, 0.5, 0.3],
)


def objects(ignore=None):
    return chosen(FOUND, [0.4, 0.8], ignore)


def test_thresholds_and_what_is_neither_object_nor_background():
    assert [(label, ignored) for _, label, _, ignored, _ in objects()] == [(1, False), (0, False)]
    assert [o[3] for o in objects(0.3)] == [False, False, True]
    assert [o[3] for o in chosen(FOUND, [0.95, 0.95], 0.5)] == [True, True]


def test_coco(tmp_path):  # PL-2
    images = {
        str(tmp_path / f'{n}.jpg'): ((40, 60), own) for n, own in (('a', objects(0.3)), ('b', []))
    }
    ids = [dict(id=7, name='cat'), dict(id=3, name='dog')]
    path = write_coco(str(tmp_path), str(tmp_path), images, ids, dict(teacher='t'))
    held = json.loads(open(path).read())
    assert held['info'] == dict(teacher='t')
    assert [a['score'] for a in held['annotations']] == [0.9, 0.5, 0.3]
    assert [a['iscrowd'] for a in held['annotations']] == [0, 0, 1]
    dataset = CocoDataset(
        ann_file=path, data_prefix=dict(img=str(tmp_path)), metainfo=dict(classes=tuple(NAMES))
    )
    first, second = (dataset.get_data_info(i) for i in range(2))
    assert second['instances'] == [] and first['img_path'] == str(tmp_path / 'a.jpg')
    read = [(o['bbox'], o['bbox_label'], o['ignore_flag']) for o in first['instances']]
    np.testing.assert_allclose([b for b, *_ in read], FOUND['boxes'], atol=1e-2)
    assert [tuple(rest) for _, *rest in read] == [(1, 0), (0, 0), (0, 1)]


def test_coco_with_masks(tmp_path):
    """Run-length codes that mmdet's loading step turns into the masks that were written."""
    masks = np.zeros((3, 40, 60), np.uint8)
    masks[0, 3:20, 2:10], masks[1, 4:8, 3:9], masks[2, :5, :5] = 1, 1, 1
    found = dict(FOUND, masks=[encoded(mask) for mask in masks])
    images = {picture(tmp_path / 'a.jpg'): ((40, 60), chosen(found, [0.4, 0.8], 0.3))}
    ids = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    path = write_coco(str(tmp_path), str(tmp_path), images, ids, {})
    assert [a['area'] for a in json.loads(open(path).read())['annotations']] == [136, 24, 25]
    step = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
    dataset = CocoDataset(
        ann_file=path,
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=tuple(NAMES)),
        pipeline=[dict(type='LoadImageFromFile'), step],
    )
    read = dataset[0]
    np.testing.assert_array_equal(read['gt_masks'].masks, masks)
    assert read['gt_ignore_flags'].tolist() == [False, False, True]
    ((file, (_, own)),) = images.items()
    bare = [one._replace(mask=None) for one in own]
    assert (picture_of_boxes(file, own, NAMES) != picture_of_boxes(file, bare, NAMES)).any()
    unsaid = picture_of_boxes(file, own, NAMES, scored=False)
    assert (picture_of_boxes(file, own, NAMES) != unsaid).any()


def test_voc(tmp_path):  # PL-2
    path = write_voc(str(tmp_path), {picture(tmp_path / 'a.jpg'): ((40, 60), objects(0.3))}, NAMES)
    dataset = XMLDataset(
        ann_file=path,
        data_prefix=dict(sub_data_root=''),
        ann_subdir=str(tmp_path / 'Annotations'),
        img_subdir=str(tmp_path),
        metainfo=dict(classes=tuple(NAMES)),
    )
    read = dataset.get_data_info(0)['instances']
    boxes = [np.add(o['bbox'], [0, 0, 1, 1]) for o in read]  # from 0, both corners included
    np.testing.assert_allclose(boxes, FOUND['boxes'], atol=0.51)
    assert [(o['bbox_label'], o['ignore_flag']) for o in read] == [(1, 0), (0, 0), (0, 1)]
    assert '<score>0.9</score>' in (tmp_path / 'Annotations' / 'a.xml').read_text()


def test_voc_of_boxes_under_half_a_pixel_at_the_edges(tmp_path):
    """One at the right or lower edge began beyond it."""
    boxes = [[59.7, 39.6, 60.0, 40.0], [0.0, 0.0, 0.3, 0.4]]
    own = chosen(dict(boxes=boxes, labels=[0, 0], scores=[0.9, 0.9]), [0.5, 0.5], None)
    write_voc(str(tmp_path), {picture(tmp_path / 'a.jpg'): ((40, 60), own)}, NAMES)
    top = ElementTree.parse(tmp_path / 'Annotations' / 'a.xml')
    names = ('xmin', 'ymin', 'xmax', 'ymax')
    found = [[int(one.find(name).text) for name in names] for one in top.iter('bndbox')]
    assert found == [[60, 40, 60, 40], [1, 1, 1, 1]]


def test_boxes_of_a_very_tall_image_are_drawn_within_it(tmp_path, monkeypatch):
    file, seen = str(tmp_path / 'a.png'), []
    cv2.imwrite(file, np.zeros((400, 2, 3), np.uint8))
    real = canvas.draw_boxes
    monkeypatch.setattr(canvas, 'draw_boxes', lambda *a: seen.append(a) or real(*a))
    picture_of_boxes(file, [Object([0.0, 200.0, 2.0, 400.0], 0, 0.9, False)], NAMES)
    assert seen[0][1].tolist() == [[0, 3200, 320, 6400]]


def test_maps(tmp_path):  # PL-1
    logits = torch.tensor([[3.0, 0, 0], [1, 0.9, 0], [0, 0, 0]]).T[:, None]
    shares = logits.softmax(0).numpy()
    np.testing.assert_allclose(shares.max(0), [[0.9094430, 0.4400020, 0.3333333]], atol=1e-6)
    assert label_map(shares, [0.5] * 3).tolist() == [[0, 255, 255]]
    assert label_map(shares, [0.5, 0, 0]).tolist() == [[0, 255, 255]]
    assert label_map(shares, [0.4] * 3, reduce_zero_label=True).tolist() == [[1, 1, 255]]
    write_map(str(tmp_path / 'x' / 'a.png'), label_map(shares, [0.4] * 3))
    assert cv2.imread(str(tmp_path / 'x' / 'a.png'), -1).tolist() == [[0, 0, 255]]


def test_pictures(tmp_path):
    file = picture(tmp_path / 'a.png')
    labels = np.full((40, 60), 255, np.uint8)
    labels[:20] = 1
    shown = [picture_of_boxes(file, objects(0.3), NAMES), picture_of_map(file, labels, 2, 0)]
    write_page(str(tmp_path / 'check.png'), shown * 3)
    assert (tmp_path / 'check.png').stat().st_size > 1000
    assert shown[0].shape[1] == pytest.approx(320, abs=20)
