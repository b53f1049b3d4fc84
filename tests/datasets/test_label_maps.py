"""Label maps of 16 bits keep their values on the way to the batch."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from mmkd.datasets import protection
from mmkd.datasets.label_maps import LoadLabelMap


def write(path, values):
    path.write_bytes(cv2.imencode('.png', values)[1].tobytes())
    return str(path)


def load(path, **changes):
    info = dict(seg_map_path=path, seg_fields=[], reduce_zero_label=False)
    return LoadLabelMap(**changes.pop('options', {}))({**info, **changes})['gt_seg_map']


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_values_of_the_file(tmp_path, backend):
    values = np.array([[0, 255, 256], [300, 26001, 65535]], np.uint16)
    found = load(write(tmp_path / 'a.png', values), options=dict(imdecode_backend=backend))
    assert found.dtype == np.uint16 and np.array_equal(found, values)


def test_zero_label_and_label_map(tmp_path):
    path = write(tmp_path / 'a.png', np.array([[0, 1, 255, 300]], np.uint16))
    reduced = load(path, reduce_zero_label=True, options=dict(reduce_zero_label=True))
    assert reduced.tolist() == [[255, 0, 255, 299]]
    wide = dict(reduce_zero_label=True, ignore_index=65535)
    assert load(path, reduce_zero_label=True, options=wide).tolist() == [[65535, 0, 254, 299]]
    assert load(path, label_map={300: 1, 1: 300}).tolist() == [[0, 300, 255, 1]]


def test_later_steps_take_it(tmp_path):
    image, path = tmp_path / 'i.png', write(tmp_path / 'a.png', np.full((8, 12), 300, np.uint16))
    write(image, np.zeros((8, 12, 3), np.uint8))
    steps = [
        dict(type='mmseg.LoadImageFromFile'),
        dict(type='mmkd.LoadLabelMap'),
        dict(type='mmseg.Resize', scale=(24, 16)),
        dict(type='mmseg.RandomCrop', crop_size=(10, 10)),
        dict(type='mmseg.RandomFlip', prob=1.0),
        dict(type='mmseg.PackSegInputs'),
    ]
    info = dict(img_path=str(image), seg_map_path=path, seg_fields=[], reduce_zero_label=False)
    packed = Compose(steps)(info)['data_samples'].gt_sem_seg.data
    assert packed.shape == (1, 10, 10) and (packed == 300).all()


def test_the_guard_offers_it(data):
    """The advice, followed: the same files are counted as they are."""
    root, config = data('cityscapes')
    path = sorted(root.glob('gtFine/train/shapes/*_labelTrainIds.png'))[0]
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16)
    values[:2, :3] = 300
    write(path, values)
    config['pipeline'] = [dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    with pytest.raises(protection.DataError, match=r"Load them with type='mmkd\.LoadLabelMap'"):
        protection.audit(DATASETS.build(config))
    config['pipeline'][1] = dict(type='mmkd.LoadLabelMap')
    (report,) = protection.audit(DATASETS.build(config))
    assert report.unknown == {'label 300': 6}
