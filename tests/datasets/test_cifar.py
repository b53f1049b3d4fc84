"""CIFAR's binary files: layout, checksums, and what is said when they are not there.

The published files are not shipped; records made here have checksums of their own.
"""

import hashlib

import numpy as np
import pytest

from mmkd.datasets import Cifar10, Cifar100
from mmkd.datasets.protection import check_paths

PACK = [dict(type='mmkd.PackClassInputs')]


def write(kind, root, records=4, labels=1):
    """Files of a few records; the checksums that they should have are put in place."""

    class Small(kind):
        TRAIN, TEST = dict(kind.TRAIN), dict(kind.TEST)

    (root / kind.FOLDER).mkdir()
    rng = np.random.default_rng(0)
    content = {}
    for files in (Small.TRAIN, Small.TEST):
        for name in files:
            rows = rng.integers(0, 256, (records, labels + 3072), dtype=np.uint8)
            rows[:, :labels] %= 10
            (root / kind.FOLDER / name).write_bytes(rows.tobytes())
            files[name] = hashlib.md5(rows.tobytes()).hexdigest()
            content[name] = rows
    return Small, content


def test_cifar10_records_become_images(tmp_path):
    kind, content = write(Cifar10, tmp_path)
    data = kind(data_root=str(tmp_path), pipeline=PACK)
    assert len(data) == 20 and len(data.metainfo['classes']) == 10
    row = content['data_batch_2.bin'][1]
    packed = data[5]
    assert packed['data_samples'].gt_label.tolist() == [row[0]]
    assert packed['data_samples'].sample_idx == 5
    red, green, blue = row[1:].reshape(3, 32, 32)
    assert np.array_equal(packed['inputs'], np.stack((blue, green, red)))


def test_cifar100_uses_the_fine_labels(tmp_path):
    kind, content = write(Cifar100, tmp_path, labels=2)
    data = kind(data_root=str(tmp_path), train=False, pipeline=PACK)
    rows = content['test.bin']
    assert [data.get_cat_ids(i)[0] for i in range(4)] == rows[:, 1].tolist()
    names = data.metainfo['classes']
    assert len(set(names)) == 100 and list(names) == sorted(names)


def test_a_change_of_an_image_is_not_remembered(tmp_path):
    data = write(Cifar10, tmp_path)[0](data_root=str(tmp_path))
    data.get_data_info(0)['img'][:] = 7
    assert data.get_data_info(0)['img'].std() > 0


def test_parts_keep_their_images(tmp_path):
    kind, content = write(Cifar10, tmp_path)
    data = kind(data_root=str(tmp_path), indices=[6, 2])
    wanted = content['data_batch_2.bin'][2, 1:].reshape(3, 32, 32)[::-1].transpose(1, 2, 0)
    assert np.array_equal(data.get_data_info(0)['img'], wanted)


@pytest.mark.parametrize('damage', ['cut', 'byte'])
def test_a_damaged_file_is_refused(damage, tmp_path):
    kind, _ = write(Cifar10, tmp_path)
    path = tmp_path / kind.FOLDER / 'data_batch_3.bin'
    data = path.read_bytes()
    path.write_bytes(data[:-100] if damage == 'cut' else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r'data_batch_3.bin is damaged .* MD5 .* download https'):
        kind(data_root=str(tmp_path))
    kind(data_root=str(tmp_path), train=False)


@pytest.mark.parametrize('kind', [Cifar10, Cifar100])
def test_missing_files_come_with_their_address(kind, tmp_path):
    address = f'download {kind.ARCHIVE}, unpack it'
    config = dict(type=f'mmkd.{kind.__name__}', data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=address):
        check_paths(config)  # before the dataset is built
    (tmp_path / kind.FOLDER).mkdir()
    check_paths(config)
    with pytest.raises(FileNotFoundError, match=rf'\.bin is missing; {address}'):
        kind(data_root=str(tmp_path))


def test_the_published_checksums_are_complete():
    for kind, files in ((Cifar10, 6), (Cifar100, 2)):
        sums = {**kind.TRAIN, **kind.TEST}
        assert len(set(sums.values())) == files
        assert all(len(bytes.fromhex(found)) == 16 for found in sums.values())
