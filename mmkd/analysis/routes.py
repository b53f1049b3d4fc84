"""Search for the best guidance route: short probes with successive halving."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isinf
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmkd.analysis.short_runs import Probe, ProbeLog, Prober, Route
from mmkd.methods.guidance_route import GuidanceRoute
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

#: losses by which probes can be ranked
RANKS = ('joint', 'task')


def ranked(probes: Iterable[Probe], rank: str = 'joint') -> list[Probe]:
    """Best first; of equal ones the finer map of the student."""
    return sorted(probes, key=lambda probe: (getattr(probe, rank), probe.route))


@dataclass
class Search:
    """A finished search; ``text()`` is the output of tools/search_routes.py."""

    objective: str
    routes: dict[Route, str]
    rank: str = 'joint'
    rounds: list[list[Probe]] = field(default_factory=list)

    def left(self) -> list[Route]:
        """Routes of the next round: all, or the better half of the last one, rounded up."""
        if not self.rounds:
            return list(self.routes)
        return [probe.route for probe in self.rounds[-1][: (len(self.rounds[-1]) + 1) // 2]]

    @property
    def winner(self) -> Route:
        return self.rounds[-1][0].route if self.rounds else next(iter(self.routes))

    @property
    def gap(self) -> float | None:
        """By how much the runner-up of the last round was worse."""
        if not self.rounds:
            return None
        best, second = (getattr(probe, self.rank) for probe in self.rounds[-1][:2])
        return second - best

    def text(self) -> str:
        """Tables, notes on them, and the winner for a config."""
        snippet = f'model = dict(objectives=dict({self.objective}=dict(routes=[{self.winner}])))'
        if not self.rounds:
            return f'{self.routes[self.winner]} is the only route: no search needed.\n\n{snippet}\n'
        lines = [
            '| round | epochs | route | joint | task | route term | behind |',
            '|---' * 7 + '|',
        ]
        for probes in self.rounds:
            best = getattr(probes[0], self.rank)
            lines += [
                f'| {p.round + 1} | {p.epochs} | {p.route} {self.routes[p.route]} | {p.joint:.4f} '
                f'| {p.task:.4f} | {p.term:.4f} | {getattr(p, self.rank) - best:.4f} |'
                for p in probes
            ]
        by_task = ranked(self.rounds[-1], 'task')[0].route
        lines += [
            '',
            f'Winner by {self.rank} loss: {self.winner}, {self.gap:.4f} before the runner-up.',
            'Route terms of different maps have different scales; the task loss has one.',
            f'The task loss of the last round alone prefers {by_task}.',
            '',
            snippet,
        ]
        return '\n'.join(lines) + '\n'

    def close_round(self, probes: Sequence[Probe]) -> None:
        """Rank the probes of a round; FloatingPointError if all of them diverged."""
        self.rounds.append(ranked(probes, self.rank))
        if isinf(getattr(self.rounds[-1][0], self.rank)):
            raise FloatingPointError(
                f'All {len(probes)} routes diverged in round {len(self.rounds)}. Lower the '
                f"learning rate or the weight of objective '{self.objective}', or clip gradients."
            )

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        rounds = [[asdict(p) | dict(joint=p.joint) for p in probes] for probes in self.rounds]
        return dict(
            objective=self.objective,
            routes=[dict(route=route, maps=maps) for route, maps in self.routes.items()],
            rank=self.rank,
            rounds=rounds,
            winner=self.winner,
            gap=self.gap,
        )


def search_routes(
    config: Config,
    work_dir: str,
    epochs: int = 1,
    hold_out: float = 0.1,
    seed: int | None = None,
    rank: str = 'joint',
    objective: str | None = None,
    progress: Callable[[str], None] = print,
) -> Search:
    """Successive halving over the routes of a config's GuidanceRoute.

    A probe is the beginning of the run itself, with its schedules, one route, and without
    validation and checkpoints; all of a round see the same batches from the same weights. Round r
    trains ``epochs * 2**r`` epochs anew and keeps the better half, rounded up. Losses are those
    in eval mode, with the objective's full weight, on a part of the training set that no probe
    trains on; it passes the training pipeline, with the same random draws for all.

    Args:
        config (Config): of a distillation run; its objective's ``routes`` are the candidates.
        work_dir (str): keeps ``probes.json``, so that a killed search goes on with the same call.
        epochs (int): of the first round.
        hold_out (float): share of the training set.
        seed (int | None): of weights, batches and hold-out; None takes the config's, else 0.
        rank (str): ``'joint'``, task and route term, as published; or ``'task'``.
        objective (str | None): its name, where there are several.
        progress (Callable): told of each probe in a line.

    Raises:
        FloatingPointError: every route diverged; one that does alone loses.
        ValueError: no such objective; several processes; an option out of range; probes longer
            than the run, or over before the weight rises; ``work_dir`` is that of another search.
    """
    rank = check_choice('search_routes', 'rank', rank, RANKS)
    epochs = check_number('search_routes', 'epochs', epochs, 1, whole=True)
    if config.get('launcher', 'none') != 'none':
        raise ValueError('The search for routes runs in one process: leave out --launcher.')
    if seed is None:
        seed = (config.get('randomness') or {}).get('seed') or 0
    name, routes = find_routes(config, objective)
    settings = dict(objective=name, epochs=epochs, hold_out=hold_out, seed=seed)
    done = ProbeLog(Path(work_dir) / 'probes.json', settings | dict(config=_fingerprint(config)))
    longest = epochs * 2 ** max((len(routes) - 1).bit_length() - 1, 0)
    prober = Prober(config, name, work_dir, hold_out, seed, longest)
    result = Search(name, routes, rank)
    while len(result.left()) > 1:
        result.close_round(_one_round(result, prober, done, epochs, progress))
    return result


def _one_round(
    search: Search, prober: Prober, done: ProbeLog, epochs: int, progress: Callable[[str], None]
) -> list[Probe]:
    """Train a probe for each route that is left, but for those that the log already has."""
    number, probes = len(search.rounds), []
    for route in search.left():
        probe = done.find(number, route)
        if probe is None:
            probe = prober.run(number, route, epochs * 2**number)
            done.add(probe)
        probes.append(probe)
        loss = f'{search.rank} loss {getattr(probe, search.rank):.4f}'
        progress(f'round {number + 1}, {route} {search.routes[route]}: {loss}')
    return probes


def find_routes(config: Config, name: str | None = None) -> tuple[str, dict[Route, str]]:
    """Name of the GuidanceRoute of a config, and its candidates in words.

    Raises:
        ValueError: no GuidanceRoute, or several and no name.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = MODELS.build(copy.deepcopy(config.model))
    found = getattr(model, 'objectives', None) or {}
    known = {key: own for key, own in found.items() if isinstance(own, GuidanceRoute)}
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name not in known:
        raise ValueError(
            'The search needs the name of one GuidanceRoute among the objectives (--objective), '
            f'found name {name!r} and of that kind: {", ".join(known) or "none"}.'
        )
    sides = [model.plan.seen[f'{name}.{side}'] for side in ('student', 'teacher')]
    pairs = known[name].pairs
    return name, {(i, j): f'{sides[0][i].tap} <- {sides[1][j].tap}' for i, j in pairs}


def _fingerprint(config: Config) -> str:
    """Changes whenever the config does, whoever launches it."""
    text = json.dumps(config.to_dict() | dict(launcher='none'), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
