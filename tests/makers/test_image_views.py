"""Views of an image: mapped back from every size and flip, averaged."""

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coding
from view_toys import BOX, SIZE, Bright, BrightPixels, config, picture

from mmkd.makers.image_views import ImageViews, _mean_mask
from mmkd.teacher import build_model
from mmkd.testing import tiny_mask_rcnn


def test_boxes_of_all_views_are_in_pixels_of_the_file(tmp_path):
    file, model = picture(tmp_path / 'a.png'), Bright()
    views = ImageViews(model, config(), scales=(1.0, 1.5, 2.0), flip=True)
    found = views.boxes(file)
    assert views.count == 6 and model.seen == [(40, 60), (60, 90), (80, 120)] * 2
    assert found['size'] == SIZE and found['labels'] == [1] and found['scores'] == [0.9]
    np.testing.assert_allclose(found['boxes'], [BOX], atol=0.5)
    shared = views.boxes(file, rule='consensus')
    assert shared['scores'] == pytest.approx([(2 * 0.9 + 4 * 0.6) / 6])


def decode(code):
    return coding.decode(code).astype(bool)


def test_masks_of_all_views_are_in_pixels_of_the_file(tmp_path):
    file = picture(tmp_path / 'a.png')
    wanted = np.zeros(SIZE, bool)
    wanted[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    for scales, flip in (((1.0,), False), ((1.0, 2.0), True)):
        found = ImageViews(Bright(masks=True), config(), scales, flip).boxes(file)
        (mask,) = found['masks']
        assert mask['size'] == list(SIZE) and json.loads(json.dumps(mask)) == mask
        np.testing.assert_array_equal(decode(mask), wanted)


def test_a_mask_is_the_mean_of_those_that_voted():
    """Of probabilities, and of votes; within the box, and not of what has no weight."""
    masks = np.zeros((3, 4, 6), np.uint8)
    masks[0], masks[1, :, :3], masks[2] = 200, 100, 255
    weights, box = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.4, 5.0, 4.0])
    found = _mean_mask(masks, weights, box)
    assert found.tolist() == [[1, 1, 1, 0, 0, 0]] * 4  # means of 150 and of 100
    votes = _mean_mask(masks > 127, np.array([0.4, 0.3, 0.3]), box)
    assert votes.tolist() == [[1] * 5 + [0]] * 4  # 0.7 everywhere in the box
    assert not _mean_mask(masks > 127, np.array([0.4, 0.6, 0.0]), box).any()


def test_masks_of_mask_rcnn_are_averaged_as_probabilities(tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_mask_rcnn(4)).eval()
    file = picture(tmp_path / 'a.png')
    sample, _, _ = ImageViews(model, config(), flip=False).predictions(file)[0]
    instances = sample.pred_instances
    assert instances.masks.dtype == torch.bool and len(instances) and instances.masks.any()
    found = ImageViews(model, config(), flip=False).boxes(file, least=0.0)
    wanted = {tuple(m.numpy().ravel()) for m in instances.masks}
    assert {tuple(decode(m).ravel()) for m in found['masks']} <= wanted
    sample, _, _ = ImageViews(model, config(), flip=True).predictions(file)[1]
    assert sample.pred_instances.masks.dtype == torch.uint8
    assert ImageViews(model, config(), flip=True).boxes(file, least=0.0)['masks']


def test_one_view_is_what_the_network_says(tmp_path):
    file = picture(tmp_path / 'a.png')
    views = ImageViews(Bright(), config(), flip=False)
    assert views.count == 1 and views.boxes(file)['boxes'] == [list(BOX)]
    joined = config()
    parts = [joined.test_dataloader.dataset.dataset] * 2
    joined.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    assert ImageViews(Bright(), joined, flip=False).boxes(file) == views.boxes(file)
    assert views.boxes(file, least=0.95)['boxes'] == []


def test_probabilities_are_averaged_at_the_size_of_the_file(tmp_path):
    file = picture(tmp_path / 'a.png')
    for flip in (False, True):
        whole = ImageViews(BrightPixels(), config(), flip=flip).probabilities(file)
        assert whole.shape == (2, *SIZE)
        torch.testing.assert_close(whole.sum(0), torch.ones(SIZE))
        assert bool((whole[1, 8:20, 10:30] > 0.99).all()) and float(whole[1].mean()) < 0.11
    larger = ImageViews(BrightPixels(), config(), scales=(2.0,), flip=False).probabilities(file)
    assert larger.shape == (2, *SIZE)


def test_a_pipeline_without_sizes_and_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match='scales=2.0 needs a Resize .* PackDetInputs'):
        ImageViews(Bright(), config(resize=False), scales=(2.0,))
    ImageViews(Bright(), config(resize=False))
    (tmp_path / 'b.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='b.png'):
        ImageViews(Bright(), config()).boxes(str(tmp_path / 'b.png'))
