"""Neighbours: groups of processes that exchange their students, in launches of two and four."""

import shutil
from pathlib import Path

import pytest
import torch
from launches import launch
from teacher_toys import Images, make, train

from mmkd.chain.resolving import read_config
from mmkd.chain.stage import Stage
from mmkd.config import load_config
from mmkd.datasets import Shard
from mmkd.engine.launch import train as train_config
from mmkd.groups import size_of_groups
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.teachers import Neighbours, build_teacher, groups_of
from mmkd.testing import classification_batch, tiny_classifier

ZERO = dict(kd=dict(type='mmkd.KD', weight=0))


def neighbours(**options):
    return dict(type='mmkd.Neighbours', **dict(groups=2, every=2) | options)


def shown(model):
    """What the neighbour shows, and the student, after a step."""
    ensemble = model.teachers['teacher']
    (member,) = ensemble.members.values()
    weights = [m.state_dict() for m in (member.model, model.student)]
    return [ensemble.ready, *({k: v.clone() for k, v in one.items()} for one in weights)]


def run(folder, **options):
    options = dict(teacher=neighbours(), look=shown, launcher='pytorch') | options
    runner = train(folder, **options)
    return dict(
        seen=runner.watch.seen,
        losses=runner.watch.losses,
        student=getattr(runner.model, 'module', runner.model).student.state_dict(),
        folder=runner.work_dir,
        seed=runner.seed,
        beside=runner.model.module.teachers['teacher'].beside,
    )


def message(function):
    try:
        function()
    except (TimeoutError, ValueError) as error:
        return str(error)


class Unequal(Images):
    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def __len__(self):
        return 12 - 4 * self.rank


def two(rank, root):
    """Everything that a launch of two processes has to show."""
    root, quiet = Path(root), dict(look=None)
    found = dict(
        whole=run(root / 'whole'),
        zero=run(root / 'zero', objectives=ZERO, **quiet),
        never=run(root / 'never', teacher=neighbours(every=99), **quiet),
        burn=run(
            root / 'burn', objectives=dict(kd=dict(type='mmkd.KD', weight=dict(start=4))), **quiet
        ),
        gathered=run(root / 'gathered', optim_wrapper=accumulating()),
        turns=run(root / 'turns', teacher=neighbours(), model=in_turns(), steps=5),
    )
    for number in range(2):
        own = root / 'again' / f'group_{number}'
        own.mkdir(parents=True, exist_ok=True)
        for step in (3, 5) if number == 0 else (3,):  # killed at unequal times
            shutil.copy(root / 'whole' / f'group_{number}' / f'iter_{step}.pth', own)
    found['again'] = run(root / 'again', resume=True)
    shutil.copy(root / 'whole' / f'group_{rank}' / 'iter_8.pth', root / f'{rank}.pth')
    loader = dict(
        dataset=Unequal(rank), batch_size=4, sampler=dict(type='DefaultSampler', shuffle=True)
    )
    epochs = dict(train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=2))
    hooks = [dict(type='EarlyStoppingHook', monitor='x', rule='greater')]
    other = root / 'other' / f'group_{rank}'
    other.mkdir(parents=True)
    shutil.copy(root / 'whole' / f'group_{rank}' / f'iter_{4 + rank}.pth', other)
    found['refused'] = dict(
        unequal=message(lambda: run(root / 'unequal', **epochs)),
        stops=message(lambda: run(root / 'stops', hooks=hooks)),
        keeps=message(lambda: run(root / 'keeps', save=dict(max_keep_ckpts=1))),
        three=message(lambda: run(root / 'three', teacher=neighbours(groups=3))),
        resume=message(lambda: run(root / 'other', resume=True)),
        named=message(lambda: run(root / 'other', resume=True, load_from='x.pth')),
        slurm=message(lambda: run(root / 'slurm', launcher='slurm')),
    )
    return found


def accumulating():
    return dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=2)


def in_turns():
    """Student and peer rest in turns, and DDP waits for the gradients of both."""
    return dict(
        type='mmkd.Distiller',
        student=tiny_classifier(width=4),
        peers=dict(other=tiny_classifier(width=4)),
        teacher=neighbours(),
        objectives=dict(
            down=dict(type='mmkd.KD', teacher_name='teacher'),
            up=dict(type='mmkd.KD', learner='other', teacher_name='student'),
        ),
        trains=dict(student=dict(every=2), peers=dict(every=2, first=1)),
        preflight=False,
    )


def four(rank, root):
    return dict(
        groups=run(f'{root}/groups', steps=5),
        zero=run(f'{root}/zero', objectives=ZERO, look=None, steps=3),
    )


def plain_two(rank, root):
    runner = train(root, distils=False, launcher='pytorch', steps=3)
    return runner.model.module.state_dict()


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    return launch(two, 2, tmp_path_factory.mktemp('two'))


