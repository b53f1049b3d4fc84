"""Annotation files that no loader can work with: the error names the file and the entry."""

import json
import logging
import os
import pickle
import re
from contextlib import nullcontext

import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmkd.checkpoint import CheckpointError
from mmkd.datasets import guard
from mmkd.datasets._coco import find_fault


def build(config):
    with guard.building():
        return DATASETS.build(config)


def edit(root, change):
    path = root / 'annotations/train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return str(path)


def put(section, position, **values):
    """A change of one entry; None as a value of ``drop`` takes a key away."""

    def change(content):
        entry = content[section][position]
        for key in values.pop('drop', ()):
            del entry[key]
        entry.update(values)

    return change


def double(section, **values):
    return lambda content: content[section].append({**content[section][0], **values})


ENTRIES = {
    'three numbers': (put('annotations', 2, bbox=[1, 2, 3]), r'annotations\[2\].*bbox \[1, 2, 3\]'),
    'null box': (put('annotations', 0, bbox=None), r'annotations\[0\] \(id .*bbox None.*four'),
    'no box': (put('annotations', 0, drop=['bbox']), r"annotations\[0\].*bbox 'missing'"),
    'box of strings': (put('annotations', 0, bbox=['1', '2', '3', '4']), r"bbox \['1', '2',"),
    'box as a mapping': (put('annotations', 0, bbox={'x': 1}), r"bbox \{'x': 1\}"),
    'no area': (put('annotations', 3, drop=['area']), r'annotations\[3\].*area'),
    'null area': (put('annotations', 3, area=None), r'annotations\[3\].*area None'),
    'no image id': (put('annotations', 1, drop=['image_id']), r'annotations\[1\].*image_id None'),
    'no annotation id': (put('annotations', 1, drop=['id']), r'annotations\[1\].*has no id'),
    'list as id': (put('annotations', 1, id=[1]), r'annotations\[1\].*has id \[1\]'),
    'annotation is a list': (
        lambda c: c['annotations'].insert(0, [1]),
        r'annotations\[0\] is \[1\]',
    ),
    'no width': (put('images', 4, drop=['width']), r'images\[4\] \(id 4.*width None'),
    'null height': (put('images', 4, height=None), r'images\[4\].*height None'),
    'width as text': (put('images', 4, width='64'), r"images\[4\].*width '64'"),
    'no file name': (put('images', 5, drop=['file_name']), r'images\[5\].*file_name'),
    'no image id in images': (put('images', 5, drop=['id']), r'images\[5\].*has no id'),
    'no class name': (put('categories', 1, drop=['name']), r'categories\[1\].*no name'),
    'no categories': (lambda c: c.pop('categories'), r"has no 'categories'; it has "),
    'no images': (lambda c: c.pop('images'), r"has no 'images'"),
    'images as mapping': (lambda c: c.update(images={}), r"'images' is a dict"),
    'image id twice': (double('images', file_name='b.jpg'), r'images\[0\] and images\[6\].*id 0'),
    'annotation id twice': (double('annotations'), r'annotations\[0\] and annotations\[\d+\].*id'),
    'flag as text': (
        put('annotations', 6, iscrowd='0'),
        r"annotations\[6\].*has iscrowd '0', where 0 or 1",
    ),
    'category id twice': (double('categories', name='x'), r'categories\[0\] and categories\[5\]'),
}


@pytest.mark.parametrize('name', ENTRIES)
def test_entry_is_named(data, name):
    root, config = data('coco')
    change, words = ENTRIES[name]
    path = edit(root, change)
    with pytest.raises(guard.DataError, match=f'(?s){path}.*{words}'):
        build(config)


def test_only_the_first_entries_are_named(data):
    root, config = data('coco')
    edit(root, lambda c: [one.update(bbox=None) for one in c['annotations']])
    with pytest.raises(guard.DataError, match=r'annotations\[2\].* and \d+ more$') as caught:
        build(config)
    assert 'annotations[3]' not in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'{"images": [1,, 2]}', 'no valid JSON: .*line 1 column 15'),
        (b'\x1f\x8b\x08\x00}', 'no text in UTF-8'),
        (b'[{"id": 1}]', 'holds a list; COCO has a mapping'),
        (b'[' * 100_000 + b']' * 100_000, 'no valid JSON'),
    ],
)
def test_file_that_is_no_coco_json(data, content, words):
    root, config = data('coco')
    path = root / 'annotations/train.json'
    path.write_bytes(content)
    with pytest.raises(guard.DataError, match=f'annotation file {path}.*{words}'):
        build(config)


@pytest.mark.parametrize('serialize', [True, False])
def test_nothing_left_by_the_filter(data, serialize):
    root, config = data('coco')
    path = edit(root, lambda c: c.update(annotations=[]))
    config = {**config, 'serialize_data': serialize, 'filter_cfg': {'filter_empty_gt': True}}
    words = f'filter_cfg=.*filter_empty_gt.* none of the 6 images of {path}; 0 of them have objects'
    with pytest.raises(ValueError, match=words if serialize else 'is empty'):
        guard.audit(build(config))


