"""Contents of a pickle, read from its instructions without executing them."""

from __future__ import annotations

import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, BinaryIO

MAX_DEPTH = 100  # of containers in containers; a checkpoint has about ten
MAX_PAIRED = 10**6  # places of a tuple whose parts are shared: hashing looks at each
_PUT = ('PUT', 'BINPUT', 'LONG_BINPUT')
_GET = ('GET', 'BINGET', 'LONG_BINGET')
_MARKED = ('TUPLE', 'LIST', 'DICT', 'FROZENSET', 'APPENDS', 'SETITEMS', 'ADDITEMS', 'INST', 'OBJ')
_POPS = dict(TUPLE1=1, TUPLE2=2, TUPLE3=3, APPEND=1, SETITEM=2, BUILD=1)
_POPS |= dict(REDUCE=2, NEWOBJ=2, NEWOBJ_EX=3, STACK_GLOBAL=2, BINPERSID=1)
_CHANGES = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD')
_TUPLES = ('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3')
_EXTENSIONS = ('EXT1', 'EXT2', 'EXT4')
_NOTHING = ('FRAME', 'NEXT_BUFFER', 'READONLY_BUFFER')


#: what looks at every item of its argument, of which a tensor may have any number
_COLLECTS = {
    'builtins.bytearray',
    'builtins.dict',
    'builtins.frozenset',
    'builtins.list',
    'builtins.set',
    'collections.Counter',
    'collections.OrderedDict',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'torch.Size',
}
_ENCODINGS = ('latin1', 'latin-1', 'utf-8', 'ascii')  # others may take quadratic time


class Name(str):
    """Something that the pickle imports: ``module.name``."""


class Made(str):
    """The result of a call: ``module.name()``."""


@dataclass
class Contents:
    """Findings of :func:`scan`.

    Attributes:
        names, calls (set[str]): imported names, and those that are called.
        storages (list): persistent ids; torch keeps the data of tensors there.
        odd (list[str]): instructions that no pickler writes.
        protocol (int): of the pickle.
        value: of the whole pickle, if it is a constant.
        intact (bool): whether its checksum fits, if it has one.
    """

    names: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    storages: list = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    protocol: int = 0
    value: Any = None
    intact: bool = True


def scan(file: BinaryIO | mmap) -> Contents:
    """Read one pickle up to its end; the file stands behind it afterwards.

    Raises:
        UnpicklingError, ValueError, LookupError, EOFError: it is no pickle, damaged, or made to
            exhaust its reader.
    """
    scanner = _Scanner()
    for opcode, argument, position in pickletools.genops(file):
        scanner.step(opcode.name, argument, position)
    scanner.found.value = scanner.stack.pop().what
    return scanner.found


class _Value:
    """Stands for an object: a constant, a :class:`Name`, or the parts of a tuple."""

    __slots__ = ('what', 'depth', 'places')

    def __init__(self, what: Any = None, parts: list[_Value] | tuple = ()) -> None:
        self.what = what
        self.depth = 0
        self.places = 1
        self.contain(parts)

    def contain(self, parts: list[_Value] | tuple) -> None:
        if parts:
            self.depth = max(self.depth, 1 + max(part.depth for part in parts))
        if self.depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f'containers are nested more than {MAX_DEPTH} deep')


_MARK = _Value()


class _Scanner:
    def __init__(self) -> None:
        self.stack: list[_Value] = []
        self.memo: dict[int, _Value] = {}
        self.found = Contents()

    def step(self, name: str, argument: Any, position: int) -> None:
        """Apply the instruction to the stack, with stand-ins for the objects."""
        stack = self.stack
        if name in _PUT:
            if argument > position:  # the reader's table would be larger than the file
                raise pickle.UnpicklingError(f'memo {argument} at byte {position}')
            self.memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(self.memo[argument])
        elif name == 'MEMOIZE':
            self.memo[len(self.memo)] = stack[-1]
        elif name == 'MARK':
            stack.append(_MARK)
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name == 'POP':
            stack.pop()
        elif name == 'POP_MARK':
            self._pop_mark()
        elif name == 'PROTO':
            self.found.protocol = argument
        elif name == 'STOP' or name in _NOTHING:
            pass
        else:
            self._push(name, argument)

    def _push(self, name: str, argument: Any) -> None:
        if name in _MARKED:
            parts = self._pop_mark()
        else:
            parts = [self.stack.pop() for _ in range(_POPS.get(name, 0))][::-1]
        if _MARK in parts:
            raise pickle.UnpicklingError('unbalanced marks')
        if name in _CHANGES:
            self._change(self.stack[-1], parts)
        elif name in _TUPLES:
            self.stack.append(_tuple(parts))
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            self._import(*(argument.split(' ') if argument else [part.what for part in parts]))
        elif name in _EXTENSIONS:
            self._import('copyreg', f'extension_{argument}')
        elif name in ('PERSID', 'BINPERSID'):
            self.found.storages.append(parts[0].what if parts else argument)
            self.stack.append(_Value(Made('storage')))
        elif name in ('REDUCE', 'NEWOBJ', 'NEWOBJ_EX', 'OBJ', 'INST'):
            self._call(name, argument, parts)
        else:
            self.stack.append(_Value(argument, parts))

    def _import(self, module: str, attribute: str) -> None:
        name = full_name(module, attribute)
        self.found.names.add(name)
        self.stack.append(_Value(name))

    def _change(self, target: _Value, parts: list[_Value]) -> None:
        if target is _MARK:
            raise pickle.UnpicklingError('unbalanced marks')
        if isinstance(target.what, Name):  # no data: a class or function of the program
            self.found.odd.append(f'{target.what} would be changed')
        target.contain(parts)

    def _call(self, kind: str, argument: Any, parts: list[_Value]) -> None:
        called = parts[0].what if kind != 'INST' else full_name(*argument.split(' '))
        if isinstance(called, Name) or called == 'builtins.getattr()':
            self.found.calls.add(str(called))
            if kind == 'INST':
                self.found.names.add(called)
            given = _arguments(kind, parts)
            made = called in _COLLECTS and any(isinstance(one, Made) for one in given)
            if made or (called == '_codecs.encode' and given[-1] not in _ENCODINGS):
                self.found.odd.append(f'{called} would be called with something else than data')
        else:
            self.found.odd.append(f'{called} would be called')
        self.stack.append(_Value(Made(f'{called}()'), parts))

    def _pop_mark(self) -> list[_Value]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise pickle.UnpicklingError('a mark is missing')
        parts = self.stack[start + 1 :]
        del self.stack[start:]
        return parts


def full_name(module: str, attribute: str) -> Name:
    """``module.attribute``, by the names of Python 3."""
    module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
    return Name(f'{IMPORT_MAPPING.get(module, module)}.{attribute}')


def _arguments(kind: str, parts: list[_Value]) -> list[Any]:
    """Arguments of a call, as far as they are known."""
    if kind in ('OBJ', 'INST'):
        return [part.what for part in parts[kind == 'OBJ' :]]
    packed = parts[1].what
    return [part.what for part in packed] if isinstance(packed, list) else [packed]


def _tuple(parts: list[_Value]) -> _Value:
    made = _Value(parts, parts)
    made.places = 1 + sum(part.places for part in parts)
    if made.places > MAX_PAIRED:
        raise pickle.UnpicklingError('tuples of tuples, too many to look at')
    return made
