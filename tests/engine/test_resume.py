"""A resumed run repeats the numbers of an uninterrupted one; an uninterrupted one, stock's."""

import itertools
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.layers import DropBlock
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner as MMRunner
from mmengine.runner import loops as mm_loops
from mmengine.runner import runner as mm_runner
from torch import multiprocessing, nn
from torch.utils.data import DataLoader, Dataset

from mmkd.engine.runner import Runner

SIZE, BATCH = 14, 2
ENDLESS = 'dataloader_iterator'  # where an iteration-based loop keeps its workers
EPOCH = SIZE // BATCH
# Random augmentation in persistent workers of the validation is not repeated.
VAL_WORKER = dict(num_workers=1, noise=False)
names = (f'resume_{i}' for i in itertools.count())


class Noisy(Dataset):
    """Random augmentation from all three generators."""

    def __init__(self, noise=True):
        self.noise = noise

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        noise = (np.random.rand() + random.random() + torch.rand(()).item()) * self.noise
        return dict(inputs=torch.full((3,), index / SIZE) + noise)


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, mode='tensor'):
        out = self.body(torch.stack(inputs))
        return dict(loss=(out**2).mean()) if mode == 'loss' else out.flatten().tolist()


class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))


class Record(Hook):
    """Losses and rates per iteration, metrics per validation."""

    priority = 'LOWEST'

    def __init__(self, kill_at=None):
        self.seen, self.metrics, self.kill_at = {}, {}, kill_at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        rate = runner.optim_wrapper.param_groups[0]['lr']
        self.seen[runner.iter] = (outputs['loss'].item(), rate, batch_idx)
        if runner.iter == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics[runner.iter] = metrics['mean']


class Run:
    """One finished run and everything that must be equal in another one."""

    def __init__(self, folder, runner=Runner, kill_at=None, before=None, **changes):
        self.hook = Record(kill_at)
        self.runner = runner(**_arguments(folder, self.hook, **changes))
        if before:
            before(self.runner)
        self.runner.train()
        self.losses, self.metrics = self.hook.seen, self.hook.metrics
        self.weights = self.runner.model.state_dict()
        self.random = (random.random(), np.random.rand(), torch.rand(()).item())
        train, val = self.runner.train_loop, self.runner.val_loop
        for holder in (train.dataloader, val and val.dataloader, train.__dict__.get(ENDLESS)):
            if holder is not None:
                holder._iterator = None  # ends the workers

    def assert_continues(self, whole):
        assert self.losses, 'nothing was trained'
        assert self.losses == {i: whole.losses[i] for i in self.losses}
        assert max(self.losses) == max(whole.losses)
        assert self.metrics == {i: whole.metrics[i] for i in self.metrics}
        for key, value in whole.weights.items():
            assert torch.equal(self.weights[key], value), key
        assert self.random == whole.random


def _loader(noise=True, **options):
    if options.get('num_workers') and 'persistent_workers' not in options:
        options['persistent_workers'] = True
    sampler = options.pop('sampler', dict(type='DefaultSampler', shuffle=True))
    return dict(dataset=Noisy(noise), batch_size=BATCH, sampler=sampler, **options)


def _arguments(folder, hook, train=None, val=None, loop=None, save=None, hooks=(), **changes):
    loop = loop or dict(by_epoch=True, max_epochs=3)
    args = dict(
        model=dict(type=Net),
        work_dir=str(folder),
        train_dataloader=train() if callable(train) else _loader(**(train or {})),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.05)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=12, by_epoch=False),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1) | (save or {}), logger=None
        ),
        custom_hooks=[hook, dict(type='EMAHook'), *hooks],
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=next(names),
    )
    if val is not None:
        metric = dict(type=Mean)
        args |= dict(val_dataloader=_loader(**val), val_cfg=dict(), val_evaluator=metric)
    return args | changes


def _train(*args, **kwargs):
    """Forget earlier runs' random states first: nothing may depend on them."""
    torch.manual_seed(random.SystemRandom().randrange(10**6))
    return Run(*args, **kwargs)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """mmengine sleeps whenever data are started again, and asks compilers for their version."""
    monkeypatch.setattr(mm_loops.time, 'sleep', lambda seconds: None)
    monkeypatch.setattr(mm_runner, 'collect_env', dict)
    monkeypatch.setattr(os, 'fsync', lambda file: None)
    torch.set_num_threads(1)


@pytest.fixture
def check(tmp_path):
    """Train; then continue from some of its checkpoints elsewhere, and compare."""

    def run(*checkpoints, **changes):
        whole = _train(tmp_path / 'whole', **changes)
        for checkpoint in checkpoints:
            folder = tmp_path / f'from_{checkpoint}'
            folder.mkdir()
            shutil.copy(tmp_path / 'whole' / checkpoint, folder)
            again = _train(folder, resume=True, **changes)
            assert len(again.losses) < len(whole.losses)
            again.assert_continues(whole)
        return whole, again

    return run


