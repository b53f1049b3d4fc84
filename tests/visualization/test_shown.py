"""Images as a network sees them, and what lies in the pixels of the file, placed on them."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd.visualization.shown import Shown, restore


def shown(height=40, width=52, **meta):
    sample = BaseDataElement(metainfo=dict(img_path='/data/one.jpg', **meta))
    return Shown(np.full((height, width, 3), 128, np.uint8), sample, 0, (64, 64))


class Swapped:
    """Normalisation of a model that wants RGB."""

    mean, std, swapped = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 3.0, 4.0]), True


def test_restore_is_exact_and_leaves_the_padding_out():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    inputs = torch.zeros(1, 3, 64, 64)
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()
    inputs[0, :, :40, :52] = (rgb - Swapped.mean.view(-1, 1, 1)) / Swapped.std.view(-1, 1, 1)
    (one,) = restore(inputs, [shown(img_shape=(40, 52)).sample], Swapped)
    np.testing.assert_array_equal(one.image, image)
    assert one.padded == (64, 64)
    assert one.name == 'one.jpg'


@pytest.mark.parametrize(
    ('meta', 'scale'),
    [
        (dict(scale_factor=(0.5, 0.25), ori_shape=(1, 1)), [0.5, 0.25]),
        (dict(scale_factor=np.array([0.5, 0.25, 0.5, 0.25])), [0.5, 0.25]),
        (dict(scale_factor=2.0), [2, 2]),
        (dict(ori_shape=(80, 26)), [2, 0.5]),
        (dict(), [1, 1]),
    ],
)
def test_the_scale_is_what_the_pipeline_noted(meta, scale):
    assert shown(**meta).scale.tolist() == scale


def test_a_map_of_the_file_is_resized_not_stretched_over_padding():
    """80 x 104 pixels of the file are 40 x 52 of the input; a pipeline that pads adds more."""
    values = np.zeros((80, 104), int)
    values[:, 52:] = 7
    exact = shown(scale_factor=(0.5, 0.5)).place(values)
    assert exact.shape == (40, 52) and exact[0, 25] == 0 and exact[0, 26] == 7
    padded = shown(64, 64, scale_factor=(0.5, 0.5)).place(values)
    np.testing.assert_array_equal(padded[:40, :52], exact)
    assert (padded[40:] == -1).all() and (padded[:, 52:] == -1).all()


def test_rounding_leaves_no_seam():
    assert (shown(41, 53, scale_factor=(0.5, 0.5)).place(np.ones((80, 104))) == 1).all()


def test_classes_have_names_and_those_beyond_are_background():
    one = shown()
    assert one.class_name(3) == 'class 3'
    one.classes = ('disc', 'ring')
    assert [one.class_name(k) for k in (1, 2)] == ['ring', 'bg']
    assert len({one.colour(k) for k in (0, 1, 2)}) == 3


@pytest.mark.parametrize(('colours', 'kept'), [(2, True), (80, False), (1, False)])
def test_a_palette_of_other_classes_is_not_used(colours, kept):
    palette = [(k, 0, 0) for k in range(colours)]
    meta = dict(classes=('nut', 'plate'), palette=palette)
    sample = shown(img_shape=(40, 52)).sample
    (one,) = restore(torch.zeros(1, 3, 40, 52), [sample], Swapped, meta)
    assert one.palette == (palette if kept else None)
