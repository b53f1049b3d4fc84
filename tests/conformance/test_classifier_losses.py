"""What every loss for classifiers owes on values that no healthy network shows, and in any order.

The tensors at the taps of one real step are replaced; nothing is skipped by name, and where a loss
is an exception on purpose, the test wants it to be one.
"""

import copy

import pytest
import torch
from cases import CLASSIFIERS, Case, batch, pairs, terms, terms_of_copy, total
from torch.func import functional_call

from mmkd.functional.nested import flatten
from mmkd.tap import Side, Tap, Trace

SIZE = (16, 24)
#: losses in which something counts as a constant, so that differences say otherwise
CONSTANTS = {
    'AdversarialLogits': "the student in the critic's loss",
    'BYOT': 'the last exit',
    'CSKD': 'the partner',
    'FeatureGAN': "the student in the critic's loss",
    'IRG': 'the largest distance',
    'KDGAN': "the student in the critic's loss",
    'MultiExit': 'the last exit',
    'ONE': 'the ensemble',
    'WSLD': 'the weight of a sample',
}
#: what is drawn at random by place in the batch
DRAWN = {'NoisyTeacher': 'the noise'}


@pytest.fixture(
    scope='module', params=[pair for pair in pairs() if pair[1] in CLASSIFIERS], ids=lambda p: p[0]
)
def it(request):
    """A loss after its first step, with what both networks showed in another."""
    case = Case(*request.param)
    assert case.result
    inputs, case.samples = batch(case.family, size=SIZE)
    case.inputs = inputs.requires_grad_(case.objective.needs_input_gradient)
    with case.distiller.recorder.record(case.inputs) as case.shown:
        case.distiller.student(case.inputs, copy.deepcopy(case.samples), mode='loss')
    teachers = case.distiller._run_teachers(['it'], case.inputs, case.samples)
    case.wanted = next(iter(teachers.values()), None)
    return case


class Exact(Side):
    """A side that keeps float64, unlike those of a real step."""

    def maps(self, tap):
        tensors, index = flatten(self.raw(tap)), Tap.parse(tap).index
        return [x.double() for x in ([tensors[index]] if isinstance(index, int) else tensors)]


def changed(side, change, kind=Side):
    """The same side with ``change`` of every tensor at its taps."""
    calls = {k: [change(x) for x in flatten(v)] for k, v in side.calls.items()}
    return kind(side.model, side.inputs, calls)


def loss_of(it, own, wanted, dtype=None):
    """The loss of a copy, so that one test leaves no state to the next."""
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        return total(terms_of_copy(it.distiller, Trace(it.inputs, it.samples, own, wanted)))


CHANGES = {'zero': lambda x: 0 * x, 'constant': lambda x: 0 * x + 1, 'huge': lambda x: 1e4 * x}


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('kind', CHANGES)
def test_hard_values_give_finite_losses_and_moderate_gradients(it, kind, dtype):
    def low(x):
        limit = 6e4 if dtype is torch.float16 else float('inf')
        return x.clamp(-limit, limit).to(dtype)

    own = changed(it.shown, lambda x: low(CHANGES[kind](x)))
    sides = [it.wanted] * 2
    if it.wanted is not None:
        sides[1] = changed(it.wanted, lambda x: low(CHANGES[kind](x)))
    for wanted in sides:
        loss = loss_of(it, own, wanted, dtype)
        assert loss.isfinite() and loss.dtype == torch.float32
        if dtype is torch.float16:
            continue  # its range is narrow: a scaler sees to that
        values = flatten(list(own.calls.values()))
        for gradient in torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
            assert gradient is None or kind == 'huge' or float(gradient.abs().max()) < 1e5


