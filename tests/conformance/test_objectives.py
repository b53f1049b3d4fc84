"""What every registered objective owes the framework, on every family that it declares.

Abilities are declared on the class (``zero_at_equality``, ``rank_invariant``,
``needs_ground_truth``, ``families``); nothing is skipped by name.
"""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from cases import (
    DENSITIES,
    Case,
    batch,
    build,
    fresh_teacher,
    leaves,
    lively,
    make_identities,
    method,
    networks,
    odd_size,
    pairs,
    terms,
    terms_of_copy,
    total,
    untouched,
)
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkd.analysis.waits import WaitCounter, tensors_of
from mmkd.checks.guard import Guard
from mmkd.checks.preflight import check_optimised
from mmkd.engine.optimizers import build_optimizers
from mmkd.families import FAMILIES
from mmkd.functional.nested import flatten
from mmkd.methods import names
from mmkd.objective import Objective, PairObjective
from mmkd.rows.generator_objective import GeneratorObjective
from mmkd.rows.instance_objective import InstanceObjective
from mmkd.schedule import Schedule
from mmkd.tap import Side, Trace
from mmkd.teacher import Teacher

BASES = (Objective, PairObjective, InstanceObjective, GeneratorObjective)


@pytest.fixture(scope='module', params=pairs(), ids='-'.join)
def it(request):
    """A method on a family, with a step done; pytest runs all tests of one before the next."""
    case = Case(*request.param)
    case.copy = copy.deepcopy(case.distiller)
    assert case.result
    return case


@pytest.fixture(scope='module')
def twin(it):
    """A copy from before that step, with twice the weight, and what its own step returned."""
    distiller = it.copy
    distiller.guard = Guard()
    distiller.objectives['it'].weight = Schedule(2.0)
    return SimpleNamespace(distiller=distiller, result=terms(distiller, batch(it.family)))


@pytest.mark.parametrize('name', names())
def test_declares_its_families(name):
    cls = method(name)
    assert issubclass(cls, Objective)
    assert cls.families and set(cls.only) <= set(cls.families) <= set(FAMILIES)
    assert cls.__doc__ and cls.__mro__[1] in BASES


def test_losses_are_finite_scalars_and_the_student_feels_them(it):
    assert any(key.startswith('loss') for key in it.result)
    for key, value in it.result.items():
        assert value.dim() == 0 and value.isfinite(), key
        assert value.dtype == torch.float32, key
        assert key.startswith('loss') or 'loss' not in key
    # A generator of images loses what the student wins.
    own = it.objective.own_losses if it.objective.makes_images else ()
    loss = float(total({k: v for k, v in it.result.items() if k not in own}).detach())
    assert loss < 0 if it.name in DENSITIES else loss > 0
    parameters = [p for p in it.distiller.student.parameters() if p.requires_grad]
    grads = torch.autograd.grad(it.loss, parameters, retain_graph=True, allow_unused=True)
    grads = [g for g in grads if g is not None]
    assert all(g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads)


def test_every_leaf_is_a_known_parameter_and_every_parameter_a_leaf(it):
    pixels = batch(it.family)[0].shape if it.objective.needs_input_gradient else None
    found = {id(leaf) for leaf in leaves(it.loss) if leaf.shape != pixels}
    students = {id(p) for p in it.distiller.student.parameters()}
    own = {id(p): n for n, p in it.objective.named_parameters() if p.requires_grad}
    assert found <= students | set(own), 'a tensor that no optimiser will ever update'
    assert not [n for i, n in own.items() if i not in found], 'unused: DDP would wait for it'
    it.objective.state_dict()
    assert all(getattr(it.objective, name) is None for name in it.objective.transient)
    stray = [k for m in it.objective.modules() for k, v in vars(m).items() if _holds_tensors(v)]
    assert not stray, 'state must be a parameter, a buffer or a child'


def test_the_checks_of_the_first_steps_find_it_alive(twin):
    guard = twin.distiller.guard
    assert guard.seen == {'it': 1} and guard.alive


def test_the_plan_tells_of_it(it):
    lines = str(it.distiller.plan).splitlines()
    assert any(line.startswith(f'objective it: {it.name}, weight 1') for line in lines)


def _holds_tensors(value):
    return any(isinstance(t, (torch.Tensor, nn.Module)) for t in _contents(value))


def _contents(value):
    if isinstance(value, (list, tuple)):
        return [x for item in value for x in _contents(item)]
    return [value]


def test_every_parameter_is_in_an_optimiser_group(it):
    config = dict(optimizer=dict(type='SGD', lr=0.1))
    build = functools.partial(build_optim_wrapper, it.distiller, config)
    optim_wrapper = build_optimizers(it.distiller, build)
    check_optimised(it.distiller.objectives, optim_wrapper)


