"""What methods show lies where it belongs: in the second image of a batch, which is padded."""

import numpy as np
import pytest
import torch
from detection_toys import detector, samples, step
from pyramid_toys import prepare, trace_of

from mmkd.families import dense, two_stage
from mmkd.registry import MODELS
from mmkd.rows import predictions
from mmkd.view import Boxes, View
from mmkd.visualization.page import page, pixel_values
from mmkd.visualization.shown import Shown, boxes_on

SIZE = (96, 128)


def shown(sample, index=1, padded=SIZE):
    image = np.zeros((*sample.img_shape, 3), np.uint8)
    return Shown(image, sample, index, padded, ('cat', 'dog', 'owl'))


def views_of(name, kind, **options):
    """Trace and views of one step with mmdet's models."""
    objective = MODELS.get(f'mmkd.{name}')(**options)
    _, trace = step(objective, detector(kind), detector(kind, 1))
    with torch.no_grad():
        return objective, trace, objective.views(trace)


@pytest.mark.parametrize('kind', ['frcnn', 'retinanet'])
def test_object_masks_cover_the_boxes_and_little_more(kind):
    _, trace, views = views_of('FGD', kind)
    one = shown(trace.samples[1])
    h, w = one.image.shape[:2]
    assert (h, w) == (80, 96)
    y, x = np.mgrid[:h, :w] + 0.5
    far = np.full((h, w), np.inf)  # from the nearest box, in pixels, 0 inside
    for x1, y1, x2, y2 in trace.samples[1].gt_instances.bboxes.tolist():
        gap = np.maximum.reduce([x1 - x, x - x2, y1 - y, y - y2, np.zeros((h, w))])
        far = np.minimum(far, gap)
    masks = [view for view in views if view.title == 'foreground']
    rest = [view for view in views if view.title == 'background']
    assert len(masks) == len(rest) == (4 if kind == 'frcnn' else 5)
    for view, other in zip(masks, rest, strict=True):
        stride = SIZE[0] // view.maps.shape[1]
        inside = pixel_values(view, one) > 0.5
        assert inside[far == 0].all()
        assert not inside[far > 2 * stride].any()
        np.testing.assert_array_equal(pixel_values(other, one) > 0.5, ~inside)
    assert not (pixel_values(masks[0], one) > 0.5).all()


def test_anchors_are_shown_around_their_centres():
    """Each pixel shows the value of the anchor whose centre is nearest."""
    objective, trace, views = views_of('LD', 'gfl')
    one, (positive, valuable, level) = shown(trace.samples[1]), objective.regions(trace)
    h, w = one.image.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).reshape(-1, 1, 2) + 0.5
    for i, (boxes, *_) in enumerate(dense.targets(trace)[0]):
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).numpy()
        nearest = np.abs(pixels - centres).max(-1).argmin(1)
        own = level == i
        wanted = positive[1, own].numpy()[nearest].reshape(h, w)
        found = pixel_values(views[2 * i], one) > 0.5
        np.testing.assert_array_equal(found, wanted)
        weights = valuable[1, own]
        if weights.any():
            assert pixel_values(views[2 * i + 1], one).max() <= float(weights.max()) + 1e-6
    assert positive[1].any() and valuable[1].any()


@pytest.mark.parametrize('name', ['KD', 'DKD', 'MimicHead', 'Chen2017'])
def test_rois_with_what_each_side_says(name):
    _, trace, views = views_of(name, 'frcnn')
    student, teacher = (view for view in views if isinstance(view, Boxes))
    assert (student.side, teacher.side) == ('student', 'teacher')
    assert torch.equal(student.boxes, teacher.boxes)
    assert set(torch.bincount(student.boxes[:, 0].long()).tolist()) <= {9, 10}
    rois = trace.student[two_stage.rois_tap(trace.student.model)][0]
    places = (student.boxes[:, None] == rois).all(-1).int().argmax(1)
    assert torch.equal(rois[places], student.boxes)
    for view, logits in zip((student, teacher), two_stage.answers(trace), strict=True):
        best, label = logits[0][places].softmax(-1).max(-1)
        torch.testing.assert_close(view.scores, best)
        assert torch.equal(view.labels, label)


def test_the_rois_shown_are_those_of_highest_rank():
    rois = torch.tensor([[0, 0, 0, 4, 4], [1, 0, 0, 5, 5], [0, 0, 0, 6, 6], [0, 0, 0, 7, 7.0]])
    scores = torch.eye(4)
    views = two_stage.ranked_rois('best', rois, (scores, scores), torch.tensor([1.0, 0, 3, 2]), 2)
    assert views[0].boxes[:, 3].tolist() == [6, 7, 5]
    assert views[0].labels.tolist() == [2, 3, 1]
    nothing = two_stage.ranked_rois('none', rois[:0], (scores[:0],) * 2, torch.zeros(0))
    assert len(nothing[1].boxes) == 0


