"""An entry that does not get through its pipeline: which file, and why."""

import pickle
import re

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from spoiling import spoil_images

from mmkd.datasets import LoadProposals, protection
from mmkd.datasets._failure import prepare


def test_unreadable_test_image_is_one_error(data):
    root, config = data('coco')
    spoil_images(root)
    dataset = DATASETS.build({**config, 'test_mode': True})
    protection.tolerate(dataset)
    dataset[0]
    for index, reason in enumerate(['be decoded', 'be decoded', 'is empty', 'no such file'], 1):
        with pytest.raises(ValueError, match=rf'{index:06d}\.jpg: .*{reason}.*replace the file'):
            dataset[index]


def test_another_step_that_fails_names_the_image(data, monkeypatch):
    root, config = data('coco')
    monkeypatch.chdir(root)  # elsewhere: a path that is not below is whole
    dataset = DATASETS.build(config)
    protection.tolerate(dataset)
    dataset.pipeline.transforms.append(lambda results: 1 / 0)
    words = r'000002\.jpg \(index 2, 64 x 48 pixels\).*ZeroDivisionError: division by zero '
    words += rf'\(at {re.escape(__file__)}:\d+\)$'
    with pytest.raises(protection.DataError, match=words) as caught:
        dataset[2]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize('test_mode', [False, True])
def test_missing_proposals_are_no_unreadable_image(data, tmp_path, test_mode):
    _, config = data('coco')
    file = tmp_path / 'proposals.pkl'
    boxes = dict(bboxes=np.zeros((0, 4)), scores=np.zeros(0))
    file.write_bytes(pickle.dumps({'train/000000.jpg': boxes}))
    dataset = DATASETS.build({**config, 'test_mode': test_mode})
    protection.tolerate(dataset)
    dataset.pipeline.transforms.insert(1, LoadProposals(str(file)))
    dataset[0]
    with pytest.raises(
        protection.DataError, match='pipeline: ValueError: LoadProposals: .* has no'
    ):
        dataset[1]


def test_an_image_of_one_pixel_is_skipped_in_training(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((2, 3, 3), np.uint8))
    steps = [dict(type='LoadImageFromFile'), dict(type='mmdet.RandomFlip', prob=1.0)]
    for test_mode in (False, True):
        dataset = DATASETS.build(
            dict(
                type='mmkd.ImageFolder',
                data_root=str(tmp_path),
                pipeline=[*steps, dict(type='mmdet.PackDetInputs')],
                test_mode=test_mode,
            )
        )
        data, failure = prepare(dataset, 1)
        assert data is not None and failure is None
        if test_mode:
            with pytest.raises(protection.DataError, match='a.png: it is one pixel wide or high'):
                prepare(dataset, 0)
        else:
            assert 'one pixel' in prepare(dataset, 0)[1].reason


@pytest.mark.parametrize('content', [None, b'', b'no image'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_unreadable_label_is_an_error_in_training_too(data, content, test_mode):
    root, config = data('cityscapes')
    dataset = DATASETS.build({**config, 'test_mode': test_mode})
    label = root / 'gtFine/train/shapes/shapes_000003_000019_gtFine_labelTrainIds.png'
    label.unlink()
    if content is not None:
        label.write_bytes(content)
    protection.tolerate(dataset)
    dataset[0]
    with pytest.raises(ValueError, match='label .*shapes_000003_000019_gtFine_labelTrainIds'):
        dataset[3]
    with pytest.raises((ValueError, FileNotFoundError), match='shapes_000003'):
        protection.audit(dataset)
