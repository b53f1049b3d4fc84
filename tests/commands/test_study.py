"""What ``mmkd study`` and ``mmkd train --baseline`` make of their arguments."""

import pytest
from mmengine.config import Config

from mmkd import study as package
from mmkd.commands import study, train
from mmkd.study.entries import Method, Pair, Search
from mmkd.testing import tiny_classifier


@pytest.fixture
def projects(tmp_path, monkeypatch):
    """A folder with configs; what a Project is made of, and what its run returns or raises."""
    monkeypatch.chdir(tmp_path)
    model = tiny_classifier(4)
    Config(dict(model=model)).dump('plain.py')
    distilled = dict(type='mmkd.Distiller', student=model, objectives={})
    Config(dict(model=distilled)).dump('distilled.py')
    Config(dict(methods=['KD'], seeds=[3], options=dict(lr=1, x=1))).dump('all.py')

    class Project:
        made, failed = [], {}

        def __init__(self, given, work_dir, start, say, jobs, command):
            self.study, self.work_dir, self.jobs, self.command = given, work_dir, jobs, command
            self.results = ['a pair']
            Project.made.append(self)

        def run(self):
            if isinstance(Project.failed, BaseException):
                raise Project.failed
            return Project.failed

    monkeypatch.setattr(package, 'Project', Project)
    monkeypatch.setattr('mmkd.study.report.screen', lambda pair: ['the table of', pair])
    return Project


def test_a_study(projects, capsys):
    study.main(['all.py', '--jobs', '2', '--cfg-options', 'lr=2', '--no-baseline'])
    (made,) = projects.made
    assert (made.work_dir, made.jobs, made.study.seeds) == ('work_dirs/all', 2, [3])
    assert made.study.options == dict(lr=2, x=1) and not made.study.baseline
    shown = capsys.readouterr().out
    assert 'the table of\na pair' in shown and 'work_dirs/all/report.md' in shown


def test_a_student_and_methods_by_name(projects):
    words = ['plain.py', '--teacher', 't.py', 't.pth', '--methods', 'KD,KD+AT', '--seeds', '0', '1']
    study.main([*words, '--grid', 'model.objectives.kd.weight=0.1,1', 'model.balance=0.3'])
    (made,) = projects.made
    assert made.work_dir == 'work_dirs/plain_study' and made.study.baseline
    assert made.study.pairs == [Pair('', 't.py', 't.pth', 'plain.py')]
    assert made.study.methods == [Method(objectives='KD'), Method(objectives='KD+AT')]
    assert made.study.seeds == [0, 1]
    assert made.study.grid == {'model.objectives.kd.weight': [0.1, 1], 'model.balance': [0.3]}


def test_methods_for_a_study(projects):
    """Which of its own; by name where it has none."""
    study.main(['all.py', '--methods', 'KD'])
    Config(dict(student='plain.py', teacher='t.py')).dump('bare.py')
    study.main(['bare.py', '--methods', 'KD, CWD'])
    own, bare = (made.study for made in projects.made)
    assert (own.methods, own.only) == ([Method(objectives='KD')], ['KD'])
    assert (bare.methods, bare.only) == ([Method(objectives='KD'), Method(objectives='CWD')], [])


def test_distilled_configs_and_a_search(projects):
    words = ['--search', '2', '--keep', '3', '--metric', 'top1', '--work-dir', 'w', '--resume']
    study.main(['distilled.py', 'distilled.py', *words])
    (made,) = projects.made
    assert [method.config for method in made.study.methods] == 2 * ['distilled.py']
    assert (made.study.search, made.study.metric) == (Search(2, 3), 'top1')
    assert made.work_dir == 'w'


def test_a_failed_run_is_the_exit_status(projects, capsys):
    projects.failed = dict(kd_s0='out of luck')
    with pytest.raises(SystemExit) as end:
        study.main(['all.py'])
    assert end.value.code == 1 and '1 runs failed: kd_s0' in capsys.readouterr().out


def test_ctrl_c_names_the_command_that_goes_on(projects, capsys, monkeypatch):
    projects.failed = KeyboardInterrupt()
    monkeypatch.setattr('sys.argv', ['mmkd', 'study', 'all.py'])
    with pytest.raises(SystemExit) as end:
        study.main(['all.py'])
    assert end.value.code == 130
    assert 'Stopped. To go on: mmkd study all.py' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['plain.py'], 'is a plain student: name one of them'),
        (['plain.py', '--teacher', 't.py'], '--methods FGFI,CWD'),
        (['plain.py', '--methods', 'KD', '--teacher', 'a', 'b', 'c'], 'is a plain student'),
        (['distilled.py', '--methods', 'KD'], 'distilled.py distils already'),
        (['all.py', 'plain.py'], 'is a study, which names its networks itself'),
        (['all.py', '--jobs', '0'], '--jobs'),
        (['all.py', '--launcher', 'pytorch'], 'a study starts its own'),
        (['none.py'], 'none.py'),
    ],
)
def test_wrong_arguments(projects, words, message, capsys):
    with pytest.raises(SystemExit) as end:
        study.main(words)
    assert end.value.code == 1 and message in capsys.readouterr().err
    assert not projects.made


def test_one_method_beside_its_baseline(projects):
    words = ['plain.py', '--teacher', 't.py', 't.pth', '--method', 'CWD', '--baseline']
    train.main([*words, '--cfg-options', 'randomness.seed=2', 'lr=1'])
    train.main(['distilled.py', '--baseline', '--work-dir', 'w'])
    one, other = projects.made
    assert one.study.pairs == [Pair('', 't.py', 't.pth', 'plain.py')]
    assert (one.study.methods, one.study.seeds) == ([Method(objectives='CWD')], [2])
    assert (one.study.options, one.work_dir) == (dict(lr=1), 'work_dirs/plain_study')
    assert (other.study.methods, other.work_dir) == ([Method(config='distilled.py')], 'w')
