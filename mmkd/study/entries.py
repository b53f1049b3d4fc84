"""What the config of a study says: pairs of networks, methods, seeds, and options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mmkd.engine.overrides import one_slip
from mmkd.names import did_you_mean
from mmkd.options import check_flags, check_number


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    Attributes:
        name (str): ``''`` for the only pair.
        teacher, checkpoint (str): its config and its weights, without which it is trained;
            ``''``: those that the methods' configs name.
        student (str): config of the plain student; ``''``: that of the methods' configs.
    """

    name: str = ''
    teacher: str = ''
    checkpoint: str = ''
    student: str = ''

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any], where: str) -> Pair:
        """From ``teacher=`` and ``student=``.

        Raises:
            ValueError: neither a path nor ``dict(config=…, checkpoint=…)``; an unknown key.
        """
        _check_keys(where, entry, ('teacher', 'student'))
        teacher = entry.get('teacher') or {}
        teacher = dict(config=teacher) if isinstance(teacher, str) else teacher
        student = entry.get('student') or ''
        if not isinstance(teacher, Mapping) or not isinstance(student, str):
            raise ValueError(
                f'{where}: teacher is the path of a config or dict(config=…, checkpoint=…), '
                f'student a path; found {entry.get("teacher")!r} and {student!r}.'
            )
        _check_keys(f'{where}.teacher', teacher, ('config', 'checkpoint'))
        return cls(name, teacher.get('config') or '', teacher.get('checkpoint') or '', student)


@dataclass(frozen=True)
class Method:
    """One row of the table, before the grid.

    Attributes:
        name (str): in the table; ``''``: the names of the objectives.
        config (str): of a distilled student; or
        objectives (str): methods by name, ``'KD+AT'`` for two at once, on the pair's student.
        options (dict): as ``--cfg-options``.
    """

    name: str = ''
    config: str = ''
    objectives: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, entry: Any, where: str) -> Method:
        """From a path, a name, or a mapping with ``config`` or ``objectives``, and ``options``.

        Raises:
            ValueError: something else.
        """
        if isinstance(entry, str) and entry:
            of_file = entry.endswith('.py') or '::' in entry
            return cls(name, entry if of_file else '', '' if of_file else entry)
        if not isinstance(entry, Mapping) or bool(entry.get('config')) == bool(
            entry.get('objectives')
        ):
            raise ValueError(
                f"{where} = {entry!r}: write the path of a distilled config, a method's name such "
                "as 'FGFI' or 'KD+AT', or a mapping with config= or objectives=, and options=."
            )
        _check_keys(where, entry, ('config', 'objectives', 'options'))
        given = {key: entry.get(key) or '' for key in ('config', 'objectives')}
        return cls(name, **given, options=dict(entry.get('options') or {}))


@dataclass(frozen=True)
class Search:
    """How the methods worth a whole training are found; see :mod:`mmkd.study.halving`.

    Attributes:
        epochs (int): of the first round; each further one trains twice as long.
        keep (int): methods that are left at the end.
        hold_out (float): share of the training set that decides, and is not trained on.
    """

    epochs: int = 1
    keep: int = 1
    hold_out: float = 0.1

    @classmethod
    def read(cls, entry: Any) -> Search | None:
        """From ``search=dict(epochs=…, keep=…, hold_out=…)``; raises ValueError otherwise."""
        if entry is None:
            return None
        if not isinstance(entry, Mapping):
            raise ValueError(f'search = {entry!r}: write search=dict(epochs=1, keep=1).')
        _check_keys('search', entry, [one.name for one in fields(cls)])
        found = cls(**entry)
        check_number('search', 'epochs', found.epochs, 1, whole=True)
        check_number('search', 'keep', found.keep, 1, whole=True)
        check_number('search', 'hold_out', found.hold_out, above=0, below=1)
        return found


