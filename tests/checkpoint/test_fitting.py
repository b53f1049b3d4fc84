"""Weights of files as they come, under the names of a model; what does not fit is counted."""

import copy
from collections import OrderedDict

import pytest
import torch
from fitting_toys import fit, net, under
from torch import nn

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.fitting import COUNTER
from mmkd.testing import MEAN, STD

WRAPPED = {
    'bare': lambda s: s,
    'mmengine': lambda s: dict(state_dict=s, meta={}, optimizer=dict(state={})),
    'model': lambda s: dict(model=s, epoch=3),
    'mixed': lambda s: dict(s, epoch=3),
    'DDP': lambda s: dict(state_dict=under('module.', s)),
    'Lightning': lambda s: dict(state_dict=under('model.', s)),
    'distilled': lambda s: dict(state_dict=dict(s, **{'objectives.cwd.weight': torch.ones(1)})),
    'MMRazor': lambda s: dict(
        state_dict=under('architecture.', s) | under('teacher.', net(6).state_dict())
    ),
    'nested': lambda s: dict(student=s, teacher=net(6).state_dict(), optimizer=dict(a=s)),
    'DDP in a wrapper': lambda s: under('student.module.', s),
    'averages of mmdet 2': lambda s: s | {'ema_' + k.replace('.', '_'): torch.zeros(()) for k in s},
    'averages': lambda s: dict(under('ema_', s), steps=torch.tensor(3)),
    'twice the same': lambda s: under('one.', s) | under('two.', s),
    'partly wrapped': lambda s: {
        f'module.{k}' if k.startswith('backbone') else k: v for k, v in s.items()
    },
}


@pytest.mark.parametrize('wrap', WRAPPED)
def test_every_weight_arrives_however_it_was_wrapped(wrap):
    model, state = net(), net().state_dict()
    found = fit(WRAPPED[wrap](state), model)
    assert (found.missing, found.unexpected, found.shapes) == ([], [], {})
    assert found.loaded == len(state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_two_that_fit_alike_are_not_guessed_at():
    both = under('student.') | under('teacher.')
    with pytest.raises(CheckpointError) as error:
        fit(both)
    assert "under 'student.' and 'teacher.' fit ToyNet equally well" in str(error.value)
    assert 'mmkd.checkpoint.extract file.pth chosen.pth --prefix student.' in str(error.value)


def test_what_does_not_fit_is_counted_and_the_rest_is_loaded():
    state = net().state_dict()
    del state['neck.conv.weight'], state['backbone.1.num_batches_tracked']
    state['neck.extra'] = torch.zeros(1)
    state['head.fc.weight'] = torch.zeros(7, 4)
    model = net()
    found = fit(state, model)
    assert found.loaded == found.total - 3
    assert found.without([COUNTER]).lines() == [
        '1 missing in the file: neck.conv.weight',
        '1 of another shape: head.fc.weight (file (7, 4), model (3, 4))',
        '1 not in the model: neck.extra',
    ]
    assert found.without([COUNTER, '^neck', '^head']).lines() == []
    assert torch.equal(model.backbone[0].weight, state['backbone.0.weight'])


def test_a_part_of_the_model_is_recognised():
    assert fit(net().backbone.state_dict()).part == 'backbone'
    assert fit(nn.Linear(2, 2).state_dict()).part == ''


@pytest.mark.parametrize(
    ('mean', 'own', 'same'),
    [
        (MEAN, MEAN, True),
        (MEAN[::-1], MEAN, False),
        ([0.0] * 3, None, True),
        (MEAN, None, False),
    ],
)
def test_files_of_2022_hold_mean_and_std(mean, own, same):
    model = net()
    model.data_preprocessor = nn.Module()
    if own:
        values = torch.tensor(own).view(3, 1, 1)
        model.data_preprocessor.register_buffer('mean', values, persistent=False)
    old = {'data_preprocessor.mean': torch.tensor(mean).view(3, 1, 1)}
    found = fit(net().state_dict() | old, model)
    assert not found.unexpected and bool(found.pixels) != same
    if not same:
        assert found.lines()[0].startswith('trained with data_preprocessor.mean = [1')
        assert not found.without(['data_preprocessor']).lines()
    if own:
        assert torch.equal(model.data_preprocessor.mean.flatten(), torch.tensor(own))


def test_std_is_compared_too():
    model = net()
    model.data_preprocessor = nn.Module()
    old = {'data_preprocessor.std': torch.tensor(STD)}
    assert fit(net().state_dict() | old, model).pixels


class Renaming(nn.Module):
    """A module whose layout changed in its second version."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.new = nn.Linear(2, 3)

    def _load_from_state_dict(self, state, prefix, metadata, *args):
        if metadata.get('version') is None or metadata['version'] < 2:
            for key in [k for k in state if k.startswith(f'{prefix}old.')]:
                state[key.replace('old.', 'new.')] = state.pop(key)
        super()._load_from_state_dict(state, prefix, metadata, *args)


def test_modules_upgrade_old_layouts_below_a_prefix_too():
    model = nn.ModuleDict(dict(part=Renaming(), other=nn.Linear(2, 2)))
    old = OrderedDict((k.replace('new', 'old'), v) for k, v in model.state_dict().items())
    old._metadata = OrderedDict({'': dict(version=1), 'part': dict(version=1)})
    wrapped = OrderedDict(under('module.', old))
    wrapped._metadata = OrderedDict(
        {f'module.{k}'.rstrip('.'): v for k, v in old._metadata.items()}
    )
    for state in (old, wrapped):
        found = fit(dict(state_dict=state), copy.deepcopy(model))
        assert (found.missing, found.unexpected) == ([], [])
    current = model.state_dict()  # says that it is of version 2: nothing is renamed
    found = fit(dict(state_dict=current), copy.deepcopy(model))
    assert found.loaded == 4
    old['part.old.weight'] = torch.zeros(5, 2)
    found = fit(dict(state_dict=old), copy.deepcopy(model))
    assert list(found.shapes) == ['part.new.weight']
