"""The Runner's own promises: complete files, the newest one, clear errors, and two gloo ranks."""

import os
import socket
import sysconfig
from pathlib import Path

import pytest
import torch
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook as MMCheckpointHook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import EpochBasedTrainLoop as MMEpochBasedTrainLoop
from mmengine.runner import runner as mm_runner
from mmengine.utils.dl_utils import collect_env
from runner_toys import Data, Net, log_of, make
from torch import multiprocessing, nn
from torch.utils.data import Sampler

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.newest import newest_checkpoint
from mmkd.checkpoint.weights import weights_in
from mmkd.checks.data_guard import check_batches
from mmkd.engine import runner as runner_module
from mmkd.engine.checkpoint_hook import CheckpointHook
from mmkd.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from mmkd.engine.random_state import RandomStateHook
from mmkd.engine.runner import Runner
from mmkd.registry import DATA_SAMPLERS, RUNNERS


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder of a finished run of three epochs."""
    folder = tmp_path_factory.mktemp('finished')
    make(folder).train()
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    for path in finished.glob('*.pth'):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


# ------------------------------------------------------------------------------------- what is new


def test_operators_are_tried_before_training_and_no_compiler_is_missed(
    monkeypatch, tmp_path, capfd
):
    tried = []
    monkeypatch.setattr(runner_module, 'check_operators', tried.append)
    monkeypatch.setattr(mm_runner, 'collect_env', collect_env)
    monkeypatch.setattr(sysconfig, 'get_config_var', lambda name: 'no-such-compiler')
    runner = make(tmp_path)
    assert tried == [runner.model]
    assert 'no-such-compiler' not in capfd.readouterr().err


@pytest.mark.parametrize(
    'kind', ['CheckpointHook', 'mmengine.CheckpointHook', MMCheckpointHook, CheckpointHook]
)
def test_hooks_in_configs_become_ours(tmp_path, kind):
    runner = make(tmp_path, save=dict(type=kind))
    assert [type(h) for h in runner.hooks].count(CheckpointHook) == 1
    assert [type(h) for h in runner.hooks].count(RandomStateHook) == 1


@pytest.mark.parametrize(
    'cfg, kind',
    [
        (dict(by_epoch=True, max_epochs=1), EpochBasedTrainLoop),
        (dict(by_epoch=False, max_iters=1), IterBasedTrainLoop),
        (dict(type='EpochBasedTrainLoop', max_epochs=1), EpochBasedTrainLoop),
        (dict(type=MMEpochBasedTrainLoop, max_epochs=1), EpochBasedTrainLoop),
        (dict(type='IterBasedTrainLoop', max_iters=1), IterBasedTrainLoop),
    ],
)
def test_loops_in_configs_become_ours(tmp_path, cfg, kind):
    given = dict(cfg)
    assert type(make(tmp_path, train_cfg=cfg).train_loop) is kind
    assert cfg == given


def test_registered():
    assert RUNNERS.get('mmkd.Runner') is Runner


# ---------------------------------------------------------------------------------- complete files


def test_failed_save_leaves_the_old_file(folder, monkeypatch):
    runner = make(folder, resume=True, train_cfg=dict(by_epoch=True, max_epochs=4))
    before = (folder / 'epoch_3.pth').read_bytes()

    def full(self, content, path):
        Path(path).write_bytes(content[:10])
        raise OSError('No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', full)
    with pytest.raises(OSError, match='No space left'):
        runner.train()
    assert (folder / 'epoch_3.pth').read_bytes() == before
    assert not (folder / 'epoch_4.pth').exists()
    assert not list(folder.glob('*.part'))


def test_old_checkpoints_go_after_the_new_one_is_there(tmp_path, monkeypatch):
    seen, put = [], LocalBackend.put

    def watch(self, content, path):
        seen.append(sorted(p.name for p in tmp_path.glob('*.pth')))
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, 'put', watch)
    make(tmp_path, save=dict(max_keep_ckpts=1)).train()
    assert seen == [[], ['epoch_1.pth'], ['epoch_2.pth']]
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


def test_best_checkpoint_goes_after_a_better_one_is_there(tmp_path):
    runner = make(tmp_path, save=dict(save_best='score', rule='greater'))
    hook = next(h for h in runner.hooks if isinstance(h, CheckpointHook))
    runner.train()
    for epoch, score in ((1, 0.1), (2, 0.2), (2, 0.3), (3, 0.1)):
        runner.train_loop._epoch = epoch
        hook.after_val_epoch(runner, dict(score=score))
    # The same name twice: the second file must not be deleted as the outdated first one.
    assert [p.name for p in tmp_path.glob('best*')] == ['best_score_epoch_2.pth']


def test_leftovers_are_removed(folder):
    (folder / 'epoch_4.pth.123.part').write_bytes(b'half')
    make(folder, resume=True).train()
    assert not list(folder.glob('*.part'))


# ------------------------------------------------------------------------------ finding the newest


def test_newest_complete_one(folder):
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    assert newest_checkpoint(str(folder)) == (str(folder / 'epoch_3.pth'), [])


def test_incomplete_ones_are_skipped_and_named(folder):
    whole = (folder / 'epoch_3.pth').read_bytes()
    (folder / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'epoch_4.pth').write_bytes(b'')
    torch.save(
        weights_in(torch.load(folder / 'epoch_1.pth', weights_only=False)),
        folder / 'epoch_10.pth',
    )
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_4.pth'))
    runner = make(folder, resume=True)
    runner.train()
    log = log_of(runner)
    for name in ('epoch_10', 'epoch_4', 'epoch_3'):
        assert f'{name}.pth' in log
    assert runner._resume_from == str(folder / 'epoch_2.pth')
    assert runner.epoch == 3


def test_none_found_starts_from_the_beginning(tmp_path):
    runner = make(tmp_path, resume=True)
    runner.train()
    assert 'training starts from the beginning' in log_of(runner)
    assert runner.iter == 6


def test_other_file_names_are_found_through_last_checkpoint(tmp_path):
    make(tmp_path, save=dict(filename_tmpl='step{}.pth')).train()
    assert newest_checkpoint(str(tmp_path))[0] == str(tmp_path / 'step3.pth')


def test_resume_from_a_given_file(folder, tmp_path):
    runner = make(tmp_path / 'new', resume=True, load_from=str(folder / 'epoch_1.pth'))
    assert runner.train_loop.iter == 0
    runner.load_or_resume()
    assert (runner.epoch, runner.iter) == (1, 2)


def test_load_from_takes_weights_only(folder, tmp_path):
    runner = make(tmp_path / 'new', load_from=str(folder / 'epoch_1.pth'))
    runner.load_or_resume()
    assert (runner.epoch, runner.iter) == (0, 0)
    wanted = torch.load(folder / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(torch.equal(v, wanted[k]) for k, v in runner.model.state_dict().items())


def test_bad_files_stop_the_run_with_one_sentence(tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(Net().state_dict(), weights)
    with pytest.raises(CheckpointError, match='cannot resume from .* it has no epoch, iter'):
        make(tmp_path, resume=True, load_from=str(weights))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        make(tmp_path, resume=True, load_from=str(tmp_path / 'no.pth'))
    weights.write_bytes(b'<html>')
    with pytest.raises(CheckpointError, match='web page'):
        make(tmp_path, load_from=str(weights))


def test_seed_of_the_interrupted_run_wins(folder):
    runner = make(folder, resume=True, randomness=dict(seed=7))
    assert runner.seed == 0
    assert 'seed=7 is ignored' in log_of(runner)


# ------------------------------------------------------------------------------------- distributed


def _rank(rank, port, folder, changes, results):
    torch.set_num_threads(1)
    mm_runner.collect_env = dict
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    model = dict(type=Net, norm=nn.SyncBatchNorm, dropout=0.5)
    runner = make(folder, model=model, launcher='pytorch', log_level='INFO', **changes)
    assert isinstance(runner.model, MMDistributedDataParallel)
    assert not runner.model.find_unused_parameters
    runner.train()
    results.put((rank, [v.numpy() for v in runner.model.state_dict().values()]))
    if rank == 0:
        results.put(('log', log_of(runner)))


def two_ranks(folder, **changes):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    ranks = [
        context.Process(target=_rank, args=(rank, port, folder, changes, results))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = dict(results.get() for _ in range(3))
    for process in ranks:
        process.join(30)
        assert process.exitcode == 0
    return found


def test_two_processes_on_cpus(tmp_path):
    """Weights are kept equal, SyncBN is replaced, and a resumed run repeats both ranks' dropout."""
    seeds = dict(randomness=dict(seed=0, diff_rank_seed=True))
    whole = two_ranks(tmp_path / 'whole', env_cfg=dict(dist_cfg=dict(backend='nccl')), **seeds)
    assert 'plain BatchNorm takes its place' in whole['log']
    for a, b in zip(whole[0][:2], whole[1][:2], strict=True):
        assert (a == b).all()
    states = torch.load(tmp_path / 'whole/epoch_1.pth', weights_only=False)['random_state']
    assert len(states['ranks']) == 2
    (tmp_path / 'again').mkdir()
    (tmp_path / 'whole/epoch_1.pth').rename(tmp_path / 'again/epoch_1.pth')
    again = two_ranks(tmp_path / 'again', resume=True, **seeds)
    assert all((a == b).all() for a, b in zip(whole[0], again[0], strict=True))
    # One process cannot repeat what two did, and says so.
    model = dict(type=Net, norm=nn.BatchNorm1d, dropout=0.5)
    for path in (tmp_path / 'again').glob('epoch_[23].pth'):
        path.unlink()
    alone = make(tmp_path / 'again', model=model, resume=True)
    alone.load_or_resume()
    assert 'random states of 2 processes, this run has 1' in log_of(alone)


