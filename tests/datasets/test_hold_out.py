"""A part of the training set kept away from training."""

import json

import pytest
from mmengine.dataset import BaseDataset

from mmkd.datasets.hold_out import hold_out


@pytest.fixture
def data(tmp_path):
    """Forty entries without images."""
    entries = [dict(img_path=f'{i}.jpg') for i in range(40)]
    (tmp_path / 'a.json').write_text(json.dumps(dict(metainfo={}, data_list=entries)))
    return dict(type=BaseDataset, ann_file=str(tmp_path / 'a.json'))


def names(part):
    return [info['img_path'] for info in map(part.get_data_info, range(len(part)))]


def test_held_out_parts_depend_on_the_seed_and_the_share(data):
    (held, rest), other = (
        [names(hold_out(dict(data), 0.3, seed, held)) for held in (True, False)] for seed in (0, 1)
    )
    assert len(held) == 12 and len(rest) == 28 and not set(held) & set(rest)
    assert set(other[0]) != set(held)
    assert set(other[0] + other[1]) == set(held + rest)
    few = [names(hold_out(dict(data, indices=10), 0.3, 0, held)) for held in (True, False)]
    assert len(few[0]) == 3 and len(few[1]) == 7
    assert set(few[0] + few[1]) == {f'{i}.jpg' for i in range(10)}


def test_entries_keep_their_order(data):
    for held in (True, False):
        part = [int(name.removesuffix('.jpg')) for name in names(hold_out(dict(data), held=held))]
        assert part == sorted(part)


@pytest.mark.parametrize('share', [0, 1, 0.001, 0.999])
def test_no_part_is_empty(data, share):
    with pytest.raises(ValueError, match='of 40 training images are (0|40): one part would be'):
        hold_out(dict(data), share)


def test_a_wrapper_around_datasets_is_refused(data):
    with pytest.raises(ValueError, match='train_dataloader has a RepeatDataset'):
        hold_out(dict(type='RepeatDataset', times=2, dataset=data))
