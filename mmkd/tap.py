"""Taps: written addresses of values inside a network, and the recorder of these values.

Grammar (``path`` is a dotted module path of the unmodified model)::

    neck                                output of a module; a pyramid is a list, a map a list of one
    neck[0:4], neck[2]                  some entries of that list
    decode_head.conv_seg@in[0]          an argument of the call, by position
    bbox_head@in[x]                     an argument of the call, by name
    rpn_head.get_targets()              what a method of that instance returned
    bbox_head.loss_by_feat()@in[0]      an argument of a method call
    decode_head.forward()@scores        class scores (N, K, h, w) made of the masks that it gives
    pool{channels.json}                 the channels in a file; pool{} has all of them
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mmkd.errors.taps import never_called_message, silent_message, unknown_message
from mmkd.functional.channels import keep_channels, read_channels
from mmkd.functional.mask_scores import MaskScores, scores_of
from mmkd.functional.nested import flatten, map_tensors
from mmkd.schedule import Progress

_GRAMMAR = re.compile(
    r'(?P<path>[A-Za-z_]\w*(\.\w+)*)(?P<call>\(\))?(@in\[(?P<arg>\w+)\])?(\[(?P<index>[-:\d]+)\])?'
    r'(?:(?P<scores>(?<=\(\))@scores(\(background=(?P<background>\d+)\))?)'
    r'|\{(?P<channels>[^{}]*)\})?'
)


class TapError(ValueError):
    """A tap that cannot be read: misspelt, never reached, overwritten or without a gradient."""


@dataclass(frozen=True)
class Tap:
    """One address. Build it with :meth:`parse`; ``str(tap)`` gives the text back."""

    text: str
    path: str
    call: bool = False
    arg: str | None = None
    index: int | slice | None = field(default=None, hash=False)
    #: class scores of pixels are made of the classes and masks of queries there
    scores: bool = False
    #: place of a further class, of what no class claims
    background: int | None = None
    #: channels that are kept, of a file of ``mmkd make Neurons``; None: all
    channels: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str | Tap) -> Tap:
        """Read the grammar above, and the file of channels; raises TapError with an example
        otherwise, or if there is no such file."""
        if isinstance(text, Tap):
            return text
        match = _GRAMMAR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise TapError(
                f"Tap {text!r} is not an address. Examples: 'neck', 'neck[0:4]', "
                "'backbone.layer3', 'decode_head.conv_seg@in[0]', "
                "'rpn_head.get_targets()'."
            )
        return cls(
            text=text,
            path=match['path'],
            call=bool(match['call']),
            arg=match['arg'],
            index=_parse_index(match['index']),
            scores=match['scores'] is not None,
            background=match['background'] and int(match['background']),
            channels=_told(text, read_channels, match['channels']) if match['channels'] else None,
        )

    @property
    def source(self) -> str:
        """The recorded place without the index, shared by ``neck`` and ``neck[0]``."""
        if self.scores:
            return self.text
        return self.path + '()' * self.call + (f'@in[{self.arg}]' if self.arg is not None else '')

    @property
    def is_output(self) -> bool:
        """Whether the address is a module's output, the kind that must carry a gradient."""
        return not self.call and self.arg is None

    def __str__(self) -> str:
        return self.text


def _told(text: str, function: Callable, *args: Any) -> Any:
    """The result of a function, whose errors name the tap."""
    try:
        return function(*args)
    except ValueError as error:
        raise TapError(f'Tap {text!r}: {error}') from None


def _parse_index(text: str | None) -> int | slice | None:
    if text is None:
        return None
    try:
        parts = [int(part) if part else None for part in text.split(':')]
        return parts[0] if len(parts) == 1 else slice(*parts)
    except (ValueError, TypeError):
        raise TapError(f'Tap index [{text}] is neither a number nor a slice.') from None


def parse_taps(taps: str | Tap | Iterable[str | Tap] | None) -> tuple[Tap, ...]:
    """One tap, several, or none, as a tuple."""
    if taps is None:
        return ()
    if isinstance(taps, (str, Tap)):
        taps = (taps,)
    return tuple(Tap.parse(tap) for tap in taps)


