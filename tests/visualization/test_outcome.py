"""Predictions of every family as pictures, and what is said of them."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmkd.structures import ClassSample
from mmkd.visualization import canvas
from mmkd.visualization.outcome import DRAWN, detected, matches, outcome_panel, truth_panel
from mmkd.visualization.shown import Shown

TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)


def test_an_object_is_found_once_and_by_its_class():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [0, 20, 5, 30]], float)
    assert matches(boxes, [0, 0, 1, 0], TRUTH, [0, 1]) == 2
    assert matches(boxes, [1, 1, 0, 0], TRUTH, [0, 1]) == 0
    assert matches(np.zeros((0, 4)), [], TRUTH, [0, 1]) == 0


def test_half_an_overlap_is_needed():
    assert matches(np.array([[0, 0, 10, 5.1]]), [0], TRUTH, [0, 1]) == 1
    assert matches(np.array([[0, 0, 10, 4.9]]), [0], TRUTH, [0, 1]) == 0


@pytest.fixture
def said(monkeypatch):
    """Captions and lines below them, in the order in which they are drawn."""
    lines, captioned = [], canvas.captioned

    def record(picture, caption, detail='', **options):
        lines.append((caption, detail))
        return captioned(picture, caption, detail, **options)

    monkeypatch.setattr(canvas, 'captioned', record)
    return lines


def shown(kind=BaseDataElement, **fields):
    """An image of 40 x 60 pixels, half the size of its file."""
    sample = kind(metainfo=dict(img_shape=(40, 60), ori_shape=(80, 120), scale_factor=(0.5, 0.5)))
    sample.set_data(fields)
    image = np.full((40, 60, 3), 128, np.uint8)
    return Shown(image, sample, 0, (40, 60), ('disc', 'ring'), [(255, 0, 0), (0, 255, 0)])


def result(**fields):
    found = BaseDataElement()
    found.set_data(fields)
    return found


def detections(**fields):
    """Two, in pixels of the file, the second one surer but of another class."""
    boxes = 2 * torch.from_numpy(TRUTH).float()
    scores = dict(labels=torch.tensor([0, 0]), scores=torch.tensor([0.5, 0.9]))
    return result(pred_instances=InstanceData(**{'bboxes': boxes, **scores, **fields}))


def test_detections_are_moved_to_the_resized_image(said):
    truth = InstanceData(bboxes=torch.from_numpy(TRUTH).float(), labels=torch.tensor([0, 1]))
    one = shown(gt_instances=truth)
    found = detected(one, detections(), 0.3)
    assert found.scores == pytest.approx([0.9, 0.5])
    np.testing.assert_array_equal(found.boxes, TRUTH[::-1])
    outcome_panel(one, detections(), 'student', 0.3)
    outcome_panel(one, detections(), 'student', 0.6)
    outcome_panel(shown(), detections(), 'student', 0.6)
    assert said == [
        ('student', '1 of 2 found, 1 wrong'),
        ('student', '0 of 2 found, 1 wrong'),
        ('student', '1 object'),
    ]


def test_the_surest_of_many_are_drawn_and_all_are_counted(said, monkeypatch):
    drawn, boxes = [], torch.tensor([[0.0, 0, 20, 20]]).repeat(DRAWN + 2, 1)
    scores, labels = torch.linspace(0.5, 0.9, DRAWN + 2), torch.zeros(DRAWN + 2, dtype=torch.long)
    monkeypatch.setattr(canvas, 'draw_boxes', lambda image, *given: drawn.append(given) or image)
    for count in (DRAWN + 2, DRAWN):
        masks = torch.ones(count, 80, 120, dtype=torch.bool)
        found = dict(bboxes=boxes[:count], labels=labels[:count], scores=scores[-count:])
        many = result(pred_instances=InstanceData(masks=masks, **found))
        outcome_panel(shown(), many, 'student', 0.3)
    assert said == [
        ('student', '22 objects; the surest 20 are drawn'),
        ('student', '20 objects'),
    ]
    for placed, names, _ in drawn:
        assert placed.shape == (DRAWN, 4) and len(names) == DRAWN and names[0] == 'disc 0.90'
    many = detected(shown(), detections(masks=torch.ones(2, 80, 120) > 0), 0.0).first(1)
    assert many.scores == pytest.approx([0.9]) and len(many.boxes) == len(many.masks) == 1


def test_masks_are_drawn_and_stand_in_for_boxes_that_are_empty():
    masks = torch.zeros(2, 80, 120, dtype=torch.bool)
    masks[0, 20:60, 40:80] = masks[1, 70:, 100:] = True
    given = detections(masks=masks, bboxes=torch.zeros(2, 4))
    found = detected(shown(), given, 0.0)
    assert found.boxes.tolist() == [[50, 35, 60, 40], [20, 10, 40, 30]]
    assert [mask.sum() for mask in found.masks] == [50, 400]
    blue, green, red = outcome_panel(shown(), given, 'student', 0.0, width=60)[38 + 25, 30].tolist()
    assert red > 150 and blue < 100 and green < 100
    nothing = detected(shown(), detections(masks=~masks & masks, bboxes=torch.zeros(2, 4)), 0.0)
    assert not nothing.boxes.any()


def test_label_maps_are_compared_where_they_are_labelled(said):
    truth = torch.zeros(1, 40, 60, dtype=torch.long)
    truth[..., 30:] = 255
    labels = torch.zeros(1, 80, 120, dtype=torch.long)
    labels[:, 60:] = 1
    one = shown(gt_sem_seg=PixelData(data=truth))
    picture = outcome_panel(one, result(pred_sem_seg=PixelData(data=labels)), 'student', width=60)
    outcome_panel(shown(), result(pred_sem_seg=PixelData(data=labels)), 'blind')
    parts = 1000 * torch.arange(40)[:, None].repeat_interleave(2, 0) + labels
    panoptic = result(pred_panoptic_seg=PixelData(sem_seg=parts))
    other = outcome_panel(one, panoptic, 'panoptic', width=60)
    assert said == [
        ('student', '75.0 % of the labelled pixels right'),
        ('blind', ''),
        ('panoptic', ''),
    ]
    np.testing.assert_array_equal(picture[38:], other[38:])


def test_the_classes_that_score_highest(said):
    one = shown(ClassSample).sample.set_gt_label(1)
    one = Shown(np.zeros((8, 8, 3), np.uint8), one, 0, (8, 8), [f'class {k}' for k in range(9)])
    scores = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.04, 0.03, 0.01, 0.01, 0.01])
    picture = outcome_panel(one, ClassSample().set_prediction(scores), 'student', width=200)
    outcome_panel(one, ClassSample().set_prediction(scores.roll(1)), 'student')
    truth_panel(one)
    assert picture.shape == (38 + 200 + 5 * 22, 200, 3)
    assert said == [
        ('student', 'wrong, the true class is number 2'),
        ('student', 'right'),
        ('ground truth: class 1', 'image 0'),
    ]


def test_without_anything_to_draw_it_says_so():
    with pytest.raises(
        ValueError, match=r"student: found no boxes.*only \['depth'\]. Leave out --show"
    ):
        outcome_panel(shown(), result(depth=torch.zeros(1)), 'student')
