"""How this process was started: as the command ``mmkd``, as a file of ``tools/``, or otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: where tools/ lies in a checkout, and in an installed package
_TOOLS = (_HERE.parent / 'tools', _HERE / '.mim' / 'tools')


def command_words(argv: Sequence[str], original: Sequence[str] = ()) -> list[str] | None:
    """The words behind ``mmkd``, or those that mean the same as a call of a file in ``tools/``.

    Args:
        argv (Sequence[str]): ``sys.argv``.
        original (Sequence[str]): ``sys.orig_argv``, which alone names the module of ``-m`` while
            Python still imports its package.

    Returns:
        list[str] | None: ``['train', 'config.py']``; None for any other program.
    """
    program, *words = argv or ['']
    asked = list(original)[list(original).index('-m') + 1 :] if '-m' in original else []
    if prefix_of(program) or (program == '-m' and asked[:1] == ['mmkd']):
        return words
    path = Path(program)
    if path.suffix == '.py' and path.resolve().parent in _TOOLS:
        return [path.stem, *words]
    return None


def prefix_of(program: str) -> list[str]:
    """The typed name of the program ``sys.argv[0]``, if that is the command ``mmkd``."""
    path = Path(program)
    if path.name in ('mmkd', 'mmkd.exe'):
        return ['mmkd']
    if path.name == '__main__.py' and path.resolve().parent == _HERE:
        return ['python', '-m', 'mmkd']
    return []


def typed(argv: Sequence[str]) -> list[str]:
    """The words that start the program of ``sys.argv`` once more."""
    prefix = prefix_of(argv[0]) if argv else []
    return [*prefix, *argv[1:]] if prefix else ['python', *argv]


def sibling(argv: Sequence[str], command: str) -> list[str]:
    """The words that start another command in the way in which this program was started."""
    prefix = prefix_of(argv[0]) if argv else []
    if not prefix and argv and Path(argv[0]).resolve().parent in _TOOLS:
        return ['python', str(Path(argv[0]).with_name(f'{command}.py'))]
    return [*(prefix or ['mmkd']), command]
