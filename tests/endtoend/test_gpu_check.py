"""The check of a GPU, rehearsed on a CPU."""

import gpu_check

#: several processes, or a second look at what test_parity.py asserts
LONG = ('a killed run ends as one that was not', 'weight 0 equals stock training', 'two groups')


def test_every_check_passes_or_says_why_it_is_not_run(monkeypatch, capsys):
    short = [(title, function) for title, function in gpu_check.CHECKS if title not in LONG]
    assert len(short) == len(gpu_check.CHECKS) - len(LONG)
    monkeypatch.setattr(gpu_check, 'CHECKS', short)
    assert gpu_check.main(['--device', 'cpu', '--steps', '2']) == 0
    printed = capsys.readouterr().out
    assert 'FAILED' not in printed and 'not run' in printed  # two ranks need two GPUs
    assert printed.count(' ok ') == len(short) - 1


def test_a_failure_is_told_and_ends_with_one(monkeypatch, capsys):
    def fails(place):
        raise AssertionError('not alike')

    monkeypatch.setattr(gpu_check, 'CHECKS', [('a check', fails)])
    assert gpu_check.main(['--device', 'cpu']) == 1
    assert 'FAILED' in (printed := capsys.readouterr().out) and 'not alike' in printed
