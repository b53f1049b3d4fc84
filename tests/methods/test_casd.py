"""CASD: the sheet's numbers, views that are turned back, layers, and what it refuses."""

import copy

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.functional.mil import IGNORED
from mmkd.methods.casd import CASD, disagreement, layer_attention, roi_attention
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.testing import make_trace, tiny_faster_rcnn, tiny_weak, weak_batch


def detector(**changes):
    torch.manual_seed(0)
    model = build_model(tiny_weak(4, **(dict(views=['flip', 'both'], scales=[0.75]) | changes)))
    with torch.no_grad():
        for layer in model.roi_head.bbox_head.branches():
            layer.weight.normal_(0, 0.5)
    return model


def distiller(student=None, weight=1.0, **options):
    student = detector() if student is None else student
    return Distiller(student, dict(it=CASD(weight=weight, **options)), preflight=False)


def step(model, data=None):
    torch.manual_seed(0)
    inputs, samples = data or weak_batch()
    return model.loss(inputs, copy.deepcopy(samples))


def maps(*rows):
    return torch.tensor(rows, dtype=torch.float64)[:, None, None]  # a RoI of one channel each


def test_casd_1():
    one, turned = (
        roi_attention(maps([[1.0, 3], [0, 0]])[0]),
        roi_attention(maps([[0.0, 2], [4, 0]])[0]),
    )
    assert one[0].tolist() == [pytest.approx([0.58257, 0.73106], abs=1e-5), [0.5, 0.5]]
    both = torch.stack((one, turned.flip(-1)))
    assert both.amax(0)[0].tolist() == [
        pytest.approx([0.62246, 0.73106], abs=1e-5),
        pytest.approx([0.5, 0.73106], abs=1e-5),
    ]
    found = disagreement(both, torch.tensor([True]))
    assert float(found) == pytest.approx(0.0270918, rel=1e-5)


def test_casd_2_attention_lies_between_a_half_and_sigmoid_of_one():
    attention = roi_attention(torch.randn(20, 5, 7, 7))
    assert attention.amin((1, 2)).tolist() == pytest.approx([0.5] * 20)
    assert attention.amax((1, 2)).tolist() == pytest.approx([0.731059] * 20, rel=1e-5)
    assert torch.equal(roi_attention(torch.full((1, 2, 3, 3), 7.0)), torch.full((1, 3, 3), 0.5))


def test_casd_3_equal_views_agree_and_turning_all_changes_nothing():
    a = torch.rand(2, 6, 3, 3)
    every = torch.ones(6, dtype=torch.bool)
    assert float(disagreement(a[:1].expand(3, -1, -1, -1), every)) == 0
    assert torch.allclose(disagreement(a, every), disagreement(a.flip(-1), every), rtol=1e-6)


def test_casd_4_the_maximum_has_no_gradient():
    a = torch.tensor([[[[0.5]]], [[[0.7]]]], requires_grad=True)
    disagreement(a, torch.tensor([True])).backward()
    assert a.grad.flatten().tolist() == pytest.approx([-0.4, 0.0])


def test_only_kept_regions_count():
    a = torch.rand(2, 4, 3, 3)
    kept = torch.tensor([True, False, True, False])
    assert torch.allclose(disagreement(a, kept), disagreement(a[:, ::2], kept[::2]))
    assert float(disagreement(a, torch.zeros(4, dtype=torch.bool))) == 0


def test_attention_of_layers_is_that_of_whole_regions():
    from mmcv.ops import roi_align

    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 16, 24, generator=g)
    rois = torch.tensor([[0.0, 3, 5, 40, 50], [1, 10, 2, 90, 60]])
    wanted = roi_attention(roi_align(x, rois, (3, 3), 0.25, 2, 'avg', True))
    assert torch.allclose(layer_attention([x], rois, (3, 3), 96)[0], wanted, atol=1e-5)
    assert layer_attention([x, x], rois[:0], (3, 3), 96).shape == (2, 0, 3, 3)


