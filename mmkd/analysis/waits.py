"""How often code waits for the device, counted on a CPU as it would happen on a GPU.

A GPU works through a queue. A value that Python needs (``item()``, ``bool(x)``, ``tolist()``), a
shape that depends on values (``nonzero()``, ``x[mask]``) and a blocking upload of Python data wait
until the queue is empty; then the GPU idles until Python has filled it again.
``torch.cuda.set_sync_debug_mode`` reports the same on a GPU.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from mmkd.errors.origin import short
from mmkd.families.dense import cached_priors
from mmkd.operators import contiguous
from mmkd.tap import Trace

_ATEN = torch.ops.aten
#: operators that read values of their first argument: for a number, or for the shape of the result
_READS = {
    _ATEN._local_scalar_dense,
    _ATEN._unique2,
    _ATEN.bincount,
    _ATEN.equal,
    _ATEN.masked_select,
    _ATEN.nonzero,
    _ATEN.unique_consecutive,
    _ATEN.unique_dim,
}
_WITH_INDICES = {_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._index_put_impl_}
#: operators that copy between device and processor, or take indices of either
_TAKE_BOTH = _WITH_INDICES | {_ATEN.copy_, _ATEN._to_copy}
_DOWNLOADS = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__)
#: files whose lines are not told: this one, and decorators around operators
_SKIPPED = (__file__, contiguous.__code__.co_filename)
_OF_DATA = (torch.tensor, torch.as_tensor, torch.asarray)


class WaitCounter:
    """Counts the waits inside a ``with`` block, by the line of Python that causes them.

    Tensors count as the device's if they are computed from such, or created with ``device=``. All
    others stay on the processor, where reading a value takes no time.

    Args:
        on_device (Iterable[Tensor]): where it starts: pixels, labels, taps, parameters, buffers.

    Attributes:
        places (Counter[str]): how often, by ``'mmkd/methods/gid.py:120 nonzero'``: the innermost
            line outside of torch.
        mixed (Counter[str]): operators on tensors of the device and of the processor, which a GPU
            refuses, likewise.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        self.places: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()
        #: by address; held, so that no address is used again
        self._storages: dict[int, Any] = {}
        for tensor in on_device:
            self.mark(tensor)
        self.paused = False
        self._modes = (_Operators(self), _Functions(self))

    def __enter__(self) -> WaitCounter:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    @property
    def count(self) -> int:
        """Waits of mmkd's own lines so far."""
        # On a CPU mmkd/operators stands in for mmcv's; a GPU has kernels for those.
        return sum(n for place, n in self.places.items() if re.match('mmkd/(?!operators/)', place))

    @property
    def foreign(self) -> int:
        """Waits of other packages' lines, such as mmdet's assigners, and of operators."""
        return self.places.total() - self.count

    def mark(self, values: Any) -> Any:
        """Count the tensors among ``values`` as the device's."""
        for tensor in _tensors(values):
            storage = tensor.untyped_storage()
            self._storages[storage.data_ptr()] = storage
        return values

    def marked(self, values: Any) -> bool:
        """Whether a tensor among ``values`` lies on the device."""
        return any(t.untyped_storage().data_ptr() in self._storages for t in _tensors(values))

    def add(self, what: str, mixed: bool = False) -> None:
        """Count a wait of the line that is running, or tensors that it mixes."""
        if self.paused:
            return
        frames = [(f.f_code.co_filename, n) for f, n in traceback.walk_stack(sys._getframe(1))]
        path, line = next(f for f in frames if '/torch/' not in f[0] and f[0] not in _SKIPPED)
        found = self.mixed if mixed else self.places
        found[f'{short(path)}:{line} {what}'] += 1


def tensors_of(trace: Trace, objective: nn.Module) -> Iterator[Tensor]:
    """What lies on the device when an objective's forward begins, for :class:`WaitCounter`."""
    yield trace.inputs
    for side in (trace.student, *trace.teachers.values()):
        yield side.inputs
        for leaf in tree_leaves(side.calls):  # among them objects, such as mmdet's sampling results
            yield from _tensors([leaf, *getattr(leaf, '__dict__', {}).values()])
        yield from chain(side.model.parameters(), side.model.buffers())
    yield from chain(objective.parameters(), objective.buffers())
    for name in getattr(objective, 'transient', ()):
        yield from _tensors(getattr(objective, name))
    yield from cached_priors()
    if trace.second is not None:
        yield from tensors_of(trace.second, objective)
    for sample in trace.samples:
        for _, field in sample.all_items():
            values = field.values() if isinstance(field, BaseDataElement) else [field]
            yield from _tensors([getattr(value, 'tensor', value) for value in values])


class _Operators(TorchDispatchMode):
    """What the operators below autograd read."""

    def __init__(self, counter: WaitCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        on_device = self.counter.marked((args, kwargs))
        name = packet._qualified_op_name.rpartition(':')[2]
        if on_device and _reads(packet, args, kwargs):
            self.counter.add(name)
        known = packet in _TAKE_BOTH or name.endswith('_backward')  # of a forward that is over
        if on_device and not known and self._strange((args, kwargs)):
            self.counter.add(name, mixed=True)
        result = func(*args, **kwargs)
        return self.counter.mark(result) if on_device else result

    def _strange(self, values: Any) -> bool:
        """Whether a tensor among them lies on the processor; single numbers may.

        Empty tensors have no place in memory by which they could be known.
        """
        return any(t.dim() and len(t) and not self.counter.marked(t) for t in _tensors(values))


class _Functions(TorchFunctionMode):
    """What moves between Python and the device, which on a CPU is no operator."""

    def __init__(self, counter: WaitCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs, counter = kwargs or {}, self.counter
        if func is one_hot and ('num_classes' in kwargs or len(args) > 1):
            counter.paused = True  # its checks of the values are left out on a GPU
            try:
                return counter.mark(func(*args, **kwargs))
            finally:
                counter.paused = False
        if func in _DOWNLOADS and counter.marked(args[0]):
            counter.add(func.__name__)
            with _disable_current_modes():
                return func(args[0].detach().clone(), *args[1:], **kwargs)
        if func is Tensor.to and not counter.marked(args[0]) and _moves(counter, args, kwargs):
            if not kwargs.get('non_blocking'):
                counter.add('to')
            return counter.mark(func(*args, **kwargs).clone())
        uploads = func is Tensor.new_tensor and counter.marked(args[0])
        created = _is_device(kwargs.get('device')) and not _tensors(args)
        if uploads or (created and func in _OF_DATA):
            counter.add(func.__name__)
        result = func(*args, **kwargs)
        return counter.mark(result) if uploads or created else result


def _reads(packet: Any, args: tuple, kwargs: dict) -> bool:
    if packet in _WITH_INDICES:
        masks = any(isinstance(i, Tensor) and i.dtype is torch.bool for i in args[1])
        filled = packet is not _ATEN.index and args[2].numel() == 1  # that is a masked_fill
        return masks and not filled
    if packet is _ATEN.repeat_interleave:
        return kwargs.get('output_size') is None
    return packet in _READS


def _moves(counter: WaitCounter, args: tuple, kwargs: dict) -> bool:
    """Whether ``x.to(…)`` names a device, or a tensor that lies on it."""
    named = [*args[1:2], kwargs.get('device'), kwargs.get('other')]
    return any(_is_device(x) for x in named) or counter.marked(named)


def _is_device(value: Any) -> bool:
    """``device=x.device`` is the run's; who writes ``'cpu'`` means the processor."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value != 'cpu')


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]
