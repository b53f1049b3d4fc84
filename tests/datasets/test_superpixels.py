"""Superpixels: the sheet's numbers, and maps that do not fit."""

import cv2
import numpy as np
import pytest

from mmkd.datasets import Superpixels
from mmkd.datasets.superpixels import straddling

HALVES = np.tile([7, 7, 65000, 65000], (4, 1)).astype(np.uint16)
BOXES = np.array([[0, 0, 2, 4], [0, 0, 3, 4], [1, 0, 3, 4], [0, 0, 3, 3]], np.float32)


def test_spx_1():
    found = straddling(HALVES, BOXES)
    assert found.tolist() == pytest.approx([1, 0.6666667, 0, 0.4444444], rel=1e-6)


def test_against_counting_pixel_by_pixel():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, (5, 6)).repeat(4, 0).repeat(3, 1)
    corners = rng.uniform(0, 12, (30, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(0.5, 9, (30, 2))), 1)
    for box, found in zip(boxes, straddling(labels, boxes), strict=True):
        mask = np.zeros(labels.shape, bool)
        x1, y1 = np.floor(box[:2]).astype(int)
        x2, y2 = np.ceil(box[2:]).astype(int)
        mask[y1:y2, x1:x2] = True
        partly = sum(
            min((mask & (labels == s)).sum(), (~mask & (labels == s)).sum())
            for s in np.unique(labels)
        )
        assert found == pytest.approx(max(1 - partly / mask.sum(), 0), abs=1e-6)
        assert 0 <= found <= 1


def image(**more):
    picture = np.zeros((4, 4, 3), np.uint8)
    return dict(
        img=picture,
        img_path='/x/a.jpg',
        img_shape=(4, 4),
        ori_shape=(4, 4),
        proposals=BOXES,
        **more,
    )


def test_maps_of_a_folder(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), HALVES)
    found = Superpixels(folder=str(tmp_path))(image())['proposals_scores']
    assert found.tolist() == pytest.approx([1, 2 / 3, 0, 4 / 9])


def test_they_are_made_where_there_is_no_folder():
    results = image()
    results['img'] = np.zeros((40, 40, 3), np.uint8)
    results['img'][10:30, 10:30] = 255
    results |= dict(img_shape=(40, 40), ori_shape=(40, 40))
    results['proposals'] = np.array([[10, 10, 30, 30], [0, 0, 20, 20]], np.float32)
    good, bad = Superpixels(sigma=0.0)(results)['proposals_scores']
    assert good == 1 and bad < 0.6


def test_a_map_of_another_size_or_none_at_all(tmp_path):
    load = Superpixels(folder=str(tmp_path))
    with pytest.raises(FileNotFoundError, match='there is no .*a.png. Write a map'):
        load(image())
    cv2.imwrite(str(tmp_path / 'a.png'), HALVES[:3])
    with pytest.raises(ValueError, match=r'each pixel of the image, \(4, 4\), found \(3, 4\)'):
        load(image())
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='found no image'):
        load(image())


def test_the_image_must_be_as_it_was(tmp_path):
    load = Superpixels(folder=str(tmp_path))
    for change in (dict(img_shape=(8, 8)), dict(flip=True)):
        with pytest.raises(ValueError, match='Put Superpixels in front of Resize'):
            load(image() | change)
    without = image()
    del without['proposals']
    with pytest.raises(ValueError, match='Superpixels: no proposals'):
        load(without)


def test_without_scikit_image_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr('mmkd.datasets.superpixels.find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install scikit-image, or name a folder'):
        Superpixels()
    Superpixels(folder='maps')


@pytest.mark.parametrize('options', [dict(scale=0), dict(sigma=-1), dict(min_size=0)])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=f'Superpixels: {next(iter(options))}'):
        Superpixels(folder='maps', **options)