@pytest.fixture(scope='module')
def quartet(tmp_path_factory):
    return launch(four, 4, tmp_path_factory.mktemp('four'))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


# ---------------------------------------------------------------------------------- two processes


def test_each_group_shows_the_student_of_the_other_at_the_last_exchange(pair):
    for own, other in ((0, 1), (1, 0)):
        seen, theirs = pair[own]['whole']['seen'], pair[other]['whole']['seen']
        assert [seen[i][0] for i in range(8)] == 2 * [False] + 6 * [True]
        for i in range(2, 8):
            assert same(seen[i][1], theirs[i // 2 * 2 - 1][2]), i
        rests = ['kd.kd.loss' not in losses for losses in pair[own]['whole']['losses'].values()]
        assert rests == 2 * [True] + 6 * [False]


def test_groups_are_runs_of_their_own(pair):
    one, other = (rank['whole'] for rank in pair)
    assert [Path(o['folder']).name for o in (one, other)] == ['group_0', 'group_1']
    assert [one['seed'], other['seed']] == [0, 1]
    assert not same(one['student'], other['student'])
    assert Path(one['folder'], 'iter_8.pth').is_file()
    (name,), ((_, path),) = one['beside'].keys(), one['beside'].values()
    assert name == 'group 1' and path == str(Path(other['folder'], 'iter_8.pth'))


@pytest.mark.parametrize('which', ['zero', 'never'])
def test_weight_zero_and_an_exchange_that_never_comes_are_plain_training(pair, tmp_path, which):
    for rank in (0, 1):
        plain = train(tmp_path / str(rank), distils=False, randomness=dict(seed=rank))
        assert same(pair[rank][which]['student'], plain.model.state_dict())


def test_before_burn_in_it_is_plain_training(pair):
    for rank in pair:
        for i in range(4):
            assert rank['burn']['losses'][i]['loss'] == rank['zero']['losses'][i]['loss']
        assert rank['burn']['losses'][4]['loss'] != rank['zero']['losses'][4]['loss']


def test_steps_are_those_of_the_optimiser(pair):
    ready = [seen[0] for seen in pair[0]['gathered']['seen'].values()]
    assert ready == 4 * [False] + 4 * [True]


def test_beside_peers_and_in_turns(pair):
    for rank in pair:
        losses = rank['turns']['losses']
        assert [float('loss_cls' in losses[i]) for i in range(5)] == [1, 0, 1, 0, 1]
        assert [float('peer.other.loss_cls' in losses[i]) for i in range(5)] == [0, 1, 0, 1, 0]


def test_a_killed_launch_goes_on_from_the_step_that_all_groups_have(pair):
    for rank in pair:
        whole, again = rank['whole'], rank['again']
        assert again['losses'] == {i: whole['losses'][i] for i in range(3, 8)}
        assert same(whole['student'], again['student'])


@pytest.mark.parametrize(
    ('which', 'words'),
    [
        ('unequal', 'the groups have 6, 4 iterations'),
        ('stops', 'EarlyStoppingHook would end one group'),
        ('keeps', 'found max_keep_ckpts=1'),
        ('three', '2 processes cannot be divided into 3 groups of equal size. Start 3'),
        ('resume', 'the newest checkpoints of the groups are of the iterations 4, 5, and group 1'),
        ('named', 'x.pth is the checkpoint of one group'),
        ('slurm', "launcher='slurm' connects all processes as one run"),
    ],
)
def test_refused_before_the_first_step(pair, which, words):
    for rank in pair:
        assert words in rank['refused'][which]


# --------------------------------------------------------------------------------- four processes


def test_gradients_are_averaged_within_a_group_only(quartet, tmp_path):
    students = [rank['groups']['student'] for rank in quartet]
    weights = [s['head.fc.weight'] for s in students]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[0], weights[2])
    plain = launch(plain_two, 2, tmp_path)
    for rank in (0, 1):
        assert same(quartet[rank]['zero']['student'], plain[rank])


def test_all_ranks_of_a_group_show_the_first_of_the_other(quartet):
    for rank in range(4):
        first = 2 if rank < 2 else 0
        seen, theirs = (quartet[r]['groups']['seen'] for r in (rank, first))
        for i in range(2, 5):
            assert same(seen[i][1], theirs[i // 2 * 2 - 1][2]), i


# -------------------------------------------------------------------------------- one process


def test_the_target_of_three_groups_is_the_mean_of_probabilities():
    """Worker 1 of logits (1, 0), (0, 1), (2, 2): softmax of mean logits would be (.377541, …)."""
    student = build_model(tiny_classifier(width=4, num_classes=2))
    teacher = Neighbours(3)
    teacher.meet(student)
    for member, logits in zip(teacher.members.values(), ((0.0, 1.0), (2.0, 2.0)), strict=True):
        with torch.no_grad():
            member.model.head.fc.weight.zero_()
            member.model.head.fc.bias.copy_(torch.tensor(logits))
        member.here = True
    from mmkd.tap import Tap

    teacher.set_taps([Tap.parse('head.fc')])
    inputs, samples = classification_batch(2)
    side = teacher(inputs, samples, teacher.pixels)
    target = side['head.fc'][0].softmax(1)
    torch.testing.assert_close(target[0], torch.tensor([0.384471, 0.615529]), atol=1e-6, rtol=0)
    own = torch.tensor([1.0, 0.0]).log_softmax(0)
    assert float(-(target[0] * own).sum()) == pytest.approx(0.928791, abs=1e-6)


def test_with_two_groups_the_other_network_can_be_asked():
    assert Neighbours(2).asks and not Neighbours(3).asks


def test_a_mean_has_the_temperature_of_the_objective(tmp_path):
    make(tmp_path / 'a', teacher=neighbours(groups=3), objectives=kd(tau=1))
    with pytest.raises(ValueError, match='temperature 4.*that at tau=1'):
        make(tmp_path / 'b', teacher=neighbours(groups=3), objectives=kd(tau=4))
    make(tmp_path / 'c', teacher=neighbours(groups=3, tau=4), objectives=kd(tau=4))


def kd(**options):
    return dict(kd=dict(type='mmkd.KD', **options))


def test_the_plan_names_it(tmp_path):
    plan = str(make(tmp_path, teacher=neighbours(every=39)).model.plan)
    assert 'the student of group 1 as it was at the last exchange' in plan
    assert 'the students of the other group, exchanged every 39 steps' in plan


def test_one_process_is_refused_with_what_to_do_instead(tmp_path):
    runner = make(tmp_path, teacher=neighbours())
    words = r'this run is one process\. Start it as bash tools/dist_train.sh CONFIG 2.*Follower'
    with pytest.raises(ValueError, match=words):
        runner.train()
    config = load_config('mmkd::small/kd_neighbours_cls_r8w8_cifar10.py')
    config.train_dataloader.dataset = dict(type='mmkd.CIFAR', data_root='nowhere')
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader']['dataset'] = dict(type='mmkd.Nothing')
    with pytest.raises(ValueError, match='this run is one process'):
        train_config(config, work_dir=str(tmp_path))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(groups=1), 'groups=1 has nobody to learn from'),
        (dict(groups=0), 'groups'),
        (dict(every=0), 'every'),
        (dict(wait=-1), 'wait'),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=f'Neighbours.*{words}'):
        build_teacher(neighbours(**options))


def test_processes_that_make_no_groups():
    assert size_of_groups(2, 4) == 2
    with pytest.raises(ValueError, match='5 processes cannot be divided into 2 .* Start 6 or anot'):
        size_of_groups(2, 5)


def test_one_teacher_of_a_run():
    assert groups_of(dict(teacher=neighbours())) == groups_of(dict(teacher=dict(a=neighbours())))
    assert groups_of(dict(teacher=None)) == groups_of(dict(type='Classifier')) == 0
    for entry in (
        dict(a=neighbours(), b=neighbours()),
        dict(type='mmkd.Ensemble', members=dict(a=neighbours())),
    ):
        with pytest.raises(ValueError, match='a teacher of its own'):
            groups_of(dict(teacher=entry))


def test_a_resumed_run_has_as_many_groups():
    teacher = Neighbours(2)
    teacher.meet(build_model(tiny_classifier(width=4)))
    with pytest.raises(ValueError, match='of a run of 3 groups, this one has 2'):
        teacher.load_state_dict(dict(groups=3, turn=1, members={}))


def test_no_stage_of_a_chain(tmp_path):
    stage = Stage('x', config='mmkd::small/kd_neighbours_cls_r8w8_cifar10.py')
    with pytest.raises(ValueError, match="Stage 'x'.*divides its processes into groups"):
        read_config(stage, {}, 0)


def test_without_groups_the_shard_is_the_first():
    whole = Shard(classes(), 0, 2)
    assert [x['i'] for x in map(whole.get_data_info, range(3))] == [0, 2, 4]
    first = Shard(classes(), 'group', 2)
    assert len(first) == 3 and first.get_data_info(1)['i'] == 2
    assert len(Shard(classes(), 'group')) == 6
    with pytest.raises(ValueError, match='Shard: of must be'):
        Shard(classes(), 0)


def classes():
    from mmengine.dataset import BaseDataset

    class Numbers(BaseDataset):
        def load_data_list(self):
            return [dict(i=i) for i in range(6)]

    return Numbers()


def test_before_every_steps_nothing_is_exchanged():
    teacher = Neighbours(2, every=3)
    teacher.meet(build_model(tiny_classifier(width=4)))
    for i in range(3):
        teacher.before_step(Progress(i, 9))
    assert not teacher.ready
