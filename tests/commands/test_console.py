"""When the screen shows the few lines of a person, and when the whole log."""

import logging
import sys
from argparse import Namespace

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmkd.commands.console import console, without_log
from mmkd.engine.console.hook import ConsoleHook
from mmkd.engine.console.screen import current_screen

SILENT = Namespace(verbose=False, launcher='none')


def shown(args=SILENT, **config):
    """Number of hooks, and whether standard output is taken, inside."""
    stdout = sys.stdout
    with console(args) as hooks:
        found = hooks(Config(config))
        taken = sys.stdout is not stdout
    assert sys.stdout is stdout
    assert all(isinstance(hook, ConsoleHook) for hook in found)
    return len(found), taken


def test_who_asks_for_the_whole_log_gets_it(monkeypatch):
    assert shown() == (1, True)
    assert shown(verbose=False) == (1, True)
    assert shown(verbose=True) == (0, False)
    assert shown(Namespace(verbose=True, launcher='none')) == (0, False)
    monkeypatch.setenv('MMKD_VERBOSE', '1')
    assert shown() == (0, False)
    monkeypatch.setenv('MMKD_VERBOSE', '0')
    assert shown() == (1, True)


def test_a_config_with_the_hook_gets_no_second_one():
    assert shown(custom_hooks=[dict(type='mmkd.ConsoleHook')]) == (0, True)


@pytest.mark.parametrize(('launcher', 'name'), [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')])
def test_only_rank_0_speaks(launcher, name, monkeypatch):
    for rank, speaks in ((0, True), (1, False)):
        monkeypatch.setenv(name, str(rank))
        with console(Namespace(verbose=False, launcher=launcher)):
            assert current_screen().speaks == speaks
        with console(SILENT):
            assert current_screen().speaks


def test_commands_without_a_run_show_warnings_alone(monkeypatch):
    (stock,) = MMLogger.get_instance('mmengine').handlers[:1]
    before = stock.level
    with without_log():
        assert stock.level == logging.WARNING
    assert stock.level == before
    monkeypatch.setenv('MMKD_VERBOSE', '1')
    with without_log():
        assert stock.level == before


@pytest.mark.parametrize('everything', ['0', '1'])
def test_nor_what_packages_print(everything, monkeypatch, capsys):
    monkeypatch.setenv('MMKD_VERBOSE', everything)
    with without_log():
        print('loading annotations into memory...')
        print('Could not import OneDL. Skipping OneDL datasets.')
        print('a result')
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == 'a result'
    assert len(said) == (3 if everything == '1' else 1)
