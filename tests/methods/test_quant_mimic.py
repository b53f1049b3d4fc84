"""QuantMimic against worked numbers, Mimic in the limit of small steps, and real tiny detectors."""

import copy

import pytest
import torch
from detection_toys import detector, samples, step, total
from pyramid_toys import toy

from mmkd.edits import QuantiseMap
from mmkd.functional.quantise import percentile, quantise, straight_through
from mmkd.methods.mimic import Mimic
from mmkd.methods.quant_mimic import QuantMimic
from mmkd.testing import boxes, make_trace, ready

WHOLE = boxes([[0, 0, 8, 8]])


def objective_on(student, teacher, samples, method=QuantMimic, tap='neck', **options):
    """An objective without adapters on maps of stride 8, with regions from the ground truth."""
    options = dict(proposal_source='gt', adapt=None, student=tap) | options
    trace = make_trace({tap: student}, {tap: teacher}, samples)
    objective = method(**options)
    objective.bind(toy('dense'), toy('dense'))
    return ready(objective, trace), trace


def row(*values):
    """One cell of some channels."""
    return torch.tensor(values).view(1, -1, 1, 1)


def test_quantise():  # QM-1, QM-3
    x = torch.tensor([-0.3, 0, 0.2, 0.25, 0.26, 0.74, 0.75, 0.76, 1.25, 9.9])
    wanted = torch.tensor([0, 0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 10])
    assert torch.equal(quantise(x, 0.5), wanted)
    assert torch.equal(quantise(x, 0.5, signed=True)[1:], wanted[1:])
    assert torch.equal(quantise(-x, 0.5, signed=True), -quantise(x, 0.5, signed=True))
    assert float(quantise(torch.tensor(-0.3), 0.5, signed=True)) == -0.5
    many = torch.linspace(-1, 20, 9973)
    for s in (0.5, 0.25, 2.0):
        q = quantise(many, s)
        assert torch.equal(quantise(q, s), q) and (q.diff() >= 0).all() and q.min() == 0
        assert ((q - many).abs()[many >= 0] <= s / 2 + 1e-5).all()
        assert ((quantise(many, s, True) - many).abs() <= s / 2 + 1e-5).all()


def test_worked_numbers_and_straight_through():  # QM-2, QM-5
    teacher, student = row(0.2, 0.6, 1.1), row(0.3, 0.4, 1.3).requires_grad_()
    options = dict(norm='none', signed=False, step=0.5)
    objective, trace = objective_on(student, teacher, WHOLE, **options)
    loss = objective(trace)['loss']
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    wanted = row(0.5, 0.5, 1.5) - row(0.0, 0.5, 1.0)
    torch.testing.assert_close(student.grad, wanted)
    plain, trace = objective_on(student.detach(), teacher, WHOLE, Mimic, norm='none')
    assert float(plain(trace)['loss']) == pytest.approx(0.045)
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    value = straight_through(x, torch.tensor([0.1, 0.7]))
    assert value.tolist() == torch.tensor([0.1, 0.7]).tolist()
    assert torch.autograd.grad(value.sum(), x)[0].tolist() == [1, 1]


@pytest.mark.parametrize('norm', ['all', 'spatial', 'none'])
def test_small_steps_are_mimic(norm):  # QM-4
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 6, 9, generator=generator) for _ in range(2)]
    gt = boxes([[3, 5, 30, 20], [60, 40, 90, 70]], [[16, 16, 17, 17]])
    mimic, trace = objective_on(*maps, gt, Mimic, norm=norm)
    wanted = mimic(trace)
    found = objective_on(*maps, gt, norm=norm, step=1e-4, signed=True)[0](trace)
    torch.testing.assert_close(found['loss'], wanted['loss'], rtol=1e-3, atol=0)
    assert found['regions'] == wanted['regions'] == 3
    coarse = objective_on(*maps, gt, norm=norm, step=0.8, signed=True)[0](trace)
    assert abs(float(coarse['loss'] / wanted['loss']) - 1) > 0.01
    unsigned = objective_on(*maps, gt, norm=norm, step=1e-4, signed=False)[0](trace)
    rectified, trace = objective_on(*(m.clamp(min=0) for m in maps), gt, Mimic, norm=norm)
    torch.testing.assert_close(unsigned['loss'], rectified(trace)['loss'], rtol=1e-3, atol=0)


def test_gradient_below_zero():
    """The student is pulled up where the teacher is above 0, and left alone where both round to 0."""
    student, teacher = row(-1.0, -1.0, 0.9).requires_grad_(), row(0.1, 2.0, 0.1)
    objective, trace = objective_on(student, teacher, WHOLE, norm='none', step=0.5, signed=False)
    objective(trace)['loss'].backward()
    assert student.grad.flatten().tolist() == [0.0, -2.0, 1.0]


def test_calibration(log):
    teacher = torch.cat((torch.linspace(0, 16, 2001), torch.tensor([1e6]))).view(1, 1, 22, 91)
    assert float(percentile(teacher)) == pytest.approx(16.0, rel=1e-3)
    student = torch.zeros(1, 1, 22, 91, requires_grad=True)
    objective, trace = objective_on(student, teacher, boxes([[0, 0, 99, 99]]), signed=False)
    assert objective.step == 0
    objective(trace)
    found = float(objective.step)
    assert found == pytest.approx(1.0, rel=1e-3)
    trace.teacher.calls['neck'] = [7 * teacher]
    objective(trace)
    assert float(objective.step) == found  # the first batch decides
    assert log.text.count(f'QuantMimic: step {found:.4g}, 3.1% of') == 1
    again, trace = objective_on(student, 7 * teacher, WHOLE, signed=False)
    again.load_state_dict(objective.state_dict())
    again(trace)
    assert float(again.step) == found  # as does the run that is resumed


