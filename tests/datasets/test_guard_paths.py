"""The guard on paths and class names, with the real dataset classes of mmdet and mmseg."""

import json
import logging
import time

import cv2
import pytest
from mmengine.registry import DATASETS

from mmkd.datasets import guard
from mmkd.datasets._names import coco_categories, voc_names
from mmkd.datasets.scenes import CLASSES, PALETTE


@pytest.mark.parametrize('name', ['coco', 'voc', 'cityscapes'])
def test_good_data_passes(data, name, log):
    _, config = data(name)
    guard.check_paths(config)
    dataset = DATASETS.build(config)
    (report,) = guard.protect(dataset)
    assert report.clean and report.images == report.looked_at == 6
    assert '6 images' in log.text and not [r for r in log.records if r.levelno > logging.INFO]


@pytest.mark.parametrize('name', ['coco', 'voc', 'cityscapes'])
def test_missing_root_is_one_error_with_everything_in_it(data, name):
    root, config = data(name)
    config['data_root'] = str(root.parent / 'nowhere/data')
    with pytest.raises(FileNotFoundError) as caught:
        guard.check_paths(config)
    text = str(caught.value)
    for part in (config['type'].split('.')[1], config['data_root'], 'data_root', '1 path(s)'):
        assert part in text
    assert f'exists up to: {root.parent} ({name})' in text


@pytest.mark.parametrize(
    ('name', 'change', 'words'),
    [
        ('coco', {'ann_file': 'annotations/tarin.json'}, "ann_file='annotations/tarin.json'"),
        ('coco', {'data_prefix': {'img': 'images/'}}, "data_prefix.img='images/'"),
        ('voc', {'data_prefix': {'sub_data_root': 'VOC2012/'}}, 'sub_data_root'),
        ('voc', {'img_subdir': 'Images'}, "folder='Images'"),
        ('cityscapes', {'data_prefix': {'img_path': 'a', 'seg_map_path': 'b'}}, '2 path(s)'),
    ],
)
def test_missing_parts_are_named(data, name, change, words):
    root, config = data(name)
    with pytest.raises(FileNotFoundError) as caught:
        guard.check_paths({**config, **change})
    assert words in str(caught.value) and f'exists up to: {root}' in str(caught.value)


def test_wrappers_and_scope_are_followed(data):
    _, config = data('coco')
    bad = {**config, 'type': 'CocoDataset', 'ann_file': 'none.json'}
    repeat = {'type': 'RepeatDataset', 'times': 2, 'dataset': bad}
    wrapped = {'type': 'ConcatDataset', 'datasets': [config, repeat]}
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        guard.check_paths(wrapped, scope='mmdet')


def test_remote_paths_and_unknown_types_are_left_to_the_builder(data):
    _, config = data('coco')
    guard.check_paths({**config, 'data_root': 's3://bucket/coco'})
    guard.check_paths({**config, 'type': 'mmdet.NoSuchDataset'})


def test_evaluator_paths(data):
    root, _ = data('coco')
    metric = {'type': 'CocoMetric', 'ann_file': str(root / 'annotations/val.json')}
    guard.check_evaluator(metric)
    guard.check_evaluator([{'type': 'VOCMetric'}, metric])
    with pytest.raises(FileNotFoundError, match=r'CocoMetric(.|\n)*no\.json(.|\n)*exists up to'):
        guard.check_evaluator([{**metric, 'ann_file': str(root / 'no.json')}])


@pytest.mark.parametrize(
    ('content', 'words'), [('', 'is empty'), ('{"images": [{"id": 1}, {"i', 'is cut off')]
)
def test_broken_annotation_file(data, content, words):
    root, config = data('coco')
    (root / 'annotations/train.json').write_text(content)
    with pytest.raises(ValueError, match=words):
        guard.check_paths(config)


def test_no_image_with_the_suffix(data):
    _, config = data('cityscapes')
    with pytest.raises(ValueError, match=r"ends in '\.tif'; try another img_suffix"):
        guard.check_paths({**config, 'img_suffix': '.tif'})


def test_malformed_xml_is_named(data):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000003.xml'
    path.write_text(path.read_text().replace('</annotation>', ''))
    with pytest.raises(ValueError, match=r'000003\.xml is not well-formed'):
        guard.check_paths(config)


def test_one_error_when_no_image_file_exists(data):
    root, config = data('coco')
    dataset = DATASETS.build(config)
    for path in (root / 'train').iterdir():
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r'none of 6 image files can be read(.|\n)*data_root'
    ):
        guard.audit(dataset)


def test_audit_of_a_dataset_whose_folder_went_away(data):
    root, config = data('voc')
    dataset = DATASETS.build(config)
    (root / 'VOC2007/JPEGImages').rename(root / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='JPEGImages'):
        guard.audit(dataset)


# Classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['coco', 'voc'])
def test_no_common_class_is_an_error_with_both_lists(data, name):
    _, config = data(name)
    config['metainfo'] = {'classes': ('cat', 'dog'), 'palette': PALETTE[:2]}
    with pytest.raises(ValueError, match=r'none of its classes(.|\n)*cat, dog(.|\n)*star'):
        guard.check_paths(config)


@pytest.mark.parametrize('name', ['coco', 'voc'])
def test_some_unknown_classes_are_counted_and_absent_ones_listed(data, name, log):
    _, config = data(name)
    classes = tuple('dog' if one == 'star' else one for one in CLASSES)
    everything = DATASETS.build(config)
    config['metainfo'] = {'classes': classes, 'palette': PALETTE}
    stars = sum(everything.get_cat_ids(i).count(CLASSES.index('star')) for i in range(6))
    (report,) = guard.audit(DATASETS.build(config))
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
    (report,) = guard.audit(permuted)
    assert not report.clean and 'another order' in str(report)


def test_categories_are_found_anywhere_in_a_file(tmp_path):
    categories = [{'id': 7, 'name': 'Grün', 'supercategory': 'categories'}]
    rest = {'images': [{'file_name': '"categories"'}] * 3, 'annotations': []}
    for order in ({'categories': categories, **rest}, {**rest, 'categories': categories}):
        path = tmp_path / 'a.json'
        path.write_text(json.dumps(order, ensure_ascii=False))
        assert coco_categories(str(path)) == {7: 'Grün'}
    path.write_text(json.dumps(rest))
    assert coco_categories(str(path)) is None


def test_names_of_body_parts_are_not_classes_and_time_is_kept(tmp_path):
    part = '<part><name>head</name></part>'
    text = f'<annotation><object><name>person</name>{part}</object></annotation>'
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f'{index}.xml'))
        (tmp_path / f'{index}.xml').write_text(text)
    names = voc_names([*paths, str(tmp_path / 'absent.xml')], time.monotonic() + 9)
    assert (names.counts, names.files, names.complete) == ({'person': 3}, 3, True)
    names = voc_names(paths, time.monotonic() - 1)
    assert (names.files, names.complete) == (1, False)


def test_label_values_that_are_no_class(data, log):
    root, config = data('cityscapes')
    for path in root.glob('gtFine/train/shapes/*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels[0, :3] = 19
        cv2.imwrite(str(path), labels)
    (report,) = guard.audit(DATASETS.build(config))
    assert report.unknown == {'label 19': 18} and 'must be below 19 or 255' in log.text