@dataclass(frozen=True)
class Study:
    """Everything that is to be trained and compared.

    Attributes:
        pairs, methods (list): each method is trained on each pair.
        seeds (list[int]): of every student; the teacher is trained with the first.
        grid (dict[str, list]): values by dotted key; each method is trained with all combinations
            of those that its config has a place for.
        options (dict): of all runs, as ``--cfg-options``; those of ``model`` of the students alone.
        metric (str | None): name in the log, None for AP, mIoU or top-1.
        baseline (bool): train plain students, too.
        search (Search | None): short runs that choose methods before.
        only (list[str]): names of the methods that are trained; empty: all of them. Others are in
            the table if they are finished. The plain student is that of the first method all the
            same, so others can follow later.
    """

    pairs: Sequence[Pair]
    methods: Sequence[Method]
    seeds: Sequence[int]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    baseline: bool = True
    search: Search | None = None
    only: Sequence[str] = ()

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Study:
        """From the top level of a config; other names in it may be variables of the file.

        Raises:
            ValueError: no method, no seed, or whatever else cannot be meant.
        """
        known = ('teacher', 'student', *(one.name for one in fields(cls)), 'work_dir')
        for key in config:
            near = next((k for k in known if k not in config and one_slip(key, k)), None)
            if near:
                raise ValueError(f'The study has {key!r}. Did you mean {near!r}?')
        baseline = config.get('baseline', True)
        check_flags(cls, dict(baseline=baseline))
        return cls(
            _pairs(config),
            _methods(config.get('methods')),
            _seeds(config.get('seeds')),
            _grid(config.get('grid') or {}),
            dict(config.get('options') or {}),
            config.get('metric'),
            baseline,
            Search.read(config.get('search')),
            list(config.get('only') or ()),
        )


def _pairs(config: Mapping[str, Any]) -> list[Pair]:
    own = {key: config[key] for key in ('teacher', 'student') if config.get(key)}
    pairs = config.get('pairs')
    if pairs is None:
        return [Pair.read('', own, 'study')]
    if own or not isinstance(pairs, Mapping) or not pairs:
        raise ValueError(
            f'pairs = {pairs!r}: write pairs=dict(name=dict(teacher=…, student=…)), and no teacher '
            'and student beside it.'
        )
    return [Pair.read(name, entry, f'pairs.{name}') for name, entry in pairs.items()]


def _methods(entry: Any) -> list[Method]:
    entry = [entry] if isinstance(entry, str) else entry
    if isinstance(entry, Mapping):
        found = [Method.read(name, one, f'methods.{name}') for name, one in entry.items()]
    elif isinstance(entry, Sequence):
        found = [Method.read('', one, f'methods[{i}]') for i, one in enumerate(entry)]
    else:
        found = []
    if not found:
        raise ValueError(
            f"methods = {entry!r} names none. Write methods=['FGFI', 'CWD'], paths of distilled "
            "configs, or 'all' for those that fit the pair; or --methods FGFI,CWD."
        )
    return found


def _seeds(entry: Any) -> list[int]:
    seeds = [0] if entry is None else [entry] if isinstance(entry, int) else list(entry)
    if not seeds or len({*seeds}) < len(seeds):
        raise ValueError(f'seeds = {entry!r}: name at least one, and none twice: seeds=[0, 1].')
    return [check_number('study', 'seed', seed, 0, 2**32 - 1, whole=True) for seed in seeds]


def _grid(entry: Any) -> dict[str, list[Any]]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"grid = {entry!r}: write grid={{'model.balance': [None, 0.3]}}.")
    found = {}
    for key, values in entry.items():
        several = isinstance(values, (list, tuple))
        found[key] = list(values) if several else [values]
        odd = [v for v in found[key] if isinstance(v, float) and not math.isfinite(v)]
        if not found[key] or odd:
            raise ValueError(f'grid: {key} = {values!r} has no value that can be trained with.')
    return found


def _check_keys(where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in entry:
        if key not in known:
            raise ValueError(
                f'{where} has no {key!r}.{did_you_mean(key, known)} It has {", ".join(known)}.'
            )
