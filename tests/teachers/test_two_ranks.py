"""Two gloo processes: teachers that move are the same on both, whatever each rank has seen."""

import pytest
import torch
from black_box_toys import thirds
from two_ranks import of_two_ranks

from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Anchors, Ensemble, Follower, Function, Momentum, Snapshot
from mmkd.testing import classification_batch, tiny_classifier

CONFIG = tiny_classifier(width=4)


def student(rank):
    """Weights that are equal on both ranks, as DDP keeps them, and statistics of its own."""
    torch.manual_seed(0)
    model = build_model(CONFIG)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(rank + 1.0)
    return model


def state(teacher):
    return {key: value.clone() for key, value in teacher.model.state_dict().items()}


def moved(rank):
    """An average at a save, and a snapshot, of students with unequal statistics."""
    found = {}
    for name, teacher in dict(momentum=Momentum(), snapshot=Snapshot(cycles=2)).items():
        model = student(rank)
        teacher.meet(model)
        teacher.begin(model)
        teacher.after_step(model, Progress(0, 2))
        if name == 'momentum':
            teacher.synchronise()
        found[name] = state(teacher)
    return found


def chosen(rank, folder):
    """Choices of which the main process' counts."""
    files = []
    for epoch in range(1, 5):
        files.append(f'{folder}/epoch_{epoch}_{rank}.pth')
        torch.save(student(0).state_dict(), files[-1])
    anchors = Anchors(CONFIG, files, rule='last_easy')
    anchors.hardness = lambda states, progress: [0.1, 0.1, 0.1, 0.1][: len(states)]
    if rank:
        anchors.hardness = None  # which nobody asks
    for i in range(8):
        anchors.before_step(Progress(i, 8))
    follower = Follower(folder if rank == 0 else '/nowhere', every=1)
    follower.meet(student(rank))
    follower._newest = lambda: files[0] if rank == 0 else None
    follower._compare = lambda meta: None
    follower.before_step(Progress(0, 8))
    ensemble = Ensemble({n: Teacher(student(0), 'random') for n in 'abc'}, pick='random')
    drawn = []
    for i in range(20):
        ensemble.before_step(Progress(i, 20))
        drawn += ensemble.shown()
    return dict(anchor=anchors.index, followed=follower.path, drawn=drawn)


def waited(rank, folder):
    follower = Follower(f'{folder}/none', every=1, wait=0, lockstep=True)
    try:
        follower.before_step(Progress(1, 8))
    except TimeoutError as error:
        return str(error)


def asked(rank):
    function = Function(thirds)
    model = student(rank)
    function.meet(model)
    inputs, samples = classification_batch(4)
    function.scores(inputs, samples, function.pixels)
    return function.asked


def both(rank, folder):
    return dict(
        moved=moved(rank),
        chosen=chosen(rank, folder),
        waited=waited(rank, folder),
        asked=asked(rank),
    )


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    return of_two_ranks(both, folder, str(folder))


@pytest.mark.parametrize('name', ['momentum', 'snapshot'])
def test_statistics_are_those_of_the_main_process(ranks, name):
    first, second = (rank['moved'][name] for rank in ranks)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    means = [v for k, v in first.items() if k.endswith('running_mean')]
    assert all(bool((mean == 1).all()) for mean in means)


def test_the_main_process_chooses(ranks):
    first, second = (rank['chosen'] for rank in ranks)
    assert first == second
    assert first['anchor'] == 3 and len(set(first['drawn'])) == 3


def test_all_ranks_stop_waiting(ranks):
    assert ranks[0]['waited'] == ranks[1]['waited'] and 'step 1 within' in ranks[0]['waited']


def test_queries_are_those_of_all_ranks(ranks):
    assert [rank['asked'] for rank in ranks] == [8, 8]
