"""Student and generator on generated images: gradients, turns, noise, other normalisations."""

import copy

import pytest
import torch
from chain_toys import images, weights, write  # noqa: F401  (fixture)
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch.nn.parallel import DistributedDataParallel
from two_ranks import of_two_ranks

from mmkd.distiller import Distiller
from mmkd.engine.runner import Runner
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.logit_distances import mean_kl
from mmkd.methods import DFAD
from mmkd.methods.dafl import balance
from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model
from mmkd.testing import class_labels, tiny_classifier, tiny_retinanet

NAMES = ('DAFL', 'DFAD', 'ZSKT')
#: one step of the generator, then two of the student
TURNS = dict(objectives=dict(every=3), student=dict(every=3, first=1, count=2))


def distiller(name, teacher=None, student=None, trains=None, **options):
    torch.manual_seed(0)
    entry = dict(type=f'mmkd.{name}', size=8, width=4, latent=6) | options
    teacher = build_model(tiny_classifier(6)) if teacher is None else teacher
    more = {} if trains is None else dict(trains=trains)
    return Distiller(
        build_model(tiny_classifier(4)) if student is None else student,
        dict(it=entry),
        teacher=Teacher(teacher, 'random'),
        task_weight=None,
        preflight=False,
        **more,
    ).train()


@pytest.fixture
def at(monkeypatch):
    """Set the iteration of the step."""

    def set_iteration(iteration):
        monkeypatch.setattr(Progress, 'current', classmethod(lambda cls: Progress(iteration, 100)))

    return set_iteration


def step(model, count=4):
    return model.loss(torch.zeros(count, 3, 1, 1), [None] * count)


def moved(model, losses, wanted):
    """Names of the players that get a gradient from losses with these endings."""
    found = [v for k, v in losses.items() if '.loss' in k and k.rpartition('.')[2] in wanted]
    players = dict(student=model.student, generator=model.objectives['it'].generator)
    model.zero_grad()
    sum(found).backward(retain_graph=True)
    return {
        name
        for name, player in players.items()
        if any(p.grad is not None and bool(p.grad.any()) for p in player.parameters())
    }


