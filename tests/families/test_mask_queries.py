"""Queries that classify masks: what masks stand for, what they say at points, and which count."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from segmentation_toys import ToySegmentor, samples_of
from torch import nn

from mmkd.families.mask_queries import (
    answers,
    at_points,
    check_mask_queries,
    known_points,
    masks_of,
    taps,
)
from mmkd.functional.resize import resize
from mmkd.tap import Side, Trace


def panoptic(things, stuff):
    """What mmdet's models are known by."""
    model, source = nn.Module(), ToySegmentor(4, things + stuff, queries=3).decode_head
    source.num_things_classes, source.num_stuff_classes = things, stuff
    model.panoptic_head = source
    return model


def semantic(classes=3):
    model = ToySegmentor(4, classes, queries=3)
    # mmseg's head inherits the numbers of another data set.
    model.decode_head.num_things_classes, model.decode_head.num_stuff_classes = 80, 53
    return model


@pytest.mark.parametrize(
    ('model', 'wanted'),
    [
        (semantic(), 'classes'),
        (panoptic(0, 3), 'classes'),
        (panoptic(3, 0), 'objects'),
        (panoptic(2, 1), 'objects and stuff'),
    ],
    ids=str,
)
def test_what_a_mask_stands_for(model, wanted):
    assert masks_of(model) == wanted
    check_mask_queries('It', model, model)


def test_masks_of_unequal_kinds():
    things = panoptic(3, 0)
    with pytest.raises(
        ValueError, match='of classes and the teacher.s of objects; .* teacher wi'
    ) as e:
        check_mask_queries('It', semantic(), things)
    assert "the tap 'panoptic_head.forward()@scores(background=3)'" in str(e.value)
    with pytest.raises(ValueError, match='objects and the teacher.s of classes; .* the student wi'):
        check_mask_queries('It', things, semantic())
    with pytest.raises(ValueError, match='of classes and the teacher.s of objects and stuff$'):
        check_mask_queries('It', semantic(), panoptic(2, 1))
    with pytest.raises(ValueError, match='that are things: .* has 2 and the teacher.s 1'):
        check_mask_queries('It', panoptic(2, 1), panoptic(1, 2))
    pixels = ToySegmentor(4)
    with pytest.raises(ValueError, match='student is .* with ToyHead and the teacher is'):
        check_mask_queries('It', pixels, pixels)
    assert taps(semantic(), things) == ('decode_head.forward()', 'panoptic_head.forward()@scores')


def test_masks_at_points_are_those_of_the_enlarged_map():
    torch.manual_seed(0)
    masks = torch.randn(2, 3, 4, 6)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(48), indexing='ij')
    points = torch.stack(((x + 0.5) / 48, (y + 0.5) / 32), -1).flatten(0, 1)
    found = at_points(masks, points).unflatten(-1, (32, 48))
    torch.testing.assert_close(found, resize(masks, (32, 48)), rtol=1e-4, atol=1e-5)


def trace_of(student, teacher, samples, padded=(32, 48)):
    inputs = torch.randn(2, 3, 32, 48)
    seen = torch.zeros(2, 3, *padded)
    seen[:, :, :32, :48] = inputs
    sides = []
    for model, tap, pixels in zip(
        (student, teacher), taps(student, teacher), (inputs, seen), strict=True
    ):
        value = model.decode_head(model.backbone(pixels))
        sides.append(Side(model, pixels, {tap: [value]}))
    return Trace(inputs, samples, *sides)


def test_what_both_say():
    """A teacher's padding is nowhere in the image."""
    torch.manual_seed(0)
    pair = ToySegmentor(4, queries=5), ToySegmentor(6, queries=3)
    samples = samples_of(torch.zeros(2, 32, 48).long())
    points = torch.rand(7, 2)
    torch.manual_seed(1)
    trace = trace_of(*pair, samples)
    (x, y), (u, v) = answers(trace, points)
    assert x.shape == (1, 2, 5, 4) and y.shape == (1, 2, 5, 7) and y.requires_grad
    assert u.shape == (2, 3, 4) and v.shape == (2, 3, 7) and not v.requires_grad
    wanted = pair[1].decode_head(pair[1].backbone(trace.inputs))[1][0]
    assert torch.equal(v, at_points(wanted, points))
    torch.manual_seed(1)
    further = trace_of(*pair, samples, padded=(64, 64))
    whole = further.teacher.calls[taps(*pair)[1]][0][1][0]
    assert whole.shape == (2, 3, 8, 8)
    found = answers(further, points)[1][1]
    assert torch.equal(found, at_points(whole[:, :, :4, :6], points))


def test_layers():
    torch.manual_seed(0)
    pair = ToySegmentor(4, queries=5), ToySegmentor(6, queries=3)
    trace = trace_of(*pair, samples_of(torch.zeros(2, 32, 48).long()))
    (call,) = trace.student.calls[taps(*pair)[0]]
    for part in call:
        part.insert(0, part[0] + 1)
    points = torch.rand(7, 2)
    (x, y), _ = answers(trace, points)
    assert len(x) == len(y) == 2 and not torch.equal(x[0], x[1])
    (last, masks), _ = answers(trace, points, 1)
    assert torch.equal(last, x[1:]) and torch.equal(masks, y[1:])


def test_points_with_a_label():
    labels = torch.zeros(2, 4, 8).long()
    labels[0, :, 6:] = labels[1, 1] = 255
    points = torch.tensor([[0.74, 0.1], [0.76, 0.99], [0.999999, 0.3]])
    trace = trace_of(semantic(), semantic(), samples_of(labels))
    wanted = [[True, False, False], [True, True, False]]
    assert known_points(trace, points, 255).tolist() == wanted
    assert known_points(trace, points, 0).tolist() == [[not x for x in row] for row in wanted]


def test_padding_of_images_without_a_label_map():
    samples = [BaseDataElement(metainfo=dict(img_shape=size)) for size in ((32, 36), (16, 48))]
    trace = trace_of(semantic(), semantic(), samples)
    trace.student.model = panoptic(3, 0)
    points = torch.tensor([[0.74, 0.4], [0.76, 0.4], [0.2, 0.6]])
    found = known_points(trace, points, 255)
    assert found.tolist() == [[True, False, True], [True, True, False]]
