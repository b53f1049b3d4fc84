"""From the pairs and methods of a study to its rows; what does not fit is a refused row."""

from __future__ import annotations

import functools
import os.path as osp
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd import methods
from mmkd.analysis.fits import Pair as Networks
from mmkd.analysis.fits import first_sentence
from mmkd.chain import Chain
from mmkd.chain.product import DONE
from mmkd.chain.resolving import OF_FOLDERS, teacher_places
from mmkd.config import distils, load_config, type_name
from mmkd.engine.wrapping import wrap_stock
from mmkd.engine.writable import make_folder
from mmkd.names import did_you_mean
from mmkd.registry import MODELS
from mmkd.study.entries import Method, Pair, Study
from mmkd.study.rows import (
    DISTILLED,
    TEACHER,
    Row,
    check_grid,
    check_teacher,
    differences,
    name_of,
    plain_of,
    teacher_key,
    with_grid,
)
from mmkd.teacher import Teacher, build_model

#: a teacher with such a checkpoint is to be trained first
_UNTRAINED = ('', 'last', 'best', 'random')


@dataclass(frozen=True)
class PairRows:
    """The rows of one pair.

    Attributes:
        pair (Pair): with the teacher that was found.
        teacher (Row | None): None where no method has one.
        plain (Row | None): None where the study has no baseline.
        methods (tuple[Row, ...]): the refused ones, too.
        flags (tuple[str, ...]): switches of the study that all runs get, such as ``--amp``.
    """

    pair: Pair
    teacher: Row | None
    plain: Row | None
    methods: tuple[Row, ...]
    flags: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return (row for row in (self.teacher, self.plain, *self.methods) if row)

    def command(self, row: Row, seed: int, work_dir: str) -> str:
        """The command that trains one run without the study."""
        return row.command(seed, work_dir, self.flags)

    def students(self) -> list[Row]:
        """Those that are trained, the plain one first; none that is refused."""
        return [row for row in self if row.kind != TEACHER and not row.refused]

    def trained(self) -> list[Row]:
        """All rows that are trained; a teacher that came with its weights is not."""
        own = [self.teacher] if self.teacher and not self.pair.checkpoint else []
        return [*own, *self.students()]


def rows_of(study: Study, work_dir: str, look: Callable[[Row], None] | None = None) -> list:
    """The rows of all pairs.

    Args:
        study (Study): of whose methods those by name get a config of their own in ``work_dir``.
        work_dir (str): of the study.
        look (callable): raises what is wrong with a row; builds its networks by default.

    Raises:
        ValueError: an unknown method; a method by name without a pair; two rows of one name; no
            method that fits any pair.
        FileNotFoundError: a config that is not there.
    """
    homes: dict[tuple[str, str], str] = {}
    found = [_of_pair(study, pair, work_dir, look or look_at, homes) for pair in study.pairs]
    fitting = [row for one in found for row in one.methods if not row.refused]
    if not fitting:
        reasons = '; '.join(f'{r.name} is {r.refused}' for one in found for r in one.methods)
        raise ValueError(f'No method of the study can be trained. {reasons}.')
    return found


def look_at(row: Row) -> None:
    """Build the networks of a row and plan it, without data and weights; raises what is wrong."""
    stage = dict(config=row.config, options=dict(row.options))
    Chain({'look': stage}, '', only_look=True)


def _of_pair(
    study: Study,
    pair: Pair,
    work_dir: str,
    look: Callable[[Row], None],
    homes: dict[tuple[str, str], str],
) -> PairRows:
    """The rows of one pair; ``homes`` has the first pair of each teacher, which is trained once."""
    _check_methods(study, pair)
    rows = [row for method in study.methods for row in _rows(study, pair, method, work_dir)]
    configs = [_config_of(row, study.seeds[0]) for row in rows]
    check_grid(study.grid, configs)
    rows = _named(rows, configs)
    only = _only(study.only, rows)
    pairs = [
        (new, config, row.name in only or _finished(new, study.seeds, work_dir))
        for row, config in zip(rows, configs, strict=True)
        for new in with_grid(row, study.grid, config)
    ]
    _check_names([row for row, _, _ in pairs])
    pair = _with_teacher(pair, configs)
    home = homes.setdefault((pair.teacher, pair.checkpoint), pair.name)
    others = {k: v for k, v in study.options.items() if k.partition('.')[0] != 'model'}
    teacher = Row(TEACHER, home, TEACHER, pair.teacher, others)
    run = '' if pair.checkpoint else teacher.run(study.seeds[0])
    first, rows = None, []
    for row, config, wanted in pairs:
        if not (wanted or first is None):
            continue
        row = _judged(_taught(row, config, pair, run), look)
        first = first or (None if row.refused else row)
        rows += [row] * wanted
    plain = None
    if study.baseline and first:
        plain = _alone(plain_of(first, first.read(study.seeds[0])), pair, study.seeds[0])
        base = plain.read(study.seeds[0])
        rows = [_compared(row, base, study.seeds[0]) for row in rows]
    return PairRows(pair, teacher if pair.teacher else None, plain, tuple(rows))


