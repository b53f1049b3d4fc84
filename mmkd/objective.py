"""Objective and PairObjective, the base classes of methods (losses on relations have their own)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from mmkd.adapters import build_adapter
from mmkd.levels import Level, pair_levels
from mmkd.map_sizes import RESIZE, Map, equal_size
from mmkd.options import check_choice, check_number, options_of, weight_or
from mmkd.schedule import Progress, Schedule, accept_schedules
from mmkd.tap import Tap, Trace, parse_taps
from mmkd.trains import PLAYERS, Trains
from mmkd.view import Boxes, View

Taps = str | Tap | Iterable[str | Tap] | None


class Objective(nn.Module):
    """One term of the distillation loss, with its parameters and buffers.

    Order of calls: ``__init__`` checks options; :meth:`bind` gets both networks, may choose default
    taps and refuses unsuitable pairs; :meth:`setup` gets the tapped shapes and creates adapters;
    :meth:`forward` computes the losses of one step. The framework handles weights, schedules,
    precision (float32, outside autocast), freezing and checkpoints.

    Args:
        student (str | list[str] | None): taps on the student; ``None``: the default taps.
        teacher (str | list[str] | None): taps on the teacher; ``None``: those of the student.
        weight (float | dict | None): a number, or the keys of :class:`~mmkd.schedule.Schedule`;
            without a value the method's published weight.
        teacher_name (str | list[str] | None): whom it listens to: a teacher, a peer or
            ``'student'``; not needed with one teacher. Networks that still learn are heard without
            gradients. A list is for methods that compare with several (``many_teachers``).
        learner (str): who learns from it: ``'student'`` or a peer.

    A method's ``__init__`` names its own options and passes the others on: ``*taps`` (student,
    teacher) and ``**common``.
    """

    #: default taps; ``bind`` may replace them
    taps: ClassVar[Taps] = None
    #: the published weight, for ``weight=None`` and for schedules that name no ``value``
    default_weight: ClassVar[float] = 1.0
    #: needs a teacher at all (a regulariser does not)
    needs_teacher: ClassVar[bool] = True
    #: listens to several teachers at once; ``bind`` is then called with each of them
    many_teachers: ClassVar[bool] = False
    #: the loss may be zero for a batch without ground truth
    needs_ground_truth: bool = False
    #: reads no ground truth, as it is bound: it also learns from images without labels
    label_free: bool = False
    #: what it, or its student, needs labels for, as it is bound; for messages
    why_labels: str = ''
    #: losses that grow with the number of images: those of images without labels are added, where
    #: the mean over all images is taken of others
    adds_up: tuple[str, ...] = ()
    #: differentiates with respect to the pixels, which then require gradients in the student's pass
    needs_input_gradient: ClassVar[bool] = False
    #: runs the student once more, so that its terms depend on weights and not on the taps alone
    runs_student: ClassVar[bool] = False
    #: compares classes, so that label i must be the same class in student and teacher; None: if a
    #: tap gives class scores, see families.class_heads
    compares_classes: ClassVar[bool | None] = None
    #: the loss is zero if student and teacher are equal and adapters are identities
    zero_at_equality: ClassVar[bool] = True
    #: a peer that it listens to learns from it, too: its taps come with gradients, for losses that
    #: are among ``own_losses``
    teaches_back: ClassVar[bool] = False
    #: attribute that holds the factor of a loss, by the loss's key; factor 0: not checked
    term_factors: ClassVar[Mapping[str, str]] = {}
    #: a critic compares both networks as distributions: a term that does so image by image goes
    #: beside it
    adversarial: ClassVar[bool] = False
    #: keys of losses that train the objective's own parameters, without a gradient in the student
    own_losses: ClassVar[tuple[str, ...]] = ()
    #: keys of losses that may be 0 while the student knows little; the preflight waits for them
    late_losses: ClassVar[tuple[str, ...]] = ()
    #: config of an optimiser for the objective's parameters; None: the student's optimiser
    optimizer: Mapping[str, Any] | None = None
    #: buffers that only a resumed run needs: left out of checkpoints without an optimiser
    resume_only: ClassVar[tuple[str, ...]] = ()
    #: attributes with tensors of one step for the next; None again once ``state_dict()`` was called
    transient: ClassVar[tuple[str, ...]] = ()
    #: options of ``__init__``, numbers of the same name in ``forward``, that may be schedules
    scheduled: ClassVar[tuple[str, ...]] = ()
    #: the schedules of those that are, by option
    schedules: Mapping[str, Schedule] = MappingProxyType({})
    #: under DDP, averaged gradients of k ranks equal those of one process with the whole batch
    rank_invariant: ClassVar[bool] = False
    #: runs parts of the teacher again, takes some over, or reads its queries: an ensemble has none
    asks_teacher: bool = False
    #: set in a step in which its teacher has nothing to show yet; then it counts as at weight 0
    rests: bool = False
    #: generates the images of each step, in place of the data's: ``images(inputs, progress)``
    makes_images: ClassVar[bool] = False
    #: who trains, and in which steps; set by the Distiller
    trains: Trains = Trains.of(PLAYERS)
    #: the student's pass over images that are held back moves its BatchNorm statistics
    moves_statistics: bool = True
    #: the first step must show the shapes that were planned; not so where a tap shows layers or
    #: queries, whose number differs in training and whose first dimension is not that of images
    checks_shapes: ClassVar[bool] = True
    #: supports a teacher on images of another size than the student's, see mmkd.scales
    over_scales: ClassVar[bool] = False
    #: side of the learner's images over that of its teachers'; known before ``bind``
    image_scale: Fraction = Fraction(1)
    #: supported model families, keys of mmkd.families.FAMILIES
    families: ClassVar[tuple[str, ...]] = ()
    #: families of the teacher, if they are not the student's
    teacher_families: ClassVar[tuple[str, ...]] = ()
    #: further families that are supported with named taps, such as student='neck'
    named_taps: ClassVar[tuple[str, ...]] = ()
    #: if only some detectors of a family are supported, their names: {'anchor': ('GFL',)}
    only: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.scheduled and '__init__' in vars(cls):
            cls.__init__ = accept_schedules(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__()
        #: taps in the config, which may be unsuitable, unlike the method's own
        self.asked_taps = {*parse_taps(student), *parse_taps(teacher)}
        student = self.taps if student is None else student
        self.student_taps = parse_taps(student)
        self.teacher_taps = parse_taps(student if teacher is None else teacher)
        if not self.needs_teacher:
            self.teacher_taps = ()
        self._asked_weight = weight
        self.set_default_weight(self.default_weight)
        #: whom it listens to, in order; the plan knows the only teacher of a model
        self.teacher_names = self._names_of(teacher_name)
        if not isinstance(learner, str):
            raise TypeError(
                f"{type(self).__name__}: learner must be 'student' or the name of a peer, found "
                f'{learner!r}.'
            )
        self.learner = learner
        #: of those that listen to several teachers, the levels of each; known before ``setup``
        self.teacher_levels: dict[str, list[Level] | None] = {}

    def _names_of(self, teacher_name: Any) -> tuple[str, ...]:
        if teacher_name is None:
            return ()
        names = [teacher_name] if isinstance(teacher_name, str) else teacher_name
        several = isinstance(names, (list, tuple)) and all(isinstance(x, str) for x in names)
        if not several or not names or (len(names) > 1 and not self.many_teachers):
            raise TypeError(
                f'{type(self).__name__}: teacher_name must be the name of one teacher, found '
                f'{teacher_name!r}. For several teachers add an objective for each.'
            )
        return tuple(names)

    def set_default_weight(self, value: float) -> None:
        """Set the weight for configs without one, if it depends on options or models."""
        self.weight = Schedule.of(weight_or(value, self._asked_weight))

    def set_numbers(self, progress: Progress) -> dict[str, float]:
        """Give the options that are schedules their values at one step, which it returns."""
        now = {name: schedule.number(progress) for name, schedule in self.schedules.items()}
        for name, value in now.items():
            setattr(self, name, value)
        return now

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Called once with both networks, at build; raises ValueError for unsuitable ones."""

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        """Called once with the shapes at the taps, at build (None if they could not be probed)."""

    def inherit(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Copy weights of the teacher to the student; called at build, and again when training
        begins, after the student was initialised or loaded."""

    def factor_of(self, key: str) -> float:
        """The factor of the loss ``key`` in the config, 1 for losses without a factor."""
        name, _, item = self.term_factors.get(key, '').partition('.')
        value: Any = getattr(self, name) if name else 1.0
        return value[item] if item else value

    def held_back(self, samples: list) -> int:
        """How many images at the end of a batch are for this objective alone.

        Nobody else sees them, not even the student's own losses. The student runs on them without
        gradients, behind the others, and they come as ``trace.second``.
        """
        return 0

    def check_task_weight(self, task_weight: float | Mapping[str, float]) -> None:
        """Called once with the factors of the student's own losses, before the first step; raises
        ValueError if they differ from the method's equation. Those of a peer's losses are 1."""

    def check_dataset(self, dataset: Any) -> None:
        """Called once with the training set, before the first step; raises ValueError if unfit."""

    def forward(self, trace: Trace) -> Tensor | dict[str, Tensor]:
        """Losses of one step, unweighted.

        A mapping's keys that start with ``loss`` are summed, any other key is logged only.
        """
        raise NotImplementedError(f'{type(self).__name__} has no forward(trace).')

    def describe(self) -> list[str]:
        """Lines for ``mmkd plan``."""
        return []

    def views(self, trace: Trace) -> Sequence[View | Boxes]:
        """Maps and boxes of this objective in one step, for tools/visualize.py."""
        return []

    def views_at(self, trace: Trace, point: tuple[float, float]) -> Sequence[View | Boxes]:
        """The same for one point, (x, y) in pixels of the input; for ``--point``."""
        return self.views(trace)


class PairObjective(Objective):
    """Compare student and teacher tensor by tensor: implement :meth:`compare`, nothing else.

    Feature maps are paired by stride; an adapter brings the student's map to the teacher's width,
    and both get the same size. ``compare`` is called once per pair and the results are summed.

    Args:
        adapt (str | None): ``'auto'``: a 1x1 convolution where widths differ; a name of
            :data:`mmkd.adapters.ADAPTERS`: this adapter for every pair (``'ensemble3'`` is the mean
            of three); ``None``: no adapters, and unequal widths are refused.
        resize (str | None): maps of one pair must agree within one cell (then the student's is
            resized); ``'student'`` or ``'teacher'``: maps that differ by more take its size;
            ``'label'``: the input's size. Maps are enlarged by bilinear interpolation; a side
            that shrinks to half, rounded up, or less is averaged.
        level_map (str | list[tuple[int, int]] | None): ``None``: every level needs a partner of
            equal stride; ``'common'``: levels without a partner are dropped; or pairs of positions.
        in_channels, out_channels (int | None): student and teacher width for taps whose shapes
            cannot be probed.
    """

    over_scales = True
    label_free = True
    #: adapters bring the student's maps to the teacher's width; False: maps of any widths
    adapts_width: ClassVar[bool] = True

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        adapt: str | None = 'auto',
        resize: str | None = None,
        level_map: str | list | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name, learner)
        self.resize = check_choice(type(self).__name__, 'resize', resize, RESIZE)
        self.adapt, self.level_map = adapt, level_map
        owner = type(self).__name__
        self.widths = tuple(
            check_number(owner, name, width, 1, whole=True, optional=True)
            for name, width in dict(in_channels=in_channels, out_channels=out_channels).items()
        )
        self.pairs: list[tuple[int, int]] = []
        self.adapters = nn.ModuleDict()
        self.align_corners = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.align_corners = bool(getattr(student, 'align_corners', False))

    def compared_sizes(
        self, student: list[Level] | None, teacher: list[Level] | None
    ) -> list[tuple[int, ...]]:
        """(H, W) at which the maps of each pair are compared in the probe; behind :meth:`setup`."""
        place = 1 if self.resize == 'teacher' else 0
        levels = (student, teacher)[place]
        return [levels[pair[place]].shape[1:] for pair in self.pairs] if levels else []

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not self.adapts_width:
            student = _of_one_channel(student, self.student_taps)
            teacher = _of_one_channel(teacher, self.teacher_taps)
        elif student is None or teacher is None:
            student, teacher = self._typed_levels()
        name = type(self).__name__
        options = options_of(type(self))
        any_stride, scale = self.resize is not None, self.image_scale
        pairs = pair_levels(student, teacher, self.level_map, any_stride, name, options, scale)
        self.pairs = pairs
        for k, (i, j) in enumerate(pairs):
            adapter = build_adapter(self.adapt, student[i], teacher[j], name)
            if adapter is not None:
                self.adapters[f'{k}'] = adapter

    def check_widths(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        """Typed widths are for taps that cannot be probed; where they can, both must agree."""
        sides = (('in_channels', student), ('out_channels', teacher))
        for width, (option, levels) in zip(self.widths, sides, strict=True):
            found = [level.channels for level in levels or []]
            if width is not None and found and width not in found:
                raise ValueError(
                    f'{type(self).__name__}: {option}={width}, but the tap shows '
                    f'{", ".join(map(str, found))} channels. Leave {option} out: widths of taps '
                    'that can be probed are known.'
                )

    def _typed_levels(self) -> tuple[list[Level], list[Level]]:
        if None in self.widths:
            raise ValueError(
                f'{type(self).__name__}: the taps {_names(self.student_taps)} and '
                f'{_names(self.teacher_taps)} could not be probed at build; '
                'give in_channels= and out_channels= (student and teacher width).'
            )
        levels = [Level((width, 1, 1), None) for width in self.widths if width]
        return levels[:1], levels[1:]

    def forward(self, trace: Trace) -> Tensor | dict[str, Tensor]:
        return {'loss': sum(self.compare(s, t) for s, t in self.tensor_pairs(trace))}

    def tensor_pairs(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of equal shape after pairing, resizing and adapting."""
        pairs = []
        for k, (student, teacher) in enumerate(self.maps(trace)):
            adapter = self.adapter(k)
            adapted = student if adapter is None else adapter(student)
            if adapted.shape != teacher.shape:
                raise ValueError(
                    f'{type(self).__name__}: student {tuple(student.shape)} and teacher '
                    f'{tuple(teacher.shape)} cannot be compared.'
                )
            pairs.append((adapted, teacher))
        return pairs

    def adapter(self, pair: int) -> nn.Module | None:
        """The adapter of pair number ``pair``, None for the identity."""
        return self.adapters[f'{pair}'] if f'{pair}' in self.adapters else None

    def maps(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of each pair, of equal height and width, before the adapters."""
        student = [t for tap in self.student_taps for t in trace.student.maps(tap)]
        teacher = [t.detach() for tap in self.teacher_taps for t in trace.teacher.maps(tap)]
        return [self._same_size(student[i], teacher[j], trace) for i, j in self.pairs]

    def _same_size(self, student: Map, teacher: Map, trace: Trace) -> tuple[Tensor, Tensor]:
        owner = type(self).__name__
        return equal_size(owner, student, teacher, trace, self.resize, self.align_corners)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of one pair of equal shape, e.g. (N, C, H, W); a scalar."""
        raise NotImplementedError(f'{type(self).__name__} has no compare(student, teacher).')

    def describe(self) -> list[str]:
        adapters = [self.adapter(k) for k in range(len(self.pairs))]
        return [
            f'{self.learner} level {i} <- teacher level {j}: {_what(adapter)}'
            for (i, j), adapter in zip(self.pairs, adapters, strict=True)
        ]


def _of_one_channel(levels: list[Level] | None, taps: tuple[Tap, ...]) -> list[Level]:
    """The levels as if all had one channel, which need no adapter.

    A tap that could not be probed is taken for a single map.
    """
    if levels is None:
        return [Level((1, 1, 1), None, str(tap)) for tap in taps]
    return [replace(level, shape=(1, *level.shape[1:])) for level in levels]


def _what(adapter: nn.Module | None) -> str:
    if adapter is None:
        return 'no adapter'
    if hasattr(adapter, 'describe'):
        return adapter.describe()
    return ', '.join(
        type(module).__name__ for module in adapter.modules() if not [*module.children()]
    )


def _names(taps: tuple[Tap, ...]) -> str:
    return ', '.join(str(tap) for tap in taps)
