"""What can be known of a chain before anything trains."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmkd.chain.resolving import build
from mmkd.chain.stage import Reference, Stage
from mmkd.checkpoint.starts import check_starts
from mmkd.checkpoint.weights import EDITS
from mmkd.checks.labels import check_splits, labels_of, relation
from mmkd.config import dataset_leaves, distils, type_name
from mmkd.families.class_heads import Labels, compares_classes, numbers_classes, wrong_heads
from mmkd.plan.parts import millions
from mmkd.untouched import untouched_random_state

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Facts:
    """What a built model of a stage shows.

    Attributes:
        student (dict[str, tuple]): shapes of the student's weights by key.
        parts (dict[str, dict[str, tuple]]): those of objectives (``'objectives'``) and of each peer
            (``'peers.<name>'``), without the prefix.
        classes (tuple[str, ...] | None): names of the training data, None where they are unknown.
        comparing (dict[str, list[str]]): objectives that compare classes, by teacher.
        mapped (dict[str, dict[str, list[int]]]): labels of the teacher's classes, of objectives
            that compare these alone, by teacher.
        misfits (dict[str, int]): teachers whose heads have another number of classes than the data.
        text (str): the plan, or for a plain model its size.
    """

    student: Shapes
    parts: dict[str, Shapes] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    comparing: dict[str, list[str]] = field(default_factory=dict)
    mapped: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    misfits: dict[str, int] = field(default_factory=dict)
    text: str = ''


def written_later(stage: Stage) -> set[str]:
    """Modules of a stage's model whose ``init_cfg`` gets its file from another stage."""
    found = {key.rpartition('.init_cfg.') for key in stage.files}
    names = {place.removeprefix('model.') for place, within, _ in found if within}
    return {name.removeprefix('student').lstrip('.') for name in names}


def look_at(
    config: Config,
    awaits: Mapping[str, str] = {},  # noqa: B006
    later: Container[str] | None = None,
) -> Facts:
    """Build the model of a stage, and the class names of its data; nothing is left behind.

    Args:
        awaits (dict[str, str]): what the weights of a random teacher are going to be from, by its
            dotted name in the config, ``''`` for the only one; the plan says so.
        later: modules whose weights to start from are not written yet; None asks for none.

    Raises:
        FileNotFoundError, CheckpointError: weights that a network starts from.
        ValueError: classes that differ between the training and the validation data.
    """
    scope = config.get('default_scope') or 'mmengine'
    with untouched_random_state(), DefaultScope.overwrite_default_scope(scope):
        model, names = build(config), class_names(config)
        others = class_names(config, 'val') if config.get('val_cfg') is not None else None
    if later is not None:
        check_starts(model, later)
    _announce(model, awaits)
    student = getattr(model, 'student', model)
    if names and others and numbers_classes(student):
        check_splits(names, others)
    if not distils(config.model):
        text = f'plan\n  student {type(model).__name__}, {millions(model)}, no distillation'
        return Facts(_shapes(model), classes=names, text=text)
    parts = {'objectives': _shapes(model.objectives)}
    for name, peer in getattr(model, 'peers', {}).items():
        parts[f'peers.{name}'] = _shapes(peer)
    facts = Facts(_shapes(model.student), parts, names, text=str(model.plan))
    for name, teacher in model.teachers.items():
        network = getattr(teacher, 'model', None)
        if network is None:
            continue
        users = {k: o for k, o in model.objectives.items() if name in model.plan.teacher_names(o)}
        maps = {k: getattr(o, 'class_map', None) for k, o in users.items()}
        facts.mapped[name] = {k: m.listed for k, m in maps.items() if m is not None}
        users = {k: o for k, o in users.items() if maps[k] is None}
        same = [k for k, o in users.items() if compares_classes(o, model.plan.learner(o), network)]
        wrong = wrong_heads(network, Labels(names)) if names else []
        facts.comparing[name] = same
        facts.misfits |= {name: wrong[0].found} if wrong else {}
    return facts


def _shapes(module: nn.Module) -> Shapes:
    """Of all weights but the numbers that edits learn, which begin with the weights."""
    state = {k: v for k, v in module.state_dict().items() if not k.startswith(EDITS)}
    return {key: tuple(v.shape) for key, v in state.items() if hasattr(v, 'shape')}


