"""Arguments that commands share."""

import argparse

import pytest

from mmkd.commands.arguments import OverrideAction, execute


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OverrideAction)
    return parser


@pytest.mark.parametrize(
    ('text', 'message'),
    [('lr', 'takes KEY=VALUE'), ('=3', 'takes KEY=VALUE'), ('x=[1,', 'Imbalanced brackets')],
)
def test_no_key_and_value_is_answered_with_the_usage(parser, text, message, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(['--cfg-options', 'a=1', text])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_options_add_up(parser):
    words = ['--cfg-options', 'a=1', 'b.c=[1,x]', '--cfg-options', 'd=yes=no']
    assert parser.parse_args(words).cfg_options == {'a': 1, 'b.c': [1, 'x'], 'd': 'yes=no'}


def test_a_command_ends_with_one_message(parser, capsys):
    def run(args):
        raise ValueError(f'no {args.cfg_options}')

    with pytest.raises(SystemExit) as end:
        execute(parser, run, [])
    assert end.value.code == 1 and 'no None' in capsys.readouterr().err
