"""Where an exception comes from, and during what."""

import types
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

import mmkd
from mmkd.building import build_objective, build_objectives, build_teacher
from mmkd.config import load_config
from mmkd.engine.launch import check_data
from mmkd.engine.loops import IterBasedTrainLoop
from mmkd.errors.origin import _PHASES, is_ours, origin_of, short
from mmkd.options import check_number


def caught(function, *arguments):
    with pytest.raises(Exception) as info:
        function(*arguments)
    return info.value


class Broken(mmkd.Objective):
    def __init__(self):
        super().__init__()
        {}['palette']


class BrokenData(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return [][index] if index else check_number('FGFI', 'psi', float('nan'))


def test_only_what_mmkd_raises_on_purpose_is_ours():
    assert is_ours(caught(mmkd.Schedule, -1))
    assert is_ours(caught(build_objective, dict(type='mmkd.FGFIs')))
    assert not is_ours(caught(lambda: {}['x']))
    assert not is_ours(caught(mmkd.Schedule.__call__, None, 0.5))  # Python's, in a line of mmkd
    assert not is_ours(caught(torch.zeros(2).reshape, 3))
    assert not is_ours(KeyError('never raised'))


def test_a_message_of_another_package_keeps_its_place_and_phase():
    origin = origin_of(caught(build_objectives, dict(it=dict(type=Broken))))
    assert (origin.kind, origin.message, origin.ours) == ('KeyError', "'palette'", False)
    assert origin.where.startswith('tests/errors/test_origin.py:')
    assert origin.phase == "while building objective 'it'"


def test_without_a_message_the_line_speaks():
    def check():
        assert 1 == 2

    origin = origin_of(caught(check))
    # pytest rewrites the message of its own asserts
    assert origin.kind == 'AssertionError' and '1 == 2' in origin.message


@pytest.mark.parametrize(
    ('text', 'kind', 'message', 'line'),
    [
        ('a = 1\nmodel = dict(\n    x=3,,\n)\n', 'SyntaxError', 'invalid syntax', 3),
        ('a = 1\n\nb = foo\n', 'NameError', "name 'foo' is not defined", 3),
        ('import math\nb = math.nothing\n', 'AttributeError', 'no attribute', 2),
        ('b = [1][3]\n', 'IndexError', 'out of range', 1),
    ],
)
def test_errors_in_a_config_have_its_line(tmp_path, monkeypatch, text, kind, message, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text(text)
    (tmp_path / 'top.py').write_text("_base_ = './base.py'\n")
    origin = origin_of(caught(load_config, 'top.py'))
    assert origin.kind == kind and message in origin.message
    assert origin.where == f'base.py:{line}'
    assert origin.phase == 'while reading the config base.py, a base of top.py'


def test_errors_of_workers_are_read_from_their_text():
    origin = origin_of(caught(list, DataLoader(BrokenData(), sampler=[1], num_workers=1)))
    assert (origin.kind, origin.message) == ('IndexError', 'list index out of range')
    assert origin.where.startswith('tests/errors/test_origin.py:')
    assert origin.phase == 'in DataLoader worker process 0' and not origin.ours
    own = origin_of(caught(list, DataLoader(BrokenData(), sampler=[0], num_workers=1)))
    assert own.ours and own.message == 'FGFI: psi must be a finite number, found nan.'


def test_the_phase_of_teachers_and_data():
    config = dict(type='mmdet.ResNet', depth=50, num_stages='4')
    error = caught(build_teacher, dict(config=config, checkpoint='random'))
    assert origin_of(error).phase == 'while building the teacher'
    broken = Config(dict(train_dataloader=dict(dataset=3)))
    assert origin_of(caught(check_data, broken, 'train')).phase == (
        'while looking for the data of train'
    )


@pytest.mark.parametrize('name', _PHASES)
def test_a_phase_is_that_of_a_function_that_there_is(name):
    module, function = name.split('.')
    roots = Path(mmkd.__file__).parent, Path(mmengine.__file__).parent
    files = [file for root in roots for file in root.rglob(f'{module}.py')]
    assert any(f'def {function}(' in file.read_text() for file in files)


def test_the_iteration_of_a_training_step():
    def broken_step(*_, **__):
        raise RuntimeError('cuDNN says no')

    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    model = types.SimpleNamespace(train_step=broken_step)
    loop._runner = types.SimpleNamespace(model=model, call_hook=lambda *_, **__: 0, optim_wrapper=0)
    loop._iter = 11
    assert origin_of(caught(loop.run_iter, {})).phase == 'in training iteration 12'


def test_an_error_that_mmengine_wrapped_is_unwrapped():
    def wrapped():
        try:
            {}['palette']
        except KeyError as error:
            raise KeyError(f'class `Coco` in mmdet/x.py: {error}') from error

    assert origin_of(caught(wrapped)).message == "'palette'"


def test_paths_begin_with_their_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short(torch.nn.__file__) == 'torch/nn/__init__.py'
    assert short(mmkd.__file__) == 'mmkd/__init__.py'
    assert short('a/b.py') == 'a/b.py' and short('/nowhere/b.py') == '/nowhere/b.py'
