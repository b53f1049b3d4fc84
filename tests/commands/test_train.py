"""What ``mmkd train`` makes of its arguments."""

import pytest
from mmengine.config import Config

from mmkd.commands import train
from mmkd.config import load_config
from mmkd.engine import launch
from mmkd.testing import tiny_retinanet


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A folder with a config of a student, where the command is typed."""
    monkeypatch.chdir(tmp_path)
    Config(dict(default_scope='mmdet', model=tiny_retinanet(4))).dump('student.py')
    return tmp_path


def read(*words):
    return train.read(train.parser().parse_args(words))


@pytest.mark.parametrize(
    ('words', 'resume', 'load_from'),
    [([], None, None), (['--resume'], True, None), (['--resume', 'a.pth'], True, 'a.pth')],
)
def test_from_where_to_go_on(plain, words, resume, load_from):
    config, _ = read('student.py', *words)
    assert config.get('resume') == resume and config.get('load_from') == load_from


def test_the_work_dir(plain):
    assert read('student.py')[1] == 'work_dirs/student'
    assert read('student.py', '--cfg-options', 'work_dir=own')[1] == 'own'
    assert read('student.py', '--cfg-options', 'work_dir=own', '--work-dir', 'mine')[1] == 'mine'


def test_a_wrapped_config_is_written_beside_its_run(plain):
    words = ['student.py', '--teacher', 'student.py', 'random', '--method', 'mmkd.CWD']
    config, work_dir = read(*words)
    assert work_dir == 'work_dirs/student_distil_cwd', 'not that of the plain training'
    written = load_config(f'{work_dir}/distil_cwd.py')
    assert written.model.to_dict() == config.model.to_dict()
    assert list(config.model.objectives) == ['cwd']
    assert read(*words, '--work-dir', 'mine')[1] == 'mine'
    assert (plain / 'mine' / 'distil_cwd.py').is_file()


def test_the_run_gets_all_of_it(plain, monkeypatch):
    calls = []
    monkeypatch.setattr(launch, 'train', lambda config, **options: calls.append(options))
    train.main(['student.py', '--amp', '--verbose', '--work-dir', 'mine'])
    assert calls == [dict(hooks=[], work_dir='mine', amp=True)]
