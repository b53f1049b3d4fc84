"""From a stage to the config that the Runner gets."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from mmkd.chain.stage import Stage, is_chain
from mmkd.config import distils, load_config, type_name
from mmkd.engine.launch import apply_options, check_model
from mmkd.engine.overrides import check_overrides
from mmkd.engine.settings import plain
from mmkd.options import match_options, options_of
from mmkd.registry import DATASETS, HOOKS, MODELS
from mmkd.students import deployed, import_edits
from mmkd.teachers import groups_of, is_teacher, kind_of

#: of a config; they do not decide what is learned
_INDIFFERENT = (
    *('launcher', 'work_dir', 'resume', 'experiment_name', 'filename', 'verbose'),
    *('log_level', 'log_processor', 'visualizer', 'vis_backends', 'env_cfg'),
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout'),
    *('preflight', 'logger', 'timer', 'visualization'),
)
#: kinds of teacher that read the folder of a run, not one file of it
OF_FOLDERS = ('Anchors', 'Follower')


def read_config(stage: Stage, shared: Mapping[str, Any], seed: int | None) -> Config:
    """The config of a stage with its options, before anything that it takes from other stages.

    Args:
        stage (Stage): with a ``config``.
        shared (dict): options of all stages; the stage's own come after them.
        seed (int | None): for a config that has none.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: an option of a key that is misspelt; a config without a model, of another chain,
            or without the teacher or the objectives that the stage's roles are for.
    """
    config = load_config(stage.config)
    if is_chain(config):
        raise ValueError(
            f'Stage {stage.name!r}: {stage.config} is itself a chain. Write its stages here.'
        )
    for options in (shared, stage.options):
        apply_options(config, flat(options), 'options')
    check_model(config)
    random = dict(config.get('randomness') or {})
    if random.get('seed') is None:
        config.randomness = dict(random, seed=seed)
    if not distils(config.model) and (stage.teacher or stage.objectives):
        role = 'teacher' if stage.teacher else 'objectives'
        raise ValueError(
            f'Stage {stage.name!r} has {role}=, but {stage.config} has no mmkd.Distiller to take '
            f'it. Name a config that distils, or leave out {role}=.'
        )
    if groups_of(config.model):
        raise ValueError(
            f'Stage {stage.name!r}: {stage.config} divides its processes into groups '
            '(mmkd.Neighbours), but the stages of a chain are runs of one group. Train it alone, '
            'and name its checkpoint where a stage needs it.'
        )
    for name in stage.teacher:
        teacher_entry(config, stage, name)
    for key in stage.files:
        _check_key(config, stage, key)
    if stage.student:
        config.load_from = None
    return config


def flat(options: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested options under dotted keys, as in ``--cfg-options``."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and value and '_delete_' not in value:
            found |= flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = value
    return found


def teacher_places(teacher: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Each network among the teachers of a config with its dotted name; ``''`` is the only one."""
    if not isinstance(teacher, Mapping):
        return
    if 'config' in teacher or type_name(teacher) in OF_FOLDERS:
        yield path, teacher
        return
    for key, value in teacher.items():
        yield from teacher_places(value, f'{path}.{key}'.lstrip('.'))


def teacher_entry(config: Config, stage: Stage, name: str) -> Any:
    """The teacher of a name, or the only one.

    Raises:
        ValueError: several and no name; a name that is not among them; no teacher.
    """
    places = dict(teacher_places(config.model.get('teacher')))
    if name in places:
        return places[name]
    if len(places) == 1 and name in ('', 'teacher'):
        return next(iter(places.values()))
    known = ', '.join(key or 'teacher' for key in places) or 'none'
    asked = f'teacher {name!r}' if name else 'a teacher without a name'
    way = 'Write teacher=dict(name=…).' if places else 'Write a teacher into the config.'
    raise ValueError(
        f'Stage {stage.name!r} asks for {asked}, but {stage.config} has these: {known}. {way}'
    )