@dataclass
class Side:
    """The recorded values of one network in one step.

    ``side['neck']`` is a list of tensors in float32; ``side.raw('rpn_head.get_targets()')`` is
    the untouched value of every call; ``side.model`` is the network, ``side.inputs`` the
    (N, 3, H, W) pixels that it saw.
    """

    model: nn.Module
    inputs: Tensor
    calls: dict[str, list[Any]] = field(default_factory=dict)
    #: by source, where each recorded tensor lies in the graph; None without a gradient
    edges: dict[str, list[GradientEdge | None]] = field(default_factory=dict)

    def places(self, tap: str | Tap) -> list[GradientEdge]:
        """Where the tensors at the tap lie in the network's graph, of those with a gradient.

        What the network makes of a tensor depends on this place, and not on the recorded copy.
        """
        tap = Tap.parse(tap)
        return [edge for edge in _chosen(self.edges.get(tap.source, []), tap) if edge is not None]

    def raw(self, tap: str | Tap) -> list[Any]:
        """The recorded value of each call, empty if the tap never fired."""
        return self.calls.get(Tap.parse(tap).source, [])

    def recorded(self, tap: str | Tap) -> list[Tensor]:
        """Tensors at the tap as they were recorded, with all channels; none if it never fired or
        showed none, such as the mask of images without padding."""
        return _chosen(flatten(self.raw(tap)), Tap.parse(tap))

    def seen(self, tap: str | Tap) -> list[Tensor]:
        """:meth:`recorded`, with the channels alone that the tap names."""
        tap = Tap.parse(tap)
        found = self.recorded(tap)
        if tap.channels is None:
            return found
        return [_told(tap.text, keep_channels, tensor, tap.channels) for tensor in found]

    def __getitem__(self, tap: str | Tap) -> list[Tensor]:
        """Tensors at the tap over all calls, in float32, (N, C, H, W) for feature maps.

        Raises:
            TapError: the tap saw nothing in this step, or its index selects nothing.
        """
        found = self.maps(tap)
        return [one.at() if isinstance(one, MaskScores) else one for one in found]

    def maps(self, tap: str | Tap) -> list[Any]:
        """As ``side[tap]``; class scores of masks wait to be asked for at a size.

        Raises:
            TapError: as ``side[tap]``.
        """
        tap = Tap.parse(tap)
        calls = self.raw(tap)
        if not calls:
            raise TapError(silent_message(self.model, tap))
        if tap.scores:
            return [_told(tap.text, scores_of, calls[-1], tap.background)]
        tensors = self.seen(tap)
        if not tensors:
            raise TapError(
                f"Tap '{tap}' selects nothing: '{tap.source}' gave {len(flatten(calls))} tensors."
            )
        return [t.float() if t.is_floating_point() else t for t in tensors]


def _chosen(items: list, tap: Tap) -> list:
    """The entries that the index of a tap selects, none if it is out of range."""
    if tap.index is None or isinstance(tap.index, slice):
        return items if tap.index is None else items[tap.index]
    return [items[tap.index]] if -len(items) <= tap.index < len(items) else []


def _edge(tensor: Tensor) -> GradientEdge | None:
    return get_gradient_edge(tensor) if tensor.requires_grad else None


@dataclass
class Trace:
    """The read-only record of one training step, the input of objectives.

    Attributes:
        inputs (Tensor): the learner's pixels, (N, 3, H, W), normalised and padded.
        samples (list): the data samples of the batch, with ground truth.
        student (Side): the taps of the network that learns, with gradients.
        teachers (dict[str, Side]): those of each network that it listens to, without, by name; a
            single Side is called ``'teacher'``.
        progress (Progress): fraction of training done.
        second (Trace | None): images that the objective held back, without gradients.
        scale (Fraction): side of the learner's images over that of its teachers', see
            :mod:`mmkd.scales`.
    """

    inputs: Tensor
    samples: list
    student: Side
    teachers: dict[str, Side] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    second: Trace | None = None
    scale: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if isinstance(self.teachers, Side):
            self.teachers = {'teacher': self.teachers}
        self.teachers = self.teachers or {}

    @property
    def teacher(self) -> Side:
        """The only teacher, or the first.

        Raises:
            TapError: nothing is listened to in this step.
        """
        if not self.teachers:
            raise TapError(
                'A trace without a teacher was asked for one: no teacher ran in this step. Does '
                'the objective name teacher taps, and needs_teacher=True?'
            )
        return next(iter(self.teachers.values()))