def _check_methods(study: Study, pair: Pair) -> None:
    """Refuse unknown names before networks are built."""
    if pair.student:
        load_config(pair.student)  # its custom_imports may register them
    for method in study.methods:
        if method.objectives and not _is_all(method):
            _known(method.objectives)


def _is_all(method: Method) -> bool:
    return method.objectives.casefold() == 'all'


def _config_of(row: Row, seed: int) -> Config:
    config = row.read(seed)
    if not distils(config.model):
        raise ValueError(f'methods: {row.config} does not distil. Name it as student=, not here.')
    return config


def _rows(study: Study, pair: Pair, method: Method, work_dir: str) -> list[Row]:
    options = {**study.options, **method.options}
    if method.config:
        return [Row(method.name, pair.name, DISTILLED, method.config, options)]
    if not (pair.student and pair.teacher):
        raise ValueError(
            f'{method.objectives!r} is a method by name, for which the study has to name both '
            "networks: student='…' and teacher='…', or --teacher."
        )
    if not _is_all(method):
        return [_wrapped(pair, method, options, work_dir)]
    # Those that generate images leave out the data, and the student's own losses.
    names = [name for name in methods.names() if not getattr(methods, name).makes_images]
    fits = _networks(pair).fits(names)
    found = [Method(objectives=one.method) for one in fits if not (one.reason or one.crash)]
    return [_wrapped(pair, one, options, work_dir) for one in found]


def _wrapped(pair: Pair, method: Method, options: dict[str, Any], work_dir: str) -> Row:
    """A method by name on two stock configs, with the options that it needs there."""
    refused, notes, own = '', [], {}
    for name in _known(method.objectives):
        fit = _networks(pair).fit(name)
        refused = refused or _refused(fit.crash or first_sentence(fit.reason))
        for key, value in fit.options.items():
            own[f'model.objectives.{name.lower()}.{key}'] = value
            notes.append(f'{name} with {key}={value!r}, without which it does not fit')
    shown = method.name or method.objectives.replace('+', ' + ')
    row = Row(shown, pair.name, DISTILLED, '', {**own, **options}, refused=refused, notes=(*notes,))
    folder = osp.join(work_dir, 'configs')
    path = osp.join(folder, f'{row.slug.lower()}.py')
    checkpoint = 'random' if pair.checkpoint in _UNTRAINED else pair.checkpoint
    _, text = wrap_stock(pair.student, pair.teacher, checkpoint, method.objectives)
    make_folder(folder)
    Path(path).write_text(text)
    return replace(row, config=path)


def _known(objectives: str) -> list[str]:
    """The methods of ``'KD+AT'``, spelt as they are registered."""
    found = []
    for name in objectives.split('+'):
        kind = MODELS.get(name if '.' in name else f'mmkd.{name}')
        if kind is None:
            raise ValueError(
                f'methods: {name!r} is unknown. Known methods: {", ".join(methods.names())}.'
                f'{did_you_mean(name, methods.names())}'
            )
        found.append(kind.__name__)
    return found


@functools.lru_cache(maxsize=1)
def _networks(pair: Pair) -> Networks:
    """Both networks of a pair with random weights, probed once for all methods."""
    config = load_config(pair.student)
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):
        return Networks(build_model(config), Teacher(pair.teacher, 'random'))