def test_other_launchers_need_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd.engine.connecting.on_cpu', lambda: True)
    with pytest.raises(ValueError, match='torchrun'):
        make(tmp_path, launcher='slurm')


@DATA_SAMPLERS.register_module()
class Unending(Sampler):
    """Says nothing of its length, as torch allows."""

    def __init__(self, dataset, seed=None):
        self.size = len(dataset)

    def __iter__(self):
        while True:
            yield from range(self.size)


def test_a_sampler_need_not_have_a_length(tmp_path):
    loader = dict(dataset=Data(), batch_size=2, sampler=dict(type='mmkd.Unending'))
    changes = dict(train_dataloader=loader, save=dict(by_epoch=False, interval=2))
    make(tmp_path, train_cfg=dict(by_epoch=False, max_iters=2), **changes).train()
    runner = make(tmp_path, train_cfg=dict(by_epoch=False, max_iters=4), resume=True, **changes)
    check_batches('train_dataloader', runner.build_dataloader(loader), ends=False)
    runner.train()
    assert (tmp_path / 'iter_4.pth').is_file()


def test_data_without_a_batch_are_told_before_a_schedule_is_made_of_them(tmp_path):
    loader = dict(dataset=Data(), batch_size=8, drop_last=True, sampler=dict(type='DefaultSampler'))
    schedule = dict(type='LinearLR', start_factor=0.1, end=3, convert_to_iter_based=True)
    runner = make(tmp_path, train_dataloader=loader, param_scheduler=schedule)
    with pytest.raises(ValueError, match=r'4 image\(s\) make no batch of 8'):
        runner.train()
