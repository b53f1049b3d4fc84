"""Teachers: what all kinds have, and the frozen network: loaded strictly, with its own pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.checkpoint import (
    dataset_meta_of,
    read_checkpoint,
    refuse_not_finite,
    weights_of,
    weights_of_one,
)
from mmkd.checkpoint.fitting import COUNTER, load_weights, mismatch_message, weights_for
from mmkd.compiled import Compiled
from mmkd.config import distils, load_config, model_of
from mmkd.functional.nested import flatten
from mmkd.options import check_choice, check_number
from mmkd.pixels import Pixels, fitted
from mmkd.registry import MODELS
from mmkd.route import run_route, shortest_route
from mmkd.scales import seen_by_teachers
from mmkd.schedule import Progress
from mmkd.streams import SideStream, has_streams
from mmkd.students import student_of
from mmkd.tap import Recorder, Side, Tap
from mmkd.uninitialised import finite
from mmkd.views import check_batches, looked_at

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32, None: None}


class Teacher:
    """A frozen network with its weights, whose outputs objectives compare with the student's.

    It is no sub-module of anything: absent from checkpoints, optimiser, EMA and SyncBN conversion,
    shared by ``deepcopy``, in eval mode for ever. The other kinds (:mod:`mmkd.teachers`) derive
    from this one and change what they need to. Order of calls: :meth:`meet`, :meth:`set_taps`,
    :meth:`admit` at build; :meth:`check` and :meth:`begin` when training begins; in every step
    :meth:`before_step`, the call itself if an objective listens, and :meth:`after_step`.

    Args:
        config (str | dict | nn.Module): path of a config, ``'mmdet::…'``, a model mapping, or a
            built model.
        checkpoint (str): local file, the folder of a run (its newest checkpoint), or URL;
            ``'released'``, ``'last'`` or ``'best'``, see :func:`~mmkd.checkpoint.weights_of`;
            ``'random'`` is the only way to run untrained.
        dtype (str | None): ``'bf16'`` or ``'fp16'`` runs the network in that precision.
        memory_format (str | None): ``'channels_last'``.
        fuse_conv_bn (bool): fold BatchNorms into their convolutions; refused by the plan if the
            taps then show other values.
        fast (bool): all three where they are right: folded BatchNorms, bf16 where the machine
            computes in it, channels_last without a RoI extractor. The plan leaves out options that
            change the taps by more than rounding does, and prints which.
        compile (bool): torch.compile of the route to the taps, see
            :class:`~mmkd.compiled.Compiled`; left out, with a line in the plan, where there is no
            compiler or the network cannot be captured.
        compile_shapes (int): padded shapes to compile; batches of others run uncompiled.
        stream (bool): on a GPU, run on a CUDA stream of its own, beside the student's forward pass.
        view (str): another picture that the samples carry, see :mod:`mmkd.views`; ``''``: none.
        ignore_keys (list[str]): regular expressions of checkpoint keys that may differ.
        cfg_options (dict | None): overrides of the config, as in ``--cfg-options``.

    Raises:
        ValueError: no checkpoint; unknown option; keys missing, unexpected or mis-shaped.
        FileNotFoundError: config or checkpoint does not exist.
    """

    #: objectives may run parts of ``Side.model`` again, such as a box head on other RoIs
    asks: ClassVar[bool] = True
    #: its weights are, or come from, the student's own
    of_student: ClassVar[bool] = False
    model: nn.Module
    source: str = ''
    #: what its weights are going to be from, where only a plan is made
    awaits: str = ''
    loaded_keys: int = 0
    fuse_conv_bn: bool = False
    fast: bool = False
    dtype: torch.dtype | None = None
    memory_format: torch.memory_format = torch.preserve_format
    route: str = 'tensor'
    recorder: Recorder | None = None
    compile: bool = False
    compiled: Compiled | None = None
    compile_note: str = ''
    stream: bool = False
    side_stream: SideStream | None = None
    view: str = ''
    #: networks that were trained beside this run: scores and last checkpoint, by name
    beside: Mapping[str, tuple[Mapping[str, float], str]] = {}

    def __init__(
        self,
        config: str | dict | Config | nn.Module,
        checkpoint: str | None = None,
        dtype: str | None = None,
        memory_format: str | None = None,
        fuse_conv_bn: bool = False,
        fast: bool = False,
        compile: bool = False,
        compile_shapes: int = 8,
        stream: bool = False,
        ignore_keys: Iterable[str] = (),
        cfg_options: dict | None = None,
        view: str = '',
    ) -> None:
        dtype = check_choice('teacher', 'dtype', dtype, DTYPES)
        memory_format = check_choice(
            'teacher', 'memory_format', memory_format, (None, 'channels_last')
        )
        self.compile_shapes = check_number(
            'teacher', 'compile_shapes', compile_shapes, 1, whole=True
        )
        if checkpoint is None:
            raise ValueError(
                f'teacher {_title(config)} has no checkpoint. Set checkpoint= to a file or URL; '
                "an untrained teacher must be asked for with checkpoint='random'."
            )
        ignore_keys = [ignore_keys] if isinstance(ignore_keys, str) else list(ignore_keys)
        checkpoint = weights_of(checkpoint, config)
        model = build_model(config, cfg_options)
        if checkpoint != 'random':
            self.loaded_keys = load_strictly(model, checkpoint, ignore_keys)
        self.adopt(model, checkpoint)
        self.fuse_conv_bn, self.fast, self.compile = fuse_conv_bn, fast, compile
        self.stream, self.view = stream, view
        self.dtype = DTYPES[dtype]
        self.memory_format = torch.channels_last if memory_format else torch.preserve_format

    def adopt(self, model: nn.Module, source: str) -> None:
        """Freeze a network, which is this teacher's from now on.

        Args:
            source (str): where its weights are from, for the plan.
        """
        self.source = source
        self.pixels = Pixels.of(model)
        # BatchNorm instead of SyncBN: the same in eval mode, and it also runs on a CPU.
        self.model = revert_sync_batchnorm(model)
        self.model.eval().requires_grad_(False)
        self.notes: list[str] = []  # of the plan on its options

    @property
    def loaded(self) -> str:
        """Where the weights are from, for a plan."""
        if self.awaits:
            return f'weights of {self.awaits}'
        if self.source == 'random':
            return 'RANDOM WEIGHTS'
        return f'{self.loaded_keys} keys from {self.source}'

    # --------------------------------------------------------- what the other kinds do otherwise

    @property
    def ready(self) -> bool:
        """Whether it has something to show; if not, whoever listens rests, as at weight 0."""
        return True

    def parts(self) -> dict[str, Teacher]:
        """The networks in it, each under a name that follows the teacher's own."""
        return {'': self}

    def meet(self, student: nn.Module) -> None:
        """Called once at build with the student, whose weights are not those that it starts with;
        raises ValueError for one that does not suit."""
        check_batches(self.view, student)

    def admit(self, objective: Any) -> None:
        """Called once at build with every objective that listens, after its ``bind``.

        Raises:
            ValueError: an objective that this kind cannot serve.
        """
        if not self.asks and objective.asks_teacher:
            raise ValueError(
                f'{type(objective).__name__} runs parts of the teacher again on values of its own, '
                f'or reads its queries one by one, which {type(self).__name__} cannot answer: it '
                'shows what several networks, or something that is no network, gave for whole '
                'images. Take a method that '
                'compares what is tapped (CWD, PKD, AT; KD of classifiers and segmentors), or a '
                'teacher of one network.'
            )

    def check(self, runner: Any) -> None:
        """Called once before the first step, with the Runner; raises ValueError."""

    def begin(self, student: nn.Module) -> None:
        """Called once when training begins, after weights were loaded; not in a resumed run."""

    def before_step(self, progress: Progress) -> None:
        """Called in each step in which an objective of weight above 0 listens."""

    def after_step(self, student: nn.Module, progress: Progress) -> None:
        """Called after each step of the optimiser; with accumulated gradients, not in between.

        Args:
            student (nn.Module): with the new weights.
            progress (Progress): of the step just done.
        """

    def synchronise(self) -> None:
        """Called on all ranks just before a checkpoint is written."""

    def saved(self, progress: Progress) -> None:
        """Called on all ranks when one is complete, before an older one is deleted."""

    def end(self, scores: Mapping[str, float], checkpoint: str) -> None:
        """Called on all ranks when training is over.

        Args:
            scores (Mapping[str, float]): of the last validation.
            checkpoint (str): the last one, ``''`` without any.
        """

    def logged(self) -> dict[str, float]:
        """Numbers for the log, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain values; ``{}``: nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo of :meth:`state_dict`."""

    # ------------------------------------------------------------------------------------ running

    def __deepcopy__(self, memo: dict) -> Teacher:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Teacher:
        """Follow the student to another device (never to another dtype)."""
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None:
            self.model.to(device)
        return self

    def set_taps(self, taps: Iterable[Tap]) -> None:
        """Set the taps, and with them the shortest route that reaches them."""
        taps = list(taps)
        self.recorder = Recorder(self.model, taps)
        self.route = route = shortest_route(self.model, taps)
        self.compiled = None
        if self.compile and taps:
            self.compiled = Compiled(self.recorder, partial(_run_along, route), self.compile_shapes)

    def __call__(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Side:
        """Record the taps on the student's batch (N, 3, H, W), or on HalfScale's full batch."""
        side = self.start(inputs, samples, student_pixels)
        self.join(side)
        return side

    @torch.no_grad()
    def start(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Side:
        """As a call; with ``stream=True`` nothing may read what is recorded before :meth:`join`."""
        assert self.recorder is not None, 'set_taps() first'
        inputs, samples = seen_by_teachers(inputs, samples)
        inputs, student_pixels = looked_at(self.view, inputs, samples, student_pixels)
        with self._beside(inputs), self.precision(inputs.device.type):
            inputs, samples = fitted(self.pixels, inputs, samples, student_pixels)
            seen = inputs.to(dtype=self.dtype or inputs.dtype, memory_format=self.memory_format)
            if self.compiled is not None:
                return self.compiled(inputs, seen, samples)
            with self.recorder.record(inputs) as side:
                run_route(self.model, self.route, seen, samples)
        return side

    def join(self, side: Side) -> None:
        """Wait, on the device, for what :meth:`start` recorded."""
        if self.side_stream is not None:
            self.side_stream.join(flatten([side.inputs, *side.calls.values()]))

    @property
    def stream_note(self) -> str:
        """What ``stream=True`` does here, for a plan."""
        if not self.stream:
            return ''
        if torch.cuda.is_available():
            return "stream: beside the student's forward pass, on a CUDA stream of its own"
        return "stream: no CUDA device here, so it runs before the student's forward pass"

    def _beside(self, inputs: Tensor) -> AbstractContextManager:
        if not self.stream or not has_streams(inputs):
            return nullcontext()
        if self.side_stream is None or self.side_stream.stream.device != inputs.device:
            self.side_stream = SideStream(inputs.device)
        return self.side_stream.after([inputs])

    def precision(self, device: str) -> torch.autocast:
        """The teacher's own precision, independent of the student's.

        Weights and pixels have it already; positional encodings and the like, which modules make
        in float32 themselves, get it where the two meet.
        """
        if self.dtype in (torch.float16, torch.bfloat16):
            return torch.autocast(device, dtype=self.dtype)
        return torch.autocast(device, enabled=False)


def parts_of(teachers: Mapping[str, Teacher]) -> dict[str, Teacher]:
    """The networks of several teachers, see :meth:`Teacher.parts`, by the whole name of each."""
    return {
        f'{name}{which}': part
        for name, teacher in teachers.items()
        for which, part in teacher.parts().items()
    }


def _title(config: Any) -> str:
    return repr(config) if isinstance(config, str) else '(given as a mapping)'


def build_model(
    config: str | dict | Config | nn.Module, cfg_options: dict | None = None
) -> nn.Module:
    """Build a model from a config file, a whole config or a model mapping, all of it finite."""
    if isinstance(config, nn.Module):
        return config
    if isinstance(config, str):
        config = load_config(config)
    config = copy.deepcopy(config)
    if cfg_options:
        config = config if isinstance(config, Config) else Config(config)
        config.merge_from_dict(cfg_options)
    model = model_of(config)
    scope = config.get('default_scope')
    if distils(model):
        model = model_of(student_of(model))
    if scope is None:
        scope = _guess_scope(model)
    with DefaultScope.overwrite_default_scope(scope):
        return finite(lambda: MODELS.build(ConfigDict(model)))  # mmdet reads attributes


def _guess_scope(model: dict) -> str | None:
    """Scope of a bare mapping: its type's package, the Runner's, or the one that has the type."""
    kind = model.get('type')
    path = f'{kind.__module__}.{kind.__name__}' if isinstance(kind, type) else str(kind)
    package, dot, _ = path.partition('.')
    if dot:
        return package if package in ('mmdet', 'mmseg') else None
    if DefaultScope.get_current_instance() is not None:
        return None
    for scope in ('mmdet', 'mmseg'):
        if MODELS.get(f'{scope}.{model.get("type")}') is not None:
            return scope
    return None


def fuse(model: nn.Module) -> nn.Module:
    """Fold every eval-mode BatchNorm into the convolution registered in front of it, in place."""
    from mmcv.cnn import fuse_conv_bn

    return fuse_conv_bn(model).requires_grad_(False)


def load_strictly(
    model: nn.Module,
    source: str,
    ignore_keys: Iterable[str] = (),
    who: str = 'teacher',
    network: str = 'student',
) -> int:
    """Load every weight, or raise a ValueError that lists the mismatches; returns the key count.

    Weights that hold NaN or infinity are refused, too (CheckpointError, which is a ValueError).
    ``num_batches_tracked`` may be absent: old files lack it and no eval-mode network reads it. What
    else may differ in wrapping or age: see :mod:`mmkd.checkpoint.fitting`. ``network`` may name a
    peer, ``'peers.<name>'``, whose weights are meant instead of the student's.
    """
    checkpoint = weights_of_one(read_checkpoint(source), network, source)
    model.dataset_meta = dataset_meta_of(checkpoint)
    state, prefix = weights_for(model, checkpoint, source)
    fit = load_weights(model, state, prefix)
    lines = fit.without((*ignore_keys, COUNTER)).lines(10)
    if lines:
        raise ValueError(mismatch_message(fit, source, lines, who))
    refuse_not_finite(model.state_dict(), f'{who}: {source}', model)
    return fit.loaded


def _run_along(route: str, model: nn.Module, inputs: Tensor, samples: Any) -> None:
    run_route(model, route, inputs, samples)
