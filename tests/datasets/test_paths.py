"""The guard on paths and class names, with the real dataset classes of mmdet and mmseg."""

import os
import pickle
from contextlib import nullcontext

import numpy as np
import pytest

from mmkd.checkpoint import CheckpointError
from mmkd.datasets import protection
from mmkd.datasets.scenes import PALETTE


@pytest.mark.parametrize('name', ['coco', 'voc', 'cityscapes'])
def test_missing_root_is_one_error_with_everything_in_it(data, name):
    root, config = data(name)
    config['data_root'] = str(root.parent / 'nowhere/data')
    with pytest.raises(FileNotFoundError) as caught:
        protection.check_paths(config)
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
        protection.check_paths({**config, **change})
    assert words in str(caught.value) and f'exists up to: {root}' in str(caught.value)


def test_wrappers_and_scope_are_followed(data):
    _, config = data('coco')
    bad = {**config, 'type': 'CocoDataset', 'ann_file': 'none.json'}
    repeat = {'type': 'RepeatDataset', 'times': 2, 'dataset': bad}
    wrapped = {'type': 'ConcatDataset', 'datasets': [config, repeat]}
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        protection.check_paths(wrapped, scope='mmdet')


def test_remote_paths_and_unknown_types_are_left_to_the_builder(data):
    _, config = data('coco')
    protection.check_paths({**config, 'data_root': 's3://bucket/coco'})
    protection.check_paths({**config, 'type': 'mmdet.NoSuchDataset'})


def test_evaluator_paths(data):
    root, _ = data('coco')
    metric = {'type': 'CocoMetric', 'ann_file': str(root / 'annotations/val.json')}
    protection.check_evaluator(metric)
    protection.check_evaluator([{'type': 'VOCMetric'}, metric])
    with pytest.raises(FileNotFoundError, match=r'CocoMetric(.|\n)*no\.json(.|\n)*exists up to'):
        protection.check_evaluator([{**metric, 'ann_file': str(root / 'no.json')}])


@pytest.mark.parametrize(
    ('content', 'words'), [('', 'is empty'), ('{"images": [{"id": 1}, {"i', 'is cut off')]
)
def test_broken_annotation_file(data, content, words):
    root, config = data('coco')
    (root / 'annotations/train.json').write_text(content)
    with pytest.raises(ValueError, match=words):
        protection.check_paths(config)


def test_no_image_with_the_suffix(data):
    _, config = data('cityscapes')
    with pytest.raises(ValueError, match=r"ends in '\.tif'; try another img_suffix"):
        protection.check_paths({**config, 'img_suffix': '.tif'})


def test_malformed_xml_is_named(data):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000003.xml'
    path.write_text(path.read_text().replace('</annotation>', ''))
    with pytest.raises(ValueError, match=r'000003\.xml is not well-formed'):
        protection.check_paths(config)


@pytest.mark.parametrize('name', ['coco', 'voc'])
def test_no_common_class_is_an_error_with_both_lists(data, name):
    _, config = data(name)
    config['metainfo'] = {'classes': ('cat', 'dog'), 'palette': PALETTE[:2]}
    with pytest.raises(ValueError, match=r'none of its classes(.|\n)*cat, dog(.|\n)*star'):
        protection.check_paths(config)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_list(path, content):
    path.write_bytes(pickle.dumps({'metainfo': {}, 'data_list': content}))
    return {'type': 'mmdet.BaseDetDataset', 'ann_file': str(path), 'data_prefix': {'img': ''}}


def test_pickled_annotations_run_nothing(tmp_path):
    config = write_list(tmp_path / 'a.pkl', [Bomb(str(tmp_path / 'marker'))])
    with pytest.raises(CheckpointError, match=r'a\.pkl is refused: loading it needs posix\.mkdir'):
        protection.check_paths(config)
    assert not (tmp_path / 'marker').exists()


def test_pickled_arrays_are_read(tmp_path):
    values = [{'img': 'a.jpg', 'box': np.zeros(4, np.float32), 'n': np.int64(3), 'kind': {'x'}}]
    protection.check_paths(write_list(tmp_path / 'a.pkl', values))


def test_yaml_annotations_run_nothing(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text(f'!!python/object/apply:os.mkdir ["{tmp_path}/marker"]')
    with pytest.raises(CheckpointError, match=r'a\.yaml is refused: '):
        protection.check_paths({'type': 'mmdet.BaseDetDataset', 'ann_file': str(path)})
    assert not (tmp_path / 'marker').exists()


def test_proposals_are_looked_through_too(data, tmp_path):
    _, config = data('coco')
    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps(Bomb(str(tmp_path / 'marker'))))
    with pytest.raises(CheckpointError, match=r'proposals\.pkl is refused'):
        protection.check_paths({**config, 'proposal_file': str(path)})


def test_images_are_not_unpickled(data):
    _, config = data('cityscapes')
    step = dict(type='LoadBiomedicalImageFromFile', decode_backend='pickle')
    with pytest.raises(CheckpointError, match="decode_backend='pickle'.*'numpy'"):
        protection.check_paths({**config, 'pipeline': [step]})


def test_arrays_of_objects_are_refused(data, tmp_path):
    _, config = data('coco')
    path = tmp_path / 'tree.np'
    for content, fine in (np.eye(3), True), (np.array([Bomb('x')]), False):
        with open(path, 'wb') as file:
            np.save(file, content, allow_pickle=True)
        outcome = nullcontext() if fine else pytest.raises(CheckpointError, match=r'tree\.np is')
        with outcome:
            protection.check_paths({**config, 'hierarchy_file': str(path)})


def test_classes_without_the_comma(data):
    _, config = data('coco')
    with pytest.raises(ValueError, match=r"is the text 'disc'.*Write \('disc',\)"):
        protection.check_paths(
            {**config, 'metainfo': {'classes': ('disc'), 'palette': [(0, 0, 0)]}}
        )