def test_terms_of_a_step():
    model = distiller(factors=dict(layers=2.0))
    inputs, samples = weak_batch()
    with model.recorder.record(inputs) as side:
        torch.manual_seed(0)
        model.student(inputs, samples, mode='loss')
    trace = make_trace({}, inputs=inputs, student_model=model.student)
    trace.student = side
    (looks,), targets = side.raw('roi_head.look()'), side.raw('roi_head.get_targets()')
    assert len(looks) == 3 and len(targets) == 2
    attention = [roi_attention(look.features) for look in looks]
    attention[1:] = [x.flip(-1) for x in attention[1:]]
    kept = [t.labels != IGNORED for t in targets]
    found = model.objectives['it'](trace)
    wanted = sum(disagreement(torch.stack(attention), own) for own in kept)
    assert (
        float(found['loss_views']) == pytest.approx(float(wanted), rel=1e-5) and float(wanted) > 0
    )
    stages = [side[f'backbone.layer{i}'][0] for i in (1, 2, 3)]
    layers = layer_attention(stages, looks[0].rois, (3, 3), inputs.shape[3])
    wanted = 2 * sum(disagreement(layers, own) for own in kept)
    assert (
        float(found['loss_layers']) == pytest.approx(float(wanted), rel=1e-5) and float(wanted) > 0
    )


def test_it_starts_late_and_rises():
    weight = CASD().weight
    assert [weight(Progress(n, 100)) for n in (0, 39, 45, 50, 99)] == pytest.approx(
        [0, 0, 0.05, 0.1, 0.1]
    )
    assert CASD(weight=dict(start=0.2)).weight.value == 0.1


def test_the_backbone_learns_from_both():
    model = distiller()
    for key in ('views', 'layers'):
        model.zero_grad()
        step(model)[f'kd.it.loss_{key}'].backward()
        assert model.backbone.layer1[0].conv1.weight.grad.any(), key


def test_with_weight_zero_the_student_learns_as_alone():
    torch.manual_seed(0)
    inputs, samples = weak_batch()
    alone = detector().loss(inputs, copy.deepcopy(samples))
    found = step(distiller(weight=0.0))
    assert {*found} == {*alone} and all(torch.equal(found[k], alone[k]) for k in alone)


@pytest.mark.parametrize(
    ('student', 'options', 'message'),
    [
        (
            lambda: build_model(tiny_faster_rcnn(4)),
            {},
            'image labels, but the student is FasterRCNN',
        ),
        (lambda: detector(roi_head=dict(refinements=0, boxes=False)), {}, 'with refinements=0'),
        (
            lambda: detector(views=[]),
            {},
            "Set views=.'flip', 'scale', 'both'. in mmkd.WeakDetector",
        ),
        (detector, dict(layers=['backbone.layer1']), 'Name two stages or more'),
        (
            lambda: detector(backbone=dict(frozen_stages=2)),
            {},
            "found .'backbone.layer3'. in ResNet",
        ),
        (
            detector,
            dict(layers=['backbone.layer1', 'backbone.stage2']),
            "no module 'backbone.stage2'",
        ),
    ],
)
def test_refused(student, options, message):
    with pytest.raises(ValueError, match=message):
        distiller(student(), **options)


def test_frozen_stages_are_not_compared():
    """A tap on one would stop the run as late as the weight rises from 0."""
    model = distiller(detector(backbone=dict(frozen_stages=1)))
    assert model.objectives.it.describe() == ['layers: backbone.layer2[0], backbone.layer3[0]']
    assert float(step(model)['kd.it.loss_layers']) > 0


def test_one_view_is_enough_for_layers():
    found = step(distiller(detector(views=[]), factors=dict(views=0)))
    assert float(found['kd.it.loss_layers']) > 0 and float(found['kd.it.loss_views'].detach()) == 0


def test_factors_are_checked():
    with pytest.raises(ValueError, match='CASD: a key of factors'):
        CASD(factors=dict(classes=1))