@pytest.mark.parametrize('kind', ['frcnn', 'retinanet'])
def test_general_instances_with_their_scores(kind):
    objective, trace, (view,) = views_of('GID', kind, min_side=2.0)
    answers = predictions.answers(trace)
    rois, labels, scores, _ = objective.general_instances(trace, answers)
    assert torch.equal(view.boxes, rois) and torch.equal(view.scores, scores)
    assert (view.labels is None) if kind == 'frcnn' else torch.equal(view.labels, labels)
    second = view.boxes[view.boxes[:, 0] == 1, 1:]
    assert len(second) and (second[:, 2] <= 96).all() and (second[:, 3] <= 80).all()
    gap = (answers[0][0].sigmoid() - answers[1][0].sigmoid()).abs()
    assert float(scores.max()) == pytest.approx(float(gap.detach().max()), abs=1e-6)
    assert page(shown(trace.samples[1]), [view], 'gid').shape[2] == 3


def test_regions_are_thinned_out():
    objective, trace, (view, *maps) = views_of('Mimic', 'frcnn')
    assert view.labels is None and view.scores is None and len(maps) == 4
    rois = trace.student[two_stage.rois_tap(trace.student.model)][0]
    assert torch.equal(view.boxes, rois)
    few = objective.views(trace, shown=5)[0].boxes
    assert torch.bincount(few[:, 0].long()).tolist() == [5, 5]
    assert (few[:, None] == rois).all(-1).any(1).all()


@pytest.mark.parametrize('named', [True, False])
def test_a_box_is_drawn_on_its_pixels(named):
    one = shown(samples()[1])
    box = [[20, 30, 60, 70]]
    drawn = boxes_on(one, np.array(box, float), [0], ['cat'] if named else [''], width=96)
    edges = drawn.any(-1)
    assert edges[30, 30:60].all() and edges[70, 30:60].all()
    assert edges[40:70, 20].all() and edges[40:70, 60].all()
    assert not edges[45:60, 30:50].any() and not edges[76:].any()


CELL = (2, 5)
FEATURES = ['AT', 'CWD', 'FBKD', 'FGD', 'PKD']


@pytest.mark.parametrize('name', FEATURES)
def test_heat_peaks_in_the_cell_that_stands_out(name):
    """The teacher's features stand out in one cell of each level of the second image."""
    objective = MODELS.get(f'mmkd.{name}')()
    generator = torch.Generator().manual_seed(0)
    own = [0.05 * torch.randn(2, 4, s, s, generator=generator) for s in (16, 8)]
    wanted = [x.clone() for x in own]
    for x in wanted:
        x[1, :, CELL[0], CELL[1]] += torch.tensor([8.0, -9, 7, 8])
    prepare(objective, [4, 4])
    trace = trace_of(objective, own, wanted, shapes=[(64, 64), (40, 52)])
    with torch.no_grad():
        views = objective.views(trace)
    heats = [view for view in views if view.kind == 'heat' and view.side != 'student']
    assert len(heats) >= 2
    one = shown(trace.samples[1], padded=(64, 64))
    for view in heats:
        values = pixel_values(view, one)
        stride = 64 // view.maps.shape[1]
        peak = np.argwhere(values >= values.max() - 1e-6).mean(0)
        centre = (np.array(CELL) + 0.5) * stride - 0.5
        inside = centre < values.shape
        if inside.all():
            np.testing.assert_allclose(peak, centre, atol=0.51, err_msg=view.title)


TWO_STAGE = ['AT', 'CWD', 'Chen2017', 'DKD', 'FBKD', 'FGD', 'FGFI', 'GID', 'GradientRegions', 'KD']
TWO_STAGE += ['MGD', 'Mimic']


@pytest.mark.parametrize(
    ('name', 'kind'), [*((n, 'frcnn') for n in (*TWO_STAGE, 'MimicHead', 'PKD')), ('LD', 'gfl')]
)
def test_every_detection_method_fills_a_page(name, kind):
    """Levels of both sides cover the padded batch, and a page can be made of them."""
    _, trace, views = views_of(name, kind)
    assert views
    for view in views:
        if isinstance(view, View):
            assert len(view.maps) == 2 and view.maps.isfinite().all()
    picture = page(shown(trace.samples[1]), views, name)
    assert picture.dtype == np.uint8 and picture.std() > 0
