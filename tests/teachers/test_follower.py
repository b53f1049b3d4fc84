"""Follower: another run's files, in lockstep or not, and two runs that follow each other."""

import shutil

import pytest
import torch
from teacher_toys import Images, assert_same, check_resumes, make, train
from torch import multiprocessing

from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.teachers import Follower, build_teacher
from mmkd.testing import tiny_classifier

SAVE = dict(interval=2)


def follow(folder, **options):
    return dict(type='mmkd.Follower', folder=str(folder), **dict(every=2) | options)


def shown(model):
    one = model.teachers['teacher']
    return one.path and one.path.rpartition('_')[2], one.model.head.fc.weight.clone()


@pytest.fixture(scope='module')
def other(tmp_path_factory):
    """A plain run of another seed, whose files of steps 2, 4, 6 and 8 are there."""
    folder = tmp_path_factory.mktemp('other')
    train(folder, distils=False, save=SAVE, randomness=dict(seed=1))
    return folder


def weight_of(folder, step):
    return torch.load(folder / f'iter_{step}.pth', weights_only=False)['state_dict'][
        'head.fc.weight'
    ]


def test_lockstep_shows_the_file_of_the_same_step(other, tmp_path):
    runner = train(tmp_path, teacher=follow(other, lockstep=True), look=shown, save=SAVE)
    seen = runner.watch.seen
    assert [seen[i][0] for i in range(8)] == [None, None] + [f'{k}.pth' for k in (2, 2, 4, 4, 6, 6)]
    for i in range(2, 8):
        assert torch.equal(seen[i][1], weight_of(other, i // 2 * 2))
    rests = ['kd.kd.loss' not in losses for losses in runner.watch.losses.values()]
    assert rests == [True, True] + 6 * [False]


@pytest.mark.parametrize('at', [2, 4, 6])
def test_lockstep_resumes(other, tmp_path, at):
    whole, again = check_resumes(
        tmp_path, at, look=shown, teacher=follow(other, lockstep=True), save=SAVE
    )
    for i, (name, weight) in again.watch.seen.items():
        assert name == whole.watch.seen[i][0] and torch.equal(weight, whole.watch.seen[i][1])


def test_without_lockstep_it_takes_the_newest(other, tmp_path):
    runner = train(tmp_path, teacher=follow(other), look=shown)
    assert {name for name, _ in runner.watch.seen.values()} == {'8.pth'}
    assert torch.equal(runner.watch.seen[0][1], weight_of(other, 8))


def test_between_looks_nothing_changes(other, tmp_path):
    folder = tmp_path / 'other'
    folder.mkdir()
    teacher = Follower(str(folder), every=2)
    teacher.meet(build_model(tiny_classifier(width=4)))
    seen = []
    for i in range(6):
        if i in (1, 3):
            shutil.copy(other / f'iter_{2 * i}.pth', folder)
        teacher.before_step(Progress(i, 6))
        seen.append(teacher.path and teacher.path[-5])
    assert seen == [None, None, '2', '2', '6', '6']


def test_the_file_of_an_interrupted_run_is_read_again(other, tmp_path):
    whole, _ = check_resumes(tmp_path, 5, look=shown, teacher=follow(other, every=8))
    assert whole.watch.seen[7][0] == '8.pth'


def test_a_file_that_is_gone_is_reported(other, tmp_path, log):
    folder = tmp_path / 'other'
    shutil.copytree(other, folder)
    teacher = Follower(str(folder))
    teacher.meet(build_model(tiny_classifier(width=4)))
    teacher.load_state_dict(dict(path=str(folder / 'iter_99.pth'), looked=0))
    assert 'iter_99.pth, which this run had read, is gone' in log.text
    assert teacher.path.endswith('iter_8.pth')


def test_another_architecture(tmp_path):
    train(tmp_path / 'b', distils=False, save=SAVE, model=tiny_classifier(width=8), steps=2)
    wide = follow(tmp_path / 'b', config=tiny_classifier(width=8))
    train(tmp_path / 'c', teacher=wide, steps=3)
    runner = make(tmp_path / 'd', teacher=follow(tmp_path / 'b'))
    with pytest.raises(ValueError, match='does not fit Classifier'):
        runner.train()


def test_weight_zero_is_plain_training(other, tmp_path):
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    one = train(
        tmp_path / 'a', teacher=follow(other, lockstep=True), objectives=objectives, save=SAVE
    )
    assert_same(one, train(tmp_path / 'b', distils=False))


def test_before_burn_in_it_is_plain_training(other, tmp_path):
    objectives = dict(kd=dict(type='mmkd.KD', weight=dict(start=4)))
    one = train(
        tmp_path / 'a', teacher=follow(other, lockstep=True), objectives=objectives, save=SAVE
    )
    plain = train(tmp_path / 'b', distils=False)
    for i in range(4):
        assert one.watch.losses[i]['loss'] == plain.watch.losses[i]['loss']
    assert one.watch.losses[4]['loss'] != plain.watch.losses[4]['loss']


def two_that_follow_each_other(rank, root):
    torch.set_num_threads(1)
    follower = follow(f'{root}/{1 - rank}', lockstep=True, wait=120)
    runner = train(
        f'{root}/{rank}', teacher=follower, save=SAVE, randomness=dict(seed=rank), steps=5
    )
    torch.save(
        dict(weight=runner.model.teachers['teacher'].model.head.fc.weight), f'{root}/{rank}.pth'
    )


def test_two_runs_follow_each_other(tmp_path):
    function, folder = two_that_follow_each_other, str(tmp_path)
    multiprocessing.start_processes(function, (folder,), 2, start_method='fork')
    for rank in (0, 1):
        seen = torch.load(tmp_path / f'{rank}.pth')['weight']
        assert torch.equal(seen, weight_of(tmp_path / f'{1 - rank}', 4))


# --------------------------------------------------------------------------------------- refusals


def test_own_folder(tmp_path):
    runner = make(tmp_path, teacher=follow(tmp_path))
    with pytest.raises(ValueError, match='is the work dir of this run itself'):
        runner.train()


def test_other_classes(other, tmp_path):
    class Named(Images):
        metainfo = dict(classes=('a', 'b', 'c'))

    loader = dict(dataset=Named(), batch_size=4, sampler=dict(type='InfiniteSampler', shuffle=True))
    runner = make(tmp_path, teacher=follow(other), train_dataloader=loader)
    with pytest.raises(ValueError, match='has the classes red, green, blue, …, this one a, b, c'):
        runner.train()


def test_nobody_writes(tmp_path):
    runner = make(tmp_path / 'a', teacher=follow(tmp_path / 'b', lockstep=True, wait=0), save=SAVE)
    with pytest.raises(
        TimeoutError, match='/b has written no checkpoint of step 2 within 0 seconds'
    ):
        runner.train()


def test_nobody_writes_without_lockstep(tmp_path, log):
    teacher = Follower(str(tmp_path / 'b'), every=1, wait=0)
    teacher.meet(build_model(tiny_classifier(width=4)))
    for i in range(3):
        teacher.before_step(Progress(i, 3))
    assert not teacher.ready
    assert log.text.count('after 0 seconds there is no checkpoint in') == 1


@pytest.mark.parametrize(
    ('save', 'words'),
    [
        (dict(interval=3), 'this run writes one every 3 steps'),
        (dict(interval=-1), 'this run writes none'),
        (dict(interval=2, max_keep_ckpts=1), 'found max_keep_ckpts=1'),
    ],
)
def test_lockstep_needs_files_of_ones_own(other, tmp_path, save, words):
    runner = make(tmp_path, teacher=follow(other, lockstep=True), save=save)
    with pytest.raises(ValueError, match=f"teacher 'teacher': Follower: in lockstep .*{words}"):
        runner.train()


@pytest.mark.parametrize(('options', 'words'), [(dict(every=0), 'every'), (dict(wait=-1), 'wait')])
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        build_teacher(follow('x', **options))


@pytest.mark.parametrize(
    ('own', 'its', 'overlap'),
    [
        ((0, 2), (1, 2), False),
        ((0, 2), (0, 2), True),
        ((0, 2), (1, 3), True),
        ((0, 2), None, True),
        (None, None, True),
    ],
)
def test_overlapping_shards_are_reported(log, own, its, overlap):
    teacher = Follower('other')
    teacher.shard = own
    loader = {} if its is None else dict(dataset=dict(type='mmkd.Shard', index=its[0], of=its[1]))
    teacher._compare(dict(settings=dict(train_dataloader=loader)))
    assert ('which overlap' in log.text) == overlap
