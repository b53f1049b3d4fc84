"""A whole study: with fake trainers, and once with real ones."""

import csv
import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chain_toys import recipe
from study_toys import Ended, FakeStart

from mmkd.analysis import complexity
from mmkd.chain.folders import OtherStageError
from mmkd.chain.product import read_json
from mmkd.study import Project, Study, processes, worker
from mmkd.study import study as module
from mmkd.study.pairing import rows_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No pause between looks at processes, and no network is built to see whether it fits."""
    monkeypatch.setattr(processes, 'PAUSE', 0)


@pytest.fixture
def study(paths, tmp_path, monkeypatch):
    """Runs a study of some entries on distilled configs; returns what it said, and its failures."""
    monkeypatch.setattr(module, 'rows_of', lambda *args: rows_of(*args, lambda row: None))

    def run(start, jobs=1, amp=False, **entries):
        said = []
        given = dict(teacher=paths['teacher'], methods=dict(kd=paths['student']), seeds=[0, 1])
        project = Project(
            Study.read(given | entries), str(tmp_path / 's'), start, said.append, jobs, amp=amp
        )
        return said, project.run()

    return run


def rows(tmp_path):
    found = csv.DictReader((tmp_path / 's' / 'report.csv').open())
    return {row['row']: row for row in found}


def test_everything_is_trained_once(study, tmp_path):
    start, again = (FakeStart(dict(teacher=80, plain=40, kd=60)) for _ in range(2))
    _, failed = study(start)
    trained = ['teacher', 'plain_s0', 'kd_s0', 'plain_s1', 'kd_s1']
    assert start.calls == [('train', name) for name in trained] + [('costs', 'costs')]
    found = rows(tmp_path)['kd']
    assert (found['seed_0'], found['seed_1'], found['gain'], failed) == ('60', '61', '20', {})
    assert float(found['share_of_gap']) == pytest.approx(20 / 39.5, rel=1e-5)
    assert (found['step_x_plain'], found['minutes']) == ('1.5', '2')
    assert (tmp_path / 's' / 'report.png').stat().st_size > 1000
    said, _ = study(again)
    assert [name for job, name in again.calls if job == 'train'] == []
    assert said[:2] == ['teacher: done already', 'plain_s0: done already']


def test_commands_repeat_the_switches_of_the_study(study, tmp_path):
    study(FakeStart(dict(teacher=80, plain=40, kd=60)), amp=True, seeds=[0])
    found = rows(tmp_path)
    assert all(' --amp --cfg-options ' in found[name]['command'] for name in found)
    page = (tmp_path / 's' / 'report.md').read_text()
    commands = [line for line in page.splitlines() if line.startswith('mmkd train ')]
    assert len(commands) == 3 and all(' --amp ' in line for line in commands)


def test_more_seeds_and_methods_later(study, paths):
    study(FakeStart({}), seeds=[0])
    start = FakeStart({})
    study(start, seeds=[0, 2], methods=dict(kd=paths['student'], b=paths['student']))
    names = [name for job, name in start.calls if job == 'train']
    assert names == ['b_s0', 'plain_s2', 'kd_s2', 'b_s2']


def test_some_of_the_methods_first(study, paths, tmp_path):
    both = {'a': paths['student'], 'b+c': paths['student']}
    for only, trained in (
        (['B + C'], ['teacher', 'plain_s0', 'b_c_s0']),
        (['a'], ['a_s0']),
    ):
        start = FakeStart({})
        study(start, methods=both, seeds=[0], only=only)
        assert [name for job, name in start.calls if job == 'train'] == trained
    assert [*rows(tmp_path)] == ['teacher', 'plain', 'a', 'b+c'], 'and those that are finished'
    with pytest.raises(ValueError, match="the study has no 'c'; it has a, b.c"):
        study(start, methods=both, only=['c'])


def test_a_record_for_the_results(study, tmp_path):
    study(FakeStart(dict(teacher=80, plain=40, kd=60)))
    found = read_json(str(tmp_path / 's' / 'report.json'))
    assert found['command'] == 'mmkd study' and found['seeds'] == [0, 1]
    assert found['versions'].keys() >= {'mmkd', 'torch', 'mmengine'}
    assert [one['row'] for one in found['rows']] == ['teacher', 'plain', 'kd']
    assert found['rows'][2]['gain'] == '20' and '' not in found['rows'][0].values()
    assert '--work-dir work_dirs/s/kd_s0' in found['rows'][2]['command']
    assert str(tmp_path / 's') not in str(found)


def test_an_interrupted_study_goes_on(study):
    with pytest.raises(KeyboardInterrupt):
        study(FakeStart({}, cut=('kd_s0',)))
    start = FakeStart({})
    study(start)
    assert [name for _, name in start.calls] == ['kd_s0', 'plain_s1', 'kd_s1', 'costs']


def test_a_second_study_is_refused_while_the_first_runs(study, tmp_path):
    (tmp_path / 's').mkdir()
    hold = f"""
