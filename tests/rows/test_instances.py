"""Rows of losses on relations: objects of detectors, regions of segmentors, whole images."""

import pytest
import torch

from mmkd.levels import Level
from mmkd.methods.cckd import CCKD
from mmkd.methods.cirkd_memory import CIRKDMemory
from mmkd.methods.darkrank import DarkRank
from mmkd.methods.gkd import GKD
from mmkd.methods.ifvd import IFVD
from mmkd.methods.intrakd import IntRAKD
from mmkd.methods.irg import IRG, edges, relation_error
from mmkd.methods.pkt import PKT
from mmkd.methods.rkd import RKD, distance_error
from mmkd.methods.sp import SP
from mmkd.rows import instances
from mmkd.rows.instances import Instances
from mmkd.teacher import build_model
from mmkd.testing import (
    boxes,
    label_maps,
    make_trace,
    ready,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
    tiny_yolov3,
)

RELATIONS = {'RKD': RKD, 'SP': SP, 'PKT': PKT, 'GKD': GKD, 'CCKD': CCKD, 'DarkRank': DarkRank}


def on_boxes(maps, samples, taps=('neck',), **options):
    """Rows of maps that student and teacher share, tap -> (R, D)."""
    trace = make_trace(maps, maps, samples=samples)
    objective = RKD(list(taps), instances='boxes')
    objective.instances = Instances('RKD', 'boxes', gather=False, **options)
    ready(objective, trace)
    return [s for s, _ in objective.instances.pairs(trace, objective)]


def test_a_box_is_the_mean_of_what_lies_in_it():
    x = torch.zeros(2, 3, 16, 16)
    x[0, :, 4:8, 2:10] = torch.tensor([1.0, 2, 3])[:, None, None]
    x[1, :, :, 8:] = torch.tensor([4.0, 0, 1])[:, None, None]
    samples = boxes([[24, 40, 72, 56]], [[80, 16, 120, 112], [8, 8, 40, 120]])  # stride 8
    (rows,) = on_boxes({'neck': x}, samples)
    wanted = torch.tensor([[1.0, 2, 3], [4, 0, 1], [0, 0, 0]])
    torch.testing.assert_close(rows, wanted)
    (flat,) = on_boxes({'neck': x}, samples, pooled=False)
    assert flat.shape == (3, 3 * 49)
    torch.testing.assert_close(flat.view(3, 3, 49).mean(2), wanted)


def test_each_box_is_seen_on_the_level_of_its_size():
    fine, coarse = torch.full((1, 2, 32, 32), 1.0), torch.full((1, 2, 16, 16), 5.0)  # strides 8, 16
    samples = boxes([[0, 0, 250, 230], [8, 8, 60, 60], [0, 0, 100, 120]])
    (rows,) = on_boxes({'neck': [fine, coarse]}, samples)
    assert rows[:, 0].tolist() == [5, 1, 1]
    both = on_boxes({'a': [fine, coarse], 'b': coarse}, samples, ('a', 'b'))
    assert [r[:, 0].tolist() for r in both] == [[5, 1, 1], [5, 5, 5]], 'a tap is a layer'


def test_pyramids_of_other_strides_show_the_same_boxes():
    torch.manual_seed(0)
    x = torch.rand(1, 4, 16, 16)
    samples = boxes([[0, 0, 60, 60], [64, 0, 120, 60], [0, 64, 60, 120]], size=(128, 128))
    student, teacher = {'neck': x}, {'neck': x.repeat_interleave(2, 2).repeat_interleave(2, 3)}
    trace = make_trace(student, teacher, samples=samples)
    objective = ready(RKD('neck', instances='boxes', factors=dict(angle=0)), trace)
    ((s, t),) = objective.instances.pairs(trace, objective)
    torch.testing.assert_close(s, t, atol=0.05, rtol=0)
    other = make_trace(student, {'neck': torch.rand(1, 6, 8, 8)}, samples=samples)
    ((s, t),) = objective.instances.pairs(other, ready(objective, other))
    assert s.shape == (3, 4) and t.shape == (3, 6)
    found = float(objective(other)['loss_distance'])
    assert found == pytest.approx(25 * float(distance_error(s, t)), rel=1e-5)


