"""``mmkd environment`` ends with the verdict."""

import pytest

from mmkd.commands import environment


@pytest.mark.parametrize('status', [0, 1])
def test_the_status_is_that_of_the_verdict(status, monkeypatch):
    monkeypatch.setattr('mmkd.environment.main', lambda: status)
    with pytest.raises(SystemExit) as end:
        environment.main([])
    assert end.value.code == status


def test_it_takes_no_arguments(capsys):
    with pytest.raises(SystemExit) as end:
        environment.main(['x'])
    assert end.value.code == 2 and 'unrecognized arguments: x' in capsys.readouterr().err
