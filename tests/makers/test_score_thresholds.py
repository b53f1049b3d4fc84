"""Thresholds: the sheet's, by class, and those that match a labelled set."""

import json

import pytest

from mmkd.makers.score_thresholds import (
    check_thresholds,
    labelled_counts,
    match_thresholds,
    matched,
)

SCORES = [0.95, 0.9, 0.4, 0.2], [0.8, 0.3], [0.99, 0.7, 0.6, 0.5, 0.1], [0.05]


def test_values_of_the_sheet():  # DD-2
    every = [s for one in SCORES for s in one]
    assert matched(every, 4, 2.5) == (0.2, 10)
    assert matched(every, 4, 2.75) == (0.1, 11)


def test_ties_more_than_there_are_and_nothing():
    assert matched([0.5, 0.5, 0.5], 1, 2) == (0.5, 3)
    assert matched([0.5, 0.4], 4, 5) == (0.4, 2)
    assert matched([0.5], 4, 0) == (1.0, 0) and matched([], 4, 2) == (1.0, 0)


def test_each_class_by_itself():
    found = [dict(scores=[0.9, 0.8, 0.3], labels=[0, 1, 1]), dict(scores=[0.6], labels=[1])]
    counts = dict(a=0.5, b=1.0)
    assert match_thresholds(found, counts, 'ab', per_class=True) == [0.9, 0.6]
    assert match_thresholds(found, counts, 'ab', per_class=False) == [0.6, 0.6]


def test_numbers_by_class():
    assert check_thresholds('X', 0.5, 'ab') == [0.5, 0.5]
    assert check_thresholds('X', dict(A=0.2, other=0.7), ['a', 'b']) == [0.2, 0.7]
    for given, words in (
        (2, 'threshold must be a finite number from 0 to 1'),
        (dict(c=0.5), "names 'c', but the classes are a, b"),
        (dict(a=0.5), 'no number for b; other='),
        (dict(a='x', b=0), 'threshold of a must be'),
    ):
        with pytest.raises(ValueError, match=words):
            check_thresholds('X', given, ['a', 'b'])


@pytest.fixture
def coco(tmp_path):
    rows = [dict(category_id=c, iscrowd=k) for c, k in ((7, 0), (7, 0), (3, 0), (3, 1))]
    held = dict(images=[{}, {}], annotations=rows)
    held['categories'] = [dict(id=7, name='b', supercategory='x'), dict(id=3, name='a')]
    (tmp_path / 'a.json').write_text(json.dumps(held))
    return str(tmp_path / 'a.json')


def test_a_labelled_set(coco):
    counts, categories = labelled_counts('X', coco, ['a', 'b'])
    assert counts == dict(a=0.5, b=1.0), 'crowds do not count'
    assert categories == [dict(id=7, name='b'), dict(id=3, name='a')]
    with pytest.raises(ValueError, match='has 2 images and the classes b, a, but the teacher'):
        labelled_counts('X', coco, ['a', 'c'])
    with pytest.raises(FileNotFoundError, match='X: labelled: .*nowhere.json'):
        labelled_counts('X', 'nowhere.json', ['a'])


def test_an_annotation_of_no_category(coco):
    """It ended in a KeyError."""
    held = json.loads(open(coco).read())
    held['annotations'].append(dict(category_id=9))
    with open(coco, 'w') as file:
        json.dump(held, file)
    with pytest.raises(ValueError, match='X: .*a.json has annotations of the category_id 9, which'):
        labelled_counts('X', coco, ['a', 'b'])


def test_the_training_set_of_a_config(tmp_path):
    from mmengine.config import Config

    from mmkd.datasets.synthetic import write_coco

    write_coco(tmp_path / 'data', 3, 1, size=(64, 48), objects=(2, 2))
    from mmkd.datasets.scenes import CLASSES

    dataset = dict(
        type='mmdet.CocoDataset',
        data_root=str(tmp_path / 'data'),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=tuple(CLASSES)),
    )
    for entry in (dataset, dict(type='RepeatDataset', times=3, dataset=dataset)):
        config = Config(dict(train_dataloader=dict(dataset=entry)))
        config.dump(tmp_path / 'c.py')
        counts, categories = labelled_counts('X', str(tmp_path / 'c.py'), list(CLASSES))
        assert sum(counts.values()) == pytest.approx(2) and categories == []
    other = labelled_counts('X', str(tmp_path / 'c.py'), CLASSES[::-1])[0]
    assert other == counts and len({*counts.values()}) > 1, 'by name, whatever the order'
    with pytest.raises(ValueError, match='but the teacher knows car. Both must be the same'):
        labelled_counts('X', str(tmp_path / 'c.py'), ['car'])
