"""Transforms for classification against what they promise."""

import cv2
import numpy as np
import pytest

from mmkd.datasets import (
    ColorJitter,
    LoadImageOnce,
    PackClassInputs,
    RandomCrop,
    RandomResizedCrop,
)

IMAGE = np.arange(10 * 14 * 3, dtype=np.uint8).reshape(10, 14, 3) + 1


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)


def run(transform, image=IMAGE, **more):
    return transform(dict(img=image.copy(), img_shape=image.shape[:2], **more))


def test_parts_keep_area_and_shape_within_bounds():
    crop = RandomResizedCrop(8, area=(0.1, 0.5), aspect=(0.5, 2.0))
    drawn = [crop.draw(400, 300) for _ in range(500)]
    for top, left, h, w in drawn:
        assert min(top, left) >= 0 and top + h <= 400 and left + w <= 300
        assert 0.099 < h * w / 120000 < 0.502 and 0.49 < w / h < 2.02
    areas = np.array([h * w / 120000 for _, _, h, w in drawn])
    assert abs(areas.mean() - 0.3) < 0.02  # uniform in area
    logs = np.log([w / h for _, _, h, w in drawn if h * w < 0.2 * 120000])
    assert abs(logs.mean()) < 0.1  # and in the logarithm of the shape


def test_an_image_of_extreme_shape_gives_its_middle():
    assert RandomResizedCrop(8, area=(1.0, 1.0)).draw(10, 100) == (0, 43, 10, 13)
    assert RandomResizedCrop(8, area=(1.0, 1.0)).draw(100, 10) == (43, 0, 13, 10)


def test_the_result_is_a_square_of_the_size_asked_for():
    found = run(RandomResizedCrop(6))
    assert found['img'].shape == (6, 6, 3) and found['img_shape'] == (6, 6)
    whole = run(RandomResizedCrop(10, area=(1.0, 1.0), aspect=(1.4, 1.4)))
    assert np.array_equal(whole['img'], cv2.resize(IMAGE, (10, 10)))


def test_a_random_crop_lies_anywhere_in_the_padded_image():
    crop, seen = RandomCrop(10, padding=2), set()
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)))
    for _ in range(400):
        part = run(crop)['img']
        places = [
            (y, x)
            for y in range(5)
            for x in range(9)
            if np.array_equal(padded[y : y + 10, x : x + 10], part)
        ]
        seen.update(places)
        assert len(places) == 1
    assert len(seen) == 5 * 9
    assert run(RandomCrop(4))['img_shape'] == (4, 4)


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r'no part of 11 pixels fits into x.jpg of 14 x 10'):
        run(RandomCrop(11), img_path='x.jpg')


MEASURES = dict(  # what each amount changes, and by how much at least
    brightness=(lambda x: x.mean(), 5.0),
    contrast=(lambda x: x.mean(2).std(), 1.0),
    saturation=(lambda x: x.std(2).mean(), 1.0),
    hue=(lambda x: x.argmax(2).mean(), 0.01),
)


@pytest.mark.parametrize('name', MEASURES)
def test_each_amount_changes_its_own_quantity(name):
    image = np.random.default_rng(0).integers(60, 180, (12, 12, 3), dtype=np.uint8)
    measure, least = MEASURES[name]
    found = [run(ColorJitter(**{name: 0.4}), image)['img'].astype(float) for _ in range(20)]
    assert np.std([measure(x) for x in found]) > least
    assert np.array_equal(run(ColorJitter(), image)['img'], image)


def test_the_order_of_the_changes_is_random():
    jitter = ColorJitter(brightness=0.4, contrast=0.4)
    order = []
    for i, (_, middle, amount) in enumerate(jitter.changes):
        note = lambda image, value, i=i: order.append(i) or image  # noqa: E731
        jitter.changes[i] = (note, middle, amount)
    for _ in range(20):
        run(jitter)
    assert {tuple(order[i : i + 2]) for i in range(0, 40, 2)} == {(0, 1), (1, 0)}


def test_a_file_is_read_once_and_never_changed(tmp_path):
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), IMAGE)
    load = LoadImageOnce()
    first = load(dict(img_path=str(path)))
    path.unlink()
    first['img'][:] = 0
    again = load(dict(img_path=str(path), gt_label=1))
    assert np.array_equal(again['img'], IMAGE) and again['gt_label'] == 1
    assert again['img_shape'] == again['ori_shape'] == (10, 14)


def test_packing_takes_the_meta_information_that_is_there():
    found = run(PackClassInputs(), sample_idx=3, gt_label=2, flip=True)
    sample = found['data_samples']
    assert sample.metainfo == dict(sample_idx=3, img_shape=(10, 14), flip=True)
    assert sample.gt_label.tolist() == [2]
    assert np.array_equal(found['inputs'].numpy(), IMAGE.transpose(2, 0, 1))
    assert 'gt_label' not in run(PackClassInputs(meta_keys=()))['data_samples']


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: RandomResizedCrop(0), 'scale must be a whole number of at least 1'),
        (
            lambda: RandomResizedCrop(8, area=(0.5, 0.1)),
            'upper bound of area must be a finite number of at least 0.5, found 0.1',
        ),
        (
            lambda: RandomResizedCrop(8, aspect=(0, 1)),
            'lower bound of aspect must be a finite number above 0, found 0',
        ),
        (lambda: RandomCrop(0), 'size must be a whole number of at least 1'),
        (
            lambda: RandomCrop(4, padding=-1),
            'padding must be a whole number of at least 0, found -1',
        ),
        (lambda: ColorJitter(hue=0.6), 'hue must be a finite number from 0 to 0.5, found 0.6'),
        (
            lambda: ColorJitter(contrast=-1),
            'contrast must be a finite number of at least 0, found -1',
        ),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
