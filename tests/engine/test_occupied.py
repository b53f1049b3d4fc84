"""Two runs in one work dir: the second one is told of the first."""

import fcntl
import os
import subprocess
import sys

import pytest

from mmkd.engine.occupied import LOCK, occupied

HOLD = """
import fcntl, sys
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
file.write('process 7 on there, since then')
file.flush()
print('held', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder."""
    with subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b'held\n'
        yield process
        process.stdin.close()


def test_a_second_run_is_warned_and_leaves_the_lock(other, tmp_path, log):
    with occupied(str(tmp_path)):
        text = (
            f'another run is training in {tmp_path}: process 7 on there, since then. Both write '
            'files of the same names'
        )
        assert text in log.text
    assert (tmp_path / LOCK).read_text() == 'process 7 on there, since then'


def test_one_run_is_not_and_leaves_nothing(tmp_path, log):
    for _ in range(2):
        with occupied(str(tmp_path)):
            assert f'process {os.getpid()} on ' in (tmp_path / LOCK).read_text()
        assert not list(tmp_path.iterdir()) and not log.text


def test_what_a_killed_run_left_is_no_run(tmp_path, log):
    (tmp_path / LOCK).write_text('process 7 on there, since then')
    with occupied(str(tmp_path)):
        assert 'process 7' not in (tmp_path / LOCK).read_text()
    assert not log.text


def test_a_folder_without_locks_is_used(tmp_path, monkeypatch, log):
    def fails(*_):
        raise OSError(95, 'Operation not supported')

    monkeypatch.setattr(fcntl, 'lockf', fails)
    with occupied(str(tmp_path)):
        pass
    assert not log.text
