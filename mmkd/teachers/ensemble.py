"""Ensemble: several teachers that show objectives one mean."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import classifier, family_of
from mmkd.families.class_heads import shows_classes
from mmkd.functional.nested import flatten, map_tensors
from mmkd.functional.padding import crop_padding
from mmkd.generators import step_generator
from mmkd.options import (
    check_choice,
    check_list,
    check_number,
    check_temperature,
    options_of,
)
from mmkd.pixels import Pixels
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Side, Tap
from mmkd.teacher import Teacher, parts_of
from mmkd.teachers.kinds import build_teacher, kind, kind_of
from mmkd.teachers.label_spaces import LabelSpace, Specialists
from mmkd.teachers.means import check_shapes, mean_of, probability_mean, read_weights
from mmkd.teachers.stand_in import StandIn, count_classes, scores_tap

MEANS = ('logit', 'probability', 'feature', 'specialists')


@kind
class Ensemble(Teacher):
    """Several teachers of which objectives see the mean, as if it were one.

    Args:
        members (dict[str, dict]): teachers of any kind by name. An entry may say ``classes``, the
            names of its outputs, where its checkpoint does not.
        mean (str): ``'logit'``: weighted mean of logits, the geometric mean of probabilities;
            ``'probability'``: logits whose softmax at ``tau`` is the mean of the members'
            probabilities; ``'feature'``: weighted mean of any tapped tensors of equal shapes;
            ``'specialists'``: members that know a part of the classes, beside a ``generalist``.
        tau (float | None): temperature of ``'probability'`` and ``'specialists'``, that of the
            objectives that listen.
        weights (dict[str, float] | str | None): by member, or a JSON file of them; None: all alike.
        classes (str | list[str] | None): members of other classes, merged by name: ``'union'``, or
            the names in the student's order. For ``mean='probability'``.
        pick (str | None): ``'random'`` shows one member a step, drawn by weight.
        seed (int): of that draw, which depends on it and the iteration alone.
        generalist (str | None): the member that knows all classes.
        top (int): a specialist is asked if it knows one of the generalist's ``top`` best classes.
        oversampling (float | dict[str, float]): how many times as often as the others, in
            proportion, a specialist saw its own classes.

    Raises:
        ValueError: no member; unsuitable weights, classes or options; see also each member.
    """

    asks = False

    def __init__(
        self,
        members: Mapping[str, Any],
        mean: str = 'logit',
        tau: float | None = None,
        weights: Mapping[str, float] | str | None = None,
        classes: str | Sequence[str] | None = None,
        pick: str | None = None,
        seed: int = 0,
        generalist: str | None = None,
        top: int = 1,
        oversampling: float | Mapping[str, float] = 1.0,
    ) -> None:
        self.mean = check_choice('Ensemble', 'mean', mean, MEANS)
        self.tau = check_temperature('Ensemble', tau, optional=True)
        self.pick = check_choice('Ensemble', 'pick', pick, (None, 'random'))
        self.seed = check_number('Ensemble', 'seed', seed, 0, whole=True)
        self.asked_classes, self.notes = classes, []
        self.members, self.own_classes = _build(members)
        self.weights = read_weights(weights, list(self.members))
        self._check_options(weights, generalist)
        self.experts: Specialists | None = None
        if self.mean == 'specialists':
            self.experts = Specialists(generalist, list(self.members), top, oversampling)
        self.space: LabelSpace | None = None
        self.progress = Progress()
        self._tap = ''
        self._started: dict[str, Side] = {}
        if all(hasattr(member, 'model') for member in self.members.values()):
            self._show_model()

    def _check_options(self, weights: Any, generalist: str | None) -> None:
        if self.mean in ('probability', 'specialists') and self.tau is None:
            raise ValueError(
                f"Ensemble: mean='{self.mean}' is a mean at one temperature; give tau=, that of "
                'the objective (4 for KD of classifiers, 1 of segmentors).'
            )
        if self.mean in ('logit', 'feature') and self.tau is not None:
            raise ValueError(
                f"Ensemble: mean='{self.mean}' has no temperature; leave tau out, or take "
                "mean='probability'."
            )
        if self.asked_classes is not None and self.mean != 'probability':
            raise ValueError(
                f"Ensemble: classes= merges probabilities, but mean='{self.mean}'. Take "
                "mean='probability'."
            )
        if (generalist is not None) != (self.mean == 'specialists'):
            raise ValueError(
                'Ensemble: generalist= names the member that knows all classes and goes with '
                f"mean='specialists', found mean={self.mean!r}, generalist={generalist!r}."
            )
        if self.mean == 'specialists' and (weights is not None or self.pick):
            raise ValueError("Ensemble: mean='specialists' takes neither weights nor pick.")

    # ---------------------------------------------------------------------------------- its parts

    def __copy__(self) -> Ensemble:
        """What listens to it listens to copies of its members."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.members = {name: copy.copy(member) for name, member in self.members.items()}
        return new

    def parts(self) -> dict[str, Teacher]:
        return {f'.{name}': part for name, part in parts_of(self.members).items()}

    def to(self, *args: Any, **kwargs: Any) -> Ensemble:
        for member in self.members.values():
            member.to(*args, **kwargs)
        if isinstance(getattr(self, 'model', None), StandIn):
            super().to(*args, **kwargs)
        return self

    @property
    def loaded(self) -> str:
        what = 'probabilities' if self.mean == 'probability' else f'{self.mean}s'
        how = 'one a step, drawn,' if self.pick else f'mean of {what}'
        how = 'specialists' if self.experts else how
        shares = [f'{name} ({self.weights[name]:.3g})' for name in self.members]
        return f'{how} of {", ".join(self.members if self.experts else shares)}'

    @property
    def ready(self) -> bool:
        return all(member.ready for member in self.members.values())

    # ---------------------------------------------------------------------------------- at build

    def meet(self, student: nn.Module) -> None:
        for member in self.members.values():
            member.meet(student)
        self._show_model()

    def _show_model(self) -> None:
        """Find the network that stands for all: the first, or a stand-in of merged classes."""
        models = {name: member.model for name, member in self.members.items()}
        self.model = next(iter(models.values()))
        names = {name: self._classes_of(name) for name in models}
        if self.experts:
            self.model = models[self.experts.generalist]
            self.experts.learn(names, {n: count_classes('Ensemble', m) for n, m in models.items()})
        elif self.asked_classes is not None:
            counts = {n: count_classes('Ensemble', m) for n, m in models.items()}
            self.space = LabelSpace(self.asked_classes, names, counts, self.weights)
            if len(models) > 1 or not self.space.is_own:
                merged = dict(classes=len(self.space.names), names=self.space.names)
                self.model = StandIn.of('Ensemble', self.model, **merged, like=self.model)
        else:
            _check_order(names)
        self.pixels = Pixels.of(next(iter(models.values())))

    def _classes_of(self, member: str) -> tuple[str, ...] | None:
        own = self.own_classes[member]
        return classifier.classes(self.members[member].model) if own is None else own

    def set_taps(self, taps: Iterable[Tap]) -> None:
        taps = list(taps)
        self.recorder, self.route = Recorder(self.model, taps), 'all its members'
        self._tap = taps[0].source if taps else ''
        merges = self.experts is not None or isinstance(self.model, StandIn)
        for member in self.members.values():
            own = [Tap.parse(scores_tap(member.model))] if merges and taps else taps
            member.set_taps(own)

    def admit(self, objective: Any) -> None:
        super().admit(objective)
        for member in self.members.values():
            member.admit(objective)
        owner, others = type(objective).__name__, len(self.members) > 1
        if self.mean != 'feature' and others:
            for tap in objective.teacher_taps:
                self._check_tap(owner, tap)
        tau = getattr(objective, 'tau', self.tau)
        if self.tau is not None and others and tau != self.tau:
            raise ValueError(
                f"{owner} has the temperature {tau}, but the Ensemble's mean is that at "
                f"tau={self.tau:g}. Give both the same, or take mean='logit', which has none."
            )

    def _check_tap(self, owner: str, tap: Tap) -> None:
        exact = self.mean in ('probability', 'specialists')
        scores = family_of(self.model) in ('classifier', 'segmentor') and (
            tap.source == Tap.parse(scores_tap(self.model)).source
        )
        if not scores and (exact or not shows_classes(self.model, tap)):
            raise ValueError(
                f"{owner} listens at '{tap}', which shows no class scores of images or pixels, but "
                f"mean='{self.mean}' is a mean of them. Take mean='feature' for maps of equal "
                'shapes.'
            )

    @property
    def averages(self) -> bool:
        """Whether all members have to show equal shapes."""
        return self.experts is None and self.space is None

    # ---------------------------------------------------------------------------------- in a run

    def check(self, runner: Any) -> None:
        for member in self.members.values():
            member.check(runner)

    def begin(self, student: nn.Module) -> None:
        for member in self.members.values():
            member.begin(student)

    def before_step(self, progress: Progress) -> None:
        self.progress = progress
        for member in self.members.values():
            member.before_step(progress)

    def after_step(self, student: nn.Module, progress: Progress) -> None:
        for member in self.members.values():
            member.after_step(student, progress)

    def synchronise(self) -> None:
        for member in self.members.values():
            member.synchronise()

    def logged(self) -> dict[str, float]:
        found = {n: member.logged() for n, member in self.members.items()}
        return {f'{name}.{key}': value for name, own in found.items() for key, value in own.items()}

    def state_dict(self) -> dict[str, Any]:
        states = {name: member.state_dict() for name, member in self.members.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, own in state.items():
            self.members[name].load_state_dict(own)

    def shown(self) -> list[str]:
        """Members that run in this step: all, or the one that is drawn."""
        names = list(self.members)
        if not self.pick:
            return names
        draw = step_generator(self.seed, self.progress.iteration, 0)
        weights = torch.tensor([self.weights[name] for name in names], dtype=torch.float64)
        return [names[int(torch.multinomial(weights, 1, generator=draw))]]

    def start(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Side:
        """Start the members on the student's batch (N, 3, H, W); :meth:`join` takes the mean."""
        names = self.shown()
        sides = {n: self.members[n].start(inputs, samples, student_pixels) for n in names}
        self._started = sides
        first = sides[names[0]]
        if len(names) == 1 and not isinstance(self.model, StandIn):
            return first  # as it is: a mean of one would differ in the last bits
        # A member whose images are padded further shows more of the padding: that is cut off.
        sizes = [side.inputs.shape[2:] for side in sides.values()]
        h, w = (min(size) for size in zip(*sizes, strict=True))
        return Side(self.model, first.inputs[..., :h, :w])

    @torch.no_grad()
    def join(self, side: Side) -> None:
        """Wait for the members, and take the mean of what they show."""
        sides, self._started = self._started, {}
        for name, one in sides.items():
            self.members[name].join(one)
        if not sides or any(side is one for one in sides.values()):
            return
        with torch.autocast(side.inputs.device.type, enabled=False):
            if self.experts or self.space:
                side.calls[self._tap] = [[self._merged(sides, side.inputs)]]
                return
            for source in next(iter(sides.values())).calls:
                side.calls[source] = self._combine(source, sides, side.inputs)

    def _merged(self, sides: Mapping[str, Side], seen: Tensor) -> Tensor:
        logits = {
            n: _cropped(side[scores_tap(self.members[n].model)][0], side, seen)
            for n, side in sides.items()
        }
        if self.experts:
            return self.experts(logits, float(self.tau or 1))
        assert self.space is not None
        return self.space(logits, float(self.tau or 1))

    def _combine(self, source: str, sides: Mapping[str, Side], seen: Tensor) -> list[Any]:
        """The calls of one tap, in the form that the first member gave, with means for tensors."""
        masks = Tap.parse(source).scores  # whose queries have no common order
        calls = {n: x[source] if masks else x.calls.get(source, []) for n, x in sides.items()}
        members = {
            name: [_cropped(tensor, sides[name], seen) for tensor in flatten(value)]
            for name, value in calls.items()
        }
        check_shapes('Ensemble', source, members)
        weights = [self.weights[name] for name in members]
        groups = iter(zip(*members.values(), strict=True))

        def mean(_: Tensor) -> Tensor:
            group = [tensor.float() for tensor in next(groups)]
            if self.mean == 'probability':
                return probability_mean(group, weights, float(self.tau or 1))
            return mean_of(group, weights)

        return map_tensors(next(iter(calls.values())), mean)


def _cropped(shown: Tensor, side: Side, seen: Tensor) -> Tensor:
    """A map without what covers padding beyond the images ``seen`` by all members."""
    return crop_padding(shown, side.inputs, seen) if shown.dim() == 4 else shown


def _build(members: Any) -> tuple[dict[str, Teacher], dict[str, tuple[str, ...] | None]]:
    if not isinstance(members, Mapping) or not members:
        raise ValueError(
            f'Ensemble needs members=dict(name=dict(config=…, checkpoint=…), …), found {members!r}.'
        )
    built: dict[str, Teacher] = {}
    classes: dict[str, tuple[str, ...] | None] = {}
    for name, entry in members.items():
        if not isinstance(name, str) or '.' in name:
            raise ValueError(f'Ensemble: names of members are text without dots, found {name!r}.')
        classes[name] = None
        if not isinstance(entry, (Mapping, Teacher)):
            raise ValueError(f'Ensemble: member {name!r} must be dict(config=…), found {entry!r}.')
        if isinstance(entry, Mapping):
            entry = dict(entry)
            if 'classes' not in options_of(kind_of(entry)):  # an ensemble has its own
                own = entry.pop('classes', None)
                classes[name] = None if own is None else tuple(check_list(name, 'classes', own))
        built[name] = entry if isinstance(entry, Teacher) else build_teacher(entry)
    return built, classes


def _check_order(names: Mapping[str, tuple[str, ...] | None]) -> None:
    """A mean is of equal classes; members whose names are not known are taken at their word."""
    known = {name: own for name, own in names.items() if own is not None}
    first = next(iter(known), '')
    for name, own in known.items():
        if own != known[first]:
            raise ValueError(
                f'Ensemble: members {first!r} and {name!r} have other classes or another order of '
                f'them ({", ".join(known[first][:4])}, … and {", ".join(own[:4])}, …). Merge them '
                "by name with mean='probability', classes='union'."
            )
