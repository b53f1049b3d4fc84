"""A model that behaves like another one: same children, attributes, hooks and methods."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from operator import attrgetter
from typing import Any

from mmengine.model import BaseModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """The model itself, out of DDP and the like."""
    return model.module if is_model_wrapper(model) else model


class Children(MutableMapping):
    """The student's children, also after changes, followed by those of the wrapper."""

    def __init__(self, student: nn.Module) -> None:
        self.student = student
        self.own: dict[str, nn.Module | None] = {}

    def __getitem__(self, name: str) -> nn.Module | None:
        return self.own[name] if name in self.own else self.student._modules[name]

    def __setitem__(self, name: str, module: nn.Module | None) -> None:
        into = self.own if name in Borrower.OWN else self.student._modules
        into[name] = module

    def __delitem__(self, name: str) -> None:
        del (self.own if name in self.own else self.student._modules)[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.student._modules
        yield from self.own

    def __len__(self) -> int:
        return len(self.student._modules) + len(self.own)

    def copy(self) -> dict[str, nn.Module | None]:
        return dict(self)


class Borrower(BaseModel):
    """Two views of one set of tensors: the wrapper with its additions, and the student.

    Parameters, buffers, children, hooks and training flag are the student's. Attributes that are
    not in :attr:`OWN` are read from and written to it, and the steps of training, validation and
    testing are its own methods: a student that overrides one trains as it does alone. Within a
    step, its ``forward`` and ``loss`` are those of the wrapper, which call the student's.
    """

    #: attributes of the wrapper itself
    NEEDED = (
        'student',
        'teachers',
        'plan',
        'objectives',
        'task_weight',
        'balance',
        'trains',
        'guard',
        'timer',
        'recorder',
        'pixels',
        'twins',
        'peers',
        '_inner',
    )
    #: all that does not reach the student when it is set
    OWN = frozenset((*NEEDED, 'forward', 'loss', 'train_step', 'val_step', 'test_step'))

    def _borrow(self, student: nn.Module) -> None:
        """Make the student's inside ours, under its own names.

        Raises:
            ValueError: it has something of a name that the wrapper needs.
        """
        taken = [name for name in self.NEEDED if hasattr(student, name)]
        if taken:
            raise ValueError(
                f'{type(student).__name__} has an attribute {taken[0]!r}, a name that the '
                'Distiller needs for itself. Rename it, or distil the model inside of it.'
            )
        kept = {k: v for k, v in vars(student).items() if k in self.__dict__ and _shared(v)}
        self.__dict__.clear()
        self.__dict__.update(kept, _modules=Children(student), student=student, _inner=None)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('student')
            if student is None:
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.OWN or 'student' not in self.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(self.student, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.OWN:
            super().__delattr__(name)
        else:
            delattr(self.student, name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward`` without hooks: they are the student's and fire when it is called."""
        return self.forward(*args, **kwargs)

    # --------------------------------------------------------------------------------- the steps

    parse_losses = property(attrgetter('student.parse_losses'))
    _run_forward = property(attrgetter('student._run_forward'))

    def train_step(self, data: Any, optim_wrapper: Any) -> Any:
        with self._joined():
            return self.student.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> Any:
        with self._joined():
            return self.student.val_step(data)

    def test_step(self, data: Any) -> Any:
        with self._joined():
            return self.student.test_step(data)

    @contextlib.contextmanager
    def _joined(self) -> Iterator[None]:
        """While it lasts, the student's ``forward`` and ``loss`` are ours."""
        originals = {'forward': self.student.forward}
        if _takes_a_batch(loss := getattr(self.student, 'loss', None)):
            originals['loss'] = loss

        def joined_forward(*args: Any, **kwargs: Any) -> Any:
            with replaced(self.student, originals), self._inside(originals['forward']):
                return self.forward(*args, **kwargs)

        def joined_loss(*args: Any, **kwargs: Any) -> Any:
            batch = inspect.signature(originals['loss']).bind(*args, **kwargs).args
            with replaced(self.student, originals), self._inside(_without_mode(originals['loss'])):
                return self.loss(*batch)

        joined = {'forward': joined_forward, 'loss': joined_loss}
        with replaced(self.student, {name: joined[name] for name in originals}):
            yield

    @contextlib.contextmanager
    def _inside(self, method: Callable) -> Iterator[None]:
        """While it lasts, this method runs the student, whose hooks have fired already."""
        outer, self._inner = self._inner, method
        try:
            yield
        finally:
            self._inner = outer

    def run_student(self, *args: Any, mode: str, **kwargs: Any) -> Any:
        """The student's own forward pass, in one of mmengine's modes."""
        return (self._inner or self.student)(*args, mode=mode, **kwargs)

    # --------------------------------------------------------------------- weights and devices

    def init_weights(self) -> None:
        """Initialise the student by its own config, and nothing else."""
        self.student.init_weights()

    def train(self, mode: bool = True) -> Borrower:
        self.student.train(mode)
        for module in self._modules.own.values():
            module.train(mode)
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> Borrower:
        self.student._apply(fn, recurse)
        for module in self._modules.own.values():
            module._apply(fn, recurse)
        return self

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = '', keep_vars: bool = False
    ) -> Any:
        """The student's state, then that of the wrapper's additions."""
        options = dict(keep_vars=keep_vars)
        result = self.student.state_dict(*args, destination=destination, prefix=prefix, **options)
        for name, module in self._modules.own.items():
            module.state_dict(destination=result, prefix=f'{prefix}{name}.', **options)
        return result

    def _load_from_state_dict(
        self, state: Any, prefix: str, meta: Any, strict: bool, missing: Any, unexpected: Any, *rest
    ) -> None:
        """As the student does, which may rename old keys; keys of the wrapper are expected."""
        self.student._load_from_state_dict(state, prefix, meta, strict, missing, unexpected, *rest)
        own = tuple(f'{prefix}{name}.' for name in self._modules.own)
        unexpected[:] = [key for key in unexpected if not key.startswith(own)]


def _takes_a_batch(method: Any) -> bool:
    """Whether this is ``loss(inputs, data_samples)`` as in OpenMMLab's models, and no criterion."""
    if not inspect.ismethod(method):
        return False
    names = [name.removeprefix('batch_') for name in inspect.signature(method).parameters]
    return names[:2] == ['inputs', 'data_samples']


def _without_mode(method: Callable) -> Callable:
    return lambda *args, mode, **kwargs: method(*args, **kwargs)


def _shared(value: Any) -> bool:
    """Whether torch keeps something in it: parameters, buffers, hooks."""
    return isinstance(value, (dict, set))


@contextlib.contextmanager
def replaced(module: nn.Module, others: Mapping[str, Any]) -> Iterator[None]:
    """Methods or children of one instance are others for a while, never those of its class."""
    before = {name: module.__dict__[name] for name in others if name in module.__dict__}
    module.__dict__.update(others)
    try:
        yield
    finally:
        for name in others:
            module.__dict__.pop(name, None)
        module.__dict__.update(before)
