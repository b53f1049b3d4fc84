"""Parts of a Distiller, from their entries in a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmkd.errors.origin import is_ours
from mmkd.names import check_part_name, did_you_mean
from mmkd.objective import Objective
from mmkd.options import read_options
from mmkd.registry import MODELS
from mmkd.teacher import Teacher
from mmkd.teachers import build_teacher, is_teacher


def build_teachers(teacher: Any) -> dict[str, Teacher]:
    """One teacher under the name ``'teacher'``, or several under their own."""
    if teacher is None:
        return {}
    if isinstance(teacher, Teacher):
        return {'teacher': teacher}
    if not isinstance(teacher, Mapping):
        raise TypeError(
            'teacher must be dict(config=…, checkpoint=…) or a mapping of those, '
            f'found {teacher!r}.'
        )
    if is_teacher(teacher):
        return {'teacher': build_teacher(teacher)}
    result = {}
    for name, entry in teacher.items():
        if not isinstance(entry, Teacher) and not is_teacher(entry):
            raise ValueError(
                f'teacher: {name!r} is neither an argument (config, checkpoint, …) nor a named '
                f'teacher dict(config=…, checkpoint=…): {entry!r}.'
            )
        same = next((other for other in result if _is_same(teacher[other], entry)), None)
        if same is not None:
            result[name] = copy.copy(result[same])  # of one network: it is loaded once
        else:
            result[name] = entry if isinstance(entry, Teacher) else build_teacher(entry)
    return result


def _is_same(entry: Any, other: Any) -> bool:
    """Whether two entries name one config file and checkpoint, with equal options."""
    named = isinstance(entry, Mapping) and isinstance(entry.get('config'), str)
    same = named and isinstance(other, Mapping) and dict(entry) == dict(other)
    return same and 'type' not in entry and entry.get('checkpoint') != 'random'


def build_objectives(objectives: Mapping[str, Any]) -> dict[str, Objective]:
    """Build each entry; the names become part of log keys and checkpoint keys.

    Raises:
        ValueError: a name that log keys or checkpoints cannot have.
        TypeError: something that is no Objective.
    """
    if not isinstance(objectives, Mapping):
        raise TypeError(
            'objectives must be a mapping of names, dict(my_name=dict(type=…)), '
            f'found {objectives!r}.'
        )
    built = {}
    for name, entry in objectives.items():
        check_part_name('objective', name, hasattr(nn.ModuleDict, str(name)))
        if entry is None:  # merged away by a child config
            continue
        try:
            objective = entry if isinstance(entry, Objective) else build_objective(entry)
        except (ValueError, TypeError) as error:
            if not is_ours(error):
                raise
            raise type(error)(f"objective '{name}': {error}") from None
        if not isinstance(objective, Objective):
            raise TypeError(f"objective '{name}' is a {type(objective).__name__}, no Objective.")
        built[name] = objective
    return built


def build_objective(entry: Mapping[str, Any]) -> Objective:
    """Build one config entry; for an unknown type or argument the error lists the known ones.

    Raises:
        ValueError: unknown type.
        TypeError: unknown argument.
    """
    from mmkd.methods import names

    if not isinstance(entry, Mapping):
        raise TypeError(f"must be dict(type='mmkd.…', …) or an Objective, found {entry!r}.")
    kind = entry.get('type')
    method: Any = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(method, type):
        raise ValueError(
            f'type={kind!r} is not registered. Methods of mmkd: {", ".join(names())}.'
            f'{did_you_mean(str(kind).rpartition(".")[2], names())}'
        )
    return method(**read_options(method, entry))
