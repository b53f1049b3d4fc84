"""Objectives with an optimiser of their own: scaling, accumulation, rests, resume, two ranks."""

import copy
import functools
import itertools

import pytest
import torch
from launches import leave
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import distributed, multiprocessing, nn

from mmkd.checks.preflight import check_optimised
from mmkd.distiller import Distiller
from mmkd.engine.optimizers import (
    JointOptimWrapper,
    build_optimizers,
    check_same_optimizers,
    schedules,
)
from mmkd.methods.skd_holistic import SKDHolistic
from mmkd.objective import Objective
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, class_labels, pixels, segmentation_batch, tiny_pspnet
from mmkd.trains import PLAYERS

OWN = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.1)
CONFIG = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))


class Rival(Objective):
    """Learns to guess 1 from the student's features; the student, to be guessed as 0."""

    taps = 'neck[0]'
    needs_teacher = False
    own_losses = ('loss_rival',)

    def __init__(self, optimizer=OWN, **kwargs):
        super().__init__(**kwargs)
        self.optimizer = optimizer
        self.guess = nn.Linear(4, 1)

    def forward(self, trace):
        x = trace.student['neck[0]'][0].mean((2, 3))
        w, b = (p.detach() for p in self.guess.parameters())
        student = nn.functional.linear(x, w, b).square().mean()
        rival = (self.guess(x.detach()) - 1).square().mean()
        return dict(loss=student, loss_rival=rival)


class Scale(Objective):
    """Learns one number with the student's optimiser."""

    taps = 'neck[0]'
    needs_teacher = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, trace):
        return (self.factor * trace.student['neck[0]'][0]).square().mean()


