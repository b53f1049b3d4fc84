"""A part of the classes and a dustbin."""

from collections import Counter

import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmkd.datasets.specialist_classes import specialist_classes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('classes')
    for name in 'abcd':
        (root / 'train' / name).mkdir(parents=True)
        for i in range(3):
            Image.new('RGB', (4, 4)).save(root / 'train' / name / f'{i}.png')
    return dict(type='mmkd.ClassFolders', data_root=str(root), pipeline=[])


def counts(dataset):
    return Counter(dataset.get_data_info(i)['gt_label'] for i in range(len(dataset)))


def test_half_of_the_images_are_of_the_classes(folder):
    dataset = specialist_classes(folder, ['c', 'a'])
    assert dataset.metainfo['classes'] == ('c', 'a', 'dustbin')
    assert counts(dataset) == {0: 3, 1: 3, 2: 6}
    names = {dataset.get_data_info(i)['img_path'].split('/')[-2] for i in range(len(dataset))}
    assert names == {'a', 'b', 'c', 'd'}
    one = specialist_classes(folder, ['a'])
    assert counts(one) == {0: 3, 1: 3}


def test_the_draw_depends_on_the_seed_alone(folder):
    def files(seed):
        dataset = specialist_classes(folder, ['a'], seed=seed)
        return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]

    assert files(0) == files(0)
    assert any(files(0) != files(seed) for seed in (1, 2, 3))


def test_all_images_for_a_validation(folder):
    entry = dict(type='mmkd.SpecialistClasses', dataset=folder, classes=['b'], balanced=False)
    assert counts(DATASETS.build(entry)) == {0: 3, 1: 9}


@pytest.mark.parametrize('classes', [[], ['a', 'x'], list('abcd'), ['a', 'a']])
def test_classes_that_are_not_a_part(folder, classes):
    with pytest.raises(ValueError, match='must be some of .*each once, and not all'):
        specialist_classes(folder, classes)


def test_no_labels_and_no_wrapper(folder):
    wrapped = dict(type='RepeatDataset', times=2, dataset=folder)
    with pytest.raises(ValueError, match='not a wrapper like RepeatDataset'):
        specialist_classes(wrapped, ['a'])
    with pytest.raises(ValueError, match='seed must be'):
        specialist_classes(folder, ['a'], seed=-1)