def _announce(model: Any, awaits: Mapping[str, str]) -> None:
    """Tell teachers that are random here what their weights are going to be from."""
    for name, teacher in getattr(model, 'teachers', {}).items():
        for path, part in teacher.parts().items():
            key = f'{name}{path}'.replace('.', '.members.')
            places = (key, key.partition('.')[2], '') if name == 'teacher' else (key,)
            found = next((awaits[place] for place in places if place in awaits), '')
            if part.source == 'random' and found != 'random':
                part.awaits = found


def class_names(config: Config, split: str = 'train') -> tuple[str, ...] | None:
    """Class names of a split's data, also where only its files have them; None if unknown."""
    entry = (config.get(f'{split}_dataloader') or {}).get('dataset')
    if not isinstance(entry, Mapping):
        found = labels_of(entry, f'the data of {split}') if entry is not None else None
        return found.names if found else None
    joined = _joined(entry)
    if joined is not None:
        return joined
    for leaf in dataset_leaves(entry):
        for lazy in (dict(lazy_init=True), {}):
            try:
                labels = labels_of(DATASETS.build({**leaf, 'pipeline': [], **lazy}), 'the data')
            except Exception:  # noqa: BLE001  whatever is wrong with the data, its own checks say it
                continue
            if labels:
                return labels.names
    return None


def _joined(entry: Mapping) -> tuple[str, ...] | None:
    """Names that a JoinLabels in or below a dataset's config lists; None without one."""
    if type_name(entry) == 'JoinLabels':
        return tuple(entry['classes'])
    children = entry.get('datasets') or [entry.get('dataset')]
    found = (_joined(child) for child in children if isinstance(child, Mapping))
    return next((names for names in found if names), None)


# ------------------------------------------------------------------------------------ references


def check_student(stage: Stage, facts: Facts, other: Facts) -> None:
    """The student must have the keys and shapes of the weights it starts from, else ValueError."""
    reference = stage.student
    assert reference is not None
    given = other.parts.get(reference.part, {}) if reference.part else other.student
    own = facts.student
    wrong = [f'{key} is not in {reference.stage!r}' for key in own if key not in given]
    wrong += [f'{key} is only in {reference.stage!r}' for key in given if key not in own]
    wrong += [
        f'{key} is {given[key]} in {reference.stage!r} and {shape} here'
        for key, shape in own.items()
        if given.get(key, shape) != shape
    ]
    if wrong:
        more = f'\n  and {len(wrong) - 10} more' if len(wrong) > 10 else ''
        raise ValueError(
            f"Stage {stage.name!r}: its student cannot start from '{reference}', which is another "
            'network:\n  ' + '\n  '.join(wrong[:10]) + more + '\nGive both the same architecture.'
        )


def check_objectives(stage: Stage, facts: Facts, other: Facts) -> None:
    """Something of the other phase's objectives must carry on, else ValueError."""
    given, own = (one.parts.get('objectives', {}) for one in (other, facts))
    if not any(own.get(key) == shape for key, shape in given.items()):
        raise ValueError(
            f"Stage {stage.name!r}: objectives = '{stage.objectives}', but no weight of an "
            f'objective has the same name and shape there ({", ".join(list(given)[:3]) or "none"}) '
            f'and here ({", ".join(list(own)[:3]) or "none"}). Name the objective alike in both '
            'configs.'
        )


def check_classes(
    stage: Stage, name: str, reference: Reference, facts: Facts, other: Facts
) -> None:
    """A method on class scores needs the classes of the stage that its teacher is from.

    Args:
        name (str): of the teacher.

    Raises:
        ValueError: they are others, or in another order.
    """
    own, others = facts.classes, other.classes
    for key, places in facts.mapped.get(name, {}).items():
        wanted = tuple(own[i] for i in places if i < len(own)) if own else None
        if wanted and others and relation(wanted, others) != 'same':
            raise ValueError(
                f'Stage {stage.name!r}: class_map={places} of {key} means the classes '
                f'{_some(wanted)}, but its teacher {str(reference)!r} has {_some(others)}. '
                'List for each class of the teacher its number in the training data, from 0.'
            )
    users = facts.comparing.get(name)
    if not users:
        return
    if own and others:
        differ = relation(own, others) != 'same'
    else:
        differ = name in facts.misfits
    if differ:
        raise ValueError(
            f'Stage {stage.name!r}: {", ".join(users)} compares class scores, but its classes are '
            f'{_some(own)} and those of its teacher {str(reference)!r} are {_some(others)}. Train '
            'both on the same classes in the same order, or take a method on features.'
        )


