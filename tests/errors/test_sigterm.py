"""SIGTERM in a process that handles it, and in those that it forks."""

import multiprocessing
import os
import signal
import time

import pytest

from mmkd.errors.sigterm import on_sigterm


class Raised(BaseException):
    pass


def handler(number, frame):
    raise Raised


def test_the_handler_is_called_and_put_away_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Raised), on_sigterm(handler):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before
    with on_sigterm(handler):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # set by somebody else: it stays
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN


def test_a_forked_process_ends_whenever_the_signal_comes():
    """Also before Python has set it up; each of these would sleep on if the signal were lost."""
    with on_sigterm(handler):
        for _ in range(40):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_pool_ends_although_some_of_its_processes_have_just_begun():
    with on_sigterm(handler):
        for _ in range(3):
            with multiprocessing.get_context('fork').Pool(8) as pool:
                assert pool.map(abs, [-1, 2]) == [1, 2]


def test_without_a_handler_nothing_is_changed():
    child = os.fork()
    if child == 0:
        os._exit(int(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    assert os.waitpid(child, 0)[1] == 0
