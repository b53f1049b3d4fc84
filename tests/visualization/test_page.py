"""Maps lie where they belong: on the padded input, cut to each image."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd.view import Boxes, View
from mmkd.visualization import canvas
from mmkd.visualization.page import page, panels_of, pixel_values, stride_of, valid_cells
from mmkd.visualization.shown import PANEL, Shown


def shown(height=40, width=52, padded=(64, 64), index=0):
    sample = BaseDataElement(metainfo=dict(img_path='/data/one.jpg', img_shape=(height, width)))
    image = np.full((height, width, 3), 128, np.uint8)
    return Shown(image, sample, index, padded, classes=('disc', 'ring'))


def test_a_cell_covers_its_pixels_of_the_padded_input():
    maps = torch.zeros(2, 8, 8, dtype=torch.bool)
    maps[1, 2, 5] = True
    view = View('mask', maps, kind='mask')
    assert not pixel_values(view, shown()).any()
    found = pixel_values(view, shown(index=1))
    assert found.shape == (40, 52)
    wanted = np.zeros((40, 52), bool)
    wanted[16:24, 40:48] = True
    np.testing.assert_array_equal(found > 0.5, wanted)


def test_values_of_upper_left_corners_are_drawn_around_them():
    maps = torch.zeros(1, 8, 8, dtype=torch.bool)
    maps[0, 2, 5] = True
    found = pixel_values(View('mask', maps, kind='mask', centre=0.0), shown())
    wanted = np.zeros((40, 52), bool)
    wanted[12:20, 36:44] = True
    np.testing.assert_array_equal(found > 0.5, wanted)


def test_heat_peaks_at_the_centre_of_its_cell():
    maps = torch.zeros(1, 8, 8)
    maps[0, 2, 5] = 1
    values = pixel_values(View('attention', maps), shown())
    assert np.argwhere(values == values.max()).mean(0).tolist() == [19.5, 43.5]


def test_a_map_is_not_stretched_to_the_valid_area():
    """A map over 64 pixels stays one of 64 pixels for an image of 40x52."""
    ramp = torch.arange(8.0).repeat(8, 1)[None]
    values = pixel_values(View('attention', ramp, kind='classes'), shown())
    np.testing.assert_array_equal(values[0], np.arange(52) // 8)


def test_cells_in_padding_are_not_counted():
    view = View('mask', torch.ones(1, 8, 8, dtype=torch.bool), kind='mask')
    assert valid_cells(view, shown()).shape == (5, 7)


@pytest.mark.parametrize(
    ('padded', 'cells', 'stride'),
    [((64, 96), (8, 12), 8), ((100, 50), (13, 7), 8), ((5, 5), (1, 1), 5)],
)
def test_strides(padded, cells, stride):
    assert stride_of(torch.zeros(1, *cells), padded) == stride


def test_a_map_that_cannot_cover_the_image_is_refused():
    view = View('mask', torch.zeros(1, 4, 4), stride=8)
    with pytest.raises(ValueError, match='do not cover an image of 40x52'):
        pixel_values(view, shown())


def test_sides_share_one_colour_scale(monkeypatch):
    tops = []

    def overlay(image, heat):
        if image.shape[1] == PANEL:
            tops.append(float(heat.max()))
        return image

    monkeypatch.setattr(canvas, 'overlay_heat', overlay)
    views = [
        View('attention', torch.linspace(1, value, 64).view(1, 8, 8), side=side)
        for side, value in (('student', 2.0), ('teacher', 5.0))
    ]
    panels_of(views, shown())
    assert tops[1] == pytest.approx(4 * tops[0], rel=1e-4)
    assert tops[1] > 0.9


def test_boxes_of_other_images_are_left_out():
    boxes = torch.tensor([[0.0, 2, 2, 20, 20], [1.0, 5, 5, 30, 30]])
    view = Boxes('RoIs', boxes, torch.tensor([0, 9]), torch.tensor([0.5, 0.25]))
    first, second = (panels_of([view], shown(index=i))[0] for i in (0, 1))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_a_page_holds_every_kind_of_view():
    scores = torch.rand(1, 8, 8)
    views = [
        View('mask', scores > 0.5, kind='mask', stride=8),
        View('attention', scores, side='student', stride=8),
        View('attention', scores, side='teacher', stride=8),
        View('classes', torch.zeros(1, 4, 4), kind='classes', stride=16),
        Boxes('RoIs', torch.zeros(0, 5), torch.zeros(0), torch.zeros(0)),
    ]
    picture = page(shown(), views, 'fgfi: FGFI', ['one line'], ['a warning'])
    assert picture.dtype == np.uint8
    assert picture.shape[1] >= 4 * PANEL
    assert (picture == canvas.RED).all(-1).any()