import sys
from mmkd.engine.occupied import occupied
with occupied({str(tmp_path / 's')!r}):
    print('held', flush=True)
    sys.stdin.read()
"""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, '-c', hold], **pipes) as other:
        assert other.stdout.readline() == b'held\n'
        start = FakeStart({})
        message = f'another study is running in .*: process {other.pid} on .*--jobs N.*--work-dir'
        with pytest.raises(ValueError, match=message):
            study(start)
        assert start.calls == [] and not (tmp_path / 's' / 'study.json').exists()
        other.kill()
    study(start)
    assert start.calls and not (tmp_path / 's' / '.running').exists(), 'a killed one is none'


def test_another_config_is_noticed_before_anything_is_trained(study):
    study(FakeStart({}))
    start = FakeStart({})
    with pytest.raises(OtherStageError, match=r'train_cfg.max_epochs 2 -> 1'):
        study(start, options={'train_cfg.max_epochs': 1})
    assert start.calls == []


def test_a_run_that_fails(study, tmp_path):
    said, failed = study(FakeStart(dict(plain=40, kd=60), bad=('kd_s1',)))
    assert failed == dict(kd_s1='out of luck')
    assert any(text.startswith('kd_s1: failed: out of luck (') for text in said)
    found = rows(tmp_path)['kd']
    assert (found['status'], found['seed_0'], found['gain']) == ('failed: out of luck', '60', '20')


@pytest.mark.parametrize('more', [{}, dict(search={})], ids=['', 'search'])
def test_a_teacher_that_fails_takes_its_students_with_it(study, tmp_path, more):
    start = FakeStart({}, bad=('teacher',))
    _, failed = study(start, **more)
    networks = read_json(str(tmp_path / 's' / 'study.json'))['networks']
    assert 'teacher' not in networks['costs'], 'which has no weights'
    assert [name for _, name in start.calls] == ['teacher', 'plain_s0', 'plain_s1', 'costs']
    assert [*failed] == ['teacher', 'kd_s0', 'kd_s1'], 'the plain students need no teacher'
    assert rows(tmp_path)['kd']['status'] == 'failed: teacher failed before'


def test_a_teacher_that_came_with_weights_is_scored(study, paths, tmp_path):
    start = FakeStart(dict(teacher=90))
    given = dict(config=paths['teacher'], checkpoint='t.pth')
    study(start, teacher=given, seeds=[1], metric='top1')
    assert start.calls[0] == ('score', 'teacher') and start.calls[1] == ('train', 'plain_s1')
    assert rows(tmp_path)['teacher']['seed_1'] == '90'
    again = FakeStart({})
    study(again, teacher=given, seeds=[1], metric='top1')
    assert ('score', 'teacher') not in again.calls, 'it is known'


def test_other_weights_of_a_teacher_are_scored_anew(study, paths, tmp_path):
    """The table kept the score of those before."""
    for checkpoint, score in (('t.pth', 90), ('u.pth', 80)):
        given = dict(config=paths['teacher'], checkpoint=checkpoint)
        study(FakeStart(dict(teacher=score)), teacher=given, seeds=[1], metric='top1')
        assert rows(tmp_path)['teacher']['seed_1'] == str(score)
        for run in ('plain_s1', 'kd_s1'):  # as the message about another config says
            shutil.rmtree(tmp_path / 's' / run)


def test_options_of_the_model_are_the_students(study, tmp_path):
    study(FakeStart({}), seeds=[0], options={'model.task_weight': 0.5, 'train_cfg.max_epochs': 1})
    runs = read_json(str(tmp_path / 's' / 'study.json'))['runs']
    shown = {name: set(stages[name]['options']) for name, stages in runs.items()}
    assert shown['teacher'] == {'train_cfg.max_epochs', 'randomness.seed'}
    assert 'model.task_weight' in shown['kd_s0']


def test_a_grid_and_a_search(study, tmp_path):
    start = FakeStart(dict(kd_tau_1=2.0, kd_tau_2=1.0))
    said, _ = study(start, seeds=[0], grid={'model.objectives.kd.tau': [1, 2]}, search={})
    jobs = [('probe', 'kd_tau_1_e1'), ('probe', 'kd_tau_2_e1'), ('train', 'plain_s0')]
    assert start.calls[1:5] == [*jobs, ('train', 'kd_tau_2_s0')]
    found = rows(tmp_path)['kd, tau=1']
    assert found['status'] == 'left out after 1 epoch of short runs'
    assert 'held-out loss' in (tmp_path / 's' / 'report.md').read_text()


def test_several_pairs(study, paths, tmp_path):
    entry = dict(teacher=paths['teacher'])
    start = FakeStart(dict(a_kd=3, b_kd=4))
    study(start, teacher=None, pairs=dict(a=entry, b=entry), seeds=[0])
    names = [name for job, name in start.calls if job == 'train']
    assert names == ['a_teacher', 'a_plain_s0', 'a_kd_s0', 'b_plain_s0', 'b_kd_s0'], 'one teacher'
    assert [name for job, name in start.calls if job == 'costs'] == ['a_costs', 'b_costs']
    assert '## b' in (tmp_path / 's' / 'report.md').read_text()


def test_missing_data_and_other_metrics_end_it_at_once(study, paths, images, tmp_path):
    start = FakeStart({})
    with pytest.raises(FileNotFoundError, match='nowhere'):
        study(start, options={'train_dataloader.dataset.data_root': str(tmp_path / 'nowhere')})
    other = str(tmp_path / 'other.py')
    recipe(images, 8, **{'val_evaluator.type': 'mmkd.Other'}).dump(other)
    with pytest.raises(ValueError, match='no evaluator in common.*teacher: Other; plain: Acc'):
        study(start, teacher=other)
    assert start.calls == []


def in_this_process(task, slot, at_once):
    """The worker of a task, without a process."""
    work_dir, job, name = task.words
    Path(task.log).parent.mkdir(parents=True, exist_ok=True)
    worker.JOBS[job](work_dir, name, read_json(f'{work_dir}/study.json'))
    return Ended()


def test_two_real_runs_and_a_probe(pair, tmp_path, monkeypatch):
    """Teacher, plain student and the better of two by a short run, on a dozen pictures."""
    monkeypatch.setattr(complexity, 'ROUNDS', (1, 1))
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)  # half of the seconds
    options = {'train_cfg.max_epochs': 1}
    entries = dict(pair, methods=['KD', 'DKD'], options=options, search={})
    work_dir = str(tmp_path / 's')
    assert Project(Study.read(entries), work_dir, in_this_process, lambda text: None).run() == {}
    found = rows(tmp_path)
    assert list(found) == ['teacher', 'plain', 'KD', 'DKD']
    trained = [row for row in found.values() if row['status'] == 'done']
    assert len(trained) == 3 and all(float(row['step_s']) > 0 for row in trained)
    sizes = [float(found[row]['parameters (M)']) for row in ('teacher', 'plain')]
    assert sizes[0] > sizes[1] > 0 and float(found['plain']['latency (ms)']) > 0
    losses = [read_json(path)['loss'] for path in Path(work_dir, 'search').glob('*.json')]
    assert len(losses) == 2 and losses[0] != losses[1]
    # The teacher alone, of which the weights are known: its score is measured, not read.
    weights = read_json(f'{work_dir}/teacher/done.json')['product']['checkpoint']
    given = dict(config=pair['teacher'], checkpoint=weights)
    rows_of_other = Study.read(entries | dict(teacher=given, methods=['KD'], search=None))
    again = Project(rows_of_other, str(tmp_path / 't'), in_this_process, lambda text: None)
    (one,) = rows_of(again.study, again.work_dir)
    again._write([one])
    in_this_process(again._task('teacher', 'score'), 0, 1)
    scored = read_json(f'{again.work_dir}/teacher/scored.json')['scores']
    assert scored['top1'] == pytest.approx(float(found['teacher']['mean']), rel=1e-4)
