"""Drawing: text, colours, overlays, and pictures put together."""

import cv2
import numpy as np

from mmkd.visualization import canvas


def test_text_that_is_too_long_ends_in_an_ellipsis():
    text = canvas.shorten('imitation mask ' * 20, 100)
    assert text.endswith('…')
    assert canvas.text_width(text) <= 100


def test_captions_of_several_lines():
    text = 'student: objects of largest difference, with the IoU of their masks'
    found = canvas.wrapped(text, 272, 3)
    assert len(found) == 3 and ' '.join(found) == text
    assert all(canvas.text_width(line, bold=True) <= 272 for line in found)
    assert canvas.wrapped(text, 272, 1) == [canvas.shorten(text, 272, bold=True)]
    assert canvas.wrapped('short', 272, 2) == ['short']
    assert canvas.wrapped('x' * 99 + ' y', 60, 2)[0].endswith('…')
    low, high = (canvas.captioned(grey(272, 9), text, lines=n) for n in (3, 1))
    assert low.shape[0] == high.shape[0] + 36 == 83
    row = canvas.beside([low, high], low=True)
    assert (row[-9:, :272] == 100).all() and (row[-9:, 284:] == 100).all(), 'pictures line up'


def test_text_beyond_the_edge_does_no_harm():
    image = canvas.blank(20, 20)
    canvas.write(image, 'a long line', (12, 4))
    canvas.write(image, 'gone', (50, 50))
    assert (image < 255).any()


def test_colours_of_classes():
    assert canvas.colour_of(1, [(1, 2, 3), (4, 5, 6)]) == (6, 5, 4), 'a palette is RGB'
    assert canvas.colour_of(7, [(1, 2, 3)]) == canvas.COLOURS[7]
    assert canvas.colour_of(len(canvas.COLOURS)) == canvas.COLOURS[0]


def grey(width, height, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_side_by_side_and_one_below_the_other():
    row = canvas.beside([grey(10, 20), grey(30, 5)], gap=3)
    assert row.shape == (20, 43, 3) and (row[:, 10:13] == 255).all()
    assert (row[:5, 13:] == 100).all() and (row[5:, 13:] == 255).all(), 'white below the lower one'
    column = canvas.below([grey(10, 20), grey(30, 5)], gap=3)
    assert column.shape == (28, 30, 3) and (column[20:23] == 255).all()
    assert canvas.framed(grey(4, 4), 2).shape == (8, 8, 3)


def test_a_mask_keeps_the_image_and_fades_the_rest():
    image, mask = grey(40, 40), np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    found = canvas.overlay_mask(image, mask)
    assert (found[20, 20] != found[0, 0]).any() and (
        found[0, 0] == canvas.faded(image, 0.55)[0, 0]
    ).all()
    assert (found == canvas.ACCENT).all(-1).any(), 'an outline'


def test_little_heat_leaves_the_image_pale():
    image = grey(4, 1)
    found = canvas.overlay_heat(image, np.array([[0.0, 0.5, 1.0, 9.0]], np.float32))
    assert found.shape == image.shape and (found[0, 2] == found[0, 3]).all(), 'heat ends at 1'
    assert len({tuple(pixel) for pixel in found[0].tolist()}) == 3


def test_what_is_no_class_stays_pale():
    image = grey(3, 1)
    found = canvas.overlay_classes(image, np.array([[0, 1, 255]]), [(255, 0, 0), (0, 255, 0)], 2)
    assert found[0, 0].argmax() == 2 and found[0, 1].argmax() == 1
    assert (found[0, 2] == canvas.faded(image)[0, 2]).all()


def test_labels_are_resized_by_the_nearest_pixel():
    labels = np.array([[0, 7], [255, 1]])
    found = canvas.resize_labels(labels, (4, 6))
    assert found.shape == (6, 4) and set(found.flatten().tolist()) == {0, 7, 255, 1}
    assert found.tolist()[0] == [0, 0, 7, 7]


def test_boxes_are_drawn_on_a_copy():
    image = grey(60, 60)
    boxes = np.array([[5.0, 5, 50, 50], [10, 10, 20, 20]])
    found = canvas.draw_boxes(image, boxes, ['disc', ''], [(0, 0, 255), (0, 255, 0)])
    assert (image == 100).all() and (found[30, 5] == (0, 0, 255)).any()
    assert (canvas.draw_boxes(image, boxes[:0], [], []) == image).all()


def test_a_picture_is_written_into_a_new_folder(tmp_path):
    path = canvas.save(grey(8, 6), tmp_path / 'a' / 'b.png')
    assert cv2.imread(str(path)).shape == (6, 8, 3)


def test_a_column_of_pixels_stays_a_small_picture():
    """One of 4000 pixels was 1.2 GB."""
    assert canvas.enlarge(grey(1, 4000), 320).shape == (6400, 320, 3)
    assert canvas.enlarge(grey(4000, 1), 320).shape == (1, 320, 3)
    assert canvas.enlarge(grey(10, 190), 20).shape == (380, 20, 3), 'of others the shape is kept'
