"""A plan of a step refuses what training refuses, and leaves nothing behind."""

import tempfile

import pytest
import torch
from chain_toys import recipe
from mmengine.hooks import Hook

from mmkd.analysis.rehearsal import rehearse
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


def test_everything_but_a_step(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    config = recipe(images, custom_hooks=[dict(type='CountsSteps')], resume=True)
    before, state = config.pretty_text, torch.get_rng_state()
    rehearse(config)
    assert CountsSteps.begun == 1 and config.pretty_text == before
    assert torch.equal(state, torch.get_rng_state())
    assert [*tmp_path.glob('mmkd_*')] == []


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
