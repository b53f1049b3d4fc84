"""Which measurement ``mmkd benchmark`` makes, and of what."""

import pytest

from mmkd.analysis import benchmark as analysis
from mmkd.analysis import gradients, operator_speed
from mmkd.commands import benchmark
from mmkd.engine import launch


@pytest.fixture
def configs(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.py').write_text('x = 1\n')
    return [str(tmp_path / 'a.py'), str(tmp_path / 'b.py')]


def test_steps(configs, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(analysis, 'benchmark_step', lambda *given: calls.append(given))
    monkeypatch.setattr(analysis, 'report', lambda costs: 'the table')
    words = ['step', *configs, '--size', '32', '64', '--batch', '3', '--teachers', 'plain', 'bf16']
    benchmark.main([*words, '--device', 'cpu', '--amp', '--cfg-options', 'x=2'])
    ((found, *rest),) = calls
    assert {name: config.x for name, config in found.items()} == dict(a=2, b=2)
    assert rest == [(32, 64), 3, 7, 8, ['plain', 'bf16'], 'cpu', True]
    first, *table = capsys.readouterr().out.splitlines()
    assert first.startswith('3 x 32 x 64, CPU, ') and first.endswith(', amp')
    assert table == ['the table']


def test_gradients(configs, monkeypatch, capsys):
    checked = []
    monkeypatch.setattr(launch, 'check_data', lambda config, split: checked.append(split))
    monkeypatch.setattr(gradients, 'measure_gradients', lambda config, *rest: rest)
    monkeypatch.setattr(gradients, 'report', str)
    benchmark.main(['gradients', *configs, '--rounds', '2'])
    assert checked == ['train', 'train'], 'before it takes long'
    assert capsys.readouterr().out.splitlines() == [
        'a, untrained student, 2 batches',
        '(None, 2)',
        'b, untrained student, 2 batches',
        '(None, 2)',
    ]


@pytest.mark.parametrize('count', [0, 2])
def test_operators(configs, monkeypatch, capsys, count):
    calls = []
    monkeypatch.setattr(operator_speed, 'benchmark_operators', lambda *given: calls.append(given))
    monkeypatch.setattr(analysis, 'report', lambda costs: 'the table')
    benchmark.main(['operators', *configs[:count], '--rounds', '2'])
    assert [config and config.x for config, *_ in calls] == ([1, 1] if count else [None])
    assert calls[0][1:] == ((256, 256), 2, 2, 8)
    assert capsys.readouterr().out.splitlines()[1] == 'the table'


@pytest.mark.parametrize('what', ['step', 'gradients'])
def test_other_measurements_need_a_config(what, capsys):
    with pytest.raises(SystemExit) as end:
        benchmark.main([what])
    assert end.value.code == 2
    assert f'benchmark {what} needs a CONFIG' in capsys.readouterr().err


def test_teachers_are_those_that_can_be_measured():
    assert set(benchmark.TEACHERS) == {*analysis.TEACHERS}


@pytest.mark.parametrize('words', [['--rounds', '0'], ['--batch', '0'], ['--size', '0', '64']])
def test_nothing_to_measure(configs, words, monkeypatch, capsys):
    monkeypatch.setattr(analysis, 'benchmark_step', lambda *given: pytest.fail('it was measured'))
    with pytest.raises(SystemExit):
        benchmark.main(['step', *configs, *words])
    assert f'benchmark: {words[0]} must be a whole number' in capsys.readouterr().err


def test_options_may_stand_before_configs():
    args = benchmark.parser().parse_args(['step', '--rounds', '2', 'a.py', 'b.py'])
    assert (args.what, args.rounds, args.config) == ('step', 2, ['a.py', 'b.py'])
