"""The demo: its configs, what it says, what it skips. Training is left out: seconds count."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import DefaultScope

from mmkd.analysis import demo as module
from mmkd.teacher import build_model


@pytest.fixture
def demo():
    return module


@pytest.fixture
def finished(demo, tmp_path):
    """A demo whose three runs have left their histories."""
    demo = demo.Demo(tmp_path, quick=True)
    scores = dict(teacher=[40.0, 60.0], plain=[20.0, 40.0], fgfi=[25.0, 45.0])
    for run, score in scores.items():
        (tmp_path / run).mkdir()
        step = dict(teacher=0.4, plain=0.1, fgfi=0.15)[run]
        history = dict(scores={'1': [1.0, 2.0], '2': score}, steps=[9.0, step, step], cost='')
        (tmp_path / run / 'history.json').write_text(json.dumps(history))
    return demo


def test_schedules_are_identical_and_only_the_weight_differs(demo, tmp_path):
    one = demo.Demo(tmp_path)
    teacher, plain, fgfi = (one.config(run) for run in ('teacher', 'plain', 'fgfi'))
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'randomness'):
        assert teacher[key] == plain[key] == fgfi[key]
    assert plain.model.objectives.fgfi.weight == 0 < fgfi.model.objectives.fgfi.weight
    plain.model.objectives.fgfi.weight = fgfi.model.objectives.fgfi.weight
    assert plain.model == fgfi.model


def test_everything_lies_in_one_folder(demo, tmp_path):
    config = demo.Demo(tmp_path).config('fgfi')
    assert config.train_dataloader.dataset.data_root == f'{tmp_path}/data/'
    assert config.model.teacher.checkpoint.startswith(str(tmp_path / 'teacher'))
    assert 'work_dirs' not in f'{config.train_dataloader} {config.val_evaluator}'


def test_the_default_paths_are_those_of_the_configs(demo):
    """The commands that the demo prints do the same without it."""
    one = demo.Demo(Path('work_dirs/demo'))
    config = demo.load(demo.RUNS['fgfi'][0])
    assert one.config('fgfi').model == config.model
    assert one.command('plain').endswith('--cfg-options model.objectives.fgfi.weight=0')


def test_the_teacher_is_the_larger_network(demo, tmp_path):
    one = demo.Demo(tmp_path)
    teacher, student = (build_model(one.config(run)) for run in ('teacher', 'plain'))
    count = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    assert count[0] > 4 * count[1]


def test_the_table(finished):
    lines = finished.table(dict(teacher=(2.0, 0.4), plain=(0.3, 0.1), fgfi=(0.3, 0.1)))
    assert '   40.0   60.0       2.00 M    0.400    400 ms' in lines[2]
    assert lines[4].startswith('FGFI student') and lines[4].endswith('= 1.50 x plain')


@pytest.mark.parametrize(
    ('plain', 'fgfi', 'says'),
    [
        (20, 25, '+5.0 AP, 25 % of the gap'),
        (20, 19, 'did not help this time: -1.0 AP'),
        (50, 51, '+1.0 AP.'),
    ],
)
def test_the_verdict_is_honest(demo, plain, fgfi, says):
    scores = dict(teacher=[40.0, 0], plain=[float(plain), 0], fgfi=[float(fgfi), 0])
    assert says in demo.verdict(scores, quick=False)
    assert 'mean anything' in demo.verdict(scores, quick=True)


def test_what_is_done_is_not_done_again(demo, finished, capfd):
    done = SimpleNamespace(links=SimpleNamespace(products=dict(teacher=None)))
    finished.train(done, 2, 'teacher')
    assert 'done already' in capfd.readouterr().out


def test_the_runs_are_stages_of_a_chain(demo, finished, monkeypatch):
    """Each is trained alone, for its own lines; the teacher is that of the first."""
    calls = []

    class Chain:
        def __init__(self, stages, work_dir, seed):
            self.links = SimpleNamespace(products={})
            calls.append((stages, work_dir, seed))

        def run(self, only, hooks):
            calls.append((only, [type(hook) for hook in hooks(None)]))

    monkeypatch.setattr(demo, 'Chain', Chain)
    chain = finished.chain()
    stages, *rest = calls[0]
    assert rest == [str(finished.out), 0]
    assert list(stages) == ['teacher', 'plain', 'fgfi']
    assert [entry.get('teacher') for entry in stages.values()] == [None, 'teacher', 'teacher']
    assert stages['plain']['options']['model.objectives.fgfi.weight'] == 0
    finished.train(chain, 3, 'plain')
    assert calls[1:] == [('plain', [demo.DemoProgress])]


def test_another_seed_starts_afresh(demo, finished, monkeypatch):
    """A run of other settings is thrown away, not resumed."""
    stale = finished.out / 'teacher' / 'epoch_1.pth'
    stale.write_text('')

    def checked(stages, work_dir, seed):
        if stale.exists():
            raise demo.OtherStageError('other', str(stale.parent))
        return 'the chain'

    monkeypatch.setattr(demo, 'Chain', checked)
    assert finished.chain() == 'the chain' and not stale.parent.exists()
    assert (finished.out / 'plain').exists()


def test_the_last_step_has_the_scope_of_the_runs(demo, finished, monkeypatch):
    """A chain takes back what its runs leave behind, the default scope too."""
    done = SimpleNamespace(links=SimpleNamespace(products=dict.fromkeys(demo.RUNS)))
    seen = []

    def look(*args):
        seen.append(DefaultScope.get_current_instance().scope_name)
        return []

    monkeypatch.setattr(demo, 'write_coco', lambda *args, **options: None)
    for name, value in dict(
        forget_other_data=lambda: None, chain=lambda: done, complexity=look, picture=look
    ).items():
        monkeypatch.setattr(finished, name, value)
    monkeypatch.setattr(finished, 'table', lambda costs: [])
    finished.run()
    assert seen == 4 * ['mmdet']


def test_other_data_throw_the_runs_away(demo, finished):
    data = finished.out / 'data'
    data.mkdir()
    for text, left in (('a', True), ('a', True), ('b', False)):
        (data / demo.MARKER).write_text(text)
        finished.forget_other_data()
        assert (finished.out / 'teacher' / 'history.json').exists() == left


def test_progress_of_a_run_that_goes_on_at_a_validation(demo, tmp_path, capfd, monkeypatch):
    """Nothing was trained yet in this call; what came before is known from the file."""
    history = dict(scores={'2': [10.0, 20.0]}, steps=[0.1], loss=1.5, cost='')
    (tmp_path / 'history.json').write_text(json.dumps(history))
    monkeypatch.setattr(demo.time, 'time', lambda: 160.0)
    hook = demo.DemoProgress(began=100.0, before=0.1, share=0.4, after=0.2)
    runner = SimpleNamespace(work_dir=str(tmp_path), epoch=4, max_epochs=8)
    hook.before_train(runner)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.123, 'coco/bbox_mAP_50': 0.25})
    # 0.1 of the work took a minute; half of 0.4 and 0.2 are left.
    said = capfd.readouterr().out
    assert 'loss  1.500   AP 12.3  AP50 25.0    1.0 min done, about 4.0 left' in said
    assert json.loads((tmp_path / 'history.json').read_text())['scores'] == {
        '2': [10.0, 20.0],
        '4': [12.3, 25.0],
    }
