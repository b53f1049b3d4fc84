"""The kinds of teacher by name, and one of them from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.names import did_you_mean, find_name
from mmkd.options import read_options
from mmkd.teacher import Teacher

#: those that are one frozen network of a config
NETWORKS = ('Teacher', 'FusedTeacher')
KINDS: dict[str, type[Teacher]] = {'Teacher': Teacher}


def kind(cls: type[Teacher]) -> type[Teacher]:
    """Register a kind under its class' name: ``teacher=dict(type='mmkd.<name>', …)``."""
    KINDS[cls.__name__] = cls
    return cls


def kind_of(entry: Mapping[str, Any]) -> type[Teacher]:
    """The class that ``type`` names, in any case; without ``type`` the frozen network.

    Raises:
        ValueError: no kind of teacher.
    """
    asked = entry.get('type', Teacher)
    if isinstance(asked, type) and issubclass(asked, Teacher):
        return asked
    name = str(asked).removeprefix('mmkd.')
    found = find_name(name, KINDS)
    if found not in KINDS:
        raise ValueError(
            f'teacher: type={asked!r} is no kind of teacher. There are: '
            f'{", ".join(f"mmkd.{known}" for known in KINDS)}.{did_you_mean(name, KINDS)}'
        )
    return KINDS[found]


def is_teacher(entry: Any) -> bool:
    """Whether a config entry describes one teacher, and not several by name."""
    return isinstance(entry, Mapping) and (
        'config' in entry or isinstance(entry.get('type'), (str, type))
    )


def frozen_networks(teacher: Any) -> dict[str, Any]:
    """Entries of frozen networks among a config's teachers, by name; ``name.member`` of a mean."""
    named = {'teacher': teacher} if is_teacher(teacher) else dict(teacher or {})
    found: dict[str, Any] = {}
    for name, entry in named.items():
        if not is_teacher(entry):
            continue
        members = frozen_networks(entry.get('members'))
        found |= {f'{name}.{member}': one for member, one in members.items()}
        if kind_of(entry).__name__ in NETWORKS:
            found[name] = entry
    return found


def build_teacher(entry: Mapping[str, Any]) -> Teacher:
    """One teacher; an unknown argument is answered with those there are."""
    cls = kind_of(entry)
    return cls(**read_options(cls, entry, 'teacher' if cls is Teacher else None))