def test_warns_when_nothing_is_left(log):
    maps = torch.rand(1, 4, 10, 10), torch.rand(1, 4, 10, 10)
    objective, trace = objective_on(*maps, boxes([[0, 0, 80, 80]]), step=5.0)
    assert objective(trace)['loss'] == 0
    warned = [r.message for r in log.records if r.levelname == 'WARNING']
    assert any('100.0% of the teacher' in m and 'Choose a smaller step' in m for m in warned)
    log.clear()
    objective, trace = objective_on(*maps, boxes([[0, 0, 80, 80]]), step=0.1)
    objective(trace)
    assert not [r for r in log.records if r.levelname == 'WARNING']
    silent, trace = objective_on(maps[0], 0 * maps[1], WHOLE)
    with pytest.raises(ValueError, match='99.9 % of the teacher.s values are 0'):
        silent(trace)


def test_sign_by_taps():
    maps = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    assert objective_on(*maps, WHOLE)[0].signed is True
    assert objective_on(*maps, WHOLE, tap='backbone')[0].signed is False
    assert objective_on(*maps, WHOLE, tap='backbone', signed=True)[0].signed is True


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('frcnn', {}),
        ('frcnn', dict(student='backbone[2:4]', proposals=8)),
        ('retinanet', dict(proposal_source='gt')),
    ],
)
def test_real_detectors(name, options):
    student, teacher = detector(name), detector(name, 1)
    objective = QuantMimic(**options)
    losses, trace = step(objective, student, teacher)
    total(losses).backward()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in objective.parameters())
    assert any(p.grad.any() for p in objective.parameters())
    assert objective.signed is (options.get('student') is None)
    rois = objective.regions.of(trace)
    assert losses['kd.o.regions'] == len(rois) > 0
    if 'proposals' in options:
        assert torch.bincount(rois[:, 0].long()).max() <= 8
    empty, _ = step(QuantMimic(proposal_source='gt'), student, teacher, samples((0, 1)))
    assert total(empty) == 0 and total(empty).requires_grad


def test_same_network():
    student = detector('frcnn')
    losses, _ = step(QuantMimic(adapt='auto'), student, copy.deepcopy(student), train=False)
    assert float(losses['kd.o.loss'].detach()) == 0


def test_whose_maps_are_rounded():
    """Teacher .2, .6, 1.1 and student .3, .4, 1.3 at a step of .5."""
    teacher, student = row(0.2, 0.6, 1.1), row(0.3, 0.4, 1.3)
    q_t, q_s = row(0.0, 0.5, 1.0), row(0.5, 0.5, 1.5)
    pairs = dict(both=(q_t, q_s), teacher=(q_t, student), student=(teacher, q_s))
    for rounds, (t, s) in (pairs | dict(none=(teacher, student))).items():
        options = dict(norm='none', signed=False, step=0.5, rounds=rounds)
        objective, trace = objective_on(student, teacher, WHOLE, **options)
        wanted = float((t - s).square().sum()) / 2
        assert float(objective(trace)['loss']) == pytest.approx(wanted)


def rounded(model, at='neck', **options):
    return QuantiseMap(at, **(dict(step=0.125, signed=True) | options))(model)


def test_the_teacher_brings_its_step():  # QM-10
    student, teacher = detector('frcnn'), rounded(detector('frcnn', 1), levels=64)
    objective = QuantMimic()
    step(objective, student, teacher)
    assert float(objective.step) == 0.125 and objective.signed and objective.levels == 64
    again = QuantMimic()
    step(again, rounded(detector('frcnn'), step=0.5), teacher)  # deployed by a step of its own
    assert float(again.step) == 0.125


@pytest.mark.parametrize(
    ('at', 'own', 'options', 'message'),
    [
        (
            'backbone.layer4',
            None,
            {},
            "teacher's maps are rounded at backbone.layer4, but compared",
        ),
        ('neck', 'backbone.layer4', {}, "rounded at neck, the student's at backbone.layer4"),
        ('neck', None, dict(step=0.5), 'step=0.5, but .* multiples of 0.125'),
    ],
)
def test_other_places_and_steps_are_refused(at, own, options, message):
    student = rounded(detector('frcnn'), own) if own else detector('frcnn')
    with pytest.raises(ValueError, match=message):
        step(QuantMimic(**options), student, rounded(detector('frcnn', 1), at))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (
            lambda: QuantMimic(step=0),
            'step must be a finite number above 0, or None, found 0',
        ),  # QM-6
        (lambda: QuantMimic(step=-1.0), 'found -1.0'),
        (lambda: QuantMimic(rounds='all'), 'rounds must be one of'),
        (lambda: QuantMimic(step=float('nan')), 'found nan'),
        (lambda: QuantMimic(norm='c'), 'QuantMimic: norm must be one of'),
        (
            lambda: QuantMimic(proposals=0),
            'QuantMimic: proposals must be a whole number of at least 1',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
