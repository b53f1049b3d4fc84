"""What ``mmkd plan`` prints."""

import pytest
from mmengine.config import Config

from mmkd.commands import plan
from mmkd.registry import MODELS
from mmkd.testing import tiny_retinanet


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'student.py'
    Config(dict(default_scope='mmdet', model=tiny_retinanet(4))).dump(path)
    return str(path)


def test_a_plain_config_shows_where_it_can_be_tapped(config, capsys):
    plan.main([config, '--depth', '1'])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == 'taps of the model, RetinaNet'
    (neck,) = [line for line in lines if line.split()[0] == 'neck']
    assert neck.split(maxsplit=1)[1].startswith('8x32x32 (stride 8), 8x16x16 (stride 16)')
    assert not any('neck.' in line for line in lines), 'one level of names'


def test_a_pair_and_a_method(config, capsys):
    plan.main([config, '--teacher', config, 'random', '--method', 'CWD'])
    text = capsys.readouterr().out
    assert 'taps of the student, RetinaNet' in text and 'taps of the teacher, RetinaNet' in text
    assert 'objective cwd: CWD' in text


def test_a_teacher_need_not_be_loaded(config, capsys):
    words = [config, '--teacher', config, 'gone.pth', '--method', 'CWD']
    plan.main([*words, '--random-teacher'])
    assert 'objective cwd: CWD' in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        plan.main(words)
    assert end.value.code == 1 and 'gone.pth does not exist' in capsys.readouterr().err


def test_a_step_is_of_one_method(config, capsys):
    with pytest.raises(SystemExit) as end:
        plan.main([config, '--teacher', config, 'random', '--step'])
    assert end.value.code == 1 and 'name it with --method' in capsys.readouterr().err


def test_a_list_of_no_depth(config, capsys):
    with pytest.raises(SystemExit):
        plan.main([config, '--depth', '0'])
    assert 'plan: --depth must be a whole number of at least 1' in capsys.readouterr().err


def test_weights_are_suggested_for_a_distiller(config, capsys, monkeypatch):
    from mmkd.analysis import rehearsal, suggest

    found = suggest.Suggestion('cwd', 2.0, (8.0,), 0.2, 'model.objectives.cwd.weight')
    calls = []

    def rehearse(config, built, ready):
        model = MODELS.build(config.model)
        built(model)
        ready(model, ['a batch'])

    monkeypatch.setattr(rehearsal, 'rehearse', rehearse)
    monkeypatch.setattr(suggest, 'suggest', lambda *given: calls.append(given[1:]) or [found])
    plan.main([config, '--teacher', config, 'random', '--method', 'CWD', '--suggest', '0.2'])
    assert [(loader, [*entries], share) for loader, entries, share in calls] == [
        (['a batch'], ['cwd'], 0.2)
    ]
    text = capsys.readouterr().out
    assert 'objective cwd: CWD' in text
    assert '--cfg-options model.objectives.cwd.weight=0.05' in text
    for words, message in (
        ([config, '--suggest'], '--suggest needs a distillation config'),
        ([config, '--step'], '--step needs a distillation config'),
        ([config, '--suggest', '0'], '--suggest'),
        ([config, '--teacher', config, 'random', '--suggest'], 'name it with --method'),
    ):
        with pytest.raises(SystemExit):
            plan.main(words)
        assert message in capsys.readouterr().err
