"""A balance inside a Distiller: factors, logs, parity, copies."""

import copy

import pytest
import torch
from distiller_toys import Returns, Square, batch, toy

from mmkd.balance import AEKD, Balance, GradientRatio, build_balance
from mmkd.checks.guard import Guard
from mmkd.schedule import Progress
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet


class Fixed(Balance):
    """Factors that a test names."""

    def __init__(self, **factors):
        self.given = factors

    def __call__(self, terms, task, trace, progress):
        return {n: self.given.get(n, 1.0) for n in self.running(self.objectives, terms, progress)}


def two(**options):
    return toy(dict(a=Square(), b=Square(weight=0.5)), **options)


def losses_of(distiller, **options):
    inputs, samples = batch()
    return distiller(inputs, samples, mode='loss', **options)


def gradient_of(losses, distiller):
    total = sum(v for k, v in losses.items() if 'loss' in k)
    total.backward()
    return {n: p.grad.clone() for n, p in distiller.named_parameters() if p.grad is not None}


def test_losses_are_multiplied_and_factor_and_weight_are_logged():
    plain, found = losses_of(two()), losses_of(two(balance=Fixed(a=3.0)))
    assert found['loss_cls'] == plain['loss_cls']
    assert found['kd.a.loss'] == 3 * plain['kd.a.loss']
    assert found['kd.b.loss'] == plain['kd.b.loss']
    logged = {k: float(v) for k, v in found.items() if k not in plain}
    assert logged == {
        'kd.a.factor': 3,
        'kd.a.weight': 3,
        'kd.b.factor': 1,
        'kd.b.weight': 0.5,
    }


def test_factors_of_one_are_no_balance_bit_for_bit():
    results = []
    for balance in (None, Fixed(), dict(type='mmkd.AEKD', cap=0.5)):
        distiller = two(balance=balance)
        losses = losses_of(distiller)
        results.append((losses, gradient_of(losses, distiller)))
    (plain, wanted), *others = results
    for losses, gradients in others:
        assert all(torch.equal(losses[key], value) for key, value in plain.items())
        assert gradients.keys() == wanted.keys()
        assert all(torch.equal(gradients[name], g) for name, g in wanted.items())


@pytest.mark.parametrize('balance', [0.3, dict(type='mmkd.GradientRatio', at='backbone')])
def test_weight_zero_is_plain_training_with_a_balance_present(balance):
    plain = toy({})
    wanted = losses_of(plain)
    gradients = gradient_of(wanted, plain)
    state = torch.get_rng_state()
    distiller = toy(dict(a=Square(weight=0)), balance=balance)
    losses = losses_of(distiller)
    found = gradient_of(losses, distiller)
    assert not any(key.endswith(('factor', 'weight')) for key in losses)
    assert torch.equal(losses['loss_cls'], wanted['loss_cls'])
    assert all(torch.equal(found[name], g) for name, g in gradients.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_ratio_is_that_of_the_gradients_in_the_student():
    """At the neck of a toy, between a term and the task."""
    for at in (None, 'neck', 'backbone'):
        distiller = toy(balance=dict(type='mmkd.GradientRatio', ratio=0.3, at=at, clip=(1e-6, 1e6)))
        losses = losses_of(distiller)
        seen = distiller.plan.balance.shares['square']
        assert seen.factor == pytest.approx(0.3 * seen.task / seen.term)
        if at == 'backbone':  # the neck is beyond: its own gradient is not part of it
            tensor = distiller.backbone[2].register_forward_hook(keep := Keep())
            losses = losses_of(distiller)
            tensor.remove()
            both = [
                torch.autograd.grad(losses[key], keep.seen, retain_graph=True)[0].norm()
                for key in ('kd.square.loss', 'loss_cls')
            ]
            assert float(both[0] / both[1]) == pytest.approx(0.3, rel=1e-4)


class Keep:
    def __call__(self, module, inputs, output):
        self.seen = output


def test_an_overwritten_tap_is_measured_where_it_was():
    factors = []
    for inplace in (False, True):
        torch.manual_seed(1)
        distiller = toy(
            dict(a=Square(student='neck.conv', teacher='neck.conv')),
            student=ToyNet(inplace=inplace),
            balance=dict(type='mmkd.GradientRatio', clip=(1e-9, 1e9)),
        )
        losses_of(distiller)
        factors.append(distiller.balance.shares['a'].factor)
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)