def endless(**options):
    return dict(sampler=dict(type='InfiniteSampler', shuffle=True), **options)


by_iter = dict(by_epoch=False)
iterations = dict(type='IterBasedTrainLoop', max_iters=13, val_interval=5)


def test_epochs_in_one_process(check):
    whole, again = check('epoch_1.pth', val={})
    assert sorted(again.metrics) == [7, 14, 21]


def test_seed_that_was_drawn(check):
    check('epoch_1.pth', randomness=dict(seed=None))


@pytest.mark.parametrize('persistent', [True, False])
def test_epochs_with_workers(check, persistent):
    options = dict(num_workers=2, persistent_workers=persistent)
    val = VAL_WORKER | dict(persistent_workers=persistent)
    check('epoch_2.pth', train=options, val=val)


def test_inside_an_epoch(check):
    """Iterations 7 and 14 end an epoch that is not yet over for the hooks."""
    check('iter_3.pth', 'iter_7.pth', 'iter_8.pth', save=by_iter, val={})


@pytest.mark.parametrize('persistent', [True, False])
def test_inside_an_epoch_with_workers(check, persistent):
    options = dict(num_workers=2, persistent_workers=persistent)
    val = VAL_WORKER | dict(persistent_workers=persistent)
    check('iter_1.pth', 'iter_8.pth', 'iter_11.pth', save=by_iter, train=options, val=val)


@pytest.mark.parametrize('workers', [0, 2])
def test_sampler_and_workers_seeded_by_torch(check, workers):
    def build():
        return DataLoader(Noisy(), BATCH, True, num_workers=workers, collate_fn=pseudo_collate)

    check('iter_8.pth', save=by_iter, train=build)


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations(check, workers):
    train = endless(num_workers=workers)
    check('iter_5.pth', 'iter_8.pth', loop=iterations, save=by_iter, train=train, val={})


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_over_finite_data(check, workers):
    train = dict(num_workers=workers)
    check('iter_7.pth', 'iter_10.pth', loop=iterations, save=by_iter, train=train, val={})


def test_validation_that_was_due_is_not_lost(check):
    """Its metric steers the learning rate; the killed run had not come that far."""
    plateau = dict(type='ReduceOnPlateauLR', monitor='mean', rule='greater', patience=0)
    whole, again = check('epoch_1.pth', val={}, param_scheduler=plateau)
    assert EPOCH in again.metrics
    assert len({rate for _, rate, _ in whole.losses.values()}) > 1


def test_validation_that_was_done_is_not_repeated(check):
    _, again = check('epoch_1.pth', val={}, save=dict(save_best='mean', rule='greater'))
    assert EPOCH not in again.metrics


@pytest.fixture
def chain(tmp_path):
    """Train; continue from a checkpoint, and from one of that run, and so on; compare each."""

    def run(*checkpoints, **changes):
        whole = again = _train(tmp_path / '0', **changes)
        for i, checkpoint in enumerate(checkpoints):
            folder = tmp_path / f'{i + 1}'
            folder.mkdir()
            shutil.copy(tmp_path / f'{i}' / checkpoint, folder)
            again = _train(folder, resume=True, **changes)
            again.assert_continues(whole)
        return whole, again

    return run


def test_resumed_three_times(chain):
    chain(
        'iter_2.pth', 'iter_9.pth', 'iter_12.pth', save=by_iter, train=dict(num_workers=2), val={}
    )


def test_resumed_twice_between_validations(chain):
    """The validation workers of the first run, started at 8, drew their seed then, not at 16."""
    chain(
        'iter_10.pth',
        'iter_13.pth',
        loop=dict(type='IterBasedTrainLoop', max_iters=20, val_interval=8),
        save=by_iter,
        train=endless(num_workers=2),
        val=VAL_WORKER,
    )


def test_resumed_twice_with_shuffling_by_torch(chain):
    """The second time inside the epoch at whose beginning the first one resumed."""

    def build():
        return DataLoader(
            Noisy(), BATCH, True, num_workers=2, persistent_workers=True, collate_fn=pseudo_collate
        )

    save = by_iter | dict(save_best='mean', rule='greater')  # iter_7 once more, after validation
    chain('iter_7.pth', 'iter_10.pth', save=save, train=build, val={})


def test_patience_is_not_renewed(chain):
    """Stock keeps the count of an EarlyStoppingHook to itself."""
    stop = dict(type='EarlyStoppingHook', monitor='mean', rule='greater', patience=2, min_delta=9)
    loop = dict(by_epoch=True, max_epochs=5)
    whole, _ = chain('epoch_2.pth', val={}, loop=loop, hooks=[stop])
    assert sorted(whole.metrics) == [7, 14, 21]


