"""mmcv's extension module ``mmcv._ext``: the compiled one, or mmkd's where there is none.

mmcv reaches everything compiled through this one module. It is provided at the moment when it is
imported, so neither torch nor mmcv is imported earlier than it would be.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import multiprocessing
import os
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmkd.operators.grid import MAX
from mmkd.operators.missing import absent, compile_command
from mmkd.operators.strides import contiguous
from mmkd.operators.vision import torchvision_problem

NAME = 'mmcv._ext'
OWN = 'mmkd.operators'
CHOICE = 'MMKD_OPERATORS'  # an environment variable

#: files of this package, and the names in mmcv's extension of the operators in them
OPERATORS = {
    'overlaps': ('bbox_overlaps',),
    'nms': ('nms', 'nms_match', 'softnms'),
    'roi_align': ('roi_align_forward', 'roi_align_backward'),
    'roi_pool': ('roi_pool_forward', 'roi_pool_backward'),
    'focal_loss': (
        'sigmoid_focal_loss_forward',
        'sigmoid_focal_loss_backward',
        'softmax_focal_loss_forward',
        'softmax_focal_loss_backward',
    ),
    'deform_conv': (
        'deform_conv_forward',
        'deform_conv_backward_input',
        'deform_conv_backward_parameters',
        'modulated_deform_conv_forward',
        'modulated_deform_conv_backward',
    ),
    'deform_attention': ('ms_deform_attn_forward', 'ms_deform_attn_backward'),
    'masked_conv': ('masked_im2col_forward', 'masked_col2im_forward'),
}
#: modules that import the extension and put placeholders where there is none
USERS = ('mmdet.structures.mask', 'mmdet.models', 'mmseg.models')
#: operators that are several times faster on a CPU than compiled ones
FASTER_ON_CPU = ('nms', *OPERATORS['roi_align'], *OPERATORS['deform_conv'])


def install() -> None:
    """Let ``import mmcv._ext`` succeed from now on, and adapt it where it is imported already.

    Raises:
        ImportError: If mmdet or mmseg was imported earlier and had to do without it.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    if NAME in sys.modules:
        adapt(sys.modules[NAME])
    elif multiprocessing.parent_process() is None and (late := [*filter(sys.modules.get, USERS)]):
        raise ImportError(  # a worker that reads data needs no operators
            f'{late[0]} was imported before mmkd, and without the operators that mmkd has where '
            'those of mmcv are not compiled. Put `import mmkd` first.'
        )
    sys.meta_path.insert(0, Finder())


class Finder(MetaPathFinder):
    """Finds ``mmcv._ext``, whether or not it was compiled."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        compiled = PathFinder.find_spec(fullname, path)
        if compiled is None or compiled.loader is None or choice() == 'own':
            if choice() == 'compiled':
                raise ImportError(
                    'MMKD_OPERATORS=compiled, but mmcv has no compiled operators. '
                    f'Unset it, or run: {compile_command()}'
                )
            return ModuleSpec(NAME, Provider(None), origin=OWN)
        compiled.loader = Provider(compiled.loader)
        return compiled


class Provider(Loader):
    """Loads the compiled extension, and mmkd's operators where there is none or it is broken."""

    def __init__(self, compiled: Loader | None) -> None:
        self.compiled = compiled

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if self.compiled is None:
            return None
        try:
            return self.compiled.create_module(spec)
        except ImportError as error:  # compiled for another torch, or without its libraries
            if choice() == 'compiled':
                raise
            self.compiled, spec.has_location = None, False
            spec.origin = f'{OWN}, because the compiled ones do not load: {error}'
            return None

    def exec_module(self, module: ModuleType) -> None:
        if self.compiled is None:
            fill(module)
        else:
            self.compiled.exec_module(module)
            adapt(module)


def choice() -> str:
    """Which operators the user asked for: ``auto``, ``compiled`` or ``own``.

    Raises:
        ValueError: If the environment variable has another value.
    """
    asked = os.environ.get(CHOICE) or 'auto'
    if asked not in ('auto', 'compiled', 'own'):
        raise ValueError(f'MMKD_OPERATORS is one of auto, compiled, own, not {asked!r}.')
    return asked


def fill(module: ModuleType) -> None:
    """Give a module mmkd's operators, and under every other name one that refuses to run."""

    def other(name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        return absent(name)

    vars(module).update(
        own_operators(),
        get_compiler_version=lambda: f'none ({OWN})',
        get_compiling_cuda_version=lambda: f'none ({OWN})',
        __getattr__=other,
    )


def adapt(module: ModuleType) -> None:
    """Let compiled operators take any strides, and mmkd's do the work where they are faster."""
    faster = {} if choice() == 'compiled' else own_operators(FASTER_ON_CPU)
    for name, operator in vars(module).copy().items():
        if inspect.isbuiltin(operator):
            anywhere = contiguous(operator)
            own = faster.get(name)
            setattr(module, name, anywhere if own is None else by_device(own, anywhere))


def own_operators(wanted: Container[str] | None = None) -> dict[str, Callable]:
    """mmkd's operators by their names in mmcv's extension: all, or the wanted ones."""
    return {
        name: getattr(importlib.import_module(f'{OWN}.{file}'), name)
        for file, names in OPERATORS.items()
        for name in names
        if wanted is None or name in wanted
    }


def compiled_operators() -> dict[str, Callable]:
    """mmcv's own operators by name, as they were compiled; empty where there are none."""
    extension = importlib.import_module(NAME)
    operators = {
        name: inspect.unwrap(value) for name, value in vars(extension).items() if callable(value)
    }
    return {name: value for name, value in operators.items() if inspect.isbuiltin(value)}


@contextlib.contextmanager
def using(operators: Mapping[str, Callable]) -> Iterator[None]:
    """Let mmcv call these operators inside the block."""
    extension = importlib.import_module(NAME)
    before = {name: getattr(extension, name) for name in operators}
    vars(extension).update(operators)
    try:
        yield
    finally:
        vars(extension).update(before)


def by_device(own: Callable, compiled: Callable) -> Callable:
    """mmkd's operator for tensors on a CPU, but for the maximum in RoIs; the compiled one else."""

    @functools.wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        faster = first.device.type == 'cpu' and kwargs.get('pool_mode') != MAX
        return (own if faster else compiled)(*args, **kwargs)

    return call


def describe() -> str:
    """Which operators mmcv has in this process, in words; imports them."""
    module = importlib.import_module(NAME)
    origin = getattr(module.__spec__, 'origin', '') or ''
    if not origin.startswith(OWN):
        faster = 'RoIAlign, NMS and deformable convolutions from mmkd'
        return 'compiled' if choice() == 'compiled' else f'compiled; on a CPU, {faster}'
    words = f"mmkd's, without a compiler{origin.removeprefix(OWN)}"
    if not torch.cuda.is_available():
        return words
    problem = torchvision_problem()
    on_gpu = f'none, as torchvision cannot be imported ({problem})' if problem else 'torchvision'
    return f'{words}; on a GPU: {on_gpu}'
