"""A plan of a step refuses what training refuses, and leaves nothing behind."""

import tempfile

import pytest
import torch
from chain_toys import recipe
from mmengine.hooks import Hook

from mmkd.analysis.rehearsal import rehearse
from mmkd.chain.isolation import isolated
from mmkd.engine.launch import train
from mmkd.objective import Objective
from mmkd.registry import HOOKS, MODELS


@MODELS.register_module(name='RefusesData')
class RefusesData(Objective):
    """Can do nothing with its dataset."""

    taps = 'head.fc'
    needs_teacher = False

    def check_dataset(self, dataset):
        raise ValueError(f'no use for {len(dataset)} images')

    def forward(self, trace):
        return trace.student['head.fc'][0].square().mean()


@HOOKS.register_module(name='CountsSteps')
class CountsSteps(Hook):
    """Fails if there is a step."""

    begun = 0

    def before_train(self, runner):
        CountsSteps.begun += 1

    def before_train_iter(self, runner, *args, **kwargs):
        raise AssertionError('a step')


@HOOKS.register_module(name='KeepsTheFirstStep')
class KeepsTheFirstStep(Hook):
    """Ends a run in its first step, whose weights and batch it keeps."""

    kept = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        KeepsTheFirstStep.kept = runner.model.state_dict(), data_batch['inputs']
        raise _Seen


class _Seen(Exception):
    pass


def test_everything_but_a_step(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    config = recipe(images, custom_hooks=[dict(type='CountsSteps')], resume=True)
    before, state = config.pretty_text, torch.get_rng_state()
    rehearse(config)
    assert CountsSteps.begun == 1 and config.pretty_text == before
    assert torch.equal(state, torch.get_rng_state())
    assert [*tmp_path.glob('mmkd_*')] == []


def test_the_step_that_would_be_next_is_that_of_training(images, tmp_path):
    """One model is built, and its batch and weights are those of the first step of training."""
    seen = []

    def look(model, loader):
        seen.append((model, {k: v.clone() for k, v in model.state_dict().items()}))
        seen.append(next(iter(loader))['inputs'])

    config = recipe(images, custom_hooks=[dict(type='KeepsTheFirstStep')])
    rehearse(config, built=lambda model: seen.append(model), ready=look)
    built, (model, weights), batch = seen
    assert built is model and model.training
    with isolated(), pytest.raises(_Seen):
        config.randomness = dict(seed=0)
        train(config, work_dir=str(tmp_path))
    first_weights, first_batch = KeepsTheFirstStep.kept
    assert all(torch.equal(first_weights[key], value) for key, value in weights.items())
    assert torch.equal(torch.stack(first_batch), torch.stack(batch))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(objectives=dict(a=dict(type='RefusesData'))), 'no use for 12 images'),
        ({'val_dataloader.dataset.metainfo': dict(classes=['a', 'c', 'b'])}, 'classes'),
        ({'train_dataloader.dataset.data_root': 'nowhere'}, 'nowhere'),
        ({'train_cfg.max_epochs': 0}, 'max_epochs'),
        (dict(load_from='nowhere.pth'), 'nowhere.pth'),
    ],
    ids=['an objective', 'class names', 'paths', 'nothing would train', 'weights'],
)
def test_what_training_refuses(images, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        rehearse(recipe(images, **changes))


def test_of_several_processes_the_data(images):
    teacher = dict(type='mmkd.Neighbours', groups=2)
    rehearse(recipe(images, teacher=teacher))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        rehearse(
            recipe(images, teacher=teacher, **{'train_dataloader.dataset.data_root': 'nowhere'})
        )