class Better(BaseMetric):
    """Each validation beats the one before."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(mean=MessageHub.get_current_instance().get_info('epoch'))


def test_a_better_validation_rewrites_the_last_checkpoint(tmp_path):
    """Also when it was written before the interruption, as in the uninterrupted run."""
    save = dict(interval=2, save_best='mean', rule='greater', save_last=False)
    changes = dict(val={}, val_evaluator=dict(type=Better), save=save)
    _train(tmp_path, **changes)
    (tmp_path / 'epoch_3.pth').unlink()
    _train(tmp_path, resume=True, **changes)
    assert (tmp_path / 'epoch_3.pth').exists()


class Dropping(Net):
    """With a layer of mmdet that counts by itself."""

    def __init__(self):
        super().__init__()
        self.drop = DropBlock(drop_prob=0.9, block_size=1, warmup_iters=20)

    def forward(self, inputs, mode='tensor'):
        dropped = self.drop(torch.stack(inputs)[:, :, None, None])[..., 0, 0]
        return super().forward(list(dropped), mode)


def test_what_modules_count_by_themselves(chain):
    chain('iter_5.pth', 'iter_9.pth', save=by_iter, model=dict(type=Dropping))


@pytest.mark.parametrize(
    'case',
    [
        dict(val={}),
        dict(train=dict(num_workers=2), val=VAL_WORKER),
        dict(loop=iterations, train=endless(num_workers=2), val={}, save=by_iter),
        dict(loop=dict(iterations, max_iters=9), val={}, save=by_iter),
    ],
    ids=['epochs', 'workers', 'iterations', 'finite'],
)
def test_uninterrupted_run_is_stock(tmp_path, case):
    stock = _train(tmp_path / 'stock', runner=MMRunner, **case)
    ours = _train(tmp_path / 'ours', **case)
    ours.assert_continues(stock)
    assert len(ours.losses) == len(stock.losses)


def _half_written(runner):
    """Let the third checkpoint be cut off in the middle, and the process with it."""
    count, put = itertools.count(1), LocalBackend.put

    def dying(self, content, path):
        if next(count) == 3:
            put(self, content[: len(content) // 2], path)
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, content, path)

    LocalBackend.put = dying


def test_killed_run_resumes_exactly(tmp_path):
    changes = dict(save=dict(by_epoch=False, interval=3), train=dict(num_workers=2), val={})
    whole = _train(tmp_path / 'whole', **changes)
    for name, kill, first in (
        ('anywhere', dict(kill_at=10), 9),
        ('while_writing', dict(before=_half_written), 6),
    ):
        child = multiprocessing.get_context('fork').Process(
            target=Run, args=(tmp_path / name,), kwargs=changes | kill
        )
        child.start()
        _, status = os.waitpid(child.pid, 0)  # join() would wait for its workers, too
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert len(list((tmp_path / name).glob('*.part'))) == (name == 'while_writing')
        again = _train(tmp_path / name, resume=True, **changes)
        assert min(again.losses) == first
        again.assert_continues(whole)
        assert not list((tmp_path / name).glob('*.part'))


def _log(run):
    return next(Path(run.runner.log_dir).glob('*.log')).read_text()


def test_changed_number_of_workers_is_said(tmp_path):
    _train(tmp_path, train=dict(num_workers=2), loop=dict(by_epoch=True, max_epochs=1))
    run = _train(tmp_path, resume=True, train={}, log_level='WARNING')
    assert 'num_workers is 0, it was 2' in _log(run)
    assert sorted(run.losses) == list(range(EPOCH, 3 * EPOCH))


def test_changed_batch_size_restarts_the_epoch(tmp_path):
    _train(tmp_path, save=by_iter | dict(interval=10), loop=dict(by_epoch=True, max_epochs=2))
    (tmp_path / 'iter_14.pth').unlink()
    loader = _loader() | dict(batch_size=7)
    run = _train(tmp_path, resume=True, log_level='WARNING', train_dataloader=loader)
    assert 'epoch 2 starts from its beginning' in _log(run)
    assert len(run.losses) == 2 * SIZE // 7


def test_checkpoint_of_stock_mmengine(tmp_path):
    """Without random states in the file training continues, at the right place."""
    changes = dict(loop=iterations, save=by_iter | dict(interval=9))
    _train(tmp_path / 'stock', runner=MMRunner, **changes)
    (tmp_path / 'again').mkdir()
    shutil.copy(tmp_path / 'stock' / 'iter_9.pth', tmp_path / 'again')
    again = _train(tmp_path / 'again', resume=True, log_level='WARNING', **changes)
    assert 'holds no random states' in _log(again)
    assert again.runner.train_loop.cursor.epoch == 1
    assert sorted(again.losses) == list(range(9, 13))


def test_foreign_training_loop_is_said(tmp_path):
    """Only the generators of the main process come back: enough without workers."""

    class Loop(mm_loops.EpochBasedTrainLoop):
        pass

    changes = dict(loop=dict(type=Loop, max_epochs=3), log_level='WARNING')
    whole = _train(tmp_path, **changes)
    (tmp_path / 'epoch_3.pth').unlink()
    again = _train(tmp_path, resume=True, **changes)
    again.assert_continues(whole)
    assert 'Loop is not a training loop of mmkd' in _log(again)
