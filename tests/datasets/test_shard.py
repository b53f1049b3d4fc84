"""Parts of a dataset: disjoint, complete, of all classes."""

import pytest
from mmengine.dataset import RepeatDataset

from mmkd.datasets import ClassFolders, Shard
from mmkd.datasets.synthetic import write_folders
from mmkd.registry import DATASETS


@pytest.fixture
def entry(tmp_path):
    write_folders(tmp_path, 10, 5, size=(24, 20))
    return dict(type='mmkd.ClassFolders', data_root=str(tmp_path), pipeline=[])


def paths(dataset):
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def test_shards_are_disjoint_and_make_up_the_whole(entry):
    whole = paths(DATASETS.build(entry))
    parts = [
        paths(DATASETS.build(dict(type='mmkd.Shard', dataset=entry, index=i, of=3)))
        for i in range(3)
    ]
    assert sorted(sum(parts, [])) == sorted(whole)
    assert [len(part) for part in parts] == [4, 3, 3]
    assert parts[1] == whole[1::3]


def test_a_shard_is_a_dataset_of_its_kind(entry):
    shard = Shard(entry, index=1, of=2)
    assert isinstance(shard, ClassFolders) and shard.metainfo == DATASETS.build(entry).metainfo
    assert len(RepeatDataset(shard, 2)) == 10


def test_one_of_one_is_the_whole(entry):
    assert paths(Shard(entry, 0, 1)) == paths(DATASETS.build(entry))


@pytest.mark.parametrize(
    ('index', 'of', 'words'),
    [(2, 2, 'index'), (-1, 2, 'index'), (0, 0, 'of'), (11, 12, 'number 11 of 12 is empty')],
)
def test_shards_that_are_none(entry, index, of, words):
    with pytest.raises(ValueError, match=words):
        Shard(entry, index, of)


def test_a_wrapper_is_refused(entry):
    with pytest.raises(TypeError, match='without wrappers, found a RepeatDataset'):
        Shard(dict(type='RepeatDataset', times=2, dataset=entry), 0, 2)
