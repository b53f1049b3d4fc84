"""Random states in checkpoints: drawn seeds, killed processes, files and loops of others."""

import itertools
import os
import shutil
import signal

import pytest
from mmengine.fileio.backends import LocalBackend
from mmengine.runner import Runner as MMRunner
from mmengine.runner import loops as mm_loops
from resume_toys import Run, by_iter, iterations, log_of_run, train
from torch import multiprocessing

pytestmark = pytest.mark.usefixtures('quick')


def test_seed_that_was_drawn(check):
    check('epoch_1.pth', randomness=dict(seed=None))


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
    whole = train(tmp_path / 'whole', **changes)
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
        again = train(tmp_path / name, resume=True, **changes)
        assert min(again.losses) == first
        again.assert_continues(whole)
        assert not list((tmp_path / name).glob('*.part'))


def test_checkpoint_of_stock_mmengine(tmp_path):
    """Without random states in the file training continues, at the right place."""
    changes = dict(loop=iterations, save=by_iter | dict(interval=9))
    train(tmp_path / 'stock', runner=MMRunner, **changes)
    (tmp_path / 'again').mkdir()
    shutil.copy(tmp_path / 'stock' / 'iter_9.pth', tmp_path / 'again')
    again = train(tmp_path / 'again', resume=True, log_level='WARNING', **changes)
    assert 'holds no random states' in log_of_run(again)
    assert again.runner.train_loop.cursor.epoch == 1
    assert sorted(again.losses) == list(range(9, 13))


def test_foreign_training_loop_is_said(tmp_path):
    """Only the generators of the main process come back: enough without workers."""

    class Loop(mm_loops.EpochBasedTrainLoop):
        pass

    changes = dict(loop=dict(type=Loop, max_epochs=3), log_level='WARNING')
    whole = train(tmp_path, **changes)
    (tmp_path / 'epoch_3.pth').unlink()
    again = train(tmp_path, resume=True, **changes)
    again.assert_continues(whole)
    assert 'Loop is not a training loop of mmkd' in log_of_run(again)
