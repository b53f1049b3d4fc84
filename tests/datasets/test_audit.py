"""A look at a built dataset before training: what is wrong with it, counted and named."""

import json
import logging
from threading import Barrier

import pytest
from mmengine.registry import DATASETS
from spoiling import build, edit

from mmkd.datasets import _audit, protection
from mmkd.datasets.scenes import CLASSES, PALETTE


def test_backslashes_in_file_names_are_pointed_out(data):
    root, config = data('coco')
    edit(root, lambda c: [one.update(file_name='a\\b.jpg') for one in c['images']])
    with pytest.raises(FileNotFoundError, match='its backslashes separate no folders here'):
        protection.audit(build(config))


def edit_json(root, change):
    path = root / 'annotations/train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_boxes_that_cocos_loader_leaves_out_are_counted(data, log):
    root, config = data('coco')

    def spoil(content):
        first, *_ = content['annotations']
        bad = [
            {**first, 'id': 9000 + i, 'bbox': b}
            for i, b in enumerate([[1, 1, 0, 5], [99, 1, 5, 5]])
        ]
        content['annotations'] += bad

    edit_json(root, spoil)
    dataset = DATASETS.build(config)
    (report,) = protection.protect(dataset)
    assert report.degenerate == 2 and '2 degenerate boxes' in log.text


def test_images_without_ground_truth_are_counted(data, log):
    root, config = data('coco')

    def spoil(content):
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in (1, 4)]

    edit_json(root, spoil)
    (report,) = protection.audit(DATASETS.build(config))
    assert report.empty == 2 and report.clean and '2 without ground truth' in log.text


def test_files_are_looked_for_together(data, monkeypatch):
    """A disk behind a network answers each question late, and many at once."""
    _, config = data('coco')
    dataset = DATASETS.build(config)
    dataset.get_subset_([0] * 2 * _audit.TOGETHER)
    waiting = Barrier(_audit.TOGETHER)
    monkeypatch.setattr(_audit, 'fault', lambda path: waiting.wait(timeout=20) * '')
    (report,) = protection.audit(dataset)
    assert report.looked_at == 2 * _audit.TOGETHER and not report.missing


def test_audit_looks_at_a_sample_when_time_is_short(data):
    _, config = data('coco')
    dataset = DATASETS.build(config)
    dataset.get_subset_([0] * 400)
    (report,) = protection.audit(dataset, budget=0)
    assert report.looked_at == 16 and '400 images (files of 16 looked at)' in str(report)


@pytest.mark.parametrize('name', ['coco', 'voc', 'cityscapes'])
def test_good_data_passes(data, name, log):
    _, config = data(name)
    protection.check_paths(config)
    dataset = DATASETS.build(config)
    (report,) = protection.protect(dataset)
    assert report.clean and report.images == report.looked_at == 6
    assert '6 images' in log.text and not [r for r in log.records if r.levelno > logging.INFO]


def test_one_error_when_no_image_file_exists(data):
    root, config = data('coco')
    dataset = DATASETS.build(config)
    for path in (root / 'train').iterdir():
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r'none of 6 image files can be read(.|\n)*data_root'
    ):
        protection.audit(dataset)


def test_audit_of_a_dataset_whose_folder_went_away(data):
    root, config = data('voc')
    dataset = DATASETS.build(config)
    (root / 'VOC2007/JPEGImages').rename(root / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='JPEGImages'):
        protection.audit(dataset)


@pytest.mark.parametrize('name', ['coco', 'voc'])
def test_some_unknown_classes_are_counted_and_absent_ones_listed(data, name, log):
    _, config = data(name)
    classes = tuple('dog' if one == 'star' else one for one in CLASSES)
    everything = DATASETS.build(config)
    config['metainfo'] = {'classes': classes, 'palette': PALETTE}
    stars = sum(everything.get_cat_ids(i).count(CLASSES.index('star')) for i in range(6))
    (report,) = protection.audit(DATASETS.build(config))
    assert report.unknown == {'star': stars} and report.absent == ['dog']
    assert f'star ({stars})' in log.text and 'never occur: dog' in log.text
    assert log.records[-1].levelno == logging.WARNING
    # The one place where mmdet renumbers classes behind one's back.
    assert ('label i is class i of' in log.text) == (name == 'coco')


def test_coco_numbers_classes_in_the_order_of_the_file(data):
    """Why a permuted class list is worth a warning: the labels do not follow it."""
    _, config = data('coco')
    usual = DATASETS.build(config)
    config['metainfo'] = {'classes': CLASSES[::-1], 'palette': PALETTE}
    permuted = DATASETS.build(config)
    assert usual.get_cat_ids(0) == permuted.get_cat_ids(0)
    (report,) = protection.audit(permuted)
    assert not report.clean and 'another order' in str(report)