def test_a_list_without_images(data):
    root, config = data('coco')
    path = edit(root, lambda c: c.update(images=[], annotations=[]))
    with pytest.raises(guard.DataError, match=f'{path} lists no image'):
        build({**config, 'serialize_data': True})


def test_annotations_of_nothing_are_reported(data, log):
    root, config = data('coco')

    def spoil(content):
        content['annotations'][0].update(image_id=77)
        content['annotations'][1].update(category_id='disc')
        content['images'][3]['file_name'] = content['images'][2]['file_name']
        content['categories'][4]['name'] = content['categories'][3]['name']

    path = edit(root, spoil)
    build(config)
    assert f'file {path}: 1 annotation(s) are not used, because no image has' in log.text
    assert "no category has their category_id: 'disc'" in log.text
    assert 'images[2] and images[3] have the same file_name' in log.text
    assert "categories[3] and categories[4] have the same name 'star'" in log.text


@pytest.mark.parametrize(
    'box', [[float('nan'), 1, 2, 2], [9, 9, -3, 4], [500, 9, 3, 4], [9, 9, 0.5, 0.5]]
)
def test_boxes_that_the_loader_leaves_out_are_located(data, box, log):
    root, config = data('coco')
    edit(root, lambda c: [one.update(bbox=box) for one in c['annotations'] if one['image_id'] == 2])
    (report,) = guard.audit(build(config))
    assert report.degenerate > 0 and report.objects.kept > 0
    path = config['data_prefix']['img'] + '000002.jpg'
    assert f'boxes left out by the loader are in {root}/{path}' in log.text


def test_good_files_and_other_loaders_are_left_alone(data, log):
    from pycocotools.coco import COCO

    before = COCO.__init__
    _, config = data('coco')
    build(config)
    assert COCO.__init__ is before and not [r for r in log.records if r.levelno > logging.INFO]
    with pytest.raises(ZeroDivisionError), guard.building():
        1 / 0  # noqa: B018


def test_wrapped_datasets_are_found(data):
    root, config = data('coco')
    path = edit(root, put('annotations', 2, bbox=None))
    wrapped = {'type': 'RepeatDataset', 'times': 2, 'dataset': config}
    with pytest.raises(guard.DataError, match=f'{path}: annotations'):
        build({'type': 'ConcatDataset', 'datasets': [wrapped, wrapped]})


def test_a_sound_file_has_no_fault(data):
    root, _ = data('coco')
    assert find_fault(str(root / 'annotations/train.json')) == ''


def test_another_loaders_error_names_its_file(tmp_path):
    path = tmp_path / 'list.json'
    path.write_text('{"data_list": []}')
    config = {'type': 'mmdet.BaseDetDataset', 'ann_file': str(path)}
    with pytest.raises(guard.DataError, match=f'BaseDetDataset: .*{path}|cannot be loaded: Value'):
        build(config)


# VOC --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('<bndbox>', '<box>', r'object\[0\] \(\w+\) has no bndbox'),
        ('<xmin>', '<xmin>a', r"has xmin 'a\d+', where a number"),
        ('<xmin>', '<xmin>nan</xmin><xmin>', "has xmin 'nan'"),
        ('<ymax>', '<low>', 'has ymax None'),
        ('<name>', '<title>', r'object\[0\] \(None\) has no name'),
        ('<width>', '<width>w', "size has width 'w64'"),
        ('<difficult>', '<difficult>no', "has difficult 'no0'"),
    ],
)
def test_xml_entry_is_named(data, old, new, words):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000004.xml'
    end = old.replace('<', '</'), '</' + new.strip('<').split('>')[0] + '>'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new).replace(*end))
    with pytest.raises(guard.DataError, match=f'annotation file {path}: .*{words}'):
        build(config)


@pytest.mark.parametrize('content', [None, b'no image'])
def test_xml_without_a_size_needs_the_image(data, content):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000004.xml'
    path.write_text(re.sub('<size>.*</size>', '', path.read_text(), flags=re.DOTALL))
    assert build(config).get_data_info(4)['width'] == 64
    image = root / 'VOC2007/JPEGImages/000004.jpg'
    image.unlink()
    if content:
        image.write_bytes(content)
    with pytest.raises(guard.DataError, match=f'{path}: it has no size, which image {image}'):
        build(config)


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('', 'has an empty line, whose annotation file'),
        ('000009', "the entry '000009'.*no such file"),
        ('000001 ', r"the entry '000001 '.*\(there is 000001.xml\)"),
        ('\ufeff000001', 'without a byte order mark'),
        ('000001 -1', "the entry '000001 -1'.*one name a line"),
    ],
)
def test_list_entry_without_a_file(data, line, words):
    root, config = data('voc')
    path = root / 'VOC2007/ImageSets/Main/train.txt'
    path.write_text(path.read_text() + f'{line}\n')
    with pytest.raises(FileNotFoundError, match=words):
        guard.check_paths(config)


