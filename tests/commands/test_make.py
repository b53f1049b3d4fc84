"""``mmkd make``: what it takes, and what a person sees of it."""

import ast
from pathlib import Path

import pytest

from mmkd import makers
from mmkd.commands.make import parser


def test_options_of_the_maker_and_of_the_command_in_any_order():
    words = ['Neurons', '--teacher', 'a.py', 'a.pth', 'count=8', '--out', 'x', 'lam=0.5']
    args = parser().parse_args(words)
    assert (args.type, args.options, args.out) == ('Neurons', dict(count=8, lam=0.5), 'x')
    assert parser().parse_args(['list']).type == 'list'


def test_an_option_without_a_value_is_answered_with_the_usage(capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(['Neurons', 'count'])
    assert end.value.code == 2 and "takes KEY=VALUE, found 'count'" in capsys.readouterr().err


@pytest.mark.parametrize(
    'file', sorted(Path(makers.__file__).parent.glob('*.py')), ids=lambda file: file.stem
)
def test_what_a_maker_found_is_on_the_screen(file):
    """A maker has no log file, and a command's screen shows of a log the warnings alone."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == 'print_log':
            level = [*call.args[2:], *(k.value for k in call.keywords if k.arg == 'level')]
            assert [ast.unparse(node) for node in level] in (['WARNING'], ['30']), call.lineno
