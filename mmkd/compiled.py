"""A frozen network compiled for each padded shape, whose outputs are the values at its taps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils import _pytree as trees

from mmkd.functional.rounding import EXACT, LIMITS, largest_change
from mmkd.route import features_given
from mmkd.tap import Recorder, Side

#: backend of torch.compile
BACKEND = 'inductor'

#: size and strides of a batch
Form = tuple[tuple[int, ...], tuple[int, ...]]
Run = Callable[[nn.Module, Tensor, Any], Any]


class NotCompiled(RuntimeError):
    """A network, or a machine, that cannot be compiled (on)."""


class _Unread:
    """Stands for data samples: what reads them would be compiled for those of one batch."""

    def _refuse(self, *_: Any) -> Any:
        raise NotCompiled('its forward pass reads data samples')

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = _refuse


@dataclass
class Program:
    """A captured forward pass for inputs of one shape.

    Attributes:
        call (Callable): pixels to the tensors of ``(calls, feats)``: recorded values by the source
            of their tap, and what ``extract_feat`` returned if the pass ends there.
        whole (bool): there is nothing to run behind it.
        leaves (list): of ``(calls, feats)``, with None where a tensor belongs.
        spec (TreeSpec): of the same.
        place (tuple): dtype and device of the pixels.
    """

    call: Callable[[Tensor], list[Tensor]]
    whole: bool
    leaves: list[Any] = field(default_factory=list)
    spec: Any = None
    place: tuple = ()

    def __call__(self, inputs: Tensor) -> tuple[dict[str, list], Any]:
        """``(calls, feats)``, computed in the precision that was captured."""
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            tensors = iter(self.call(inputs))
        leaves = [next(tensors) if leaf is None else leaf[0] for leaf in self.leaves]
        return trees.tree_unflatten(leaves, self.spec)


class Compiled:
    """The route of a teacher as compiled programs, one for each padded shape, at most ``limit``.

    The forward pass is run once on tensors without values while its operations are written down,
    taps and method taps as they are; the list of operations is what torch.compile gets. So nothing
    is compiled that depends on values, on data samples, or on hooks, and no option of torch._dynamo
    is touched. What cannot be captured as far as the heads, because it selects boxes, ends behind
    ``extract_feat``; the rest then runs as it is.

    The first batch of a shape runs both ways. If compiling fails, or changes the taps by more than
    rounding does, the run goes on uncompiled, with a warning.

    Args:
        run (Callable): ``run(model, inputs, samples)`` runs the route.
        limit (int): shapes to compile.
    """

    def __init__(self, recorder: Recorder, run: Run, limit: int) -> None:
        self.recorder, self.run, self.limit = recorder, run, limit
        self.rest: Recorder | None = None
        self.whole = True
        self.forms: list[Form] = []
        self.stopped = ''  # why no further shape is compiled
        self.programs: dict[Form, Program] = {}

    # ------------------------------------------------------------------------------- each step

    def __call__(self, pixels: Tensor, inputs: Tensor, samples: list) -> Side:
        """The taps on ``inputs`` (N, C, H, W), recorded as those of ``pixels``.

        The choice between compiled and not is the same in a resumed run, see :attr:`state`.
        """
        form = tuple(inputs.shape), inputs.stride()
        if not self._takes(form):
            return self._eager(pixels, inputs, samples)
        program = self.programs.get(form)
        if program is not None and program.place == (inputs.dtype, inputs.device):
            return self._replay(program, pixels, inputs, samples)
        wanted = self._eager(pixels, inputs, samples)
        try:
            print_log(f'Compiling the teacher for a batch of {_text(form)}.', 'current')
            program = self.compile(inputs)
            side = self._replay(program, pixels, inputs, samples)
        except Exception as error:  # of any compiler, and a run must not end here
            self._stop(f'compiling for a batch of {_text(form)} failed: {reason(error)}')
            self.forms = [other for other in self.forms if other != form]
            return wanted
        self.programs[form] = program
        if form not in self.forms:
            self.forms.append(form)
        return side

    def _takes(self, form: Form) -> bool:
        if form in self.forms:
            return True
        if not self.stopped and len(self.forms) >= self.limit:
            self._stop(f'a batch of {_text(form)} is one more than compile_shapes={self.limit}')
        return not self.stopped

    def _stop(self, why: str) -> None:
        self.stopped = why
        text = f'teacher: {why}. Shapes that are not compiled yet run uncompiled.'
        print_log(text, 'current', WARNING)

    def _eager(self, pixels: Tensor, inputs: Tensor, samples: list) -> Side:
        with self.recorder.record(pixels) as side:
            self.run(self.recorder.model, inputs, samples)
        return side

    def _replay(self, program: Program, pixels: Tensor, inputs: Tensor, samples: list) -> Side:
        calls, feats = program(inputs)
        if program.whole:
            return Side(self.recorder.model, pixels, calls)
        rest = self._rest(calls)
        with rest.record(pixels) as side, features_given(rest.model, feats) as asked:
            self.run(rest.model, inputs, samples)
        if not asked:
            raise NotCompiled(f'{type(rest.model).__name__} runs without extract_feat')
        side.calls.update(calls)
        return side

    def _rest(self, calls: dict[str, list]) -> Recorder:
        """Records the taps behind the compiled part."""
        if self.rest is None:
            taps = [tap for source, tap in self.recorder.taps.items() if source not in calls]
            self.rest = Recorder(self.recorder.model, taps)
            self.rest.overwritten.update(self.recorder.overwritten)
        return self.rest

    # ----------------------------------------------------------------------------- compilation

    def compile(self, inputs: Tensor) -> Program:
        """A program for inputs of this shape, checked on them.

        Raises:
            Exception: the network cannot be captured, the compiler fails, or the taps change.
        """
        program = self.capture(inputs)
        program.call = torch.compile(program.call, backend=BACKEND, dynamic=False, fullgraph=True)
        self.check(program, inputs)
        return program

    def capture(self, inputs: Tensor) -> Program:
        """The forward pass as far as it depends on nothing but shapes, not yet compiled.

        Raises:
            Exception: it cannot be captured.
        """
        if self.whole:
            try:
                return self._captured(inputs, True)
            except Exception:
                if not hasattr(self.recorder.model, 'extract_feat'):
                    raise
        program = self._captured(inputs, False)
        self.whole = False
        return program

    def _captured(self, inputs: Tensor, whole: bool) -> Program:
        from torch.fx.experimental.proxy_tensor import make_fx

        # What a forward pass keeps for the next one would be tensors without values.
        recorder = Recorder(shadow(self.recorder.model), self.recorder.taps.values())
        recorder.overwritten.update(self.recorder.overwritten)
        program = Program(nn.Identity(), whole, place=(inputs.dtype, inputs.device))

        def call(pixels: Tensor) -> list[Tensor]:
            leaves, program.spec = trees.tree_flatten(self._values(recorder, pixels, whole))
            program.leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        program.call = make_fx(call, tracing_mode='fake', _allow_non_fake_inputs=True)(inputs)
        for leaf in filter(None, program.leaves):
            if not isinstance(leaf[0], (bool, int, float, str, type(None))):
                raise NotCompiled(f'a tap shows a {type(leaf[0]).__name__}')
        return program

    def _values(self, recorder: Recorder, inputs: Tensor, whole: bool) -> tuple[dict, Any]:
        with recorder.record(inputs) as side:
            if whole:
                self.run(recorder.model, inputs, _Unread())
                return side.calls, None
            feats = recorder.model.extract_feat(inputs)
        return side.calls, feats

    def check(self, program: Program, inputs: Tensor) -> float:
        """The largest change of what a program returns, against the network as it is.

        Raises:
            NotCompiled: it is larger than rounding explains.
        """
        found = trees.tree_flatten(program(inputs))[0]
        wanted = trees.tree_flatten(self._values(self.recorder, inputs, program.whole))[0]
        limit, largest = LIMITS.get(inputs.dtype, EXACT), 0.0
        for a, b in zip(wanted, found, strict=True):
            if not isinstance(a, Tensor) or not a.is_floating_point():
                continue
            largest = max(largest, error := largest_change(a.float(), b.float()))
            if not error <= limit:  # NaN is no small change
                raise NotCompiled(
                    f'it changes the taps by {error:.2g} of their largest number, where rounding '
                    f'explains {limit:g}'
                )
        return largest

    def rehearse(self, inputs: Tensor, samples: list) -> str:
        """Try all but the compiler; returns how far the network can be compiled.

        Raises:
            Exception: not at all.
        """
        program = self.capture(inputs)
        error = self.check(program, inputs)
        self._replay(program, inputs, inputs, samples)
        self.rest = None  # which has not seen yet what the heads write over
        part = 'the whole route' if program.whole else 'extract_feat, without the heads'
        return (
            f'{part}, for {self.limit} shapes of a batch; changes the taps by at most {error:.2g}'
        )

    # -------------------------------------------------------------------------------- resuming

    @property
    def state(self) -> dict[str, Any]:
        """Which shapes are compiled, and whether others will be: part of a checkpoint."""
        return dict(
            forms=[[list(part) for part in form] for form in self.forms], stopped=self.stopped
        )

    @state.setter
    def state(self, state: Any) -> None:
        """Take over the choices of an interrupted run; what no run has written is left alone."""
        try:
            forms = [(tuple(shape), tuple(strides)) for shape, strides in state['forms']]
            self.forms, self.stopped = forms[: self.limit], str(state['stopped'])
        except (KeyError, TypeError, ValueError):
            return


def shadow(model: nn.Module) -> nn.Module:
    """A copy that shares every parameter and buffer with the model."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def check_compiler(device: str) -> None:
    """Compile a convolution.

    Raises:
        NotCompiled: this machine has no compiler for the device, or it does not work.
    """
    layer = nn.Conv2d(3, 3, 3, device=device).requires_grad_(False)

    def call(x: Tensor) -> Tensor:
        return layer(x).relu() + 1

    compiled = torch.compile(call, backend=BACKEND, dynamic=False, fullgraph=True)
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            compiled(torch.ones(1, 3, 8, 8, device=device))
    except Exception as error:
        raise NotCompiled(f'torch.compile does not work here: {reason(error)}') from None


def reason(error: Exception) -> str:
    """The first line of a compiler's complaint that says something, without its class."""
    cause = error.__cause__ or getattr(error, 'inner_exception', None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines or [type(cause).__name__])[0][:200].rstrip('.: ')


def _text(form: Form) -> str:
    return ' x '.join(map(str, form[0]))