def test_regions_are_means_over_the_pixels_of_a_class():
    torch.manual_seed(0)
    x, labels = torch.rand(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 8))
    labels[0, :, :4] = 255
    labels[labels == 2] = 0
    labels[1, 0, 0] = 2  # one pixel
    model = build_model(tiny_pspnet(num_classes=4))
    objective = RKD('x')
    objective.bind(model, model)
    trace = make_trace({'x': x}, {'x': 2 * x}, samples=label_maps(labels))
    ready(objective, trace)
    ((s, t),) = objective.instances.pairs(trace, objective)
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = [
        big[n][:, labels[n] == k].mean(1)
        for n in (0, 1)
        for k in range(4)
        if (labels[n] == k).any()
    ]
    assert len(s) == 5
    torch.testing.assert_close(s, torch.stack(wanted))
    torch.testing.assert_close(t, 2 * s)


def test_padding_of_the_teacher_alone_is_no_region():
    labels = torch.tensor([[0, 1], [2, 0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)[None]
    x = torch.rand(1, 3, 4, 4)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 2), value=99.0)
    model = build_model(tiny_pspnet(num_classes=3))
    objective = SP('x')
    objective.bind(model, model)
    inputs, seen = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 48, 48)
    trace = make_trace({'x': x}, {'x': padded}, samples=label_maps(labels), inputs=inputs)
    trace.teacher.inputs = seen
    ready(objective, trace)
    ((s, t),) = objective.instances.pairs(trace, objective)
    torch.testing.assert_close(s, t)


@pytest.mark.parametrize('rows', ['boxes', 'regions'])
@pytest.mark.parametrize('name', RELATIONS)
def test_nothing_to_compare_is_zero_and_keeps_the_graph(name, rows):
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    labels = torch.full((2, 64, 64), 255)
    samples = boxes([], []) if rows == 'boxes' else label_maps(labels)
    trace = make_trace({'x': x}, {'x': torch.rand(2, 5, 8, 8)}, samples=samples)
    objective = RELATIONS[name]('x', instances=rows)
    objective.instances.classes = 3
    loss = sum(ready(objective, trace)(trace).values())
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and not gradient.any()
    assert float(loss.detach()) == 0