class CpuAmp(AmpOptimWrapper):
    """mmengine's wrapper with a scaler that works without a GPU."""

    def __init__(self, optimizer, scale=2.0**16, **kwargs):
        OptimWrapper.__init__(self, optimizer, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        self.cast_dtype = torch.bfloat16


def toy(preflight=False, trains=PLAYERS, **options):
    torch.manual_seed(0)
    objectives = dict(rival=Rival(**options), scale=Scale(), last=Rival(OWN | dict(lr=0.01)))
    return Distiller(ToyNet(), objectives, preflight=preflight, trains=trains).train()


def wrapped(model, **config):
    return build_optimizers(model, functools.partial(build_optim_wrapper, model, CONFIG | config))


def step(model, optimizers, seed=0):
    losses = model.loss(pixels(2, (32, 32), seed), class_labels(torch.arange(2)))
    optimizers.update_params(model.parse_losses(losses)[0])


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def parameters(wrapper):
    return [p for g in wrapper.optimizer.param_groups for p in g['params']]


@pytest.mark.parametrize('paramwise', [None, dict(bias_lr_mult=2.0)])
def test_every_parameter_has_one_optimiser(paramwise):
    model = toy()
    optimizers = wrapped(model, paramwise_cfg=paramwise)
    assert list(optimizers.keys()) == ['student', 'kd.rival', 'kd.last']
    assert list(model.objectives) == ['rival', 'scale', 'last']
    for name in ('rival', 'last'):
        objective = model.objectives[name]
        assert parameters(optimizers[f'kd.{name}']) == list(objective.parameters())
    rest = [*model.student.parameters(), model.objectives['scale'].factor]
    assert {id(p) for p in parameters(optimizers['student'])} == {id(p) for p in rest}
    check_optimised(model.objectives, optimizers)


def test_the_order_of_objectives_comes_back_after_a_failure():
    model = toy()
    with pytest.raises(KeyError):
        wrapped(model, constructor='Nobody')
    assert list(model.objectives) == ['rival', 'scale', 'last']


def test_without_such_objectives_nothing_changes():
    model = Distiller(ToyNet(), dict(scale=Scale(), rival=Rival(weight=0)), preflight=False)
    assert type(wrapped(model)) is OptimWrapper
    assert type(build_optimizers(ToyNet(), lambda: wrapped(ToyNet()))) is OptimWrapper


@pytest.mark.parametrize('count', [1, 2])
def test_loss_scaling_is_undone(count):
    """2^16 is exact in floating point, so every weight is that of the run without."""
    plain, scaled = toy(), toy()
    others = wrapped(plain, accumulative_counts=count)
    optimizers = wrapped(scaled, accumulative_counts=count)
    amp = CpuAmp(optimizers.student.optimizer, accumulative_counts=count)
    optimizers = JointOptimWrapper(amp, optimizers.objectives)
    for seed in range(4):
        step(plain, others, seed)
        step(scaled, optimizers, seed)
    assert equal(plain, scaled) and not equal(plain, toy())


def test_the_others_step_when_the_student_s_gradients_overflow():
    model = toy()
    optimizers = wrapped(model)
    amp = CpuAmp(optimizers.student.optimizer, scale=2.0**120)
    optimizers = JointOptimWrapper(amp, optimizers.objectives)
    model.task_weight = 1e30
    before = copy.deepcopy(model)
    step(model, optimizers)
    assert equal(model.student, before.student)
    assert amp.loss_scaler.get_scale() == 2.0**119
    found, old = model.objectives['rival'].guess, before.objectives['rival'].guess
    assert not torch.equal(found.weight, old.weight) and found.weight.isfinite().all()


def test_autocast_and_synchronisation_are_the_student_s():
    optimizers = wrapped(toy())
    amp = JointOptimWrapper(CpuAmp(optimizers.student.optimizer), optimizers.objectives)
    with amp.optim_context(toy()):
        assert torch.get_autocast_dtype('cpu') == torch.bfloat16
        assert torch.is_autocast_enabled('cpu')
    with optimizers.optim_context(toy()):
        assert not torch.is_autocast_enabled('cpu')


def test_accumulated_gradients_are_the_mean_of_the_batches():
    """Three batches, two a step: the last step has one."""
    model, slow = toy(), toy()
    optimizers = wrapped(model, accumulative_counts=2)
    optimizers.initialize_count_status(model, 0, 3)
    rival = slow.objectives['rival']
    optimiser = torch.optim.SGD(rival.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    others = wrapped(slow)
    del others.objectives['rival']
    for seeds in ((0, 1), (2,)):
        for p in rival.parameters():
            p.grad = None
        losses = [
            slow.loss(pixels(2, (32, 32), seed), class_labels(torch.arange(2))) for seed in seeds
        ]
        total = sum(slow.parse_losses(x)[0] for x in losses) / len(seeds)
        others.update_params(total)
        optimiser.step()
        for seed in seeds:
            step(model, optimizers, seed)
    a, b = model.state_dict(), slow.state_dict()
    for key in a:
        torch.testing.assert_close(a[key], b[key], msg=key)
    assert not equal(model, toy())


def test_clipping_is_each_one_s_own():
    clipped, free = toy(), toy()
    step(clipped, wrapped(clipped, clip_grad=dict(max_norm=1e-3)))
    step(free, wrapped(free))
    assert equal(clipped.objectives['rival'], free.objectives['rival'])
    assert not equal(clipped.student, free.student)


def test_a_resting_objective_does_not_move(running):
    """Neither decay nor momentum: also after it has been active."""
    model = toy(weight=dict(value=1.0, start=2, stop=4 / 100))
    optimizers, rival = wrapped(model), model.objectives['rival']
    moved = []
    for iteration in range(6):
        running(iteration)
        before, student = copy.deepcopy(rival), copy.deepcopy(model.student)
        step(model, optimizers, iteration)
        moved.append(not equal(before, rival))
        assert not equal(student, model.student)
    assert moved == [False, False, True, True, False, False]


def test_rates_in_the_log():
    rates = wrapped(toy()).get_lr()
    assert rates == {'lr': [0.1], 'kd.rival.lr': [0.05], 'kd.last.lr': [0.01]}
    assert wrapped(toy(), paramwise_cfg=dict(bias_lr_mult=2.0)).get_lr()['base_lr'] == [0.1]


def test_state_is_saved_and_loaded():
    model = toy()
    optimizers = wrapped(model)
    step(model, optimizers)
    twin = copy.deepcopy(model)
    others = wrapped(twin)
    others.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    step(model, optimizers, 1)
    step(twin, others, 1)
    assert equal(model, twin)
    fresh = copy.deepcopy(model)
    step(model, optimizers, 2)
    step(fresh, wrapped(fresh), 2)  # momentum would have counted
    assert not equal(model.objectives['rival'], fresh.objectives['rival'])


@pytest.mark.parametrize('other', ['one for all', 'student, kd.rival'])
def test_a_checkpoint_with_other_optimisers_is_refused(other):
    state = wrapped(toy()).state_dict()
    state = state['student'] if other == 'one for all' else state
    state.pop('kd.last', None)
    with pytest.raises(ValueError, match=f'of the checkpoint are {other}, .* kd.last. Resume with'):
        wrapped(toy()).load_state_dict(state)


def test_several_optimisers_of_the_student_are_refused():
    model = toy()
    several = OptimWrapperDict(a=OptimWrapper(torch.optim.SGD(model.neck.parameters(), 0.1)))
    with pytest.raises(ValueError, match=r'several optimisers \(a\), and rival, last brings'):
        build_optimizers(model, lambda: several)


@pytest.mark.parametrize(
    ('config', 'reason'),
    [
        (dict(type='Nobody'), 'Nobody is not in the'),
        (dict(type='SGD', rate=0.1), 'unexpected keyword argument'),
        (dict(type='SGD', lr=-1), 'Invalid learning rate'),
    ],
)
def test_an_optimiser_that_cannot_be_built_is_named_at_once(config, reason):
    with pytest.raises(ValueError, match=f"'rival': optimizer=.* cannot be built: .*{reason}"):
        toy(optimizer=config)


@pytest.mark.parametrize(('found', 'wanted'), [('toy', 'scale'), ('scale', 'toy')])
def test_resuming_with_and_without_an_optimiser_of_its_own(found, wanted):
    """Either way it is said which optimisers there are, before torch stumbles over a key."""
    models = dict(toy=toy(), scale=Distiller(ToyNet(), dict(scale=Scale()), preflight=False))
    names = dict(toy='student, kd.rival, kd.last', scale='one for all')
    message = f'checkpoint are {names[found]}, those of this run {names[wanted]}. Resume with'
    with pytest.raises(ValueError, match=message):
        check_same_optimizers(wrapped(models[wanted]), wrapped(models[found]).state_dict())
    check_same_optimizers(wrapped(models[found]), wrapped(models[found]).state_dict())


def test_resuming_with_other_parameters():
    small, large = (Distiller(ToyNet(), o, preflight=False) for o in ({}, dict(scale=Scale())))
    count = len(list(small.parameters()))
    with pytest.raises(ValueError, match=f'has {count} parameters in 1 .* {count + 1} in 1'):
        check_same_optimizers(wrapped(large), wrapped(small).state_dict())
    own = toy().objectives['rival']
    own.guess.bias.requires_grad_(False)
    model = toy()
    model.objectives['rival'] = own
    with pytest.raises(ValueError, match='has 2 parameters in 1 groups, that of this run 1 in 1'):
        check_same_optimizers(wrapped(model), wrapped(toy()).state_dict())


def test_schedules_by_name_must_be_complete():
    optimizers = wrapped(toy())
    each = dict.fromkeys(optimizers.keys(), [])
    assert schedules(optimizers, each) is each
    with pytest.raises(ValueError, match='no schedule for kd.rival, kd.last. Give each'):
        schedules(optimizers, dict(student=[]))


def test_one_schedule_keeps_the_ratio_of_the_rates():
    """mmseg's floor of 1e-4 is a hundredth of 0.01, and a quarter of a critic's 4e-4."""
    optimizers = wrapped(toy())  # rates 0.1, 0.05 and 0.01
    poly = dict(type='PolyLR', eta_min=1e-3, power=0.9, begin=0, end=10, by_epoch=False)
    momentum = dict(type='PolyMomentum', eta_min=0.5, by_epoch=False)
    built = object()
    found = schedules(optimizers, [poly, momentum, built])
    floors = [found[name][0]['eta_min'] for name in ('student', 'kd.rival', 'kd.last')]
    assert floors == pytest.approx([1e-3, 5e-4, 1e-4])
    for listed in found.values():
        assert listed[0] == poly | dict(eta_min=listed[0]['eta_min'])
        assert listed[1:] == [momentum, built]
    any_other = dict(poly, type='PolyParamScheduler', param_name='lr')
    assert schedules(optimizers, any_other)['kd.last'][0]['eta_min'] == pytest.approx(1e-4)
    alone = wrapped(Distiller(ToyNet(), dict(scale=Scale()), preflight=False))
    assert schedules(alone, poly) is poly
    assert schedules(optimizers, None) is None


def test_the_plan_names_the_optimiser():
    text = str(toy().plan)
    wanted = 'trains 5 parameters of its own, with an optimiser of its own: SGD lr 0.05, momentum'
    assert wanted in text and 'trains 1 parameters of its own\n' in text


# ------------------------------------------------------------------------------------- who trains

TURNS = dict(student=dict(every=2), objectives=dict(every=2, first=1))


@pytest.mark.parametrize('amp', [False, True])
def test_who_rests_does_not_move(running, amp):
    """Neither decay nor momentum; parameters in the student's optimiser as those in their own."""
    model = toy(trains=TURNS)
    optimizers = wrapped(model, optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1))
    if amp:
        half = CpuAmp(optimizers.student.optimizer)
        optimizers = JointOptimWrapper(half, optimizers.objectives, resting=optimizers.resting)
    for iteration in range(4):
        running(iteration)
        before = copy.deepcopy(model)
        step(model, optimizers, iteration)
        moves = {
            name: not torch.equal(p, old)
            for (name, p), old in zip(model.named_parameters(), before.parameters(), strict=True)
        }
        for name, moved in moves.items():
            assert moved == (name.startswith('objectives.') == bool(iteration % 2)), name


@pytest.mark.parametrize('amp', [False, True])
def test_the_student_s_optimiser_may_have_nothing_to_do(running, amp):
    """Objectives alone train, all of them with their own optimisers."""
    torch.manual_seed(0)
    objectives = dict(rival=Rival(weight=dict(every=2)), last=Rival())
    model = Distiller(ToyNet(), objectives, preflight=False, trains='objectives').train()
    optimizers = wrapped(model, paramwise_cfg=dict(bias_lr_mult=2.0), clip_grad=dict(max_norm=1))
    assert [p.shape for p in parameters(optimizers['student'])] == [torch.Size()]
    if amp:
        optimizers = JointOptimWrapper(
            CpuAmp(optimizers.student.optimizer),
            optimizers.objectives,
            resting=optimizers.resting,
        )
    start = copy.deepcopy(model)
    for iteration in range(3):
        running(iteration)
        before = copy.deepcopy(model)
        step(model, optimizers, iteration)
        changed = [not equal(model.objectives[n], before.objectives[n]) for n in objectives]
        assert changed == [iteration % 2 == 0, True]
    assert equal(model.student, start.student)
    assert optimizers.get_lr()['lr'] == [0.1]


def test_several_optimisers_cannot_take_turns():
    model = Distiller(ToyNet(), dict(scale=Scale()), preflight=False, trains=TURNS)
    several = OptimWrapperDict(a=OptimWrapper(torch.optim.SGD(model.neck.parameters(), 0.1)))
    with pytest.raises(ValueError, match=r'several optimisers \(a\), and trains gives turns'):
        build_optimizers(model, lambda: several)


def test_turns_alone_need_no_optimiser_of_an_objective():
    model = Distiller(ToyNet(), dict(scale=Scale()), preflight=False, trains=TURNS)
    assert list(wrapped(model).keys()) == ['student']


# -------------------------------------------------------------------------------------- two ranks

SMOOTH = dict(gan_type='hinge', input='tanh')  # neither random nor dependent on the batch


def segmentor(**options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_pspnet(width=w)) for w in (4, 8))
    objective = SKDHolistic(weight=1.0, width=8, optimizer=OWN, **options)
    teacher = Teacher(teacher, checkpoint='random')
    model = Distiller(student, dict(it=objective), teacher).train()
    student.eval()  # batch statistics depend on how a batch is split
    return model


