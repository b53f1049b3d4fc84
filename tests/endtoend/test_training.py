"""Real runs of two or four steps: train, checkpoint, resume, EMA, score with the stock model."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner as StockRunner
from recipes import MODELS, distilled, python_path, recipe, run

from mmkd.commands.train import main
from mmkd.engine.launch import build_runner, prepare
from mmkd.engine.launch import test as score
from mmkd.teacher import build_model

ROOT = Path(__file__).parents[2]
EMA = [dict(type='EMAHook')]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """For each kind: folder of a run of four steps with EMA, its losses and weights."""
    runs = {}
    for kind in MODELS:
        folder = tmp_path_factory.mktemp(kind)
        config = recipe(
            kind, folder / 'data', folder / 'kd', distilled(kind), custom_hooks=copy.deepcopy(EMA)
        )
        runs[kind] = folder, *run(build_runner(prepare(config)))
    return runs


@pytest.mark.parametrize('kind', list(MODELS))
def test_a_checkpoint_is_a_plain_student(kind, trained):  # GEN-6
    folder, _, _ = trained[kind]
    checkpoint = torch.load(folder / 'kd' / 'iter_4.pth', weights_only=False)
    state = checkpoint['state_dict']
    plain = {k: v for k, v in state.items() if not k.startswith('objectives.')}
    assert not any('teacher' in key for key in state)
    build_model(MODELS[kind]()).load_state_dict(plain, strict=True)
    assert {k.removeprefix('module.') for k in checkpoint['ema_state_dict']} >= plain.keys()


@pytest.mark.parametrize('kind', list(MODELS))
def test_resuming_repeats_the_uninterrupted_losses(kind, trained, tmp_path):
    folder, losses, weights = trained[kind]
    (tmp_path / 'iter_2.pth').write_bytes((folder / 'kd' / 'iter_2.pth').read_bytes())
    (tmp_path / 'iter_4.pth').write_bytes(b'cut off by a crash')
    config = recipe(
        kind, folder / 'data', tmp_path, distilled(kind), custom_hooks=copy.deepcopy(EMA)
    )
    config.resume = True
    resumed, same = run(build_runner(prepare(config)))
    assert resumed == losses[2:]
    assert all(torch.equal(weights[k], same[k]) for k in weights)


@pytest.mark.parametrize('kind', list(MODELS))
def test_stock_and_mmkd_score_the_checkpoint_alike(kind, trained, tmp_path):
    folder, _, _ = trained[kind]
    checkpoint = str(folder / 'kd' / 'iter_4.pth')
    stock = recipe(kind, folder / 'data', tmp_path / 'stock')
    stock.load_from = checkpoint
    expected = StockRunner.from_cfg(stock).test()
    config = recipe(kind, folder / 'data', tmp_path / 'kd', distilled(kind))
    # An untrained detector may see nothing; COCO's metric then gives no number at all.
    assert repr(score(config, checkpoint)) == repr(expected)


def test_the_teacher_may_be_scored_first(trained, tmp_path):
    from mmkd.checks.preflight import score_teacher

    folder, _, _ = trained['pspnet']
    checkpoint = str(folder / 'kd' / 'iter_4.pth')
    model = distilled('pspnet', preflight=dict(score=4))
    model['teacher'] = dict(config=MODELS['pspnet'](), checkpoint=checkpoint)
    runner = build_runner(prepare(recipe('pspnet', folder / 'data', tmp_path / 'a', model)))
    runner.train()
    teacher = runner.model.teachers['teacher']
    stock = recipe('pspnet', folder / 'data', tmp_path / 'b')
    stock.load_from = checkpoint
    expected = StockRunner.from_cfg(stock).test()
    assert score_teacher(runner, teacher, 4)['mIoU'] == pytest.approx(expected['mIoU'])


def test_the_tools_run_from_the_command_line(trained, tmp_path, monkeypatch, capsys):
    folder, _, _ = trained['frcnn']
    stock = recipe('frcnn', folder / 'data', tmp_path / 'unused', iterations=2)
    teacher = recipe('frcnn', folder / 'data', tmp_path / 'unused')
    for name, config in (('stock', stock), ('teacher', teacher)):
        config.pop('work_dir')
        config.pop('experiment_name')
        config.pop('log_level')
        config.dump(tmp_path / f'{name}.py')
    checkpoint = str(folder / 'kd' / 'iter_4.pth')
    wrap = ['--teacher', 'teacher.py', checkpoint, '--method', 'FGFI']
    done = _tool(tmp_path, 'train.py', 'stock.py', *wrap, '--work-dir', 'out')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'out' / 'iter_2.pth').is_file()
    assert "type='mmkd.FGFI'" in (tmp_path / 'out' / 'distil_fgfi.py').read_text()
    check_the_screen(done, next((tmp_path / 'out').glob('*/*.log')).read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(['out/distil_fgfi.py', '--cfg-options', 'model.teacher.dtype=f'])
    errors = capsys.readouterr().err
    assert end.value.code == 1 and 'Traceback' not in errors and 'dtype must be one of' in errors


def check_the_screen(done, log):
    """A person's lines on the screen, all the rest in the log file."""
    lines = done.stdout.splitlines()
    steps = [line for line in lines if line.startswith('step ')]
    assert [line.split()[1] for line in steps] == ['1/2', '2/2']
    assert all('  task ' in line and '  kd.fgfi.loss ' in line and ' %)' in line for line in steps)
    assert lines.index(steps[0]) <= 25
    told = [line.split()[0] for line in lines if line not in steps]
    assert [name for name in told if name != 'warning:'] == [
        *('student', 'teacher', 'fgfi', 'log', 'data', 'training'),
        *('validation', 'done', 'last', 'next'),
    ]
    for text in ('System environment', '(train)', 'loading annotations', 'index created'):
        assert text in log and text not in done.stdout
    for noise in ('OneDL', 'deprecated', 'faster_coco_eval', 'Warning:'):
        assert noise not in done.stdout + done.stderr
    assert lines[-1].endswith('tools/test.py out/stock.py out/iter_2.pth')


def _tool(folder, name, *arguments):
    environment = dict(os.environ, PYTHONPATH=python_path(ROOT), OMP_NUM_THREADS='1')
    command = [sys.executable, str(ROOT / 'tools' / name), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_activation_checkpointing_that_loses_the_backbones_gradient_stops_the_run(tmp_path):
    model = distilled('retinanet')
    config = recipe('retinanet', tmp_path / 'data', tmp_path / 'kd', model, iterations=1)
    config.activation_checkpointing = ['backbone']
    message = "no gradient reached any of the .* trained parameters of 'backbone'"
    with pytest.raises(RuntimeError, match=message):
        run(build_runner(prepare(config)))