@pytest.mark.parametrize('name', NAMES)
def test_each_player_learns_from_its_own_losses_alone(name):
    model = distiller(name)
    teacher = model.teachers['teacher'].model
    frozen = copy.deepcopy(teacher.state_dict())
    losses = step(model)
    own = model.objectives['it'].own_losses
    assert moved(model, losses, ['loss_student']) == {'student'}
    assert moved(model, losses, own) == {'generator'}
    assert all(torch.equal(v, frozen[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize('name', NAMES)
def test_who_rests_keeps_weights_and_statistics(name, at):
    model = distiller(name, trains=TURNS)
    objective = model.objectives['it']
    for iteration, acting in ((0, 'generator'), (1, 'student'), (2, 'student'), (3, 'generator')):
        at(iteration)
        players = dict(student=model.student, generator=objective.generator)
        before = {name: copy.deepcopy(one.state_dict()) for name, one in players.items()}
        losses = step(model)
        named = {k.rpartition('.')[2]: v for k, v in losses.items() if k.startswith('kd.it.loss')}
        keys = {k for k, v in named.items() if v.requires_grad}
        assert all(float(v) == 0 for k, v in named.items() if k not in keys)
        assert {*named} == {'loss_student', *objective.own_losses}
        own = {*objective.own_losses} if acting == 'generator' else {'loss_student'}
        assert keys == own and moved(model, losses, own) == {acting}
        for name_, one in players.items():
            same = all(torch.equal(v, before[name_][k]) for k, v in one.state_dict().items())
            assert same == (name_ != acting), f'{name_} in step {iteration}'
        assert objective.made is None


def test_zskt_keeps_its_noise_for_a_round_and_dfad_draws_in_each_step(at):
    for name, every in (('ZSKT', 3), ('DFAD', 1), ('DAFL', 1)):
        objective = distiller(name, trains=TURNS).objectives['it']
        drawn = [objective.noise(2, Progress(i, 100)) for i in range(7)]
        for i in range(6):
            same = torch.equal(drawn[i], drawn[i + 1])
            assert same == (every > 1 and (i + 1) % every != 0), (name, i)
        other = distiller(name, trains=TURNS, seed=1).objectives['it']
        assert not torch.equal(other.noise(2, Progress(0, 100)), drawn[0])


def test_ranks_draw_unlike_noise(monkeypatch):
    objective = distiller('DFAD').objectives['it']
    first = objective.noise(3, Progress(5, 9))
    monkeypatch.setattr('mmkd.generators.get_rank', lambda: 1)
    assert not torch.equal(objective.noise(3, Progress(5, 9)), first)


def test_images_of_zskt_change_with_the_generator_alone(at):
    """The student sees the images of the noise on which the generator has just learned."""
    model = distiller('ZSKT', trains=TURNS)
    objective = model.objectives['it']
    at(0)
    first, _ = objective.images(torch.zeros(4, 3, 1, 1), Progress.current())
    at(2)
    again, samples = objective.images(torch.zeros(4, 3, 1, 1), Progress.current())
    assert torch.equal(first, again) and not again.requires_grad
    assert [s.metainfo['labelled'] for s in samples] == [False] * 4


def test_other_objectives_learn_from_the_same_images(at):
    torch.manual_seed(0)
    entries = dict(it=dict(type='mmkd.ZSKT', size=8, width=4), at=dict(type='mmkd.AT', weight=250))
    teacher = Teacher(build_model(tiny_classifier(6)), 'random')
    model = Distiller(
        tiny_classifier(4), entries, teacher, task_weight=None, preflight=False, trains=TURNS
    )
    model.train()
    at(1)
    losses = step(model)
    assert (
        moved(model, losses, ['loss']) == {'student'} and float(losses['kd.at.loss'].detach()) > 0
    )
    at(0)
    assert 'loss_generator' in {k.rpartition('.')[2] for k in step(model)}


@pytest.mark.parametrize('name', ['DFAD', 'ZSKT'])
def test_a_student_that_is_the_teacher_leaves_nothing_to_learn(name):
    teacher = build_model(tiny_classifier(6))
    model = distiller(name, teacher, copy.deepcopy(teacher)).eval()
    losses = step(model)
    for key in ('loss_student', 'loss_generator'):
        assert abs(float(losses[f'kd.it.{key}'].detach())) < 1e-6


def test_the_teacher_sees_the_pixels_in_its_own_normalisation():
    """A teacher of BGR with another mean gives what the same one of RGB gives."""
    config = tiny_classifier(6)
    other = copy.deepcopy(config)
    other['data_preprocessor'] = dict(mean=[10.0, 20, 30], std=[40.0, 50, 60], bgr_to_rgb=False)
    torch.manual_seed(3)
    teacher = build_model(other).eval()
    model = distiller('ZSKT', teacher)
    objective, student = model.objectives['it'], model.student
    x = torch.randn(2, 3, 8, 8)
    seen = model.teachers['teacher'](x, class_labels(torch.zeros(2)), model.pixels)
    trace = type('Trace', (), dict(teacher=seen))
    found = objective.asked_teacher(x, trace)[objective.teacher_taps[0]][0]
    torch.testing.assert_close(found, seen[objective.teacher_taps[0]][0])
    mean, std = student.data_preprocessor.mean, student.data_preprocessor.std
    raw = (x * std + mean).flip(1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([10.0, 20, 30], [40.0, 50, 60]))
    torch.testing.assert_close(teacher((raw - mean) / std), found, rtol=1e-4, atol=1e-4)


def test_the_generator_asks_both_networks_as_they_train():
    """Against the same losses by hand, on the student's statistics of the batch."""
    model = distiller('ZSKT')
    objective = model.objectives['it']
    losses = step(model)
    x, _ = objective.images(torch.zeros(4, 3, 1, 1), Progress.current())
    student = copy.deepcopy(model.student)(x)
    teacher = model.teachers['teacher'].model(x)
    wanted = float(mean_kl(student, teacher, 1.0).mean().detach())
    assert float(losses['kd.it.loss_generator'].detach()) == pytest.approx(-wanted, rel=1e-4)
    assert float(losses['kd.it.loss_student'].detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(size=6), 'both sides of size must be multiples of 4'),
        (dict(size=[8, 10]), 'both sides of size must be multiples of 4'),
        (dict(latent=0), 'latent must be a whole number of at least 1'),
        (dict(width=0), 'width must be a whole number of at least 1'),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        distiller('DFAD', **options)


def test_unsuitable_networks():
    grey = tiny_classifier(4, kind='mmdet', backbone=dict(in_channels=1))
    grey['data_preprocessor'] = dict(mean=[100.0], std=[50.0])
    with pytest.raises(ValueError, match='have 1 channels and those of the student 3'):
        distiller('DFAD', build_model(grey))
    model = build_model(tiny_classifier(4))
    with pytest.raises(ValueError, match="so that learner='p' cannot learn from them"):
        DFAD(learner='p').bind(model, model)
    with pytest.raises(ValueError, match='is for classifiers of images'):
        distiller('DFAD', student=build_model(tiny_retinanet(4)))


def on_a_rank(rank):
    """Weights after three steps of a game in turns, and the gradient of DAFL's entropy term."""
    model = distiller('ZSKT', trains=TURNS)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)  # waits for each gradient
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    hub = MessageHub.get_current_instance()
    for iteration in range(3):
        hub.update_info('iter', iteration)
        losses = wrapped(torch.zeros(4, 3, 1, 1), [None] * 4, mode='loss')
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        for parameter in model.resting():
            parameter.grad = None
        optimizer.step()
    z = answers()[3 * rank : 3 * rank + 3].requires_grad_()
    loss = balance(all_gather_rows(z))
    found = torch.autograd.grad(loss, z)[0]
    return {k: v.detach() for k, v in model.named_parameters()}, found, float(loss.detach())


def answers():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def test_two_ranks(tmp_path):
    first, second = of_two_ranks(on_a_rank, tmp_path)
    start = dict(distiller('ZSKT').named_parameters())
    for key, value in first[0].items():
        assert torch.equal(value, second[0][key]), key
    for key in ('head.fc.weight', 'objectives.it.generator.fc.weight'):
        assert not torch.equal(first[0][key], start[key])
    z = answers().requires_grad_()
    loss = balance(z)
    (wanted,) = torch.autograd.grad(loss, z)
    assert first[2] == second[2] == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(torch.cat([first[1], second[1]]) / 2, wanted)


def recipe(folder, data, **changes):
    """A run of two epochs of three steps, one of the generator and two of the student."""
    model = dict(
        type='mmkd.Distiller',
        student=tiny_classifier(4),
        teacher=dict(config=tiny_classifier(6), checkpoint=str(folder / 'teacher.pth')),
        objectives=dict(it=dict(type='mmkd.ZSKT', size=8, width=4)),
        task_weight=None,
        trains=TURNS,
    )
    path = write(folder, data, plain=dict(width=4))['plain']
    config = Config.fromfile(path)
    config.model = model
    config.train_dataloader.dataset = dict(type='mmkd.NoImages', length=12)
    config.work_dir = str(folder / changes.pop('name'))
    config.randomness = dict(seed=0)
    config.experiment_name = config.work_dir.replace('/', '_')
    config.merge_from_dict(changes)
    return config


def test_a_run_is_resumed_to_the_same_end(images, tmp_path):  # noqa: F811
    torch.manual_seed(1)
    network = build_model(tiny_classifier(6))
    torch.save(dict(state_dict=network.state_dict(), meta={}), tmp_path / 'teacher.pth')
    Runner.from_cfg(recipe(tmp_path, images, name='whole')).train()
    half = {'train_cfg.max_epochs': 1}
    Runner.from_cfg(recipe(tmp_path, images, name='parts', **half)).train()
    Runner.from_cfg(recipe(tmp_path, images, name='parts', resume=True)).train()
    whole, parts = (weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'parts'))
    start = weights(tmp_path / 'whole' / 'epoch_1.pth')
    assert all(torch.equal(v, parts[k]) for k, v in whole.items()) and whole.keys() == parts.keys()
    for part in ('objectives.it.generator.fc.weight', 'head.fc.weight'):
        assert not torch.equal(whole[part], start[part])
