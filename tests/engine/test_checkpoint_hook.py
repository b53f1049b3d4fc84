"""What a checkpoint says of files is not believed: a run deletes nothing but its own."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from resume_toys import train
from runner_toys import log_of, make
from torch import nn

from mmkd.engine.checkpoint_hook import CheckpointHook
from mmkd.methods.crd import CRD

BEST = 'best_score_epoch_1.pth'


def run(folder, epochs, score=None, **changes):
    """Train in a folder; afterwards the hook is told of a validation with that score."""
    save = dict(save_best='score', rule='greater') | changes.pop('save', {})
    runner = make(folder, save=save, train_cfg=dict(by_epoch=True, max_epochs=epochs), **changes)
    runner.train()
    hook = next(h for h in runner.hooks if isinstance(h, CheckpointHook))
    if score is not None:
        hook.after_val_epoch(runner, dict(score=score, other=score))
    return runner


def tree(folder):
    return {p.relative_to(folder): p.lstat().st_mtime_ns for p in folder.rglob('*')}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp('first') / 'a'
    run(folder, 1, 0.5)
    return folder


@pytest.fixture
def folders(original, tmp_path):
    """Run A, which has a best checkpoint, and B, a copy of its folder."""
    for name in 'ab':
        shutil.copytree(original, tmp_path / name)
    edit(tmp_path / 'b', best_ckpt=str(tmp_path / 'a' / BEST))
    return tmp_path / 'a', tmp_path / 'b'


def edit(folder, name='epoch_1.pth', **info):
    """Change what the checkpoint says of the run."""
    checkpoint = torch.load(folder / name, weights_only=False)
    checkpoint['message_hub']['runtime_info'].update(info)
    checkpoint['message_hub']['resumed_keys'].update(dict.fromkeys(info, True))
    torch.save(checkpoint, folder / name)


def test_a_copied_run_has_its_own_best_checkpoint(folders):
    a, b = folders
    before = tree(a)
    runner = run(b, 2, 0.9, resume=True)
    assert tree(a) == before
    assert [p.name for p in b.glob('best*')] == ['best_score_epoch_2.pth']
    assert runner.message_hub.get_info('best_ckpt') == str(b / 'best_score_epoch_2.pth')


def test_another_run_keeps_its_best_checkpoint(folders, tmp_path):
    a, _ = folders
    before = tree(a)
    new = dict(resume=True, load_from=str(a / 'epoch_1.pth'), log_level='INFO')
    runner = run(tmp_path / 'c', 2, 0.9, **new)
    assert tree(a) == before and (tmp_path / 'c/best_score_epoch_2.pth').exists()
    assert 'is no file of this run' in log_of(runner)


def test_a_moved_run_still_replaces_its_best_checkpoint(folders):
    a, b = folders
    shutil.rmtree(a)
    run(b, 2, 0.9, resume=True)
    assert [p.name for p in b.glob('best*')] == ['best_score_epoch_2.pth']


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize(
    'claim', ['/outside', 'sub', 'last_checkpoint', 'epoch_1.pth', '../a', '', None, 3, ['x']]
)
def test_hostile_best_checkpoints_are_left_alone(folders, claim, several):
    _, b = folders
    outside = b.parent / 'outside'
    outside.mkdir()
    (outside / BEST).write_text('precious')
    (b / 'sub').mkdir()
    (b / 'sub' / 'best_score_epoch_7.pth').write_text('precious')
    claim = str(outside) if claim == '/outside' else claim
    save = dict(save_best=['score', 'other'] if several else 'score')
    keys = ['best_ckpt_score', 'best_ckpt_other'] if several else ['best_ckpt']
    edit(b, **dict.fromkeys(keys, claim))
    before = tree(b.parent)
    run(b, 2, 0.9, resume=True, save=save)
    after = tree(b.parent)
    b_only = {path for path in before if path.name != 'last_checkpoint'}
    gone = {path for path in b_only if before[path] != after.get(path)}
    assert {path for path in gone if path.suffix == '.pth'} <= {b.relative_to(b.parent) / BEST}
    assert (b / 'sub' / 'best_score_epoch_7.pth').exists() and (outside / BEST).exists()


def test_links_and_folders_of_the_right_name_stay(folders):
    a, b = folders
    (b / BEST).unlink()
    (b / BEST).symlink_to(a / BEST)
    run(b, 2, 0.9, resume=True)
    assert (a / BEST).exists() and (b / BEST).is_symlink()


@pytest.mark.parametrize('steps', [['../a/epoch_1', '/x', 1.5, True, -1], 'text', {1: 2}, None])
def test_hostile_steps_are_no_paths(folders, steps):
    a, b = folders
    edit(b, keep_ckpt_ids=steps)
    before = tree(a)
    run(b, 3, resume=True, save=dict(max_keep_ckpts=1))
    assert tree(a) == before
    assert sorted(p.name for p in b.glob('epoch_*')) == ['epoch_1.pth', 'epoch_3.pth']


def test_fewer_checkpoints_are_kept_from_now_on(folders):
    _, b = folders
    for step in (2, 3):
        shutil.copy(b / 'epoch_1.pth', b / f'epoch_{step}.pth')
    (b / 'epoch_0.pth').mkdir()  # of this name, but no checkpoint
    edit(b, 'epoch_3.pth', keep_ckpt_ids=[0, 1, 2, 3])
    run(b, 4, resume=True, load_from=str(b / 'epoch_3.pth'), save=dict(max_keep_ckpts=2))
    assert sorted(p.name for p in b.glob('epoch_*')) == [
        'epoch_0.pth',
        'epoch_3.pth',
        'epoch_4.pth',
    ]


@pytest.mark.parametrize('score', ['text', float('nan'), [1]], ids=str)
def test_a_best_score_that_is_no_number_is_forgotten(folders, score):
    _, b = folders
    edit(b, best_score=score)
    assert run(b, 2, 0.1, resume=True).message_hub.get_info('best_score') == 0.1


def test_published_files_lie_in_the_own_folder(folders):
    a, b = folders
    before = tree(a)
    run(b, 2, resume=True, save=dict(published_keys=['state_dict']))
    assert tree(a) == before
    assert len(list(b.glob('best_score_epoch_1-*.pth'))) == 1


def test_only_half_written_files_are_swept_away(folders):
    _, b = folders
    (b / 'x.pth.1.part').mkdir()
    (b / 'y.pth.1.part').symlink_to(b / 'epoch_1.pth')
    (b / 'z.pth.1.part').write_text('half')
    (b / 'teacher.pth.part').write_text('a download of somebody else')
    run(b, 1, resume=True)
    assert sorted(p.name for p in b.glob('*.part')) == [
        'teacher.pth.part',
        'x.pth.1.part',
        'y.pth.1.part',
    ]


def test_what_only_resuming_needs_is_not_in_the_best_checkpoint():
    """CRD's memory of the training set: in checkpoints with an optimiser, not in others."""
    model = nn.Module()
    model.objectives = nn.ModuleDict({'crd': CRD('x', size=10, negatives=4, dim=2)})
    runner = SimpleNamespace(model=model)
    for keys, kept in (({'optimizer': {}}, True), ({}, False)):
        checkpoint = dict(keys, state_dict=model.state_dict())
        CheckpointHook().before_save_checkpoint(runner, checkpoint)
        assert ('objectives.crd.memory' in checkpoint['state_dict']) is kept


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
    train(tmp_path, **changes)
    (tmp_path / 'epoch_3.pth').unlink()
    train(tmp_path, resume=True, **changes)
    assert (tmp_path / 'epoch_3.pth').exists()
