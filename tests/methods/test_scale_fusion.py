"""ScaleFusion: own losses, those on small images, and those on fused maps."""

import copy

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.methods.scale_fusion import ScaleFusion, losses_on
from mmkd.scales import Rescale
from mmkd.schedule import Schedule
from mmkd.testing import (
    detection_batch,
    make_trace,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
    tiny_yolov3,
)


def distiller_of(make=tiny_retinanet, **options):
    torch.manual_seed(0)
    return Distiller(make(4), dict(fusion=dict(type='mmkd.ScaleFusion', **options))).train()


@pytest.mark.parametrize('make', [tiny_retinanet, tiny_faster_rcnn])
def test_the_three_losses(make):
    distiller, (inputs, samples) = distiller_of(make), detection_batch(2, (128, 192))
    losses = distiller.loss(inputs, copy.deepcopy(samples))
    student, gate = distiller.student, distiller.objectives['fusion'].gate
    small, scaled = Rescale(0.5)(inputs, copy.deepcopy(samples))
    with torch.no_grad():
        low, high = student.extract_feat(small), student.extract_feat(inputs)
        own = student.parse_losses(student.loss(small, scaled))[0]
        fused = losses_on(student, gate.fuse(high, low, 1), inputs, copy.deepcopy(samples))
    torch.testing.assert_close(losses['kd.fusion.loss_low'], own)
    torch.testing.assert_close(losses['kd.fusion.loss_fused'], fused)
    assert 0 < losses['kd.fusion.high_share'] < 1
    assert 'extract_feat' not in student.__dict__
    (losses['kd.fusion.loss_low'] + losses['kd.fusion.loss_fused']).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in gate.parameters())
    assert bool(student.backbone.conv1.weight.grad.any())


def test_a_gate_that_is_open_for_the_full_image_gives_its_own_losses(monkeypatch):
    distiller, (inputs, samples) = distiller_of(), detection_batch(2, (128, 192))
    gate = distiller.objectives['fusion'].gate
    monkeypatch.setattr(gate, 'weights', lambda high, low: torch.tensor([[1.0, 0]] * len(high)))
    losses = distiller.loss(inputs, copy.deepcopy(samples))
    plain = sum(sum(v) for k, v in losses.items() if k.startswith('loss_'))
    torch.testing.assert_close(losses['kd.fusion.loss_fused'], plain)


def test_factors_leave_terms_out():
    data = detection_batch(2, (128, 192))
    losses = distiller_of(factors=dict(low=0)).loss(data[0], copy.deepcopy(data[1]))
    assert losses['kd.fusion.loss_low'] == 0 < losses['kd.fusion.loss_fused']
    once, twice = (
        distiller_of(factors=dict(fused=f)).loss(data[0], copy.deepcopy(data[1])) for f in (1, 2)
    )
    torch.testing.assert_close(2 * once['kd.fusion.loss_fused'], twice['kd.fusion.loss_fused'])


def test_a_quarter_of_the_size():
    distiller, (inputs, samples) = distiller_of(scale=0.25), detection_batch(2, (256, 256))
    assert distiller.objectives['fusion'].shift == 2
    assert distiller.loss(inputs, samples)['kd.fusion.loss_fused'].isfinite()
    assert 'images of 1/4 of the side, fused 2 level(s) apart' in str(distiller.plan)


def test_warm_up_of_the_students_weight():
    """As published: 0, .002, .5, 1 at steps 0, 1, 250, 500."""
    schedule = Schedule(1.0, warmup=500)
    from mmkd.schedule import Progress

    found = [schedule(Progress(step, 1000)) for step in (0, 1, 250, 500)]
    assert found == pytest.approx([0, 0.002, 0.5, 1])


@pytest.mark.parametrize('scale', [2 / 3, 1, 2, 1 / 3])
def test_scales_that_shift_no_levels(scale):
    with pytest.raises(ValueError, match='scale must be 1/2, 1/4, …'):
        ScaleFusion(scale=scale)


@pytest.mark.parametrize('make', [tiny_pspnet, tiny_yolov3])
def test_other_networks_are_refused(make):
    with pytest.raises(ValueError, match='ScaleFusion (trains two-stage|needs a neck)'):
        distiller_of(make)


def test_necks_of_other_strides_are_refused():
    maps = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 2, 2)]
    trace = make_trace({'neck': maps})
    objective = ScaleFusion()
    from mmkd.tap import parse_taps
    from mmkd.testing import levels_of

    with pytest.raises(ValueError, match='whose strides double'):
        objective.setup(levels_of(trace.student, parse_taps('neck')), None)