def test_losses_that_train_the_objective_alone_keep_their_size():
    parameter = torch.nn.Parameter(torch.ones(()))

    def value(trace):
        return dict(loss=trace.student['neck'][0].mean(), loss_own=parameter.square())

    distiller = toy(dict(a=Returns(value)), balance=Fixed(a=4.0))
    distiller.objectives['a'].own_losses = ('loss_own',)
    assert losses_of(distiller)['kd.a.loss_own'].item() == 1


def test_a_term_whose_factor_is_zero_is_not_reported_as_dead():
    distiller = two(balance=Fixed(a=0.0))
    distiller.guard = Guard(steps=2)
    for _ in range(3):
        losses_of(distiller)
    assert distiller.guard.seen == {'b': 2}


def test_one_that_rests_as_its_teacher_is_not_ready_is_left_out():
    distiller = two(balance=0.3)
    distiller.objectives['a'].rests = True
    terms = {n: {f'kd.{n}.loss': torch.ones(())} for n in 'ab'}
    assert distiller.balance.running('ab', terms, Progress()) == ['b']


def test_a_teacher_cannot_have_the_name_of_its_state():
    teacher = dict(balance=Teacher(ToyNet(6), checkpoint='random'))
    with pytest.raises(ValueError, match="two networks are called 'balance'"):
        toy(teacher=teacher, balance=0.3)
    toy(teacher=teacher)


def test_further_numbers_are_logged():
    losses = losses_of(two(balance=dict(type='mmkd.AEKD', cap=0.6)))
    assert losses['balance.undecided'] == 0 and losses['kd.a.factor'] + losses['kd.b.factor'] == 2


def test_copies_are_independent_and_no_state_has_it():
    distiller = toy(balance=0.3)
    copied = copy.deepcopy(distiller)
    losses_of(distiller)
    assert distiller.balance.shares and not copied.balance.shares
    assert distiller.state_dict().keys() == toy().state_dict().keys()


def test_the_plan_has_it_and_its_taps_are_recorded():
    distiller = toy(balance=dict(type='mmkd.GradientRatio', at='backbone'))
    assert "balance: GradientRatio, shares of the task's gradient at backbone: square 0.5" in str(
        distiller.plan
    )
    with pytest.raises(ValueError, match="no module 'backbones'"):
        toy(balance=dict(type='mmkd.GradientRatio', at='backbones'))


@pytest.mark.parametrize(
    ('entry', 'kind'),
    [
        (0.3, GradientRatio),
        (dict(a=0.3), GradientRatio),
        (dict(type='mmkd.gradientratio', every=3), GradientRatio),
        (dict(type='mmkd.AEKD', cap=0.7), AEKD),
        (None, type(None)),
    ],
)
def test_entries(entry, kind):
    assert type(build_balance(entry)) is kind
    assert build_balance(GradientRatio(ratio=0.2)).asked == 0.2


@pytest.mark.parametrize(
    ('entry', 'error', 'message'),
    [
        (0, ValueError, 'balance must be a finite number above 0'),
        (True, TypeError, 'balance must be a number such as 0.3'),
        ('0.3', TypeError, 'balance must be a number such as 0.3'),
        (dict(type='mmkd.GradientRatios'), ValueError, 'none of AEKD, GradientRatio.*Did you mean'),
        (dict(type='mmkd.KD'), ValueError, 'none of AEKD, GradientRatio'),
        (dict(type='mmkd.AEKD', caps=1), TypeError, 'AEKD has no option caps'),
        (dict(type='mmkd.AEKD', normalise=1), ValueError, 'normalise must be True or False'),
    ],
)
def test_entries_that_are_refused(entry, error, message):
    with pytest.raises(error, match=message):
        build_balance(entry)