def set_teacher(entry: Any, network: Any, file: str | None, folder: str) -> None:
    """Point a teacher of a config at another stage; without a file it is a random network."""
    of_folder = type_name(entry) in OF_FOLDERS
    if file is None:  # only to look at it
        for key in list(entry) if of_folder else ():
            del entry[key]
        entry['checkpoint'] = 'random'
    else:
        entry['folder' if of_folder else 'checkpoint'] = folder if of_folder else file
    entry['config'] = network  # update() would merge the mapping into the entry's own


def set_student(config: Config, model: Any) -> None:
    """Put another student's mapping into a config."""
    if distils(config.model):
        config.model['student'] = copy.deepcopy(model)
    else:
        config['model'] = copy.deepcopy(model)
        import_edits(config)


def set_file(config: Config, stage: Stage, key: str, path: str | None) -> None:
    """Set a key of the config to the path of a file; without one the config's own stays.

    Of a text with ``{}``, such as the tap ``'pool{}'``, the path goes between the braces.
    """
    if path is not None:
        place, name = place_of(config, stage, key), key.rpartition('.')[2]
        text = place.get(name)
        within = isinstance(text, str) and '{}' in text
        place[name] = text.replace('{}', f'{{{path}}}') if within else path


def _check_key(config: Config, stage: Stage, key: str) -> None:
    """What gets a file from another stage must have such an option: it is built after that one.

    Raises:
        ValueError: no such place; an option that is misspelt or that its owner does not have.
    """
    place, name = place_of(config, stage, key), key.rpartition('.')[2]
    if name in place:
        return
    check_overrides([key], config, f'Stage {stage.name!r}: files')
    owner = None
    if key.startswith('model.teacher.') and is_teacher(place):
        owner = kind_of(place)
    elif isinstance(place.get('type'), str):
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'):
            found = (registry.get(place['type']) for registry in (MODELS, DATASETS, HOOKS))
            owner = next((one for one in found if isinstance(one, type)), None)
    if owner is None:
        return
    try:
        match_options(owner.__name__, {name: None}, options_of(owner))
    except TypeError as error:
        raise ValueError(f'Stage {stage.name!r}: files has the key {key!r}, but {error}') from None


def place_of(config: Config, stage: Stage, key: str) -> Any:
    """The mapping of a config in which a dotted key is; ValueError for none."""
    place: Any = config._cfg_dict
    for part in key.split('.')[:-1]:
        if isinstance(place, list):
            place = place[int(part)] if part.isdigit() and int(part) < len(place) else None
        else:
            place = place.get(part) if isinstance(place, Mapping) else None
    if not isinstance(place, Mapping):
        raise ValueError(
            f'Stage {stage.name!r}: files has the key {key!r}, but {stage.config} has no such '
            'place. Write the path of a key of the config, such as model.teacher.weights.'
        )
    return place


def network_of(config: Config, path: str, part: str = '') -> Any:
    """What a teacher of another stage's student takes as ``config``: a path, else a mapping.

    Raises:
        ValueError: a peer that the config does not have.
    """
    model = config.model
    if part:
        peers = model.get('peers') or {}
        name = part.partition('.')[2]
        if name not in peers:
            raise ValueError(f'{path} has no peer {name!r}. It has: {", ".join(peers) or "none"}.')
        model = peers[name]
        if isinstance(model, str):
            return model
    else:
        model = deployed(model)
        if path and deployed(load_config(path).model) == model:
            return path
    scope = config.get('default_scope')
    return ConfigDict(default_scope=scope, model=copy.deepcopy(model))


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a config that may decide the result, as it comes back from JSON."""
    found = plain(config, lambda key, value: key in _INDIFFERENT or value is None)
    return json.loads(json.dumps(found, sort_keys=True))


def named_configs(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the configs say that options of a maker name, by option."""
    texts = ((key, text) for key, text in flat(entry).items() if isinstance(text, str))
    return {
        key: settings_of(load_config(text))
        for key, text in texts
        if key != 'type' and (text.endswith('.py') or '::' in text)
    }


def build(config: Config) -> Any:
    """The model of a config; a Distiller with its plan."""
    return MODELS.build(copy.deepcopy(config.model))