def test_thousands_of_boxes_are_thinned_out_evenly(monkeypatch):
    monkeypatch.setattr(instances, 'MOST', 4)
    x = torch.arange(64.0).view(1, 1, 8, 8)
    cells = [[8 * (i % 8), 8 * (i // 8), 8 * (i % 8) + 8, 8 * (i // 8) + 8] for i in range(64)]
    (rows,) = on_boxes({'neck': x}, boxes(cells))
    torch.testing.assert_close(rows[:, 0], torch.tensor([0.0, 16, 32, 48]), atol=2.0, rtol=0)


def test_what_is_compared_follows_the_model():
    wanted = {
        'boxes': (tiny_faster_rcnn, tiny_retinanet),
        'regions': (tiny_pspnet,),
        'images': (tiny_classifier,),
    }
    for rows, models in wanted.items():
        for model in (build_model(make(width=4)) for make in models):
            for name, cls in RELATIONS.items():
                objective = cls()
                objective.bind(model, model)
                assert objective.instances.rows == rows, name
                assert objective.needs_ground_truth == (rows != 'images')
                assert objective.student_taps and objective.teacher_taps
    objective = RKD('neck[1]', instances='images')
    objective.bind(*[build_model(tiny_retinanet(width=4))] * 2)
    assert not objective.needs_ground_truth and str(objective.student_taps[0]) == 'neck[1]'


def test_weights_of_rkd_are_those_for_metric_learning():
    models = [build_model(make(width=4)) for make in (tiny_classifier, tiny_retinanet, tiny_pspnet)]
    for model, wanted in zip(models, ([25, 50], [1, 2], [1, 2]), strict=True):
        objective = RKD()
        objective.bind(model, model)
        assert list(objective.factors.values()) == wanted
        objective = RKD(factors=dict(distance=3, angle=0))
        objective.bind(model, model)
        assert list(objective.factors.values()) == [3, 0]


def test_irg_on_objects():
    torch.manual_seed(0)
    sides = [{'a': torch.rand(1, 3, 16, 16), 'b': torch.rand(1, 5, 8, 8)} for _ in 'st']
    samples = boxes([[0, 0, 60, 60], [64, 0, 120, 60], [0, 64, 60, 120]], size=(128, 128))
    trace = make_trace(*sides, samples=samples)
    objective = IRG(['a', 'b'], factors=dict(vertex=0, edge=1, transform=0))
    objective.bind(*[build_model(tiny_retinanet(width=4))] * 2)
    ready(objective, trace)
    pairs = objective.instances.pairs(trace, objective)
    assert [s.shape for s, _ in pairs] == [(3, 3), (3, 5)]
    wanted = sum(relation_error(edges(s), edges(t)) for s, t in pairs) / 2
    torch.testing.assert_close(objective(trace)['loss_edge'], wanted)
    assert objective.describe() == ['compares ground-truth boxes']


MAP, WIDE = Level((4, 8, 8), 8, 'neck'), Level((8, 4, 4), 16, 'neck')


@pytest.mark.parametrize(
    ('levels', 'message'),
    [
        (None, "could not be probed. Tap the neck, or set instances='images'"),
        ([Level((4,), None, 'pool')], "'pool' gives 4. Tap maps of one width"),
        ([MAP, WIDE], r"'neck' gives 4x8x8 \(stride 8\), 8x4x4 \(stride 16\)"),
    ],
)
def test_boxes_need_maps_of_one_width(levels, message):
    with pytest.raises(ValueError, match=f'RKD.*{message}'):
        RKD('neck', instances='boxes').setup(levels, [MAP])


@pytest.mark.parametrize(
    ('rows', 'make', 'message'),
    [
        ('boxes', tiny_classifier, "instances='boxes' does not suit Classifier; use 'images'"),
        ('boxes', tiny_pspnet, "use 'regions'"),
        ('regions', tiny_retinanet, "does not suit RetinaNet with RetinaHead; use 'boxes'"),
        ('images', tiny_retinanet, 'has taps of its own for classifiers only'),
        (None, tiny_yolov3, 'RKD works for two-stage'),
    ],
)
def test_rows_that_a_model_has_not(rows, make, message):
    model = build_model(make(width=4))
    with pytest.raises(ValueError, match=message):
        RKD(instances=rows).bind(model, model)


def test_unknown_rows():
    with pytest.raises(ValueError, match=r"RKD: instances must be one of .*found 'pixels'"):
        RKD(instances='pixels')


def test_maps_of_unequal_width_are_answered_with_one_that_both_have():
    sides = [
        [Level((8 * s, 64 // s, 64 // s), s, 'backbone') for s in (4, 8, 16)],
        [Level((256, 4, 4), 16, 'backbone')],
    ]
    with pytest.raises(ValueError, match=r"student='backbone\[2\]', teacher='backbone\[0\]'"):
        Instances('RKD', 'boxes', gather=False).setup(*sides)


class OfInstances(torch.nn.Module):
    """A segmentor whose head knows no class of what lies between objects."""

    def __init__(self, stuff):
        super().__init__()
        self.panoptic_head = torch.nn.Module()
        self.panoptic_head.num_things_classes, self.panoptic_head.num_stuff_classes = 3, stuff
        self.panoptic_head.num_classes = 3 + stuff
        self.panoptic_head.cls_embed = torch.nn.Linear(4, 4 + stuff)
        self.panoptic_head.mask_embed = torch.nn.Identity()


@pytest.mark.parametrize('method', [IFVD, CIRKDMemory, IntRAKD, RKD])
def test_labels_of_pixels_are_asked_of_segmentors_that_have_them(method):
    named = dict(student='backbone', teacher='backbone')
    options = dict(instances='regions') if method is RKD else {}
    wanted = "instances='regions' does not suit" if method is RKD else 'needs the class of every p'
    with pytest.raises(ValueError, match=wanted):
        method(**named, **options).bind(OfInstances(0), OfInstances(0))
    method(**named, **options).bind(OfInstances(2), OfInstances(2))
