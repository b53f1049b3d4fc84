"""COCO files that no loader can work with: the error names the file and the entry."""

import logging

import pytest
from pycocotools.coco import COCO
from spoiling import build, double, edit, put

from mmkd.datasets import protection
from mmkd.datasets._coco import find_fault

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
    with pytest.raises(protection.DataError, match=f'(?s){path}.*{words}'):
        build(config)


def test_only_the_first_entries_are_named(data):
    root, config = data('coco')
    edit(root, lambda c: [one.update(bbox=None) for one in c['annotations']])
    with pytest.raises(protection.DataError, match=r'annotations\[2\].* and \d+ more$') as caught:
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
    with pytest.raises(protection.DataError, match=f'annotation file {path}.*{words}'):
        build(config)


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


def test_good_files_and_other_loaders_are_left_alone(data, log):

    before = COCO.__init__
    _, config = data('coco')
    build(config)
    assert COCO.__init__ is before and not [r for r in log.records if r.levelno > logging.INFO]
    with pytest.raises(ZeroDivisionError), protection.building():
        1 / 0  # noqa: B018


def test_a_sound_file_has_no_fault(data):
    root, _ = data('coco')
    assert find_fault(str(root / 'annotations/train.json')) == ''