def test_a_list_that_is_no_text(data):
    root, config = data('voc')
    (root / 'VOC2007/ImageSets/Main/train.txt').write_bytes(b'0001\xff')
    with pytest.raises(guard.DataError, match=r'train\.txt: it is no text in UTF-8 \(byte 4\)'):
        guard.check_paths(config)


def test_windows_line_ends_and_repeated_entries(data, log):
    root, config = data('voc')
    path = root / 'VOC2007/ImageSets/Main/train.txt'
    path.write_bytes(b'000001\r\n000002\r\n000001\r\n')
    guard.check_paths(config)
    (report,) = guard.audit(build(config))
    assert report.images == 3 and 'entries repeat an image' in log.text and '000001' in log.text


# What is not a file -----------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['fifo', 'device', 'directory', 'broken link'])
@pytest.mark.parametrize('name', ['coco', 'voc', 'voc xml'])
def test_what_is_no_file_is_not_read(data, kind, name):
    root, config = data(name.split()[0])
    path = root / config['ann_file']
    if name == 'voc xml':
        path = root / 'VOC2007/Annotations/000002.xml'
    path.unlink()
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'directory':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero' if kind == 'device' else root / 'nowhere')
    with pytest.raises(OSError, match=path.name):
        guard.check_paths(config)
    metric = {'type': 'CocoMetric', 'ann_file': str(path)}
    with pytest.raises(OSError, match='CocoMetric'):
        guard.check_evaluator(metric)


def test_file_without_permission(data, monkeypatch):
    root, config = data('coco')
    monkeypatch.setattr(os, 'access', lambda path, mode: not str(path).endswith('train.json'))
    with pytest.raises(OSError, match=r'train\.json cannot be read: permission'):
        guard.check_paths(config)


# Formats that can run a program -----------------------------------------------------------------


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
        guard.check_paths(config)
    assert not (tmp_path / 'marker').exists()


def test_pickled_arrays_are_read(tmp_path):
    values = [{'img': 'a.jpg', 'box': np.zeros(4, np.float32), 'n': np.int64(3), 'kind': {'x'}}]
    guard.check_paths(write_list(tmp_path / 'a.pkl', values))


def test_yaml_annotations_run_nothing(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text(f'!!python/object/apply:os.mkdir ["{tmp_path}/marker"]')
    with pytest.raises(CheckpointError, match=r'a\.yaml is refused: '):
        guard.check_paths({'type': 'mmdet.BaseDetDataset', 'ann_file': str(path)})
    assert not (tmp_path / 'marker').exists()


def test_proposals_are_looked_through_too(data, tmp_path):
    _, config = data('coco')
    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps(Bomb(str(tmp_path / 'marker'))))
    with pytest.raises(CheckpointError, match=r'proposals\.pkl is refused'):
        guard.check_paths({**config, 'proposal_file': str(path)})


def test_images_are_not_unpickled(data):
    _, config = data('cityscapes')
    step = dict(type='LoadBiomedicalImageFromFile', decode_backend='pickle')
    with pytest.raises(CheckpointError, match="decode_backend='pickle'.*'numpy'"):
        guard.check_paths({**config, 'pipeline': [step]})


def test_arrays_of_objects_are_refused(data, tmp_path):
    _, config = data('coco')
    path = tmp_path / 'tree.np'
    for content, fine in (np.eye(3), True), (np.array([Bomb('x')]), False):
        with open(path, 'wb') as file:
            np.save(file, content, allow_pickle=True)
        outcome = nullcontext() if fine else pytest.raises(CheckpointError, match=r'tree\.np is')
        with outcome:
            guard.check_paths({**config, 'hierarchy_file': str(path)})


def test_classes_without_the_comma(data):
    _, config = data('coco')
    with pytest.raises(ValueError, match=r"is the text 'disc'.*Write \('disc',\)"):
        guard.check_paths({**config, 'metainfo': {'classes': ('disc'), 'palette': [(0, 0, 0)]}})


def test_package_of_a_storage_is_named(data):
    _, config = data('coco')
    config = {**config, 'backend_args': {'backend': 'petrel'}}
    with pytest.raises(ImportError, match=r'CocoDataset .*train\.json: to load it.*petrel_client'):
        build(config)


def test_backslashes_in_file_names_are_pointed_out(data):
    root, config = data('coco')
    edit(root, lambda c: [one.update(file_name='a\\b.jpg') for one in c['images']])
    with pytest.raises(FileNotFoundError, match='its backslashes separate no folders here'):
        guard.audit(build(config))
