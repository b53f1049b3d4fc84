"""Which datasets there are inside wrappers, and of which kind."""

import pytest
from mmengine.registry import DATASETS

from mmkd.datasets._kinds import describe, is_coco, is_voc, leaves, shuffled


def test_each_dataset_inside_wrappers_once(data):
    _, config = data('coco')
    one, two = DATASETS.build(config), DATASETS.build(config)
    both = DATASETS.build(dict(type='ConcatDataset', datasets=[one, two, one]))
    assert [id(x) for x in leaves(both)] == [id(one), id(two)]
    repeated = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=two))
    assert list(leaves(repeated)) == [two]
    assert list(leaves(one)) == [one]


@pytest.mark.parametrize(
    ('name', 'kinds'),
    [('coco', (True, False)), ('voc', (False, True)), ('cityscapes', (False, False))],
)
def test_kinds(data, name, kinds):
    _, config = data(name)
    dataset = DATASETS.build(config)
    assert (is_coco(dataset), is_voc(dataset)) == kinds


def test_a_subclass_with_a_reader_of_its_own_is_no_voc(data):
    from mmdet.datasets import WIDERFaceDataset

    assert not is_voc(WIDERFaceDataset.__new__(WIDERFaceDataset))


def test_a_dataset_in_a_message(data):
    root, config = data('coco')
    assert describe(DATASETS.build(config)) == f'CocoDataset {root}/annotations/train.json'
    assert describe(object()) == 'object'


def test_any_beginning_is_a_fair_sample():
    order = list(shuffled(1000))
    assert sorted(order) == list(range(1000)) and order == list(shuffled(1000))
    assert 400 < sum(order[:100]) / 100 < 600


def test_whether_masks_are_loaded(data):
    from mmkd.datasets import loads_masks

    _, config = data('coco')
    one = DATASETS.build(config)
    assert loads_masks(one) is False
    one.pipeline.transforms[1].with_mask = True
    assert loads_masks(one) is True
    one.pipeline.transforms = one.pipeline.transforms[:1]
    assert loads_masks(one) is None  # a loader of one's own
