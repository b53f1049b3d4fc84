"""Who trains in a run: the student, objectives, peers; each in every step, or in turns."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmkd.names import did_you_mean, find_name
from mmkd.options import match_options
from mmkd.schedule import Progress, Schedule

PLAYERS = ('student', 'objectives', 'peers')
TURN = ('every', 'first', 'count')
#: steps that are looked through for one without any player
LOOKED_THROUGH = 100_000


@dataclass(frozen=True)
class Trains:
    """The turns of each player that trains; who has none does not train at all.

    Args:
        turns (dict[str, Schedule]): of ``'student'``, ``'objectives'`` (their own parameters) and
            ``'peers'``.
    """

    turns: Mapping[str, Schedule]

    @classmethod
    def of(cls, entry: Any) -> Trains:
        """Read a config entry: names of players, or a mapping from them to turns.

        Raises:
            TypeError: neither.
            ValueError: an unknown player, a turn that does not fit, nobody at all.
        """
        if isinstance(entry, Trains):
            return entry
        names = [entry] if isinstance(entry, str) else entry
        if not isinstance(names, (Mapping, list, tuple)):
            raise TypeError(
                f'trains must be names of {", ".join(PLAYERS)}, or a mapping from them to turns '
                f'such as dict(every=6, count=5), found {entry!r}.'
            )
        turns = {}
        for name in names:
            player = find_name(name, PLAYERS) if isinstance(name, str) else None
            if player is None:
                raise ValueError(
                    f'trains: nobody is called {name!r}; there are {", ".join(PLAYERS)}.'
                    f'{did_you_mean(str(name), PLAYERS)}'
                )
            turns[player] = _turn(player, names[name] if isinstance(names, Mapping) else {})
        if not turns:
            raise ValueError(f'trains is empty: nobody trains. There are {", ".join(PLAYERS)}.')
        return cls(turns)

    def __call__(self, player: str, progress: Progress) -> bool:
        """Whether a player trains in a step."""
        return player in self.turns and self.turns[player].has_turn(progress)

    def __contains__(self, player: str) -> bool:
        """Whether a player trains in any step."""
        return player in self.turns

    @property
    def in_turns(self) -> bool:
        """Whether someone who trains rests in some steps."""
        return any(turn.every > 1 for turn in self.turns.values())

    def check(self, able: Collection[str]) -> None:
        """Check that someone trains in each step.

        Args:
            able (set[str]): players that have parameters to train.

        Raises:
            ValueError: nobody does, with the first such step.
        """
        turns = {player: turn for player, turn in self.turns.items() if player in able}
        if not turns:
            raise ValueError(
                f'trains: nobody of {", ".join(self.turns)} has parameters to train. Add the '
                'student, or an objective that learns something of its own.'
            )
        period = math.lcm(*(turn.every for turn in turns.values()))
        for step in range(min(period, LOOKED_THROUGH)):
            if not any(turn.has_turn(Progress(step, period)) for turn in turns.values()):
                raise ValueError(
                    f'trains: nobody trains in step {step} of every {period}: {self._told(turns)}. '
                    'Let the turns cover every step.'
                )

    def __str__(self) -> str:
        return self._told(self.turns)

    @staticmethod
    def _told(turns: Mapping[str, Schedule]) -> str:
        return ', '.join(
            player if turn.every == 1 else f'{player} in {_steps(turn)} of {turn.every}'
            for player, turn in turns.items()
        )


def _turn(player: str, entry: Any) -> Schedule:
    if entry is True:
        entry = {}
    if not isinstance(entry, Mapping):
        raise TypeError(
            f'trains: the turns of {player} must be a mapping such as dict(every=6, count=5), '
            f'found {entry!r}.'
        )
    owner = f'trains: {player}'
    return Schedule(**match_options(owner, entry, TURN), owner=owner)


def _steps(turn: Schedule) -> str:
    last = turn.first + turn.count - 1
    return f'step {turn.first}' if last == turn.first else f'steps {turn.first} to {last}'


def player_of(learner: str) -> str:
    """The player to whom the network ``learner`` belongs."""
    return 'student' if learner == 'student' else 'peers'


def keep_alive(key: str, parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """A zero that still reaches parameters of who rests, which DDP insists on."""
    trained = [p for p in parameters if p.requires_grad]
    return {key: sum(p.sum() * 0.0 for p in trained)} if trained else {}
