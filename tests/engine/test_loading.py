"""load_from takes what fits and says what not, in three lines; resume takes all or refuses."""

from collections import OrderedDict

import pytest
import torch
from mmengine.hooks import Hook
from runner_toys import Net, log_of, make

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.extract import extract
from mmkd.checkpoint.fitting import load_weights
from mmkd.checkpoint.partial import load_some
from mmkd.checkpoint.weights import weights_in
from mmkd.distiller import Distiller
from mmkd.engine.loading import check_complete
from mmkd.methods.cwd import CWD
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A checkpoint of a run of one epoch, with a schedule."""
    folder = tmp_path_factory.mktemp('finished')
    make(folder, **SHORT).train()
    return torch.load(folder / 'epoch_1.pth', weights_only=False)


SHORT = dict(
    train_cfg=dict(by_epoch=True, max_epochs=1),
    param_scheduler=[dict(type='ConstantLR', factor=1.0)],
)
LONG = dict(SHORT, train_cfg=dict(by_epoch=True, max_epochs=2))


def write(checkpoint, folder, **changes):
    """A file of that checkpoint with other entries; None removes one."""
    folder.mkdir(exist_ok=True)
    kept = {k: v for k, v in (dict(checkpoint) | changes).items() if v is not None}
    torch.save(kept, folder / 'file.pth')
    return str(folder / 'file.pth')


def start(path, folder, **changes):
    runner = make(folder, load_from=path, log_level='INFO', **(SHORT | changes))
    runner.call_hook('before_run')
    runner.load_or_resume()
    return runner


# ---------------------------------------------------------------------------------------- load_from


def test_one_line_if_all_fits(finished, tmp_path):
    wrapped = {f'student.{k}': v for k, v in finished['state_dict'].items()}
    path = write({}, tmp_path / 'in', model=wrapped)
    runner = start(path, tmp_path)
    text = f"load_from {path}: all 2 weights of Net were loaded, found under 'student.'\n"
    assert text in log_of(runner)
    wanted = weights_in(finished)
    assert all(torch.equal(v, wanted[k]) for k, v in runner.model.state_dict().items())


def test_three_lines_if_a_part_fits(finished, tmp_path, capsys):
    spoilt = dict(finished['state_dict'], other=torch.ones(1), another=torch.ones(1))
    spoilt['body.0.bias'] = torch.ones(3)
    average = dict(custom_hooks=[dict(type='EMAHook')])
    runner = start(write(finished, tmp_path / 'in', state_dict=spoilt), tmp_path, **average)
    lines = log_of(runner).split('load_from ')[1].split('\n')[:4]
    assert lines[0].endswith('file.pth: 1 of 2 weights of Net were loaded')
    assert lines[1:3] == [
        '1 of another shape: body.0.bias (file (3,), model (2,))',
        '2 not in the model: other, another',
    ]
    assert 'do not match exactly' not in capsys.readouterr().out
    (ema,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    for key, value in ema.ema_model.module.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[key])


def test_nothing_that_fits_is_refused(finished, tmp_path):
    other = {f'backbone.{i}': torch.ones(2) for i in range(4)}
    with pytest.raises(ValueError, match='none of its 4 weights .backbone.0, backbone.1, ….*fits'):
        start(write({}, tmp_path / 'in', state_dict=other), tmp_path)
    part = Net().body.state_dict()
    with pytest.raises(ValueError, match="those of its body alone: give that init_cfg=dict.type='"):
        start(write({}, tmp_path / 'in', state_dict=part), tmp_path)


def test_other_pixels_are_refused_unless_the_weights_are_taken_out(finished, tmp_path):
    old = dict(finished['state_dict'], **{'data_preprocessor.mean': torch.tensor([1.0, 2, 3])})
    path = write(finished, tmp_path / 'in', state_dict=old)
    with pytest.raises(ValueError, match=r'mean = .1.0, 2.0, 3.0., the config has .0.0.* weights'):
        start(path, tmp_path)
    extract(path, str(tmp_path / 'weights.pth'), '')
    assert 'all 2 weights' in log_of(start(str(tmp_path / 'weights.pth'), tmp_path))


@pytest.fixture
def distilled():
    """A Distiller whose objective learns."""
    teacher = Teacher(ToyNet(6), checkpoint='random')
    return Distiller(ToyNet(), dict(cwd=CWD(student='neck', tau=1)), teacher)


def test_a_plain_file_is_all_that_a_distilled_student_needs(distilled, log):
    state = ToyNet().state_dict()
    load_some(distilled, dict(model=state), 'file.pth')
    assert f'load_from file.pth: all {len(state)} weights of ToyNet were loaded' in log.text
    assert all(torch.equal(distilled.state_dict()[k], v) for k, v in state.items())
    with pytest.raises(CheckpointError, match='4 missing in the file: objectives.cwd.adapters.0'):
        check_complete(load_weights(distilled, OrderedDict(state)), 'file.pth')
    check_complete(load_weights(distilled, distilled.state_dict()), 'file.pth')


def test_strict_asks_for_all(finished, tmp_path):
    path = write(finished, tmp_path / 'in', state_dict={'body.0.bias': torch.ones(2)})
    runner = make(tmp_path, **SHORT)
    with pytest.raises(ValueError, match='strict=True. wants all weights, but load_from'):
        runner.load_checkpoint(path, strict=True)
    path = write(finished, tmp_path / 'in', state_dict={'0.bias': torch.ones(2)})
    runner.load_checkpoint(path, revise_keys=[('^', 'body.')])
    assert torch.equal(runner.model.body[0].bias, torch.ones(2))


def test_hooks_may_rename_before_it_is_loaded(finished, tmp_path):
    class Rename(Hook):
        def after_load_checkpoint(self, runner, checkpoint):
            state = checkpoint['state_dict']
            state['body.0.bias'] = state.pop('body.0.offset')

    state = dict(finished['state_dict'])
    state['body.0.offset'] = state.pop('body.0.bias')
    path = write(finished, tmp_path / 'in', state_dict=state)
    assert 'all 2 weights' in log_of(start(path, tmp_path, custom_hooks=[Rename()]))


# ------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda s: s.pop('body.0.bias'), 'another Net: 1 missing in the file: body.0.bias'),
        (lambda s: s.update({'body.0.bias': torch.ones(3)}), '1 of another shape: body.0.bias'),
        (lambda s: s.update({'data_preprocessor.mean': torch.ones(3)}), 'trained with data_prep'),
    ],
)
def test_a_run_goes_on_with_all_its_weights(finished, tmp_path, change, told):
    state = dict(finished['state_dict'])
    change(state)
    path = write(finished, tmp_path / 'in', state_dict=state)
    with pytest.raises(CheckpointError, match=f'cannot resume from .*{told}.*without resume'):
        make(tmp_path, load_from=path, resume=True, **LONG).train()


@pytest.mark.parametrize('missing', ['optimizer', 'param_schedulers'])
def test_a_run_goes_on_with_its_optimiser_and_schedules(finished, tmp_path, missing):
    path = write(finished, tmp_path / 'in', **{missing: None})
    with pytest.raises(CheckpointError, match=f'saved without {missing}, so the run would'):
        make(tmp_path, load_from=path, resume=True, **LONG)


def test_a_run_without_schedules_needs_none(finished, tmp_path):
    state = dict(finished['state_dict'], spare=torch.ones(1))
    path = write(finished, tmp_path / 'in', param_schedulers=None, state_dict=state)
    runner = make(tmp_path, load_from=path, resume=True, **(LONG | dict(param_scheduler=None)))
    runner.train()
    assert runner.epoch == 2 and 'file.pth: 1 not in the model: spare' in log_of(runner)
