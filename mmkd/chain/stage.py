"""What the config of a chain says: stages, and references from one to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mmkd.names import did_you_mean

NAME = r'[A-Za-z0-9_-]+'
TAKE = r'last|best|epoch_\d+|iter_\d+'
_ROLES = ('teacher', 'student', 'objectives', 'files')
#: keys of a stage that are mappings, with an example
_MAPPINGS = {
    'make': "dict(type='mmkd.…')",
    'files': "{'model.teacher.weights': '<stage>'}",
    'options': "{'train_cfg.max_epochs': 12}",
}
_REFERENCE = re.compile(rf'({NAME})(?::({TAKE}))?(?:/(peers\.{NAME}))?')


@dataclass(frozen=True)
class Reference:
    """A stage and which of its files, as written in the config of a chain.

    Attributes:
        stage (str): name of an earlier stage.
        take (str): ``'last'``, ``'best'``, ``'epoch_8'`` or ``'iter_800'``.
        part (str): ``'peers.<name>'`` for a network that learned beside the student, else ``''``.
    """

    stage: str
    take: str = 'last'
    part: str = ''

    def __str__(self) -> str:
        return f'{self.stage}:{self.take}{f"/{self.part}" if self.part else ""}'

    @classmethod
    def read(cls, text: Any, take: str, where: str) -> Reference:
        """Parse ``'<stage>'``, ``'<stage>:best'``, ``'<stage>:epoch_8/peers.<name>'``.

        Raises:
            ValueError: another text.
        """
        match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{where} = {text!r} is no reference. Write '<stage>', '<stage>:last', "
                "'<stage>:best', '<stage>:epoch_8' or '<stage>:iter_800', with '/peers.<name>' "
                'behind it for a peer.'
            )
        return cls(match[1], match[2] or take, match[3] or '')


@dataclass(frozen=True)
class Stage:
    """One run, or one maker, of a chain.

    Attributes:
        name (str): also of its folder in the chain's work dir.
        config (str): path of an ordinary config, ``'mmkd::…'``; exclusive with ``make``.
        make (dict | None): a maker, ``dict(type='mmkd.…', …)``.
        teacher (dict[str, Reference]): the teacher of a name, ``''`` the only one.
        student (Reference | None): weights that the student starts from, strictly.
        objectives (Reference | None): ``objectives.*`` of equal name and shape carry on.
        files (dict[str, Reference]): keys of the config, or options of the maker, that get the
            path of a file.
        take (str): which file a reference of this stage means that does not say.
        options (dict): as ``--cfg-options``.
    """

    name: str
    config: str = ''
    make: Mapping[str, Any] | None = None
    teacher: Mapping[str, Reference] = field(default_factory=dict)
    student: Reference | None = None
    objectives: Reference | None = None
    files: Mapping[str, Reference] = field(default_factory=dict)
    take: str = 'last'
    options: Mapping[str, Any] = field(default_factory=dict)

    def references(self) -> dict[str, Reference]:
        """References by role: ``'teacher'``, ``'teacher.a'``, ``'student'``, ``'files.key'``."""
        found = {teacher_role(name): reference for name, reference in self.teacher.items()}
        for role in ('student', 'objectives'):
            if getattr(self, role):
                found[role] = getattr(self, role)
        return found | {f'files.{key}': value for key, value in self.files.items()}

    def maker(self, files: Mapping[str, str]) -> dict[str, Any]:
        """The entry of its maker with the files from other stages.

        Args:
            files (dict[str, str]): paths by role; without one the reference itself stands there.
        """
        given = {key: files.get(f'files.{key}', str(one)) for key, one in self.files.items()}
        return {**(self.make or {}), **given}

    @classmethod
    def read(cls, name: str, entry: Any) -> Stage:
        """Check one entry of ``stages``.

        Raises:
            ValueError: a name that is no folder's; an unknown key; both or neither of ``config``
                and ``make``; a value of another kind; a text that is no reference.
        """
        where = f'stages.{name}'
        if not re.fullmatch(NAME, str(name)):
            raise ValueError(
                f'{where}: the name of a stage is that of its folder: letters, digits, - and _.'
            )
        if not isinstance(entry, Mapping):
            raise ValueError(f'{where} = {entry!r} is no stage. Write {name}=dict(config=…).')
        known = [one.name for one in fields(cls)][1:]
        for key in entry:
            if key not in known:
                hint = did_you_mean(key, known)
                raise ValueError(f'{where} has no {key!r}.{hint} A stage has {", ".join(known)}.')
        if bool(entry.get('config')) == bool(entry.get('make')):
            found = 'both' if entry.get('config') else 'neither'
            raise ValueError(f'{where}: give either config= or make=, found {found}.')
        for key, example in _MAPPINGS.items():
            if not isinstance(entry.get(key) or {}, Mapping):
                raise ValueError(
                    f'{where}.{key} = {entry[key]!r} is no mapping. Write {key}={example}.'
                )
        take = entry.get('take', 'last')
        if not re.fullmatch(TAKE, str(take)):
            raise ValueError(f"{where}.take = {take!r}: write 'last', 'best' or 'epoch_8'.")
        if 'take' in entry and not any(map(entry.get, _ROLES)):
            raise ValueError(
                f'{where}.take = {take!r}, but the stage refers to no other. Where another one '
                f"refers to it, write '{name}:{take}'."
            )
        return cls(
            name,
            config=entry.get('config', ''),
            make=entry.get('make'),
            teacher=_several(entry.get('teacher') or {}, take, f'{where}.teacher'),
            student=_one(entry.get('student'), take, f'{where}.student'),
            objectives=_one(entry.get('objectives'), take, f'{where}.objectives'),
            files=_several(entry.get('files') or {}, take, f'{where}.files'),
            take=take,
            options=dict(entry.get('options') or {}),
        )


def teacher_role(name: str) -> str:
    """The role of the teacher of a name, ``''`` for the only one."""
    return f'teacher.{name}' if name else 'teacher'


def _one(text: Any, take: str, where: str) -> Reference | None:
    return Reference.read(text, take, where) if text else None


def _several(entry: Any, take: str, where: str) -> dict[str, Reference]:
    """A mapping from names to references; a single one has the name ``''``."""
    entries = entry if isinstance(entry, Mapping) else {'': entry}
    return {
        key: Reference.read(value, take, f'{where}.{key}'.rstrip('.'))
        for key, value in entries.items()
    }


def is_chain(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of a chain: it has ``stages``."""
    return config.get('stages') is not None