@pytest.mark.parametrize('n', [1, 2])
def test_one_image_or_two(it, n):
    distiller = copy.deepcopy(it.distiller).eval()
    distiller.objectives.train()
    loss = total(terms(distiller, batch(it.family, n, size=SIZE)))
    assert loss.isfinite() and loss.requires_grad
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    for gradient in torch.autograd.grad(loss, parameters, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_the_order_of_a_batch_does_not_matter(it):
    """Of pairs, that is: image and partner move together."""
    inputs, samples = batch(it.family, size=SIZE)
    half = torch.tensor([2, 0, 3, 1])
    order = torch.cat((half, half + 4))
    found = []
    for rows in (torch.arange(8), order):
        distiller = copy.deepcopy(it.distiller)
        loss = total(terms(distiller, (inputs[rows], [samples[i] for i in rows])))
        parameters = [p for p in distiller.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found.append([loss, *(g.norm() for g in gradients if g is not None)])
    first, second = (torch.stack(values).detach() for values in found)
    same = torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.max()))
    assert same == (it.name not in DRAWN)


def test_maps_of_another_size_are_compared_or_refused(it):
    maps = [x for x in flatten(list(it.wanted.calls.values())) if x.dim() == 4] if it.wanted else []
    for x in maps:
        assert x.shape[2] != x.shape[3]
    if not maps:
        return
    smaller = changed(it.wanted, lambda x: x[:, :, ::2, ::2] if x.dim() == 4 else x)
    objective = it.objective
    if getattr(objective, 'resize', 'student') is None:
        with pytest.raises(ValueError, match=r'maps differ in size.*resize='):
            loss_of(it, it.shown, smaller)
    else:
        assert loss_of(it, it.shown, smaller).isfinite()


def test_everything_learnt_feels_a_gradient(it):
    own = {n: p for n, p in it.objective.named_parameters() if p.requires_grad}
    if not own:
        return
    gradients = torch.autograd.grad(it.loss, list(own.values()), retain_graph=True)
    assert not [n for n, g in zip(own, gradients, strict=True) if not g.any()]


def test_gradient_is_that_of_differences(it):
    objective = copy.deepcopy(it.objective).double().eval()
    if objective.needs_input_gradient:
        function, leaves = through_the_network(it, objective)
    else:
        function, leaves = at_the_taps(it, objective)
    generator = torch.Generator().manual_seed(0)
    # A share of each value: what is exactly 0, a dead channel, has no derivative and stays.
    steps = [
        1e-6 * x.detach() * torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in leaves
    ]
    gradients = torch.autograd.grad(function(*leaves), leaves, allow_unused=True)
    slope = sum(
        float((g * d).sum()) for g, d in zip(gradients, steps, strict=True) if g is not None
    )
    ends = [
        float(
            function(*(x.detach() + sign * d for x, d in zip(leaves, steps, strict=True))).detach()
        )
        for sign in (1, -1)
    ]
    assert slope != 0
    # A constant may carry little: the ensemble's term of ONE has hardly risen at the start.
    share = 1e-4 if it.name in CONSTANTS else 1e-2
    same = (ends[0] - ends[1]) / 2 == pytest.approx(slope, rel=share)
    assert same == (it.name not in CONSTANTS)


def at_the_taps(it, objective):
    shown = changed(it.shown, lambda x: x.detach().double(), Exact)
    wanted = it.wanted and changed(it.wanted, lambda x: x.detach().double(), Exact)
    places = [(key, i) for key, value in shown.calls.items() for i in range(len(value))]
    leaves = [shown.calls[key][i].requires_grad_() for key, i in places]

    def function(*values):
        calls = {key: list(value) for key, value in shown.calls.items()}
        for (key, i), value in zip(places, values, strict=True):
            calls[key][i] = value
        side = Exact(shown.model, it.inputs, calls)
        return total(objective(Trace(it.inputs, it.samples, side, wanted)))

    return function, leaves


def through_the_network(it, objective):
    """For losses on gradients in the pixels: with regard to the linear layer's weight."""
    student = copy.deepcopy(it.distiller.student).double().eval()
    inputs = it.inputs.detach().double().requires_grad_()
    name = 'head.fc.weight'

    def function(weight):
        logits = functional_call(student, {name: weight}, (inputs,), dict(mode='tensor'))
        side = Exact(student, inputs, {'head.fc': [logits]})
        return total(objective(Trace(inputs, it.samples, side, it.wanted)))

    return function, [student.get_parameter(name).detach().requires_grad_()]
