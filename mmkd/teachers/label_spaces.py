"""Members of an ensemble that know other classes than the student: unions and specialists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd.options import check_number
from mmkd.teachers.means import specialist_mean, union_mean, with_oversampling

Names = Mapping[str, tuple[str, ...] | None]


class LabelSpace:
    """The classes of all members by name, and where the columns of each of them go.

    Args:
        classes (str | Sequence[str]): ``'union'``, in the order in which members bring them, or
            the names in the wanted order.
        names (Mapping): class names of each member.
        counts (Mapping): how many outputs it has.
        weights (Mapping): its weight.

    Raises:
        ValueError: names that are unknown, do not fit the outputs, or are missing in the list.
    """

    def __init__(
        self,
        classes: str | Sequence[str],
        names: Names,
        counts: Mapping[str, int],
        weights: Mapping[str, float],
    ) -> None:
        if isinstance(classes, str) and classes != 'union':
            raise ValueError(f"Ensemble: classes must be 'union' or a list, found {classes!r}.")
        own = {member: _named(member, names[member], counts[member]) for member in names}
        union = dict.fromkeys(name for m, found in own.items() if weights[m] for name in found)
        self.names = tuple(union) if classes == 'union' else tuple(classes)
        unknown = [name for name in self.names if name not in union]
        missing = [name for name in union if name not in self.names]
        if unknown or missing or len(set(self.names)) < len(self.names):
            raise ValueError(
                f'Ensemble: classes={list(self.names)} must name every class of a member of weight '
                f'above 0 once, {list(union)}'
                + f'; nobody knows {unknown}' * bool(unknown)
                + f'; missing are {missing}' * bool(missing)
                + '.'
            )
        self.members = [member for member in own if weights[member]]
        self.columns = [[self.names.index(n) for n in own[member]] for member in self.members]
        self.weights = [weights[member] for member in self.members]
        #: one member, with exactly these classes
        self.is_own = list(own.values()) == [self.names]

    def __call__(self, logits: Mapping[str, Tensor], tau: float) -> Tensor:
        """Logits (N, C, …) whose softmax at ``tau`` is the merged distribution."""
        softened = [(logits[member] / tau).softmax(1) for member in self.members]
        shapes = {p.shape[2:] for p in softened}
        if len(shapes) > 1:
            raise ValueError(
                f'Ensemble: score maps of members have the sizes {sorted(map(tuple, shapes))}; '
                'merge segmentors of one stride.'
            )
        q = union_mean(softened, self.columns, self.weights, len(self.names))
        return tau * q.clamp(min=torch.finfo(q.dtype).tiny).log()


class Specialists:
    """A generalist, and members that know a subset of its classes and a dustbin for the rest.

    Args:
        generalist (str): the member that knows all classes.
        members (list[str]): all members.
        top (int): who knows one of the generalist's best ``top`` classes is asked.
        oversampling (float | Mapping): see :func:`~mmkd.teachers.means.with_oversampling`.

    Raises:
        ValueError: no such generalist; oversampling not above 0; top below 1.
    """

    def __init__(
        self,
        generalist: str | None,
        members: list[str],
        top: int,
        oversampling: float | Mapping[str, float],
    ) -> None:
        if generalist not in members:
            raise ValueError(
                f'Ensemble: generalist={generalist!r} is none of the members {", ".join(members)}.'
            )
        self.generalist: str = str(generalist)
        self.names = [member for member in members if member != generalist]
        self.top = check_number('Ensemble', 'top', top, 1, whole=True)
        given: Any = oversampling
        if not isinstance(oversampling, Mapping):
            given = dict.fromkeys(self.names, oversampling)
        if set(given) != set(self.names):
            raise ValueError(
                f'Ensemble: oversampling must be a number, or one for each of '
                f'{", ".join(self.names)}, found {oversampling!r}.'
            )
        self.factors = {
            name: check_number('Ensemble', 'oversampling', given[name], above=0)
            for name in self.names
        }
        self.subsets: list[list[int]] = []

    def learn(self, names: Names, counts: Mapping[str, int]) -> None:
        """Find the subsets by class names.

        Raises:
            ValueError: a subset that is empty, all classes, or not of the generalist's; no dustbin.
        """
        if not self.names:
            return
        all_names = _named(self.generalist, names[self.generalist], counts[self.generalist])
        self.top = min(self.top, len(all_names))
        self.subsets = []
        for member in self.names:
            own = tuple(names[member] or ())
            own = own[:-1] if len(own) == counts[member] else own
            foreign = [name for name in own if name not in all_names]
            if len(own) != counts[member] - 1 or foreign:
                raise ValueError(
                    f'Ensemble: specialist {member!r} has {counts[member]} outputs, the last of '
                    f'which is the dustbin, and the classes {list(own)}; they must be classes of '
                    f'the generalist {self.generalist!r} ({", ".join(all_names)}), one for each '
                    'other output. Say classes= in its entry where its checkpoint does not.'
                )
            if not own or len(own) == len(all_names):
                raise ValueError(
                    f'Ensemble: specialist {member!r} knows {len(own)} of {len(all_names)} '
                    'classes, but a specialist knows a part. One that knows all belongs in a mean: '
                    "mean='probability'."
                )
            self.subsets.append([all_names.index(name) for name in own])

    def __call__(self, logits: Mapping[str, Tensor], tau: float) -> Tensor:
        """Logits (N, C, …) whose softmax at ``tau`` is the
        :func:`~mmkd.teachers.means.specialist_mean`."""
        own = logits[self.generalist]
        if not self.names:
            return own
        rows = {name: z.movedim(1, -1).flatten(0, -2) for name, z in logits.items()}
        general = (rows[self.generalist] / tau).softmax(1)
        best = general.topk(self.top, 1).indices
        active = torch.stack([torch.isin(best, best.new_tensor(s)).any(1) for s in self.subsets], 1)
        special = [
            (with_oversampling(rows[name], self.factors[name]) / tau).softmax(1)
            for name in self.names
        ]
        q = specialist_mean(general, special, self.subsets, active)
        found = tau * q.clamp(min=torch.finfo(q.dtype).tiny).log()
        found = torch.where(active.any(1, keepdim=True), found, rows[self.generalist])
        return found.unflatten(0, (len(own), *own.shape[2:])).movedim(-1, 1)


def _named(member: str, names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if names is None or len(names) != count:
        found = 'no class names' if names is None else f'{len(names)} class names'
        raise ValueError(
            f'Ensemble: member {member!r} has {count} outputs and {found}. Say classes=[…] in its '
            'entry, in the order of its outputs.'
        )
    return tuple(names)
