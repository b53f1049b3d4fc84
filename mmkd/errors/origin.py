"""Where an exception was raised, and in which step, read from its traceback."""

from __future__ import annotations

import linecache
import os.path as osp
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any

_PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
_STDLIB = sysconfig.get_paths()['stdlib']
_FILES_OF_CONFIGS = ('_file2dict', '_parse_lazy_import')


@dataclass
class Origin:
    """The origin of an exception.

    Attributes:
        kind (str): its class, ``'KeyError'``, ``'cv2.error'``.
        message (str): its message, or the failing line of code if it has none.
        where (str): ``'mmdet/datasets/coco.py:12'``, the innermost line outside Python's library.
        phase (str): ``'while building train_dataloader'``; empty where it is not known.
        ours (bool): raised on purpose by mmkd, with a complete message.
        frames (list[tuple[FrameType, int]]): frame and line, outermost first.
    """

    kind: str
    message: str
    where: str
    phase: str
    ours: bool
    frames: list[tuple[FrameType, int]]


def origin_of(error: BaseException) -> Origin:
    """Read the traceback of an exception, also one that comes from a worker of a DataLoader."""
    error = _unwrapped(error)
    entries = list(_entries(error.__traceback__))
    frames = [(tb.tb_frame, tb.tb_lineno) for tb in entries]
    phase = _phase(frames)
    from_worker = re.fullmatch(
        r'Caught \S+ in (.+?)\.\nOriginal Traceback \(most recent call last\):\n(.*)',
        _text(error),
        re.DOTALL,
    )
    if from_worker and '\n  File "' in from_worker[2]:
        return _of_text(from_worker[2], from_worker[1], phase, frames)
    ours = bool(entries) and _raises(entries[-1]) and not isinstance(error, AssertionError)
    where, line = _place(frames)
    if isinstance(error, SyntaxError):
        where = _place_of_syntax(error, frames) or where
    message = _text(error) or (f'`{line}`' if line else '')
    kind = _kind(type(error).__module__, type(error).__name__)
    return Origin(kind, message, where, phase, ours, frames)


def is_ours(error: BaseException) -> bool:
    """Whether mmkd raised it on purpose, so that its message can stand alone."""
    return origin_of(error).ours


def config_files(frames: list[tuple[FrameType, int]]) -> list[str]:
    """The config files that were being read, each a base of the one before."""
    readers = {id(f): f for f, _ in frames if f.f_code.co_name in _FILES_OF_CONFIGS}
    return [short(f.f_locals['filename']) for f in readers.values() if 'filename' in f.f_locals]


def circle_of(files: list[str]) -> str:
    """The message for config files that inherit from each other in a circle."""
    again = next((path for index, path in enumerate(files) if path in files[:index]), None)
    if again is None:
        return ''
    start = files.index(again)
    chain = ' -> '.join(files[start : files.index(again, start + 1) + 1])
    return f'These configs inherit from each other in a circle: {chain}.'


def short(path: str) -> str:
    """A path relative to its package, or to the working directory."""
    path = osp.abspath(path)
    for marker in ('site-packages', 'dist-packages'):
        if f'/{marker}/' in path:
            return path.rpartition(f'/{marker}/')[2]
    if path.startswith(f'{_PACKAGE}/'):
        return osp.relpath(path, osp.dirname(_PACKAGE))
    inside = path.startswith(osp.join(osp.abspath('.'), ''))
    return osp.relpath(path) if inside else path


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _unwrapped(error: BaseException) -> BaseException:
    """The cause, where mmengine's registry raised it again with a longer message."""
    again = re.match(r'class `\w+` in \S+\.py: ', _text(error))
    return error.__context__ if again and error.__context__ is not None else error


def _text(error: BaseException) -> str:
    """The message; that of a KeyError, which Python quotes, only as far as it is a name."""
    if isinstance(error, SyntaxError):
        cause = error.__context__
        return (cause if isinstance(cause, SyntaxError) else error).msg or ''
    if isinstance(error, KeyError) and error.args and ' ' in str(error.args[0]):
        return str(error.args[0]).strip()
    return str(error).strip()


def _kind(module: str, name: str) -> str:
    """``'KeyError'``, or with its package ``'cv2.error'``."""
    package = module.partition('.')[0].lstrip('_')
    return name if package in ('', 'builtins', 'main__') else f'{package}.{name}'


def _raises(entry: TracebackType) -> bool:
    """Whether mmkd's own code raised, rather than something that it called."""
    code = entry.tb_frame.f_code
    own = code.co_filename.startswith(f'{_PACKAGE}/')
    return own and code.co_code[entry.tb_lasti] == opmap['RAISE_VARARGS']


def _place(frames: list[tuple[FrameType, int]]) -> tuple[str, str]:
    """Place and text of the innermost line that is not in Python's own library."""
    for frame, line in reversed(frames):
        path = frame.f_code.co_filename
        library = path.startswith(_STDLIB) and '-packages' not in path
        if not library and not path.startswith('<') and not path.endswith('.pyx'):
            return f'{short(path)}:{line}', linecache.getline(path, line).strip()
    return '', ''


def _place_of_syntax(error: SyntaxError, frames: list[tuple[FrameType, int]]) -> str:
    """mmengine parses a copy of a config under another name, which no longer exists."""
    cause = error.__context__ if isinstance(error.__context__, SyntaxError) else error
    configs = [f.f_locals['filename'] for f, _ in reversed(frames) if 'filename' in f.f_locals]
    named = [path for path in (error.filename, *configs) if path and osp.isfile(path)]
    return f'{short(named[0])}:{cause.lineno}' if named else ''