def _some(names: tuple[str, ...] | None) -> str:
    if not names:
        return 'unknown'
    shown = ', '.join(names[:12])
    return f'({shown}{", …" if len(names) > 12 else ""}; {len(names)})'


def check_saves(stage: Stage, config: Config) -> None:
    """A stage must leave a checkpoint in its own folder, without which it is never done.

    Raises:
        ValueError: it leaves none, or in another folder.
    """
    hook = _saving(config)
    kept = kept_steps(config, hook) if hook is not None else None
    if hook is None or (kept is not None and not kept[1]):
        raise ValueError(
            f'Stage {stage.name!r}: {stage.config} saves no checkpoint (default_hooks.checkpoint = '
            f'{_plain(hook)}), so the stage would never be done. Set interval=1 there, or in '
            'options.'
        )
    if hook.get('out_dir'):
        raise ValueError(
            f'Stage {stage.name!r}: default_hooks.checkpoint.out_dir = {hook["out_dir"]!r}, but a '
            'stage saves into its own folder. Leave out_dir out.'
        )


def _saving(config: Config) -> Mapping[str, Any] | None:
    """The hook that saves, by default mmengine's."""
    return (config.get('default_hooks') or {}).get('checkpoint', dict(interval=1))


def _plain(hook: Mapping[str, Any] | None) -> dict | None:
    return None if hook is None else dict(hook)


def check_kept(stage: Stage, reference: Reference, config: Config, source: Stage) -> None:
    """The file that a reference means must be one that its stage will have at its end.

    Raises:
        ValueError: ``:best`` without ``save_best``; an epoch or iteration that is not saved, or
            deleted again.
    """
    hook = _saving(config) or {}
    where = f"Stage {stage.name!r}: '{reference}'"
    if reference.take == 'best' and not hook.get('save_best'):
        raise ValueError(
            f'{where} needs default_hooks.checkpoint.save_best in {source.config}, which keeps '
            'only its last checkpoints. Set it in options, or take :last.'
        )
    kind, _, number = reference.take.partition('_')
    if not number:
        return
    kept = kept_steps(config, hook)
    if kept is None or kind != kept[0] or int(number) not in kept[1]:
        found = 'none of that kind' if kept is None or not kept[1] else _listed(*kept)
        raise ValueError(
            f'{where} will not be there when stage {source.name!r} is done: kept are {found}. Set '
            f'default_hooks.checkpoint.max_keep_ckpts=-1 and interval in its options.'
        )


def kept_steps(config: Config, hook: Mapping[str, Any]) -> tuple[str, list[int]] | None:
    """Which checkpoints a run has at its end: ``('epoch', [11, 12])``; None if it is not known."""
    loop = config.get('train_cfg') or {}
    kind = 'epoch' if hook.get('by_epoch', True) else 'iter'
    total = loop.get('max_epochs' if kind == 'epoch' else 'max_iters')
    if total is None:
        return None
    interval, begin = hook.get('interval', -1), hook.get('save_begin', 0)
    steps = range(1, total + 1)
    saved = [s for s in steps if interval > 0 and s > begin and (s - begin) % interval == 0]
    if hook.get('save_last', True) and total not in saved:
        saved.append(total)
    limit = hook.get('max_keep_ckpts', -1)
    return kind, saved[-limit:] if limit > 0 else saved


def _listed(kind: str, steps: list[int]) -> str:
    if len(steps) > 6:
        return f'{kind}_{steps[0]}, {kind}_{steps[1]}, … {kind}_{steps[-1]}'
    return ', '.join(f'{kind}_{step}' for step in steps)
