"""Checks that labels of data, student and teachers mean the same classes, before the first step."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any, NoReturn

from mmengine.logging import print_log
from torch import nn

from mmkd.checks.class_options import options_for
from mmkd.datasets.protection import describe, leaves
from mmkd.families import classifier
from mmkd.families.class_heads import (
    Labels,
    compares_classes,
    numbers_classes,
    spare_channels,
    wrong_heads,
)

TRAINING = 'the training data'


def check_labels(runner: Any, model: nn.Module) -> None:
    """Data, heads of the student and teachers must give a class the same index.

    Counts are compared with every head that has one, names where they are known: in both splits
    and in the teachers' checkpoints. A teacher of other classes is refused if an objective compares
    classes with it, else reported.

    Raises:
        ValueError: classes that are a text; another number, order or set of them.
    """
    student = model.student if hasattr(model, 'plan') else model
    if not numbers_classes(student):
        return
    labels = labels_of(runner.train_dataloader.dataset, TRAINING)
    if labels is None:
        return
    check_heads(student, labels, getattr(runner, 'cfg', None))
    for name, peer in getattr(model, 'peers', {}).items():
        check_peer(name, peer, labels)
    if runner.val_loop is not None:
        others = labels_of(runner.val_dataloader.dataset, 'the validation data')
        _check_data(labels, others, 'the validation data')
        check_zero_label(runner.train_dataloader.dataset, runner.val_dataloader.dataset)
    loaders = [runner.train_dataloader, *([runner.val_dataloader] if runner.val_loop else [])]
    check_files(*(loader.dataset for loader in loaders))
    for name in getattr(model, 'teachers', {}):
        check_teacher(name, model, labels)


def check_tested(runner: Any, model: nn.Module) -> None:
    """The test data must have the model's classes, in the order of its checkpoint if it has names.

    Raises:
        ValueError: they are not.
    """
    model = model.student if hasattr(model, 'plan') else model
    if not numbers_classes(model):
        return
    labels = labels_of(runner.test_dataloader.dataset, 'the test data')
    if labels is None:
        return
    for misfit in wrong_heads(model, labels)[:1]:
        raise ValueError(
            f'The test data has {len(labels.names)} classes ({_some(labels.names)}), but the '
            f'model {misfit.found}: score it on data of its own classes.'
        )
    names = classifier.classes(model)
    if names and relation(labels.names, names) == 'order':
        _refuse('the test data', labels.names, names, 'the checkpoint', _reordering('test'))
    if names and relation(labels.names, names) in ('names', 'unknown'):
        _log(
            f'the checkpoint was trained on classes of other names than the test data '
            f'({_first_difference(labels.names, names)})'
        )


def labels_of(dataset: Any, whose: str) -> Labels | None:
    """Class names of a dataset, through all wrappers; None if it has none.

    Raises:
        ValueError: names that are a text, or joined datasets with a class at different places.
    """
    metas = [meta for meta in map(_metainfo, [*leaves(dataset), dataset]) if _classes(meta)]
    for meta in metas:
        if isinstance(_classes(meta), str):
            raise ValueError(
                f'{whose}: metainfo has classes={_classes(meta)!r}, a text and not a tuple of '
                f'names. With one class write classes=({_classes(meta)!r},).'
            )
    if not metas:
        return None
    lists = [tuple(map(str, _classes(meta))) for meta in metas]
    names = max(lists, key=len)
    for others in lists:
        if _moved(names, others):
            _refuse(whose, names, others, 'a dataset that is joined to it', _reordering('train'))
    things, stuff = (metas[0].get(f'{kind}_classes') for kind in ('thing', 'stuff'))
    return Labels(names, len(things) if things and stuff else None)


def _metainfo(dataset: Any) -> Mapping[str, Any]:
    meta = getattr(dataset, 'metainfo', None)
    return meta if isinstance(meta, Mapping) else {}


def _classes(meta: Mapping[str, Any]) -> Any:
    """The names; of datasets written before 2023 under CLASSES."""
    return meta.get('classes') or meta.get('CLASSES')


def check_heads(student: nn.Module, labels: Labels, config: Any = None) -> None:
    """Every head of the student must be built for the classes of the data.

    Args:
        config (Config | None): of the run; the message has options for it.

    Raises:
        ValueError: one has not.
    """
    wrong = wrong_heads(student, labels)
    if not wrong:
        for path in spare_channels(student, labels):
            _log(
                f"the student's {path} has one class more than the {len(labels.names)} of the "
                f'training data ({_some(labels.names)}): fine if that is a background without a '
                'name',
            )
        return
    heads = ', '.join(f'{m.path or type(student).__name__} ({m.found})' for m in wrong[:4])
    more = f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''
    options = options_for(wrong, config)
    way = f'Add --cfg-options {" ".join(options)}' if options else 'Set its num_classes'
    raise ValueError(
        f'The training data has {len(labels.names)} classes ({_some(labels.names)}), but the '
        f'student is built for others: {heads}{more}. {way}, or give the data '
        'metainfo=dict(classes=(...)) if its own classes are others.'
    )


def check_peer(name: str, peer: nn.Module, labels: Labels) -> None:
    """Every head of a peer must be built for the classes of the data, else ValueError."""
    for misfit in wrong_heads(peer, labels)[:1]:
        raise ValueError(
            f'The training data has {len(labels.names)} classes ({_some(labels.names)}), but peer '
            f"'{name}' is built for {misfit.found}: a peer learns the student's task. Set the "
            f'num_classes of model.peers.{name}.'
        )


def check_files(*splits: Any) -> None:
    """All annotation files of a run must number the classes alike, else ValueError.

    Their categories were recorded by the data audit.
    """
    files = [one for data in splits for one in leaves(data) if getattr(one, 'numbered_as', None)]
    for other in files[1:]:
        if relation(files[0].numbered_as, other.numbered_as) != 'same':
            whose = (describe(one) for one in (files[0], other))
            remedy = 'List "categories" alike in both: COCO data number classes in that order.'
            _refuse(next(whose), files[0].numbered_as, other.numbered_as, next(whose), remedy)


def check_zero_label(train: Any, val: Any) -> None:
    """Segmentation data of both splits must treat label 0 alike, else ValueError."""
    flags = [
        {one.reduce_zero_label for one in leaves(data) if hasattr(one, 'reduce_zero_label')}
        for data in (train, val)
    ]
    if all(flags) and flags[0] != flags[1]:
        raise ValueError(
            f'reduce_zero_label is {flags[0]} in the training data and {flags[1]} in the '
            'validation data, so label 1 means another class there. Set it equally in both.'
        )


def check_teacher(name: str, model: Any, labels: Labels) -> None:
    """Refuse a teacher with other classes if they are compared, else report the difference.

    With ``preflight=False`` differences are reported, not refused.

    Raises:
        ValueError: classes are compared, and are other ones.
    """
    teacher, whose = model.teachers[name].model, f"teacher '{name}'"
    users = {k: o for k, o in model.objectives.items() if name in model.plan.teacher_names(o)}
    mapped = {k: o.class_map for k, o in users.items() if getattr(o, 'class_map', None) is not None}
    for key, class_map in mapped.items():
        _check_mapped(key, class_map.listed, labels.names, classifier.classes(teacher), whose)
    users = {k: o for k, o in users.items() if k not in mapped}
    comparing = ', '.join(
        key for key, o in users.items() if compares_classes(o, model.plan.learner(o), teacher)
    )
    spare = {tap.background for o in users.values() for tap in o.teacher_taps} - {None}
    labels = _without(labels, spare)
    names, wrong = classifier.classes(teacher), wrong_heads(teacher, labels)
    if not names or wrong_heads(teacher, Labels(names)):  # its head was left out of the file
        if comparing and wrong:
            raise ValueError(
                f'{whose} is built for {wrong[0].found} classes, the training data has '
                f'{len(labels.names)}, and {comparing} compares classes. Take one of the same '
                'classes, or AT, which compares features.'
            )
        return
    found = relation(labels.names, names)
    if comparing and found in ('order', 'names', 'count'):
        remedy = (
            f'{comparing} compares classes. {_reordering("train")} AT compares features, '
            'whatever the classes; preflight=False skips this check.'
        )
        try:
            _refuse(TRAINING, labels.names, names, whose, remedy)
        except ValueError as error:
            if model.guard.steps:
                raise
            _log(str(error))
    elif comparing:
        _say_unknown(found, labels.names, names, whose)
    elif users and found in ('order', 'names'):
        _log(
            f'{whose} was trained on other classes ({_first_difference(labels.names, names)}); '
            f'{", ".join(users)} does not compare them',
            INFO,
        )


def _check_mapped(
    key: str,
    places: Sequence[int],
    own: tuple[str, ...],
    names: tuple[str, ...] | None,
    whose: str,
) -> None:
    """The classes that an objective takes for the teacher's must be called so, else ValueError."""
    if not names:
        return
    wanted = tuple(own[place] for place in places if place < len(own))  # a background has no name
    found = relation(wanted, names)
    if found == 'unknown':
        _say_unknown(found, wanted, names, whose)
    elif found != 'same':
        raise ValueError(
            f'class_map={list(places)} of {key} takes the classes {_some(wanted)} of the training '
            f'data for those of {whose}, which are {_some(names)}. List for each class of the '
            'teacher its number in the training data, from 0.'
        )


