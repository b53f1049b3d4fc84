"""Views of an image: mapped back from every size and flip, averaged."""

import numpy as np
import pytest
import torch
from view_toys import BOX, SIZE, Bright, BrightPixels, config, picture

from mmkd.makers.image_views import ImageViews


def test_boxes_of_all_views_are_in_pixels_of_the_file(tmp_path):
    file, model = picture(tmp_path / 'a.png'), Bright()
    views = ImageViews(model, config(), scales=(1.0, 1.5, 2.0), flip=True)
    found = views.boxes(file)
    assert views.count == 6 and model.seen == [(40, 60), (60, 90), (80, 120)] * 2
    assert found['size'] == SIZE and found['labels'] == [1] and found['scores'] == [0.9]
    np.testing.assert_allclose(found['boxes'], [BOX], atol=0.5)
    shared = views.boxes(file, rule='consensus')
    assert shared['scores'] == pytest.approx([(2 * 0.9 + 4 * 0.6) / 6])


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