def test_no_gradient_reaches_the_teacher(it):  # GEN-3
    model = it.distiller.teachers['teacher'].model
    if it.result and it.loss.requires_grad:
        parameters = [p for p in it.distiller.parameters() if p.requires_grad]
        torch.autograd.grad(it.loss, parameters, retain_graph=True, allow_unused=True)
    assert not model.training and not any(m.training for m in model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any('teacher' in n for n, _ in it.objective.named_parameters())


def test_a_copy_with_twice_the_weight_has_twice_the_loss(it, twin):
    assert twin.distiller.teachers['teacher'] is it.distiller.teachers['teacher']
    assert twin.result.keys() == it.result.keys()
    for key, once in it.result.items():
        factor = 2 if key.startswith('loss') else 1
        torch.testing.assert_close(twin.result[key], factor * once, msg=key)


@functools.cache
def equals(family):
    """A student in eval mode and a teacher that is a copy of it, whatever was trained before."""
    student = copy.deepcopy(untouched(family)[0]).eval()
    return student, Teacher(copy.deepcopy(student), checkpoint='random')


def test_zero_at_equality_is_what_it_declares(it):
    student, teacher = equals(it.family)
    if method(it.name).teacher_families:  # then no network is a teacher of its equal
        with pytest.raises(ValueError, match=it.name):
            build(it.name, it.family, student, teacher)
        return
    torch.manual_seed(0)
    distiller = build(it.name, it.family, student, teacher)
    make_identities(distiller.objectives)
    distiller.eval()
    found = abs(float(total(terms(distiller, batch(it.family))).detach()))
    if it.objective.zero_at_equality:
        assert found < 1e-4 * max(float(it.loss.detach()), 0.1)
    else:  # little, where rows of toys are nearly alike
        assert found > 1e-10


def test_a_batch_without_ground_truth_is_finite_and_keeps_the_graph(it):  # GEN-4
    result = terms(it.distiller, batch(it.family, empty=True))
    _differentiable(it, result)


def test_one_image_of_odd_size(it):
    result = terms(build_eval(it), batch(it.family, 1, size=odd_size(it.family)))
    _differentiable(it, result, build_eval.last)


def build_eval(it):
    """BatchNorms of the student may refuse one image with maps of one cell: that is not ours."""
    torch.manual_seed(0)
    distiller = build(it.name, it.family)
    for module in distiller.student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    build_eval.last = distiller
    return distiller


def _differentiable(it, result, distiller=None):
    distiller = distiller or it.distiller
    distiller.student.train()
    loss = total(result)
    assert loss.isfinite() and loss.requires_grad
    own = [p for p in distiller.objectives.parameters() if p.requires_grad]
    inputs = [p for p in distiller.student.parameters() if p.requires_grad] + own
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert all(g.isfinite().all() for g in grads if g is not None)
    assert all(g is not None for g in grads[len(inputs) - len(own) :])


def test_low_precision_taps_under_autocast(it):
    """bf16 features give the loss of the same values in float32, computed in float32."""
    recorder = it.distiller.recorder
    torch.manual_seed(0)
    inputs, samples = batch(it.family)
    student = it.distiller.student
    inputs.requires_grad_(it.objective.needs_input_gradient)
    with recorder.record(inputs) as side:
        student(inputs, samples, mode='loss')
    teachers = it.distiller._run_teachers(['it'], inputs, samples)
    seen = next(iter(teachers.values()), None)

    def result_of(low, autocast):
        own = Side(student, inputs, {k: _bf16(v, low) for k, v in side.calls.items()})
        torch.manual_seed(0)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            return terms_of_copy(it.distiller, Trace(inputs, samples, own, seen))

    result, wanted = result_of(True, True), result_of(False, False)
    for key, value in result.items():
        assert value.isfinite() and value.dtype == torch.float32, key
        torch.testing.assert_close(value, wanted[key], msg=key)


def _bf16(value, low=True):
    """What carries gradient rounded to bf16, and back to float32 unless it is to stay low."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point() or not value.requires_grad:
            return value
        return value.bfloat16() if low else value.bfloat16().float()
    if isinstance(value, (list, tuple)):
        return [_bf16(v, low) for v in value]
    return value


def test_state_is_saved_and_loaded(it):
    distiller = it.distiller
    torch.manual_seed(1)
    other = build(it.name, it.family, copy.deepcopy(networks(it.family)[0]))
    lively(other.objectives)
    other.load_state_dict(distiller.state_dict())
    assert not [k for k in distiller.state_dict() if 'teacher.' in k]
    for key, value in distiller.objectives.state_dict().items():
        assert torch.equal(other.objectives.state_dict()[key], value), key


def test_no_hook_and_no_tensor_of_the_step_stays(it):
    for model in (it.distiller.student, it.distiller.teachers['teacher'].model):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_recorded_tensors_are_only_aliased_once():
    """Guards the helper above: lists stay lists."""
    assert [t.dtype for t in flatten(_bf16([torch.ones(1, requires_grad=True)]))] == [
        torch.bfloat16
    ]
    assert isinstance(fresh_teacher(networks('classifier')[1]), Teacher)


def test_the_steady_state_keeps_to_the_device_and_hardly_waits_for_it(it):
    """A later step: the first one measures margins, normalisers and the like."""
    objective = it.distiller.train().objectives['it']
    forward, counters = objective.forward, []

    def counted(trace):
        counters.append(WaitCounter(tensors_of(trace, objective)))
        with counters[-1]:
            return forward(trace)

    objective.forward = counted
    try:
        terms(it.distiller, batch(it.family))
    finally:
        del objective.forward
    assert counters[0].count <= 2, counters[0].places
    assert not counters[0].mixed