class Recorder:
    """Records a set of taps of one model, during one forward at a time.

    Nothing stays on the model between forwards, so copies, EMA, validation and export never
    meet a hook.

    Raises:
        TapError: a path that the model does not have, with near-by names; a module that is never
            called.
    """

    def __init__(self, model: nn.Module, taps: Iterable[Tap]) -> None:
        self.model = model
        self.taps = {tap.source: tap for tap in taps}
        self.overwritten: dict[str, bool] = {}
        for tap in self.taps.values():
            self._locate(tap)

    def _locate(self, tap: Tap) -> tuple[nn.Module, str]:
        """The module, and the method name where the tap is a call."""
        path, _, method = tap.path.rpartition('.') if tap.call else (tap.path, '', '')
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            raise TapError(unknown_message(self.model, tap, path)) from None
        if tap.call and not callable(getattr(module, method, None)):
            where = path or type(self.model).__name__
            raise TapError(f"Tap '{tap}': {where} ({type(module).__name__}) has no '{method}()'.")
        if method in ('', 'forward') and only_holds(module):
            raise TapError(never_called_message(tap, path, module))
        return module, method

    @contextlib.contextmanager
    def record(self, inputs: Tensor) -> Iterator[Side]:
        """Attach hooks, yield the :class:`Side` that they fill, and always detach them."""
        side = Side(self.model, inputs)
        watch: dict[str, list[tuple[Tensor, int]]] = {}
        with contextlib.ExitStack() as stack:
            for tap in self.taps.values():
                store = self._store(tap, side, watch)
                stack.callback(self._attach(tap, store))
            yield side
        self._check_overwritten(watch)

    def _store(self, tap: Tap, side: Side, watch: dict) -> Callable[[Any], None]:
        def store(value: Any) -> None:
            if tap.scores and isinstance(value, (list, tuple)):
                value = [part[-1:] for part in value]  # earlier layers need not be kept
            side.edges.setdefault(tap.source, []).extend(map(_edge, flatten(value)))
            if not tap.call:
                # Until one forward has shown that nothing writes over it, keep a copy.
                watch.setdefault(tap.source, []).extend((t, t._version) for t in flatten(value))
                value = map_tensors(value, self._keep(tap))
            if tap.is_output:
                value = flatten(value)
            side.calls.setdefault(tap.source, []).append(value)

        return store

    def _keep(self, tap: Tap) -> Callable[[Tensor], Tensor]:
        if self.overwritten.get(tap.source, True):
            return torch.clone
        # A view is its own node of the graph: asking for the gradient at several taps does not
        # run the network's backward pass from one to the next.
        return lambda tensor: tensor.view_as(tensor) if tensor.requires_grad else tensor

    def _attach(self, tap: Tap, store: Callable[[Any], None]) -> Callable[[], None]:
        module, method = self._locate(tap)
        if tap.call:
            return _wrap_method(module, method, tap, store)
        if tap.arg is None:
            return module.register_forward_hook(lambda _m, _args, out: store(out)).remove

        def before(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            store(_argument(module.forward, tap, args, kwargs))

        return module.register_forward_pre_hook(before, with_kwargs=True).remove

    def _check_overwritten(self, watch: dict[str, list[tuple[Tensor, int]]]) -> None:
        for source, versions in watch.items():
            changed = any(tensor._version != version for tensor, version in versions)
            if changed and not self.overwritten.get(source, True):
                raise TapError(
                    f"Tap '{source}' was overwritten in place after it was recorded, which it was "
                    'not in earlier steps. Tap the module behind it, or set inplace=False there.'
                )
            self.overwritten[source] = changed or self.overwritten.get(source, False)


def _wrap_method(
    module: nn.Module, method: str, tap: Tap, store: Callable[[Any], None]
) -> Callable[[], None]:
    original = getattr(module, method)

    @functools.wraps(original)  # with its signature, for a second tap on it
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if tap.arg is not None:
            store(_argument(original, tap, args, kwargs))
            return original(*args, **kwargs)
        value = original(*args, **kwargs)
        store(value)
        return value

    # On the instance, never on the class; two taps on one method nest and undo in reverse.
    had_own = method in module.__dict__
    module.__dict__[method] = wrapper

    def undo() -> None:
        if had_own:
            module.__dict__[method] = original
        else:
            module.__dict__.pop(method, None)

    return undo


def _argument(function: Callable, tap: Tap, args: tuple, kwargs: dict) -> Any:
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    assert tap.arg is not None
    try:
        return list(bound.values())[int(tap.arg)] if tap.arg.isdigit() else bound[tap.arg]
    except (IndexError, KeyError):
        raise TapError(
            f"Tap '{tap}': the call had no argument {tap.arg}; it had {list(bound)}."
        ) from None


def only_holds(module: nn.Module) -> bool:
    """Whether a module has no forward pass, as ModuleLists, and is never called."""
    return type(module).forward is nn.Module.forward and 'forward' not in vars(module)


def require_gradient(side: Side, taps: Iterable[Tap]) -> None:
    """Raise TapError for a student's output tap that carries no gradient."""
    for tap in taps:
        if not tap.is_output or not torch.is_grad_enabled():
            continue
        tensors = [t for t in side[tap] if t.is_floating_point()]
        if tensors and not any(t.requires_grad for t in tensors):
            raise TapError(
                f"Student tap '{tap}' carries no gradient, so nothing can be learnt there. Either "
                'its layers are frozen (frozen_stages, requires_grad=False), or the tap lies '
                'inside a region with activation checkpointing (with_cp=True): tap the output of '
                'that region or set with_cp=False.'
            )
