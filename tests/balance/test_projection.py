"""Terms that oppose the task are projected, the others stay."""

from copy import deepcopy

import pytest
import torch
from balance_toys import objectives, step
from distiller_toys import Returns, Square, batch, toy

from mmkd.analysis.waits import WaitCounter
from mmkd.balance import GradientRatio, gradient_ratio, scale_terms
from mmkd.checks.guard import Guard
from mmkd.testing import class_labels


def gradient(vectors, task, weights=None, **options):
    """The gradient at the tap of everything that a step adds up, and what is logged."""
    balance = GradientRatio(**dict(ratio=dict.fromkeys(vectors, 1.0), project=True) | options)
    balance.bind(objectives(*vectors))
    terms, own, trace, progress = step(vectors, task, weights)
    factors = balance(terms, own, trace, progress)
    scaled = scale_terms(terms, factors, balance, progress)
    losses = [v for named in scaled.values() for k, v in named.items() if '.loss' in k]
    total = own['loss_cls'] + torch.stack(losses).sum()
    (found,) = torch.autograd.grad(total, trace.inputs)
    return found[0].tolist(), balance.logged(), scaled


def test_what_opposes_the_task_is_taken_away():
    """PCGrad of (-3, 4) against (2, 0) is (0, 4); the factor of 1 x the task is 2 / 5."""
    found, logged, scaled = gradient(dict(a=[-3.0, 4.0]), [2.0, 0.0])
    assert found == pytest.approx([2.0, 4 * 2 / 5]) and logged == {'balance.projected': 1}
    assert scaled['a']['kd.a.loss_projection'] == 0
    without, logged, scaled = gradient(dict(a=[-3.0, 4.0]), [2.0, 0.0], project=False)
    assert without == pytest.approx([2 - 3 * 2 / 5, 4 * 2 / 5]) and logged == {}
    assert 'kd.a.loss_projection' not in scaled['a']


def test_places_of_a_tap_on_some_channels_are_whole(tmp_path):
    """Gradients are those of all channels there, as are the tensors at which they are turned."""
    (tmp_path / 'some.json').write_text('{"channels": [1]}')
    pair = dict(a=[-3.0, 4.0]), [2.0, 0.0]
    found, logged, _ = gradient(*pair, at=f'neck{{{tmp_path / "some.json"}}}')
    assert (found, logged) == gradient(*pair)[:2] and logged == {'balance.projected': 1}


def test_each_term_by_itself_and_acute_ones_stay():
    vectors = dict(a=[-1.0, 1.0], b=[1.0, 1.0], c=[0.0, 1.0])
    found, logged, scaled = gradient(vectors, [1.0, 0.0], clip=(1.0, 1.0))
    assert found == pytest.approx([1 + 0 + 1 + 0, 3.0]) and logged == {'balance.projected': 1}
    assert all(scaled[name][f'kd.{name}.loss_projection'] == 0 for name in vectors)


def test_nothing_to_compare_with():
    found, logged, _ = gradient(dict(a=[-1.0, 1.0]), [0.0, 0.0], clip=(1.0, 1.0))
    assert found == pytest.approx([-1.0, 1.0]) and logged == {'balance.projected': 0}


def test_a_measured_step_has_one_pass_of_the_task(monkeypatch):
    """And one of each term, whether it is measured, projected or both."""
    passes = []
    plain = gradient_ratio.gradients_at, gradient_ratio.gradients_by_place

    def counted(which):
        def run(loss, *args):
            passes.append(which)
            return plain[which](loss, *args)

        return run

    monkeypatch.setattr(gradient_ratio, 'gradients_at', counted(0))
    monkeypatch.setattr(gradient_ratio, 'gradients_by_place', counted(1))
    gradient(dict(a=[-3.0, 4.0], b=[1.0, 1.0]), [2.0, 0.0])
    assert sorted(passes) == [0, 0, 1]


def test_between_measurements_nothing_waits_for_the_device():
    vectors = dict(a=[-3.0, 4.0], b=[1.0, 0.0])
    balance = GradientRatio(ratio=dict.fromkeys(vectors, 1.0), project=True)
    balance.bind(objectives(*vectors))
    for iteration, waits in ((0, True), (1, True), (2, False)):  # it measures in the first two
        terms, own, trace, progress = step(vectors, [2.0, 0.0], iteration=iteration)
        losses = [v for named in terms.values() for v in named.values()]
        with WaitCounter([trace.inputs, *losses, own['loss_cls']]) as counter:
            factors = balance(terms, own, trace, progress)
            scaled = scale_terms(terms, factors, balance, progress)
            shown = balance.logged()['balance.projected']
        assert bool(counter.places) == waits, counter.places
        assert shown == 1 and len(scaled) == 2


class Against(Square):
    """Pulls the head's logits away from what the task wants."""

    taps = 'head.fc'

    def forward(self, trace):
        logits = trace.student['head.fc'][0]
        return -2 * torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))


def test_a_step_of_a_distiller():
    """The term is the task turned round at the logits: nothing of it is left there."""
    balance = dict(type='mmkd.GradientRatio', ratio=0.5, project=True)
    plain = toy(dict(a=Returns({'loss': torch.zeros(())})))
    found = toy(dict(a=Against()), balance=balance)
    inputs, _ = batch()
    samples = class_labels(torch.arange(len(inputs)))
    gradients = []
    for model in (plain, found):
        losses = model(inputs, samples, mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k and v.requires_grad).backward()
        gradients.append(model.student.backbone[0].weight.grad)
    assert losses['balance.projected'] == 1
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    found.guard = Guard(steps=1)
    found(inputs, samples, mode='loss')
    assert found.guard.seen == dict(a=1), 'the loss of value 0 is no term without effect'
    copy = deepcopy(found)  # no tensor of the step's graph is left in it
    assert copy.balance.logged() == {'balance.projected': 1}