def _without(labels: Labels, places: Collection[int]) -> Labels:
    """The classes that a teacher has where its taps add a background at these places."""
    return replace(labels, names=tuple(n for i, n in enumerate(labels.names) if i not in places))


def _check_data(labels: Labels, others: Labels | None, whose: str) -> None:
    found = relation(labels.names, others.names) if others else 'same'
    if found in ('same', 'unknown'):
        _say_unknown(found, labels.names, others and others.names, whose)
    elif others:
        _refuse(TRAINING, labels.names, others.names, whose, _reordering('train'))


def check_splits(names: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Class names of the training and the validation data, before either is loaded.

    Raises:
        ValueError: another number, order or set of them.
    """
    if relation(names, others) not in ('same', 'unknown'):
        _refuse(TRAINING, names, others, 'the validation data', _reordering('train'))


# ----------------------------------------------------------------------------------------- names


def relation(own: tuple[str, ...], others: tuple[str, ...]) -> str:
    """How two lists of names relate; spelling (case, spaces, underscores) does not count.

    Returns:
        str: ``'same'``; ``'count'``, unequally many; ``'order'``, a name at another place;
        ``'names'``, some are other ones; ``'unknown'``, none is common to both.
    """
    first, second = ([_plain(name) for name in names] for names in (own, others))
    if first == second:
        return 'same'
    if len(first) != len(second):
        return 'count'
    if set(first).isdisjoint(second):
        return 'unknown'
    return 'order' if _moved(own, others) else 'names'


def _moved(own: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether a class has another number in the two lists."""
    first, second = ([_plain(name) for name in names] for names in (own, others))
    return any(first.index(name) != second.index(name) for name in set(first) & set(second))


def _plain(name: str) -> str:
    return re.sub(r'[\W_]+', '', name.casefold()) or name


def _first_difference(own: tuple[str, ...], others: tuple[str, ...]) -> str:
    for label in range(max(len(own), len(others))):
        pair = [names[label] if label < len(names) else None for names in (own, others)]
        if None in pair or _plain(str(pair[0])) != _plain(str(pair[1])):
            return f'label {label} is {pair[0]!r} and {pair[1]!r}'
    return 'no difference'


def _some(names: tuple[str, ...]) -> str:
    return ', '.join(names[:3]) + ', …' * (len(names) > 3)


def _refuse(
    whose: str, own: tuple[str, ...], others: tuple[str, ...], with_whom: str, remedy: str
) -> NoReturn:
    raise ValueError(
        f'Labels of {whose} and of {with_whom} do not mean the same: they have {len(own)} and '
        f'{len(others)} classes, and {_first_difference(own, others)}. {remedy}'
    )


def _reordering(split: str) -> str:
    return (
        f'Give {split}_dataloader.dataset metainfo=dict(classes=(...)) in the order wanted; COCO '
        'data take the order of "categories" in the json.'
    )


def _say_unknown(
    found: str, own: tuple[str, ...], others: tuple[str, ...] | None, whose: str
) -> None:
    """Report lists without a common name, whose order cannot be compared."""
    if found == 'unknown' and others:
        _log(
            f'the training data and {whose} have no class name in common ({own[0]!r}, '
            f'{others[0]!r}), so it is not checked that their labels mean the same'
        )


def _log(message: str, level: int = WARNING) -> None:
    print_log(message, logger='current', level=level)
