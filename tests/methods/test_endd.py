"""EnDD: numbers of the sheet, several members, temperatures, and what is refused."""

import pytest
import torch

from mmkd.checks.preflight import PreflightHook
from mmkd.distiller import Distiller
from mmkd.functional.dirichlet import concentrations, negative_log_likelihood
from mmkd.methods.endd import EnDD, mean_log_probability
from mmkd.schedule import Progress
from mmkd.tap import Side, Tap, Trace
from mmkd.testing import (
    class_labels,
    classification_batch,
    segmentation_batch,
    tiny_classifier,
    tiny_pspnet,
)

OWN = torch.tensor([[5.0, 2, 1], [1, 1, 1]], dtype=torch.float64).log()
MEMBERS = [
    torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]], dtype=torch.float64).log(),
    torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64).log(),
]


def trace_of(own, members, at=0, total=10):
    model = torch.nn.Module()
    pixels, source = torch.zeros(len(own), 3, 8, 8), Tap.parse('head.fc').source
    sides = [Side(model, pixels, {source: [x]}) for x in (own, *members)]
    teachers = dict(zip('abcdef', sides[1:], strict=False))
    samples = class_labels(torch.zeros(len(own)).long())
    return Trace(pixels, samples, sides[0], teachers, Progress(at, total))


def ready(**options):
    objective = EnDD('head.fc', 'head.fc', **{'teacher_name': ['a', 'b'], 'tau': 1.0, **options})
    objective.kind = 'images'
    return objective


def test_worked_numbers():
    """[V] -2.20540 for the first row, to which almost no smoothing adds almost nothing."""
    objective = ready(smoothing=1e-9)
    one = objective(trace_of(OWN[:1], [m[:1] for m in MEMBERS]))
    assert float(one['loss']) == pytest.approx(-2.20540, abs=1e-5)
    assert float(one['knowledge']) == pytest.approx(0.1095, abs=1e-4)
    both = objective(trace_of(OWN, MEMBERS))
    second = -torch.lgamma(torch.tensor(3.0))
    assert float(both['loss']) == pytest.approx((-2.20540 + float(second)) / 2, abs=1e-5)
    assert torch.equal(both['loss'], objective(trace_of(OWN, MEMBERS[::-1]))['loss'])


def test_temperature_softens_both_and_scales_the_loss():
    own = OWN.clone().requires_grad_()
    loss = ready(tau=2.0)(trace_of(own, MEMBERS))['loss']
    mean_log = mean_log_probability([m / 2 for m in MEMBERS], 1.0, 1e-3)
    wanted = 4 * negative_log_likelihood(concentrations(OWN / 2), mean_log).mean()
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-6)
    loss.backward()
    assert bool(own.grad.ne(0).all())


def test_smoothing():
    certain = [torch.tensor([[100.0, 0.0]])]
    found = mean_log_probability(certain, 1.0, 1e-3).exp()
    assert found[0].tolist() == pytest.approx([0.999 * 0.5 + 0.5, 0.0005])


def test_the_temperature_falls_by_itself():
    """Ours: constant for a third of the run, linear for a third, then 1."""
    objective = EnDD()
    found = [objective.set_numbers(Progress(i, 12))['tau'] for i in (0, 4, 6, 8, 11)]
    assert found == pytest.approx([10, 10, 5.5, 1, 1])
    assert EnDD(tau=2.0).schedules == {} and EnDD(tau=2.0).tau == 2
    mine = EnDD(tau=dict(value=4, decay='linear', end_value=1))
    assert mine.set_numbers(Progress(1, 2)) == {'tau': 2.5}


def model(make, **options):
    torch.manual_seed(0)
    teachers = {name: dict(config=make(8), checkpoint='random') for name in 'abc'}
    objective = dict(type='mmkd.EnDD', **{'teacher_name': ['a', 'b', 'c'], **options})
    return Distiller(make(4), dict(endd=objective), teachers, task_weight=None).train()


@pytest.mark.parametrize(
    ('make', 'batch'),
    [
        (tiny_classifier, classification_batch(4, (32, 32))),
        (tiny_pspnet, segmentation_batch(2, (64, 64))),
    ],
)
def test_it_trains_a_student_alone(make, batch):
    distiller = model(make)
    losses = distiller.loss(*batch)
    assert set(losses) == {'kd.endd.loss', 'kd.endd.tau', 'kd.endd.knowledge'}
    losses['kd.endd.loss'].backward()
    assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad)
    found = {p.requires_grad for p in distiller.backbone.parameters()}
    assert found == {True} and 'c, as teacher' in str(distiller.plan)


def test_one_member_is_refused():
    with pytest.raises(ValueError, match=r'teacher_name names 1\. Name at least two.*or use KD'):
        EnDD(teacher_name=['a'])
    alone = Distiller(
        tiny_classifier(4), dict(endd=EnDD()), dict(config=tiny_classifier(8), checkpoint='random')
    )
    with pytest.raises(ValueError, match='teacher_name names 0'):
        alone.objectives['endd'].check_dataset(None)
    assert PreflightHook.before_train  # which calls it before the first step


@pytest.mark.parametrize(
    'options', [dict(smoothing=0), dict(smoothing=1), dict(most=0), dict(tau=0), dict(resize='own')]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match='EnDD'):
        EnDD(**options)


def test_unequal_classes_are_refused():
    teachers = {
        name: dict(config=tiny_classifier(8, num_classes=count), checkpoint='random')
        for name, count in (('a', 3), ('b', 4))
    }
    objective = dict(type='mmkd.EnDD', teacher_name=['a', 'b'])
    with pytest.raises(ValueError, match='EnDD.*class counts'):
        Distiller(tiny_classifier(4, num_classes=3), dict(endd=objective), teachers)