def read_stages(stages: Any) -> dict[str, Stage]:
    """All stages of a chain in the written order.

    Raises:
        ValueError: none; a bad entry; two with one folder; a reference to itself, to a later stage
            or to one that there is not.
    """
    if not isinstance(stages, Mapping) or not stages:
        raise ValueError(f'stages = {stages!r} has no stage. Write stages=dict(name=dict(…)).')
    found = {name: Stage.read(name, entry) for name, entry in stages.items()}
    folders: dict[str, str] = {}
    for name in found:
        other = folders.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f'Stages {other!r} and {name!r} would share one folder where names do not differ '
                'by case. Rename one.'
            )
    for name, stage in found.items():
        for role, reference in stage.references().items():
            _check_order(name, role, reference, found)
    return found


def _check_order(name: str, role: str, reference: Reference, stages: Mapping[str, Stage]) -> None:
    other, order = reference.stage, list(stages)
    earlier = order[: order.index(name)]
    if other in earlier:
        return
    known = ', '.join(earlier) or 'none'
    if other not in stages:
        problem = f'there is no such stage.{did_you_mean(other, stages)}'
    elif other == name:
        problem = 'that is the stage itself.'
    elif name in _behind(stages[other], stages):
        problem = f'that stage needs {name!r} in turn, so neither could begin.'
    else:
        problem = 'that stage comes later; stages run in the written order.'
    raise ValueError(
        f'Stage {name!r}: {role} = {str(reference)!r}, but {problem} Stages before it: {known}.'
    )


def _behind(stage: Stage, stages: Mapping[str, Stage]) -> set[str]:
    """Names of all stages that a stage needs, directly or not."""
    found: set[str] = set()
    waiting: Iterable[Stage] = [stage]
    while waiting:
        names = {r.stage for one in waiting for r in one.references().values()} - found
        found |= names
        waiting = [stages[name] for name in names if name in stages]
    return found