def _of_text(text: str, who: str, phase: str, frames: list) -> Origin:
    """Read a traceback that arrived as text."""
    last = re.split(r'\n\n(?:During handling of|The above exception) .*\n\n', text.strip())[-1]
    *_, (path, line, code, message) = re.findall(
        r'^  File "(.+?)", line (\d+), in .+\n(?:    (.*)\n)?((?:.*\n?)*?)(?=^  File "|\Z)',
        last,
        re.MULTILINE,
    )
    message = re.sub(r'^ +[~^]+ *$\n?', '', message, flags=re.MULTILINE).strip()
    name, _, said = message.partition(': ')
    kind = _kind(name.rpartition('.')[0], name.rpartition('.')[2])
    ours = path.startswith(f'{_PACKAGE}/') and code.startswith('raise ')
    phase = ', '.join(filter(None, (phase, f'in {who}')))
    return Origin(kind, said, f'{short(path)}:{line}', phase, ours, frames)


def _phase(frames: list[tuple[FrameType, int]]) -> str:
    """The innermost step in progress, and its iteration."""
    known = [(frame, _PHASES[name]) for frame, _ in frames if (name := _name(frame)) in _PHASES]
    told: list[str] = []
    for frame, tell in reversed(known):
        try:
            text = tell(frame)
        except (KeyError, AttributeError, TypeError):  # another version of the package
            continue
        if text and (not told or _is_loop(text)) and not any(map(_is_loop, told)):
            told.append(text)
    return ', '.join(told)


def _is_loop(text: str) -> bool:
    return text.startswith(('in training', 'in validation', 'in testing'))


def _name(frame: FrameType) -> str:
    """``'runner.build_model'``: the last part of the module, and the function."""
    return f'{frame.f_globals.get("__name__", "").rpartition(".")[2]}.{frame.f_code.co_name}'


def _split(frame: FrameType) -> str:
    """For which loop something is built."""
    outer: FrameType | None = frame
    while outer is not None:
        match = re.fullmatch(r'build_(train|val|test)_loop', outer.f_code.co_name)
        if match:
            return f'{match[1]}_'
        outer = outer.f_back
    return ''


def _loop(frame: FrameType) -> str:
    loop = frame.f_locals['self']
    name = type(loop).__name__
    if 'Train' in name:
        return f'in training iteration {loop._iter + 1}'
    return 'in validation' if 'Val' in name else 'in testing' if 'Test' in name else ''


def _config(frame: FrameType) -> str:
    """The innermost config file, and the one that has it as a base."""
    outer, files = frame.f_back, [frame.f_locals['filename']]
    while outer is not None and len(files) < 2:
        if outer.f_code.co_name in _FILES_OF_CONFIGS:
            files.append(outer.f_locals['filename'])
        outer = outer.f_back
    return 'while reading the config ' + ', a base of '.join(map(short, files))


def _hook(frame: FrameType) -> str:
    hook = frame.f_locals['hook']
    return f'in {type(hook).__name__}.{frame.f_locals["fn_name"]}'


def _teacher(frame: FrameType) -> str:
    name = frame.f_back.f_locals.get('name') if frame.f_back else None
    return f"while building teacher '{name}'" if name else 'while building the teacher'


def _build(what: str) -> Callable[[FrameType], str]:
    return lambda frame: f'while building {what}'


def _named(text: str, variable: str = 'name') -> Callable[[FrameType], str]:
    return lambda frame: text.format(frame.f_locals[variable])


def _type_of(entry: Any) -> str:
    return str(entry.get('type') if isinstance(entry, dict) else type(entry).__name__)


_PHASES: dict[str, Callable[[FrameType], str]] = {
    'config._file2dict': _config,
    'config._parse_lazy_import': _config,
    'config.load_config': _named('while reading the config {}', 'path'),
    'launch.apply_common': lambda frame: 'while applying --cfg-options',
    'launch.check_data': _named('while looking for the data of {}', 'split'),
    'kinds.build_teacher': _teacher,
    'building.build_objectives': _named("while building objective '{}'"),
    'distiller.__init__': _build('the student'),
    'distiller._terms': _named("in objective '{}'"),
    'distiller._run_teachers': lambda frame: 'in the teacher',
    'plan.prepare': lambda frame: 'while probing student and teacher',
    'runner.__init__': _build('the Runner'),
    'runner.build_model': _build('the model'),
    'runner.build_dataloader': lambda frame: f'while building {_split(frame)}dataloader',
    'runner.build_evaluator': lambda frame: f'while building {_split(frame)}evaluator',
    'runner.build_train_loop': _build('train_cfg'),
    'runner.build_val_loop': _build('val_cfg'),
    'runner.build_test_loop': _build('test_cfg'),
    'runner.build_optim_wrapper': _build('optim_wrapper'),
    'runner.build_param_scheduler': _build('param_scheduler'),
    'runner.build_visualizer': _build('visualizer'),
    'runner.build_log_processor': _build('log_processor'),
    'runner.register_hook': lambda f: f'while building the hook {_type_of(f.f_locals["hook"])}',
    'runner.call_hook': _hook,
    'runner._init_model_weights': lambda frame: 'while initialising the weights',
    'runner.load_or_resume': lambda frame: 'while loading the checkpoint',
    'runner.load_checkpoint': lambda frame: 'while loading the checkpoint',
    'runner.setup_env': lambda frame: 'while setting up the environment',
    'loops.run': _loop,
    'loops.run_epoch': _loop,
    'loops.run_iter': _loop,
}
