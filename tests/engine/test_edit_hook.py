"""What a checkpoint holds of an edited student, and what a resumed run takes back."""

import copy
import shutil

import pytest
import torch
from teacher_toys import assert_same, make, student, train

from mmkd.adapters.fake_quant import bake
from mmkd.engine.edit_hook import take_back
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier

EDIT = dict(type='mmkd.FakeQuant', bits=3, form='asymmetric')
AVERAGE = dict(type='EMAHook', momentum=0.3)


def model(*edits, **options):
    return dict(
        type='mmkd.Distiller',
        student=student(),
        teacher=dict(config=tiny_classifier(8), checkpoint='random'),
        objectives=dict(kd=dict(type='mmkd.KD')),
        preflight=False,
        edits=list(edits),
        **options,
    )


def edited_run(folder, edits=(EDIT,), hooks=(AVERAGE,), **options):
    return train(folder, model=model(*edits), hooks=[copy.deepcopy(h) for h in hooks], **options)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Runner, folder and the last checkpoint of six steps."""
    folder = tmp_path_factory.mktemp('edited')
    runner = edited_run(folder, steps=6)
    return runner, folder, torch.load(folder / 'iter_6.pth', weights_only=False)


def test_weights_are_those_that_are_deployed(trained):
    runner, _, checkpoint = trained
    latent, state = checkpoint['edits']['latent'], checkpoint['state_dict']
    plain = build_model(student())
    plain.load_state_dict(state, strict=True)
    layers = {k for k in state if state[k].dim() > 1 and not k.startswith('objectives.')}
    assert set(latent) == layers and len(layers) > 8
    assert all(not torch.equal(latent[k], state[k]) for k in latent)
    channel = state['backbone.layer1.0.conv1.weight'][0]
    assert len(channel.unique()) <= 8 < len(latent['backbone.layer1.0.conv1.weight'][0].unique())


def test_averages_are_baked_and_latent_ones_kept(trained):
    """EMAHook writes averages as the weights, and what trains as ``ema_state_dict``."""
    runner, _, checkpoint = trained
    hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    average = hook.ema_model.module.state_dict()
    key = 'backbone.layer1.0.conv1.weight'
    assert torch.equal(checkpoint['edits']['latent'][key], average[key])
    assert torch.equal(checkpoint['state_dict'][key], bake(runner.model, average)[key])
    moving = checkpoint['ema_state_dict'][f'module.{key}']
    assert torch.equal(moving, runner.model.state_dict()[key])
    assert not torch.equal(moving, average[key])


def test_a_resumed_run_ends_as_one_that_did_not_stop(trained, tmp_path):
    runner, folder, whole = trained
    shutil.copy(folder / 'iter_3.pth', tmp_path)
    torch.manual_seed(99)
    again = edited_run(tmp_path, steps=6, resume=True)
    assert again.watch.losses == {i: runner.watch.losses[i] for i in (3, 4, 5)}
    assert_same(runner, again)
    other = torch.load(tmp_path / 'iter_6.pth', weights_only=False)
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(v, other[key][k]) for k, v in whole[key].items())


def test_a_run_with_other_edits_is_not_resumed(trained, tmp_path):
    shutil.copy(trained[1] / 'iter_3.pth', tmp_path)
    words = "edits are .*'bits': 3.* in the checkpoint and .*'bits': 4.* in this run. Resume with"
    with pytest.raises(ValueError, match=words):
        edited_run(tmp_path, [dict(EDIT, bits=4)], steps=6, resume=True)
    with pytest.raises(ValueError, match="'bits': 3.* in the checkpoint and none in this run"):
        edited_run(tmp_path, [], steps=6, resume=True)


def test_load_from_starts_from_what_is_deployed(trained, tmp_path):
    folder, checkpoint = trained[1:]
    runner = make(tmp_path, model=model(EDIT), load_from=str(folder / 'iter_6.pth'), steps=1)
    runner.load_or_resume()
    state = runner.model.state_dict()
    assert all(torch.equal(v, checkpoint['state_dict'][k]) for k, v in state.items())
    baked = bake(runner.model, state)
    assert all(torch.equal(v, state[k]) for k, v in baked.items()), 'quantised once, not twice'


def test_a_file_that_no_run_resumes_has_no_latent_weights(tmp_path):
    runner = edited_run(tmp_path, hooks=(), steps=1, save=dict(save_optimizer=False))
    held = torch.load(tmp_path / 'iter_1.pth', weights_only=False)
    assert 'edits' not in held
    baked = bake(runner.model, runner.model.state_dict())
    assert all(torch.equal(held['state_dict'][k], v) for k, v in baked.items())


def test_bits_of_float_are_no_edit(tmp_path):
    runs = [
        edited_run(tmp_path / str(i), e, (), steps=3)
        for i, e in enumerate(([], [dict(EDIT, bits=None)]))
    ]
    assert runs[0].watch.losses == runs[1].watch.losses
    assert_same(*runs)
    assert 'edits' not in torch.load(tmp_path / '0' / 'iter_3.pth', weights_only=False)


def test_an_edited_model_without_a_distiller_is_baked_too(tmp_path):
    plain = dict(type='mmkd.Edited', model=student(), edits=[EDIT])
    train(tmp_path, model=plain, steps=2)
    held = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert held['edits']['edits'] == [['student', EDIT]]
    build_model(student()).load_state_dict(held['state_dict'], strict=True)


def test_an_odd_record_of_edits_is_another_one():
    with pytest.raises(ValueError, match='edits are 5 in the checkpoint and none in this run'):
        take_back(ToyNet(), dict(edits=dict(edits=5), state_dict={}))


@pytest.mark.parametrize('options', [dict(form='lsq'), dict(form='points'), dict(acts=8)])
def test_learned_numbers_are_resumed(tmp_path, options):
    edit = dict(type='mmkd.FakeQuant', bits=3, **options)
    whole = edited_run(tmp_path / 'whole', [edit], (), steps=4)
    (tmp_path / 'again').mkdir()
    shutil.copy(tmp_path / 'whole' / 'iter_2.pth', tmp_path / 'again')
    again = edited_run(tmp_path / 'again', [edit], (), steps=4, resume=True)
    assert again.watch.losses == {i: whole.watch.losses[i] for i in (2, 3)}
    assert_same(whole, again)
    held = torch.load(tmp_path / 'whole' / 'iter_4.pth', weights_only=False)['state_dict']
    assert any(key.startswith('edits.') for key in held)
    plain = build_model(student())
    state = {key: v for key, v in held.items() if not key.startswith('edits.')}
    plain.load_state_dict(state, strict=True)
    if 'form' in options:
        x = torch.randn(2, 3, 16, 16)
        assert torch.equal(plain.eval()(x), whole.model.student.eval()(x))