def train(model, rows):
    """Three steps on these images of a batch of two, through the model's own train_step."""
    optimizers = wrapped(model)
    inputs, samples = segmentation_batch(2, (64, 64))
    for _ in range(3):
        data = dict(inputs=list(inputs[rows] * 50), data_samples=copy.deepcopy(samples[rows]))
        model.train_step(data, optimizers)


WAYS = dict(
    objectives=dict(trains='objectives'), turns=dict(trains=TURNS), untaught=dict(task_weight=None)
)


def some(**options):
    """Rivals and a scale on the neck; the head lies behind it."""
    torch.manual_seed(0)
    objectives = dict(rival=Rival(), scale=Scale(weight=dict(start=2)))
    return Distiller(ToyNet(), objectives, preflight=False, **options).train()


def some_steps(model, rows):
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 4)
    optimizers = wrapped(model)
    for iteration in range(4):
        hub.update_info('iter', iteration)
        images, samples = pixels(2, (32, 32), iteration), class_labels(torch.arange(2))
        model.train_step(dict(inputs=list(images[rows]), data_samples=samples[rows]), optimizers)


def one_rank(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    for name, options in (('smooth', SMOOTH), ('code', {})):
        model = MMDistributedDataParallel(segmentor(**options), broadcast_buffers=False)
        torch.manual_seed(rank)
        train(model, slice(rank, rank + 1))
        torch.save(model.module.state_dict(), f'{folder}/{name}_{rank}.pth')
    for name, options in WAYS.items():
        model = MMDistributedDataParallel(some(**options), broadcast_buffers=False)
        some_steps(model, slice(rank, rank + 1))
        torch.save(model.module.state_dict(), f'{folder}/{name}_{rank}.pth')
    leave()


def test_two_ranks(tmp_path):
    multiprocessing.start_processes(one_rank, (str(tmp_path),), 2, start_method='fork')
    states = {
        (name, rank): torch.load(tmp_path / f'{name}_{rank}.pth')
        for name, rank in itertools.product(('smooth', 'code', *WAYS), range(2))
    }
    for name, options in WAYS.items():
        alone, start = some(**options), some().state_dict()
        some_steps(alone, slice(0, 2))
        for key, value in alone.state_dict().items():
            assert torch.equal(states[name, 0][key], states[name, 1][key]), (name, key)
            torch.testing.assert_close(states[name, 0][key], value, msg=f'{name} {key}')
            still = name == 'objectives' and not key.startswith('objectives.')
            still = still or (name == 'untaught' and key.startswith(('head.', 'neck.down.')))
            assert torch.equal(value, start[key]) == still, (name, key)
    parameters = {n for n, _ in segmentor().named_parameters()}
    for name in ('smooth', 'code'):
        for key in parameters & states[name, 0].keys():
            assert torch.equal(states[name, 0][key], states[name, 1][key]), (name, key)
    alone = segmentor(**SMOOTH)
    before = copy.deepcopy(alone.state_dict())
    train(alone, slice(0, 2))
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(
            states['smooth', 0][key] - before[key],
            value - before[key],
            rtol=1e-3,
            atol=1e-6,
            msg=key,
        )
    critic = 'objectives.it.critic.layers.0.bias'
    assert not torch.equal(alone.state_dict()[critic], before[critic])
