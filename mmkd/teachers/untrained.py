"""Teachers of a config without their weights: for plans and costs, which do not depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.teacher import build_model
from mmkd.teachers.anchors import Anchors
from mmkd.teachers.ensemble import Ensemble
from mmkd.teachers.kinds import NETWORKS, is_teacher, kind_of
from mmkd.teachers.stand_in import count_classes


def untrain(model: Any) -> None:
    """Let the teachers in the config of a Distiller have random weights, in place.

    A network that reads a file gets none. Checkpoints of one network (``Anchors``) become that
    network. Members whose classes are merged by name get made-up names where the config has none.

    Args:
        model (Mapping): of a config.
    """
    teacher = model.get('teacher')
    if is_teacher(teacher):
        model['teacher'] = _untrained(teacher)
    elif isinstance(teacher, Mapping):
        model['teacher'] = {name: _untrained(entry) for name, entry in teacher.items()}


def _untrained(entry: Any) -> Any:
    if not is_teacher(entry):
        return entry
    kind = kind_of(entry)
    if issubclass(kind, Anchors):
        given = {key: entry[key] for key in ('config', 'cfg_options') if key in entry}
        return dict(given, checkpoint='random')
    entry = dict(entry, checkpoint='random') if kind.__name__ in NETWORKS else dict(entry)
    if issubclass(kind, Ensemble):
        members = {
            name: _untrained(member) for name, member in (entry.get('members') or {}).items()
        }
        specialists = entry.get('mean') == 'specialists'
        if specialists or entry.get('classes') is not None:
            generalist = entry.get('generalist')
            members = {
                name: _with_classes(member, dustbin=specialists and name != generalist)
                for name, member in members.items()
            }
        entry['members'] = members
    return entry


def _with_classes(member: dict[str, Any], dustbin: bool) -> dict[str, Any]:
    """A member that says what its outputs are, but for the dustbin, which has no name."""
    if 'classes' in member or 'config' not in member:
        return member
    network = build_model(member['config'], member.get('cfg_options'))
    count = count_classes('Ensemble', network) - dustbin
    return dict(member, classes=[f'class {i}' for i in range(count)])
