"""Synthetic scenes: deterministic, seeded, and consistent with their masks."""

import numpy as np
import pytest

from mmkd.datasets.scenes import CLASSES, MIN_VISIBLE, PALETTE, boxes_of, generate_scene


def scene(seed=0, **options):
    return generate_scene(np.random.default_rng(seed), **options)


def test_scene_is_deterministic_and_seeds_differ():
    assert np.array_equal(scene(3).image, scene(3).image)
    assert not np.array_equal(scene(3).image, scene(4).image)


def test_scene_leaves_the_global_random_state_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    scene()
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize('seed', range(3))
def test_scene_is_consistent(seed):
    one = scene(seed, size=(120, 90))
    assert one.image.shape == (90, 120, 3) and one.image.dtype == np.uint8
    assert len(one.boxes) == len(one.labels) == len(one.masks) > 0
    assert one.masks.sum(0).max() <= 1, 'a pixel belongs to one object'
    assert np.array_equal(one.boxes, boxes_of(one.masks))
    assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
    assert one.boxes.min() >= 0 and (one.boxes[:, 2:] <= [120, 90]).all()


def test_objects_overlap_but_stay_visible():
    """Later objects cover earlier ones, without swallowing them."""
    touching = 0
    for seed in range(10):
        one = scene(seed, size=(128, 96), labels=[0] * 6)
        for i, box in enumerate(one.boxes):
            x1, y1, x2, y2 = box
            touching += any(
                min(x2, o[2]) > max(x1, o[0]) and min(y2, o[3]) > max(y1, o[1])
                for o in one.boxes[i + 1 :]
            )
            assert one.masks[i].sum() > MIN_VISIBLE * 12
    assert touching > 5


def test_scene_refuses_bad_arguments():
    with pytest.raises(ValueError, match='16x16 pixels, got 8x64'):
        scene(size=(8, 64))
    with pytest.raises(ValueError, match=r'\[0, 5\), got \[5\]'):
        scene(labels=[5])


def test_classes_and_palette_agree():
    assert len(CLASSES) == len(PALETTE) == len(set(CLASSES))