def _named(rows: Sequence[Row], configs: Sequence[Config]) -> list[Row]:
    """Rows without a name get that of their objectives; where it is taken, that of the file."""
    given = [row.name or name_of(one) for row, one in zip(rows, configs, strict=True)]
    files = [osp.splitext(osp.basename(row.config))[0] for row in rows]
    pairs = zip(rows, given, files, strict=True)
    return [
        replace(row, name=file if not row.name and given.count(name) > 1 else name)
        for row, name, file in pairs
    ]


def _finished(row: Row, seeds: Sequence[int], work_dir: str) -> bool:
    return all(osp.isfile(osp.join(work_dir, row.run(seed), DONE)) for seed in seeds)


def _only(asked: Sequence[str], rows: Sequence[Row]) -> set[str]:
    """Names of the rows, before the grid, that are to be trained; 'kd+at' is 'KD + AT'."""
    known = [row.name for row in rows]
    spelt = {_bare(name): name for name in known}
    for name in asked:
        if _bare(name) not in spelt:
            raise ValueError(
                f'--methods: the study has no {name!r}; it has '
                f'{", ".join(known)}.{did_you_mean(name, known)}'
            )
    return {spelt[_bare(name)] for name in asked or known}


def _bare(name: str) -> str:
    return name.replace(' ', '').casefold()


def _check_names(rows: Sequence[Row]) -> None:
    slugs = [row.slug.casefold() for row in rows] + ['plain', TEACHER]
    for row in rows:
        if slugs.count(row.slug.casefold()) > 1:
            raise ValueError(
                f'methods: two rows would be called {row.name!r}. Write methods=dict(name=…), with '
                'names of their own (not teacher or plain).'
            )


def _with_teacher(pair: Pair, configs: Sequence[Config]) -> Pair:
    """The teacher that the study names, else that of the first config with exactly one."""
    if pair.teacher:
        unknown = pair.checkpoint in _UNTRAINED
        return replace(pair, checkpoint='' if unknown else pair.checkpoint)
    for config in configs:
        places = list(teacher_places(config.model.get('teacher')))
        entry = places[0][1] if len(places) == 1 else {}
        if isinstance(entry.get('config'), str):
            checkpoint = entry.get('checkpoint') or ''
            given = '' if checkpoint in _UNTRAINED else checkpoint
            return replace(pair, teacher=entry['config'], checkpoint=given)
    return pair


def _taught(row: Row, config: Config, pair: Pair, run: str) -> Row:
    """Let a row learn from the study's teacher, trained in ``run`` if in any; if it has one."""
    places = dict(teacher_places(config.model.get('teacher')))
    if not pair.teacher or not places:
        return row
    try:
        check_teacher(row, config)
    except ValueError as error:
        return replace(row, refused=row.refused or _reason(error))
    key = teacher_key(config)
    if run:
        (entry,) = places.values()
        other = pair.teacher if entry.get('config') != pair.teacher else ''
        takes = 'folder' if type_name(entry) in OF_FOLDERS else 'checkpoint'
        return replace(row, learns_from=run, place=key, network=other, takes=takes)
    given = {f'{key}.config': pair.teacher, f'{key}.checkpoint': pair.checkpoint}
    return replace(row, options={**given, **row.options})


def _alone(plain: Row, pair: Pair, seed: int) -> Row:
    """A plain student that waits for no teacher: with all weights at 0 its weights do not count."""
    config = plain.read(seed)
    entries = dict(teacher_places(config.model.get('teacher'))).values()
    if not plain.learns_from or any('checkpoint' not in entry for entry in entries):
        return plain
    place = plain.place
    given = {f'{place}.config': pair.teacher, f'{place}.checkpoint': 'random'}
    return replace(plain, learns_from='', options={**plain.options, **given})


def _judged(row: Row, look: Callable[[Row], None]) -> Row:
    if row.refused:
        return row
    try:
        look(row)
    except (TypeError, ValueError) as error:
        return replace(row, refused=_reason(error))
    return row


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    if text.startswith('Stage '):
        text = text.partition('): ')[2] or text
    return _refused(first_sentence(text))


def _refused(reason: str) -> str:
    return reason and f'refused: {reason}'


def _compared(row: Row, plain: Config, seed: int) -> Row:
    if row.refused:
        return row
    other = differences(plain, row.read(seed))
    if not other:
        return row
    shown = ', '.join(other[:4]) + ', …' * (len(other) > 4)
    return replace(row, notes=(*row.notes, f'differs from plain in {shown}'))
